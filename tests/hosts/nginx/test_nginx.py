"""nginx' WebDAV server with the module of ffi/hosts/nginx: what clients do to files becomes events, and nothing else does.

Usage: test_nginx.py MODULE. The last line is `N passed, M failed`.
"""

import collections
import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import WAIT, Receiver, main  # noqa: E402

DAV_EXT = pathlib.Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")


def skip(why):
    print(f"SKIPPED: {why}")


def until(condition, what):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"not {what} in {WAIT} s"
        time.sleep(0.02)


class Nginx:
    """An nginx with everything of its own below one directory. `location` is added to that of the store, `engine` to
    [engine], `destination` to the only destination, `rule` to its rule."""

    def __init__(self, location="", *, http="", engine="", destination="", rule="", receiver=None, url=None, body=None,
                 workers=1, server="", on=True, order="strict", level="info", start=True, settings=None, store=None):
        self.marks, self.mark = "", 0  # where events are made that tell that the others have come
        self.temporary = tempfile.TemporaryDirectory(prefix="tidewire-nginx.")
        self.root = pathlib.Path(self.temporary.name)
        self.files = pathlib.Path(store or self.root) / "files"
        for name in (self.files, self.root / "body", self.root / "proxy"):
            name.mkdir()
        self.receiver = receiver or Receiver()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        (self.root / "t.toml").write_text(
            f"""
[engine]
shards = 1
{engine}
[[destination]]
name = "hook"
type = "webhook"
url = "{url or self.receiver.url}"
order = "{order}"
{destination}
[[rule]]
id = "all"
events = ["*"]
destinations = ["hook"]
{rule}
"""
        )
        ext = DAV_EXT.exists()
        settings = "tidewire_engine data; tidewire_config t.toml;" if settings is None else settings.format(root=self.root)
        (self.root / "nginx.conf").write_text(
            f"""
{f"load_module {DAV_EXT};" if ext else ""}
load_module {MODULE};
daemon off;
user root;
worker_processes {workers};
pid nginx.pid;
error_log errors {level};
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {body or "body"};
    proxy_temp_path proxy;
    fastcgi_temp_path proxy;
    uwsgi_temp_path proxy;
    scgi_temp_path proxy;
    client_max_body_size 64m;
    {"dav_ext_lock_zone zone=locks:1m;" if ext else ""}
    {settings}
    {http}
    server {{
        listen 127.0.0.1:{self.port};
        {server}
        location /store/ {{
            alias {self.files}/;
            dav_methods PUT DELETE COPY MOVE MKCOL;
            {"dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK; dav_ext_lock zone=locks;" if ext else ""}
            create_full_put_path on;
            tidewire {"on" if on else "off"};
            {"" if "tidewire_bucket" in location else "tidewire_bucket b;"}
            {location}
        }}
        location = /metrics {{ tidewire_metrics; }}
    }}
}}
"""
        )
        self.process, self.count, self.preload = None, workers, os.environ.get("TIDEWIRE_NGINX_PRELOAD")
        if start:
            self.start()

    def command(self, *more):
        return ["nginx", "-p", f"{self.root}/", "-c", "nginx.conf", "-e", "errors", *more]

    def start(self, *wrapper):
        # It ends with the tests, also if these are killed.
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *wrapper, *self.command()], start_new_session=True,
                                        env=self.environment())
        until(self.answers, "listening")
        until(lambda: len(self.workers()) == self.count, f"{self.count} workers")
        for library in self.preload.split(":") if self.preload else []:
            mapped = pathlib.Path(f"/proc/{self.workers()[0]}/maps").read_text()
            assert os.path.basename(os.path.realpath(library)) in mapped, f"nginx is without {library}"

    def environment(self):
        """With the run time of a sanitizer, if the module is built with it."""
        if self.preload:
            return {**os.environ, "LD_PRELOAD": self.preload, "ASAN_OPTIONS": os.environ.get("TIDEWIRE_NGINX_ASAN", "")}
        return None

    def answers(self):
        assert self.process.poll() is None, f"nginx has ended: {self.logged()}"
        try:
            return self.ask("GET", "/none")[0] == 404
        except OSError:
            return False

    def logged(self):
        path = self.root / "errors"
        return path.read_text(errors="replace") if path.exists() else ""

    def faults(self):
        """What the log has of a level that no request of a client can bring about."""
        return [line for line in self.logged().splitlines()
                if any(f"[{level}]" in line for level in ("crit", "alert", "emerg"))]

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)

    def ask(self, method, path, body=None, headers=None, connection=None):
        c = connection or self.connection()
        c.request(method, path, body, headers or {})
        answer = c.getresponse()
        text = answer.read()
        if connection is None:
            c.close()
        return answer.status, dict(answer.headers), text

    def expect(self, status, method, key, body=None, **headers):
        """Asks for an object of the store; the status shall be this one."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if "Destination" in headers:
            headers["Destination"] = f"http://127.0.0.1:{self.port}/store/{headers['Destination']}"
        got, answer, text = self.ask(method, f"/store/{key}", body, headers)
        assert got == status, f"{method} {key}: {got} and not {status}: {text} {self.logged()[-2000:]}"
        return answer

    def records(self, count=None):
        """The records that have come, of each id one, when there are so many and an event that is published last."""
        if count is None:
            # Nothing that was published before comes later than this.
            self.mark += 1
            mark = f"mark-{self.mark}"
            self.expect(201, "PUT", self.marks + mark, b"")
            self.receiver.wait_until(lambda requests: any(
                r["s3"]["object"]["key"].endswith(mark) for q in requests for r in of_request(q)))
            return [r for r in self.told() if "mark-" not in r["s3"]["object"]["key"]]
        self.receiver.wait_until(lambda requests: len(distinct(requests)) >= count)
        return self.told()

    def told(self):
        with self.receiver.changed:
            return distinct(self.receiver.requests)

    def shape(self):
        """Of each record the event's name, bucket and key, and what the host says of it."""
        return [(r["eventName"].replace("s3:", ""), r["s3"]["bucket"]["name"],
                 urllib.parse.unquote_plus(r["s3"]["object"]["key"], errors="surrogateescape"), r.get("data"))
                for r in self.records()]

    def workers(self):
        """The processes that nginx has started and that are alive."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(c) for c in children if status_of(c) not in (None, "Z")]

    def worker(self):
        until(lambda: len(self.workers()) == 1, "one worker")
        return self.workers()[0]

    def stop(self, quick=False):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM if quick else signal.SIGQUIT)
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise AssertionError("nginx does not end") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.stop(quick=kind is not None)
            assert kind or not self.faults(), self.faults()
        finally:
            self.receiver.shutdown()
            self.receiver.server_close()
            self.temporary.cleanup()


def status_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def of_request(request):
    return json.loads(request.body)["Records"] if request.status < 300 else []


def distinct(requests):
    return list({r["eventId"]: r for q in requests for r in of_request(q)}.values())


def curl(*arguments):
    done = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *arguments], capture_output=True,
                          text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


CREATED, REMOVED = "ObjectCreated:Put", "ObjectRemoved:Delete"
COPIED = "ObjectCreated:Copy"


def new(key, bucket="b"):
    return (CREATED, bucket, key, {"overwritten": False})


def old(key, bucket="b"):
    return (CREATED, bucket, key, {"overwritten": True})


def copied(key, source, overwritten=False):
    return (COPIED, "b", key, {"overwritten": overwritten, "sourceBucket": "b", "sourceKey": source})


def moved(key, to):
    return (REMOVED, "b", key, {"destinationBucket": "b", "destinationKey": to})


def gone(key):
    return (REMOVED, "b", key, None)


def plain(key):
    return (CREATED, "b", key, None)


def test_each_method_with_curl():
    with Nginx('auth_basic "store"; auth_basic_user_file users;') as nginx:
        (nginx.root / "users").write_text("tom:{PLAIN}secret\n")
        url = f"http://tom:secret@127.0.0.1:{nginx.port}/store"
        (nginx.root / "body.txt").write_bytes(b"x" * 4096)
        body = str(nginx.root / "body.txt")
        assert curl("-T", body, "-A", "curl of a test", "-H", "Content-Type: text/plain", f"{url}/a/one.txt") == 201
        etag = subprocess.run(["curl", "-sSI", f"{url}/a/one.txt"], capture_output=True, text=True).stdout
        etag = [line.split('"')[1] for line in etag.splitlines() if line.lower().startswith("etag")]
        assert curl("-T", body, f"{url}/a/one.txt") == 204
        assert curl("-X", "COPY", "-H", f"Destination: {url.replace('tom:secret@', '')}/a/two.txt", f"{url}/a/one.txt") == 204
        assert curl("-X", "COPY", "-H", "Destination: /store/a/two.txt", f"{url}/a/one.txt") == 204
        assert curl("-X", "MOVE", "-H", "Destination: /store/a/three.txt", f"{url}/a/two.txt") == 204
        assert curl("-X", "MKCOL", f"{url}/c/") == 201
        assert curl("-X", "DELETE", f"{url}/a/one.txt") == 204
        nginx.expect = lambda *_, **__: curl("-T", body, f"{url}/mark-{nginx.mark}")
        assert nginx.shape() == [
            new("a/one.txt"), old("a/one.txt"), copied("a/two.txt", "a/one.txt"), copied("a/two.txt", "a/one.txt", True),
            copied("a/three.txt", "a/two.txt"), moved("a/two.txt", "a/three.txt"), plain("c/"), gone("a/one.txt"),
        ], nginx.shape()
        first = nginx.told()[0]
        assert first["s3"]["object"]["size"] == 4096 and [first["s3"]["object"]["eTag"]] == etag, (first, etag)
        assert first["s3"]["object"]["contentType"] == "text/plain"
        assert first["userIdentity"]["principalId"] == "tom"
        assert first["requestParameters"]["sourceIPAddress"] == "127.0.0.1"
        ids = [r["responseElements"]["x-amz-request-id"] for r in nginx.told()]
        # The two ends of a MOVE are one request.
        assert all(len(i) == 32 for i in ids) and len(set(ids)) == len(ids) - 1, ids
        assert [r["s3"]["object"].get("size") for r in nginx.told()[2:7]] == [4096, 4096, 4096, None, None]


def test_each_ack_level():
    for level in ("memory", "written", "synced"):
        with Nginx(f"tidewire_ack {level};") as nginx:
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                def one(worker):
                    c = nginx.connection()
                    for n in range(20):
                        assert nginx.ask("PUT", f"/store/{worker}/{n}", b"z" * n, connection=c)[0] == 201
                        assert nginx.ask("DELETE", f"/store/{worker}/{n}", connection=c)[0] == 204
                    c.close()
                list(pool.map(one, range(16)))
            got = nginx.shape()
            assert len(got) == 640, len(got)
            for worker in range(16):
                keys = [f"{worker}/{n}" for n in range(20)]
                for key in keys:
                    assert [g for g in got if g[2] == key] == [new(key), gone(key)]


def test_http2():
    with Nginx() as nginx:
        conf = nginx.root / "nginx.conf"
        conf.write_text(conf.read_text().replace(f"listen 127.0.0.1:{nginx.port};",
                                                 f"listen 127.0.0.1:{nginx.port}; listen unix:{nginx.root}/h2 http2;"))
        nginx.process.send_signal(signal.SIGHUP)
        until(lambda: (nginx.root / "h2").exists(), "listening with HTTP/2")
        h2 = ("--http2-prior-knowledge", "--unix-socket", str(nginx.root / "h2"))
        assert curl(*h2, "-T", sys.argv[0], "http://x/store/a") == 201
        assert curl(*h2, "-X", "COPY", "-H", "Destination: /store/b", "http://x/store/a") == 204
        assert curl(*h2, "-X", "DELETE", "http://x/store/a") == 204
        assert nginx.shape() == [new("a"), copied("b", "a"), gone("a")]


def test_keys_are_any_bytes():
    with Nginx() as nginx:
        keys = ["a b", "é", "a+b%25", "quote\"'", "x/../y", "%FF%FEz", "a//b", "%3Cnone%3E", "tab%09"]
        for key in keys:
            nginx.expect(201, "PUT", urllib.parse.quote(key, safe="%/+'."), b"")
        nginx.expect(204, "COPY", "%FF%FEz", Destination="%FD%20+")
        wanted = ["a b", "é", "a+b%", "quote\"'", "y", b"\xff\xfez".decode(errors="surrogateescape"), "a/b", "<none>", "tab\t"]
        wanted = [new(k) for k in wanted]
        wanted.append((COPIED, "b", b"\xfd +".decode(errors="surrogateescape"),
                       {"overwritten": False, "sourceBucket": "b", "sourceKey": "%FF%FEz"}))
        assert nginx.shape() == wanted, nginx.shape()
        nginx.expect(400, "PUT", "/".join(["k" * 200] * 6), b"")
        assert not list(nginx.files.glob("k*"))
        assert len(nginx.shape()) == len(wanted)


def test_collections():
    with Nginx() as nginx:
        for name in ("a/1", "a/sub/2", "b/1", "b/old", "b/deep/3"):
            nginx.expect(201, "PUT", name, name.encode())
        before = len(nginx.records())

        def since():
            nonlocal before
            got = nginx.shape()[before:]
            before += len(got)
            return sorted(got, key=str)

        nginx.expect(201, "COPY", "a/", Destination="b/")
        assert since() == sorted([
            copied("b/", "a/", True), copied("b/1", "a/1", True), copied("b/sub/", "a/sub/"), copied("b/sub/2", "a/sub/2"),
            gone("b/old"), gone("b/deep/"), gone("b/deep/3")], key=str)
        nginx.expect(201, "MOVE", "b/", Destination="c/")
        assert since() == sorted([
            copied("c/", "b/"), copied("c/1", "b/1"), copied("c/sub/", "b/sub/"), copied("c/sub/2", "b/sub/2"),
            moved("b/", "c/"), moved("b/1", "c/1"), moved("b/sub/", "c/sub/"), moved("b/sub/2", "c/sub/2")], key=str)
        nginx.expect(204, "DELETE", "c/")
        assert since() == sorted([gone("c/"), gone("c/1"), gone("c/sub/"), gone("c/sub/2")], key=str)
        nginx.expect(204, "DELETE", "a/sub/2")
        assert since() == [gone("a/sub/2")]
        assert not (nginx.files / "c").exists() and (nginx.files / "a/1").exists()


def test_a_collection_that_is_removed_in_part():
    if os.geteuid() != 0 or not shutil.which("chattr"):
        return skip("only root can make a file that cannot be removed")
    with Nginx() as nginx:
        for name in ("a/1", "a/2", "a/3"):
            nginx.expect(201, "PUT", name, b"")
        stays = nginx.files / "a/2"
        if subprocess.run(["chattr", "+i", stays], capture_output=True).returncode != 0:
            return skip("this file system knows no immutable files")
        nginx.faults = lambda: []  # a directory that is not empty is one
        try:
            status = nginx.ask("DELETE", "/store/a/")[0]
            assert status >= 400, status
            assert sorted(nginx.shape()[3:]) == [gone("a/1"), gone("a/3")], nginx.shape()
        finally:
            subprocess.run(["chattr", "-i", stays], check=True)


def test_too_many_objects_are_refused_before_anything_is_done():
    with Nginx("tidewire_collection_max 5;") as nginx:
        for n in range(6):
            nginx.expect(201, "PUT", f"a/{n}", b"")
        before = nginx.shape()
        nginx.expect(507, "DELETE", "a/")
        nginx.expect(507, "MOVE", "a/", Destination="b/")
        assert len(list((nginx.files / "a").iterdir())) == 6 and not (nginx.files / "b").exists()
        assert nginx.shape() == before


def test_what_fails_is_not_told():
    with Nginx("if ($http_x_forbidden) { return 403; }") as nginx:
        nginx.faults = lambda: []  # a file where a directory should be is one
        nginx.expect(201, "PUT", "a", b"1")
        nginx.expect(201, "PUT", "dir/b", b"2")
        before = nginx.shape()
        nginx.expect(404, "DELETE", "none")
        nginx.expect(404, "DELETE", "none/")
        nginx.expect(409, "DELETE", "dir")
        nginx.expect(409, "PUT", "dir", b"")
        nginx.expect(409, "PUT", "dir/", b"")
        nginx.expect(500, "PUT", "a/below-a-file", b"")
        nginx.expect(501, "PUT", "a", b"x", Content_Range="bytes 0-0/1")
        nginx.expect(403, "PUT", "a", b"x", X_Forbidden="1")
        nginx.expect(415, "DELETE", "a", b"body")
        nginx.expect(412, "COPY", "a", Destination="dir/b", Overwrite="F")
        nginx.expect(412, "MOVE", "a", Destination="dir/b", Overwrite="F")
        nginx.expect(404, "COPY", "none", Destination="x")
        nginx.expect(404, "MOVE", "none", Destination="x")
        nginx.expect(409, "COPY", "a", Destination="dir")
        nginx.expect(400, "COPY", "a")
        nginx.expect(400, "MOVE", "a", Destination="x", Overwrite="maybe")
        nginx.expect(409, "COPY", "a", Destination="x/")
        nginx.expect(405, "MKCOL", "dir/")
        nginx.expect(409, "MKCOL", "no/such/")
        nginx.expect(409, "MKCOL", "x")
        for foreign in ("http://elsewhere.example/store/x", "ftp://127.0.0.1/store/x", "nonsense", "", "/"):
            status = nginx.ask("COPY", "/store/a", headers={"Destination": foreign})[0]
            assert 400 <= status < 600, (foreign, status)
        assert nginx.shape() == before, nginx.shape()[len(before):]
        assert (nginx.files / "a").read_bytes() == b"1"


def test_a_client_that_goes_away_is_not_told_of():
    with Nginx() as nginx:
        for chunked in (False, True):
            for _ in range(5):
                s = socket.create_connection(("127.0.0.1", nginx.port))
                length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000"
                s.sendall(f"PUT /store/cut HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
                s.sendall(b"2710\r\n" + b"z" * 10000 + b"\r\n" if chunked else b"z" * 50000)
                s.close()
        until(lambda: not list((nginx.root / "body").iterdir()), "without bodies that are half there")
        assert nginx.shape() == [] and not (nginx.files / "cut").exists()


def test_a_full_disk_is_not_told_of():
    if os.geteuid() != 0:
        return skip("only root can mount a small file system")
    nginx = Nginx(body="small/body", start=False)
    small = nginx.root / "small"
    small.mkdir()
    # The mount is of nginx alone.
    script = f'mount -t tmpfs -o size=1m tidewire "{small}" && mkdir "{small}/body" "{small}/files" && exec "$@"'
    conf = nginx.root / "nginx.conf"
    conf.write_text(conf.read_text().replace(f"alias {nginx.files}/;", f"alias {small}/files/;"))
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        nginx.receiver.server_close()
        return skip("mount namespaces are not permitted here")
    nginx.start("unshare", "--mount", "--", "bash", "-c", script, "bash")
    nginx.faults = lambda: []  # a full disk is one
    with nginx:
        nginx.expect(201, "PUT", "fits", b"z" * 400_000)
        nginx.expect(500, "PUT", "large", b"z" * 2_000_000)
        # As the module's mount has it: what there was of the body goes after the answer.
        body = pathlib.Path(f"/proc/{nginx.process.pid}/root{small}/body")
        until(lambda: body.is_dir() and not list(body.iterdir()), "without the body that did not fit")
        nginx.expect(204, "COPY", "fits", Destination="again")
        nginx.expect(500, "COPY", "fits", Destination="cut")
        nginx.expect(404, "GET", "large")
        nginx.expect(204, "DELETE", "cut")
        assert nginx.shape() == [new("fits"), copied("again", "fits"), gone("cut")], nginx.shape()


def test_another_file_system_for_bodies():
    if os.geteuid() != 0 or not os.path.ismount("/dev/shm"):
        return skip("no second file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other, Nginx(body=other) as nginx:
        assert os.stat(other).st_dev != os.stat(nginx.files).st_dev
        nginx.expect(201, "PUT", "a", b"123")
        nginx.expect(204, "PUT", "a", b"12345")
        assert nginx.shape() == [new("a"), old("a")]
        told = [r["s3"]["object"] for r in nginx.told()]
        etag = nginx.expect(200, "GET", "a")["ETag"].strip('"')
        assert [o["size"] for o in told[:2]] == [3, 5] and told[1]["eTag"] == etag


def test_buckets_in_the_path():
    with Nginx("tidewire_bucket_in_path on;") as nginx:
        nginx.marks = "marks/"
        nginx.expect(201, "MKCOL", "photos/")
        nginx.expect(201, "PUT", "photos/a/b", b"")
        nginx.expect(201, "PUT", "other/x", b"")
        nginx.expect(204, "COPY", "photos/a/b", Destination="other/y")
        nginx.expect(409, "PUT", "top", b"")
        nginx.expect(409, "COPY", "other/x", Destination="top")
        assert not (nginx.files / "top").exists()
        nginx.expect(204, "DELETE", "photos/")
        # S3 knows no record of a bucket, so its profile sends none.
        assert sorted(nginx.shape(), key=str) == sorted([
            new("a/b", "photos"), new("x", "other"),
            (COPIED, "other", "y", {"overwritten": False, "sourceBucket": "photos", "sourceKey": "a/b"}),
            (REMOVED, "photos", "a/b", None), (REMOVED, "photos", "a/", None),
        ], key=str), nginx.shape()


def test_buckets_come_and_go():
    with Nginx("tidewire_bucket_in_path on;", destination='profile = "cloudevents"') as nginx:
        nginx.expect(201, "MKCOL", "photos/")
        nginx.expect(204, "DELETE", "photos/")
        nginx.receiver.wait_until(lambda requests: sum(len(json.loads(r.body)) for r in requests) >= 2)
        types = [e["type"].rpartition(".")[2] for r in nginx.receiver.requests for e in json.loads(r.body)]
        assert [t.replace("s3:", "") for t in types] == ["BucketCreated", "BucketRemoved"], types


def test_no_rule_and_off():
    rule = 'prefix = "wanted/"'
    with Nginx(rule=rule, server="location /silent/ { alias silent/; dav_methods PUT; create_full_put_path on; }") as nginx:
        nginx.expect(201, "PUT", "other/a", b"")
        nginx.expect(201, "PUT", "wanted/a", b"")
        assert nginx.ask("PUT", "/silent/x", b"")[0] == 201
        assert [r["s3"]["object"]["key"] for r in nginx.records(1)] == ["wanted/a"]
        status, headers, text = nginx.ask("GET", "/metrics")
        assert status == 200 and b"tidewire_" in text and headers["Content-Type"].startswith("text/plain")


def full(policy):
    # Nobody listens there, and the queue takes five events.
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{s.getsockname()[1]}/"
    return Nginx(f"tidewire_when_full {policy};", url=dead,
                 destination='queue = { events_max = 5, on_full = "refuse" }', engine='close_timeout = "0s"')


def test_a_full_queue_refuses_before_anything_is_done():
    with full("refuse") as nginx:
        done = 0
        while (status := nginx.ask("PUT", f"/store/{done}", b"x")[0]) == 201:
            done += 1
            assert done < 1000, "it takes everything"
        assert status == 503 and not (nginx.files / str(done)).exists()
        status, headers, _ = nginx.ask("DELETE", "/store/0")
        assert status == 503 and headers["Retry-After"] == "1" and (nginx.files / "0").exists()
        nginx.expect(503, "MOVE", "0", Destination="moved")
        assert not (nginx.files / "moved").exists()
        assert nginx.expect(200, "GET", "0")
        assert "refused" in nginx.logged()


def test_a_full_queue_lets_pass():
    with full("pass") as nginx:
        for n in range(50):
            nginx.expect(201, "PUT", str(n), b"x")
        nginx.expect(204, "DELETE", "0")
        assert "done without telling of it" in nginx.logged() and not (nginx.files / "0").exists()


def test_a_worker_that_is_killed():
    with Nginx(engine='close_timeout = "0s"') as nginx:
        nginx.faults = lambda: []  # a worker that is killed is one
        nginx.expect(201, "PUT", "before", b"")
        # To copy a pipe is to wait for who writes to it: the worker stands still between reservation and commit.
        os.mkfifo(nginx.files / "pipe")
        worker = nginx.worker()
        c = nginx.connection()
        c.request("COPY", "/store/pipe", headers={"Destination": "/store/copy"})
        until(lambda: pathlib.Path(f"/proc/{worker}/wchan").read_text() in ("wait_for_partner", "fifo_open"),
              "at the pipe")
        os.kill(worker, signal.SIGKILL)
        until(lambda: status_of(worker) is None, "gone")
        c.close()
        nginx.expect(201, "PUT", "after", b"")
        assert nginx.shape() == [new("before"), new("after")], nginx.shape()
        for n in range(5):
            os.kill(nginx.worker(), signal.SIGKILL)
            until(nginx.answers, "back")
            nginx.expect(201, "PUT", f"again-{n}", b"")
        assert [g[2] for g in nginx.shape()][2:] == [f"again-{n}" for n in range(5)]


def test_reload_under_load():
    with Nginx("tidewire_ack synced;") as nginx:
        stop, done = threading.Event(), collections.defaultdict(list)

        def load(number):
            connection, turn = None, 0
            while not stop.is_set():
                key = f"{number}/{turn % 7}"
                try:
                    connection = connection or nginx.connection()
                    status = nginx.ask("PUT", f"/store/{key}", b"x" * turn, connection=connection)[0]
                except (OSError, http.client.HTTPException):
                    # nginx closes idle connections at a reload; whether the request was done is not known.
                    connection, status = None, 0
                done[key].append((status, turn))
                turn += 1

        threads = [threading.Thread(target=load, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        try:
            seen = {nginx.worker()}
            for _ in range(4):
                time.sleep(0.3)
                nginx.process.send_signal(signal.SIGHUP)
                until(lambda: len(nginx.workers()) == 1 and nginx.workers()[0] not in seen, "a worker anew")
                seen.add(nginx.worker())
        finally:
            stop.set()
            for t in threads:
                t.join()
        statuses = collections.Counter(status for l in done.values() for status, _ in l)
        assert statuses[201] + statuses[204] > 100 and set(statuses) <= {0, 201, 204, 503}, statuses
        records = nginx.records()
        told = collections.defaultdict(list)
        for r in records:
            told[r["s3"]["object"]["key"]].append((r["s3"]["object"]["sequencer"], r["s3"]["object"]["size"]))
        for key, l in done.items():
            sizes = [size for _, size in told[key]]
            assert sorted(told[key]) == told[key], f"{key} is out of order"
            assert len(set(sizes)) == len(sizes), f"{key} is told twice"
            missing = [t for s, t in l if s in (201, 204) and t not in sizes]
            assert not missing, f"{key} is not told: {missing}"
            refused = [t for s, t in l if s == 503 and t in sizes]
            assert not refused, f"{key} is told though it was refused: {refused}"
        assert sum(s == 503 for l in done.values() for s, _ in l) == 0 or "refused" in nginx.logged()


def test_the_backlog_outlives_nginx():
    with Receiver() as receiver:
        answers = [503]
        receiver.answer = lambda request: (answers[-1], b"")
        with Nginx(receiver=receiver, destination='retry = { backoff_min = "100ms", backoff_max = "200ms" }') as nginx:
            for n in range(20):
                nginx.expect(201, "PUT", str(n), b"")
            nginx.stop()
            answers.append(204)
            nginx.start()
            assert [g[2] for g in nginx.shape()] == [str(n) for n in range(20)]


def refused_configuration(nginx, *words):
    with nginx:
        done = subprocess.run(nginx.command("-t"), capture_output=True, text=True, timeout=WAIT)
        said = done.stderr + nginx.logged()
        assert done.returncode != 0, said
        for word in words:
            assert word in said, (word, said)
        nginx.faults = lambda: []


def test_what_is_wrong_in_the_configuration_is_told():
    refused_configuration(Nginx(start=False, settings=""), "there is no tidewire_engine")
    refused_configuration(Nginx(start=False, rule="nonsense = 1"), "t.toml:", "nonsense")
    refused_configuration(Nginx("tidewire_bucket_in_path off;", start=False), "no tidewire_bucket", "/store/")
    refused_configuration(Nginx("tidewire_bucket x; tidewire_bucket_in_path on;", start=False), "not both")
    refused_configuration(Nginx("tidewire_prefix store;", start=False), "must begin and end with a slash")
    refused_configuration(Nginx("tidewire_ack soon;", start=False), "soon")
    refused_configuration(Nginx(start=False, workers=2), "worker_processes", "shared", "unix:/path")
    for settings, *words in (
        ("tidewire_engine data shared; tidewire_config t.toml;", "engine.shared.socket", "name one"),
        ("tidewire_engine data shared;", "engine.shared.socket", "name one"),
        ("tidewire_engine data alone;", '"alone" is not known'),
        ("tidewire_engine unix:/run/s shared;", "is an engine that another process has"),
        ("tidewire_engine unix:/run/s; tidewire_config t.toml;", "leave it out"),
        ("tidewire_engine http://127.0.0.1/;", "neither a data directory nor unix:/path"),
    ):
        refused_configuration(Nginx(start=False, workers=2, settings=settings), *words)


def test_an_engine_that_another_process_has():
    with Nginx(http="tidewire_open_timeout 200ms;") as first:
        second = Nginx(http="tidewire_open_timeout 200ms;", start=False,
                       settings=f"tidewire_engine {first.root}/data; tidewire_config t.toml;")
        with second:
            second.start()
            second.expect(503, "PUT", "a", b"")
            assert not (second.files / "a").exists() and "another process has the data directory" in second.logged()
            first.stop()
            until(lambda: second.ask("PUT", "/store/b", b"")[0] == 201, "open")
            assert second.shape() == [new("b")]


class Shared(Nginx):
    """An nginx of several workers over one engine: the first of them has it, or `tidewire run` if it is `apart`."""

    def __init__(self, location="", workers=4, apart=False, start=True, **more):
        self.engine, engine = None, 'shared = { socket = "s" }'
        settings = "tidewire_engine data shared; tidewire_config t.toml;"
        if apart:
            engine, settings = f'data_dir = "data"\n{engine}', "tidewire_engine unix:{root}/s;"
        super().__init__("add_header X-Worker $pid always; " + location, workers=workers, start=False, settings=settings,
                         engine=engine, **more)
        if apart:
            self.run()
        if start:
            self.start()

    def run(self):
        """Has `tidewire run` open the engine."""
        with (self.root / "engine").open("a") as log:
            self.engine = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", TIDEWIRE, "run", "--config", self.root / "t.toml"],
                                           stdout=subprocess.DEVNULL, stderr=log)
        until(lambda: self.owner() == self.engine.pid, "an engine of its own process")

    def owner(self):
        """The process that has the data directory."""
        text = (self.root / "data/LOCK").read_text() if (self.root / "data/LOCK").exists() else ""
        return int(text) if text.strip() else None

    def stop(self, quick=False):
        try:
            super().stop(quick)
        finally:
            if self.engine and self.engine.poll() is None:
                self.engine.terminate()
                self.engine.wait(WAIT)


class Load:
    """Threads that change objects, and what they were answered: by key, the status and the size of each PUT."""

    def __init__(self, nginx, threads=12):
        self.nginx, self.end, self.done, self.workers = nginx, threading.Event(), collections.defaultdict(list), set()
        self.changes = 0
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(threads)]

    def run(self, number):
        connection, turn = None, 0
        while not self.end.is_set():
            # Each has keys of its own, and all change one that they share.
            key = "shared" if turn % 3 == 2 else f"{number}/{turn % 5}"
            delete = key == "shared" and (number + turn) % 2 == 0
            turn += 1
            try:
                connection = connection or self.nginx.connection()
                method, body = ("DELETE", None) if delete else ("PUT", b"x" * turn)
                status, headers, _ = self.nginx.ask(method, f"/store/{key}", body, connection=connection)
                self.workers.add(headers["X-Worker"])
            except (OSError, http.client.HTTPException):
                # A worker that is killed leaves nobody knowing whether the request was done.
                connection, status = None, 0
            if key != "shared":
                self.done[key].append((status, turn))
            elif status in (201, 204):
                self.changes += 1

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        for t in self.threads:
            t.join()

    def check(self, known=True):
        """Everything that was acknowledged is told once and in order; with `known` nothing else is, and of the shared key each
        change is told as it was."""
        told, exists = collections.defaultdict(list), False
        for r in self.nginx.records():
            told[r["s3"]["object"]["key"]].append(r)
        shared = told.pop("shared", [])
        assert all(a["s3"]["object"]["sequencer"] < b["s3"]["object"]["sequencer"] for a, b in zip(shared, shared[1:]))
        if known:
            assert len(shared) == self.changes, (len(shared), self.changes)
            for r in shared:
                removed = r["eventName"].startswith("ObjectRemoved") or r["eventName"].startswith("s3:ObjectRemoved")
                assert exists if removed else r["data"] == {"overwritten": exists}, (r, exists)
                exists = not removed
        assert set(told) <= set(self.done), set(told) - set(self.done)
        for key, answers in self.done.items():
            sizes = [r["s3"]["object"]["size"] for r in told[key]]
            assert all(a < b for a, b in zip(sizes, sizes[1:])), f"{key} is told twice or out of order: {sizes}"
            missing = [size for status, size in answers if status in (201, 204) and size not in sizes]
            assert not missing, f"{key} is not told: {missing}"
            refused = [size for status, size in answers if status == 503 and size in sizes]
            assert not refused, f"{key} is told though it was refused: {refused}"
            assert not known or len(sizes) == sum(status in (201, 204) for status, _ in answers), key


def statuses_of(load):
    return collections.Counter(status for answers in load.done.values() for status, _ in answers)


def test_several_workers_over_one_engine():
    for apart, level in ((False, "memory"), (False, "synced"), (True, "memory"), (True, "synced")):
        with Shared(f"tidewire_ack {level};", apart=apart) as nginx:
            with Load(nginx) as load:
                until(lambda: len(load.workers) > 1 and load.changes > 100, "changing objects in several workers")
            assert set(statuses_of(load)) <= {201, 204}, statuses_of(load)
            load.check()
            status, _, text = nginx.ask("GET", "/metrics")
            assert status == 200 and b"tidewire_clients 4" in text, text
            assert nginx.owner() == nginx.engine.pid if apart else nginx.owner() in nginx.workers()


def test_workers_that_are_killed_under_load_over_one_engine():
    for apart in (False, True):
        with Shared("tidewire_ack synced;", apart=apart, http="tidewire_open_timeout 20s;") as nginx:
            nginx.faults = lambda: []  # a worker that is killed is one
            with Load(nginx) as load:
                for n in range(8):
                    before = load.changes
                    until(lambda: load.changes > before + 20, "changing objects")
                    # Every other time it is the one that has the engine, if one of them does.
                    others = [w for w in nginx.workers() if w != nginx.owner()]
                    os.kill(others[n % len(others)] if apart or n % 2 else nginx.owner(), signal.SIGKILL)
                    until(lambda: len(nginx.workers()) == 4, "four workers again")
                before = load.changes
                until(lambda: load.changes > before + 20, "changing objects after that")
            got = statuses_of(load)
            # Who has lost the engine while he waited for it is told so.
            assert got[201] + got[204] > 50 and set(got) <= {0, 201, 204} | (set() if apart else {500}), got
            load.check(known=False)


def test_an_engine_that_is_killed_under_load():
    with Shared("tidewire_ack synced;", apart=True, http="tidewire_open_timeout 20s;") as nginx:
        with Load(nginx) as load:
            for _ in range(3):
                before = load.changes
                until(lambda: load.changes > before + 50, "changing objects")
                nginx.engine.kill()
                nginx.engine.wait(WAIT)
                nginx.run()
            before = load.changes
            until(lambda: load.changes > before + 50, "changing objects after that")
        got = statuses_of(load)
        assert got[201] + got[204] > 100 and set(got) <= {201, 204, 500}, got
        load.check(known=False)


def test_several_workers_are_reloaded_under_load():
    with Shared("tidewire_ack synced;", http="tidewire_open_timeout 20s;") as nginx:
        with Load(nginx) as load:
            seen = set(nginx.workers())
            for _ in range(3):
                before = load.changes
                until(lambda: load.changes > before + 20, "changing objects")
                nginx.process.send_signal(signal.SIGHUP)
                until(lambda: len(nginx.workers()) == 4 and not seen & set(nginx.workers()), "workers anew")
                seen |= set(nginx.workers())
            until(lambda: nginx.owner() in nginx.workers(), "one of them has the engine")
            before = load.changes
            until(lambda: load.changes > before + 20, "changing objects after that")
        got = statuses_of(load)
        # nginx closes connections that nobody uses at a reload, also while a request is on its way.
        assert got[201] + got[204] > 50 and set(got) <= {0, 201, 204}, got
        load.check(known=False)


def test_an_engine_that_is_not_there_yet():
    with Shared(start=False) as nginx:
        conf = nginx.root / "nginx.conf"
        conf.write_text(conf.read_text().replace("tidewire_engine data shared; tidewire_config t.toml;",
                                                 f"tidewire_engine unix:{nginx.root}/s; tidewire_open_timeout 200ms;"))
        toml = nginx.root / "t.toml"
        toml.write_text(toml.read_text().replace("shared =", 'data_dir = "data"\nshared ='))
        nginx.start()
        # Others are served meanwhile, and nothing is made of the address' name.
        assert nginx.ask("GET", "/none")[0] == 404
        nginx.expect(503, "PUT", "a", b"")
        assert not (nginx.files / "a").exists() and "nobody listens" in nginx.logged()
        assert not list(nginx.root.glob("unix:*")) and not list(pathlib.Path.cwd().glob("unix:*"))
        nginx.run()
        until(lambda: nginx.ask("PUT", "/store/b", b"")[0] == 201, "open")
        assert nginx.shape() == [new("b")]


def test_cadaver():
    if not shutil.which("cadaver") or not DAV_EXT.exists():
        return skip("cadaver or libnginx-mod-http-dav-ext is not installed")
    with Nginx() as nginx:
        (nginx.root / "up.txt").write_bytes(b"from cadaver")
        script = f"""open http://127.0.0.1:{nginx.port}/store/
