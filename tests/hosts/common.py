"""What the tests of hosts share: a webhook receiver, and what runs the tests."""

import http.server
import sys
import threading
import traceback
import types

WAIT = 30


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps requests as they came, and answers as a function says: with a status, and a body."""

    daemon_threads = True

    def __init__(self, answer=lambda request: (204, b"")):
        self.requests, self.answer, self.changed = [], answer, threading.Condition()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, address):
        # Clients that are killed are what some tests are about.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, address)

    def wait(self, count):
        self.wait_until(lambda requests: len(requests) >= count)
        return self.requests

    def wait_until(self, condition):
        with self.changed:
            met = self.changed.wait_for(lambda: condition(self.requests), timeout=WAIT)
        assert met, f"not after {len(self.requests)} requests"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"{self.server.url}{self.path}"
        request = types.SimpleNamespace(method=self.command, url=url, path=self.path, headers=self.headers, body=body)
        with self.server.changed:
            status, answer = self.server.answer(request)
            request.status = status
            self.server.requests.append(request)
            self.server.changed.notify_all()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if status != 204:
            self.wfile.write(answer)

    def log_message(self, *args):
        pass


def main(tests):
    passed = failed = 0
    for name, test in list(tests.items()):
        if not (name.startswith("test_") and callable(test)):
            continue
        try:
            test()
            passed += 1
            print(f"ok {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
