"""Receives webhooks, with the standard library alone: receiver.py PORT SECRET"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tidewire.receive import InvalidRecord, InvalidSignature, Receiver, StandardWebhooks


def serve(port: int, secret: str) -> ThreadingHTTPServer:
    receiver = Receiver(StandardWebhooks(secret))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            try:
                for event in receiver.take(dict(self.headers), body):
                    print(event.event_type, event.bucket, event.key)
                    receiver.done(event)
                status = 204
            except InvalidSignature:
                status = 401
            except InvalidRecord:
                status = 400
            self.send_response(status)
            self.end_headers()

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2]).serve_forever()