lcd {nginx.root}
mkcol docs
put up.txt docs/one.txt
copy docs/one.txt docs/two.txt
move docs/two.txt docs/three.txt
lock docs/new.txt
unlock docs/new.txt
delete docs/one.txt
rmcol docs
quit
"""
        done = subprocess.run(["cadaver"], input=script, capture_output=True, text=True, timeout=WAIT,
                              env={**os.environ, "HOME": str(nginx.root)})
        got = nginx.shape()
        assert got == [
            plain("docs/"), new("docs/one.txt"), copied("docs/two.txt", "docs/one.txt"),
            copied("docs/three.txt", "docs/two.txt"), moved("docs/two.txt", "docs/three.txt"), plain("docs/new.txt"),
            gone("docs/one.txt"), *[g for g in got[-3:] if g[0] == REMOVED],
        ] and {g[2] for g in got[-3:]} == {"docs/", "docs/new.txt", "docs/three.txt"}, (got, done.stdout, nginx.logged())


def test_rclone():
    if not shutil.which("rclone") or not DAV_EXT.exists():
        return skip("rclone or libnginx-mod-http-dav-ext is not installed")
    with Nginx() as nginx:
        tree = nginx.root / "tree"
        for name in ("a.txt", "sub/b.txt", "sub/deep/c d.txt"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)

        def rclone(*arguments):
            done = subprocess.run(
                ["rclone", "--webdav-url", f"http://127.0.0.1:{nginx.port}/store/", "--webdav-vendor", "other",
                 "--config", "/dev/null", *arguments], capture_output=True, text=True, timeout=WAIT)
            assert done.returncode == 0, done.stderr

        rclone("sync", str(tree), ":webdav:x")
        got = nginx.shape()
        assert sorted(g[2] for g in got if g[3]) == ["x/a.txt", "x/sub/b.txt", "x/sub/deep/c d.txt"], got
        assert {g[2] for g in got if not g[3]} <= {"x/", "x/sub/", "x/sub/deep/"}, got
        before = len(got)
        (tree / "a.txt").unlink()
        (tree / "sub/b.txt").write_text("longer than before")
        rclone("sync", str(tree), ":webdav:x")
        assert sorted(nginx.shape()[before:], key=str) == sorted([gone("x/a.txt"), old("x/sub/b.txt")], key=str)
        rclone("moveto", ":webdav:x/sub/b.txt", ":webdav:x/moved.txt")
        assert nginx.shape()[before + 2:] == [copied("x/moved.txt", "x/sub/b.txt"), moved("x/sub/b.txt", "x/moved.txt")]
        rclone("purge", ":webdav:x")
        assert {g[2] for g in nginx.shape()[before + 4:]} == {"x/", "x/moved.txt", "x/sub/", "x/sub/deep/", "x/sub/deep/c d.txt"}


if __name__ == "__main__":
    MODULE = pathlib.Path(sys.argv[1]).resolve()
    TIDEWIRE = os.environ.get("TIDEWIRE_COMMAND", "tidewire")
    only = sys.argv[2:]
    sys.exit(main({n: t for n, t in globals().items() if not only or n in only}))
