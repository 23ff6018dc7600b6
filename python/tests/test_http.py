"""ASGI and WSGI applications as publishers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable
from typing import Any, Optional

import pytest
from conftest import Mine

import tidewire
from tidewire.integrations import asgi, wsgi
from tidewire.integrations.http import S3, Api, WebDav

Answer = tuple[int, dict[str, str], bytes]


class Store:
    """What an application answers, and what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = (200, {}, b"")
        self.asked: list[tuple[str, str, bytes]] = []
        self.error: Optional[BaseException] = None
        self.before: Callable[[], None] = lambda: None

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], body))
        self.before()
        if self.error:
            raise self.error
        status, headers, answer = self.answer
        start_response(f"{status} Whatever", list(headers.items()))
        yield b""
        yield answer

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked.append((scope["method"], scope["path"], body))
        self.before()
        if self.error:
            raise self.error
        status, headers, answer = self.answer
        raw = [(n.encode(), v.encode()) for n, v in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": answer, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


Ask = Callable[..., Answer]


def by_wsgi(store: Store, engine: tidewire.Engine, api: Api, **options: Any) -> Ask:
    application = wsgi.Publisher(store.wsgi, engine, api, **options)

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path.encode().decode("latin-1")}
        environ.update(QUERY_STRING=query, REMOTE_ADDR="192.0.2.1", CONTENT_LENGTH=str(len(body)))
        environ.update({f"HTTP_{n.upper()}": v for n, v in headers.items()})
        environ["wsgi.input"] = io.BytesIO(body)
        told: list[Any] = []

        def start_response(status: str, headers: "list[tuple[str, str]]", exc_info: Any = None) -> Callable[[bytes], object]:
            told.append((status, headers))
            return lambda data: None

        chunks = application(environ, start_response)
        try:
            answer = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
        [(status, found)] = told
        return int(status[:3]), dict(found), answer

    return ask


def by_asgi(store: Store, engine: tidewire.Engine, api: Api, **options: Any) -> Ask:
    application = asgi.Publisher(store.asgi, engine, api, **options)

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        path, _, query = path.partition("?")
        raw = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
        raw.append((b"content-length", str(len(body)).encode()))
        scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
        scope.update(headers=raw, client=("192.0.2.1", 5))
        half = len(body) // 2
        incoming = [
            {"type": "http.request", "body": body[:half], "more_body": True},
            {"type": "http.request", "body": body[half:], "more_body": False},
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(application(scope, receive, send))
        start = sent[0]
        found = {n.decode(): v.decode() for n, v in start["headers"]}
        return start["status"], found, b"".join(m["body"] for m in sent[1:])

    return ask


@pytest.fixture(params=[by_wsgi, by_asgi], ids=["wsgi", "asgi"])
def by(request: Any) -> Callable[..., Ask]:
    return request.param  # type: ignore[no-any-return]


def test_what_succeeds_is_told_before_the_client_knows(mine: Mine, by: Callable[..., Ask]) -> None:
    engine, taken = mine
    store = Store()
    ask = by(store, engine, S3())
    store.before = lambda: None if engine.stats()["reservations"] == 2 - (store.asked[-1][0] == "PUT") else pytest.fail()
    store.answer = (200, {"ETag": '"abc"', "x-amz-version-id": "v1"}, b"made")
    assert ask("PUT", "/photos/cats/ü.jpg", b"12345", x_amz_meta_color="red", user_agent="ua") == (
        200,
        {"ETag": '"abc"', "x-amz-version-id": "v1"},
        b"made",
    )
    store.answer = (204, {}, b"")
    assert ask("DELETE", "/photos/cats/ü.jpg")[0] == 204
    engine.flush()
    assert taken.told() == [("ObjectCreated:Put", "cats/ü.jpg"), ("ObjectRemoved:Delete", "cats/ü.jpg")]
    thing = taken.records[0]["s3"]["object"]
    assert (thing["size"], thing["eTag"], thing["versionId"]) == (5, "abc", "v1")
    assert thing["userMetadata"] == {"color": "red"}
    assert taken.records[0]["requestParameters"] == {"sourceIPAddress": "192.0.2.1"}
    assert [asked[2] for asked in store.asked] == [b"12345", b""]
    assert engine.stats()["reservations"] == 0


@pytest.mark.parametrize("status", [400, 403, 404, 409, 500, 503, 304])
def test_what_fails_is_not_told(mine: Mine, by: Callable[..., Ask], status: int) -> None:
    engine, taken = mine
    store = Store()
    store.answer = (status, {}, b"no")
    assert by(store, engine, S3())("PUT", "/photos/k", b"x") == (status, {}, b"no")
    assert engine.stats()["reservations"] == 0
    engine.flush()
    assert taken.records == []


def test_an_application_that_raises_tells_nothing(mine: Mine, by: Callable[..., Ask]) -> None:
    engine, taken = mine
    store = Store()
    store.error = KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        by(store, engine, S3())("PUT", "/photos/k", b"x")
    assert engine.stats()["reservations"] == 0
    engine.flush()
    assert taken.records == []


def test_what_cannot_be_told_is_not_done(open_mine: Callable[..., Mine], by: Callable[..., Ask]) -> None:
    engine, _ = open_mine(engine='ring_bytes = "256KiB"\nreserve_percent = 1')
    store = Store()
    held = []
    with pytest.raises(tidewire.Full):
        while True:
            held.append(engine.reserve("photos", "k"))
    status, headers, body = by(store, engine, S3())("PUT", "/photos/k", b"x")
    assert (status, headers.get("Retry-After") or headers.get("retry-after")) == (503, "1")
    assert b"Try again" in body and store.asked == []
    assert by(store, engine, S3())("PUT", "/nobody/k", b"x")[0] == 200


def test_reads_and_what_nobody_wants_go_by(mine: Mine, by: Callable[..., Ask]) -> None:
    engine, taken = mine
    store = Store()
    ask = by(store, engine, S3())
    for method, path in [
        ("GET", "/photos/k"),
        ("HEAD", "/photos/k"),
        ("PUT", "/photos/k?partNumber=1&uploadId=u"),
        ("POST", "/photos/k?uploads"),
        ("DELETE", "/photos/k?uploadId=u"),
        ("GET", "/photos?list-type=2"),
        ("PUT", "/photos?versioning"),
        ("GET", "/"),
        ("PUT", "/"),
    ]:
        assert ask(method, path)[0] == 200
    engine.flush()
    assert taken.records == [] and len(store.asked) == 9


def test_the_operations_of_s3_have_their_types(mine: Mine, by: Callable[..., Ask]) -> None:
    engine, taken = mine
    store = Store()
    ask = by(store, engine, S3())
    marker = {"x-amz-delete-marker": "true", "x-amz-version-id": "m"}
    copied = b'<CopyObjectResult xmlns="http://x"><ETag>"e"</ETag></CopyObjectResult>'
    completed = b"<CompleteMultipartUploadResult><ETag>e-2</ETag></CompleteMultipartUploadResult>"
    steps: list[tuple[str, str, Answer, dict[str, str], Optional[str]]] = [
        ("PUT", "/photos/k", (200, {}, copied), {"x_amz_copy_source": "/photos/x"}, "ObjectCreated:Copy"),
        ("PUT", "/photos/k", (200, {}, b"<Error><Code>InternalError</Code></Error>"), {"x_amz_copy_source": "/x"}, None),
        ("POST", "/photos/k?uploadId=u", (200, {}, completed), {}, "ObjectCreated:CompleteMultipartUpload"),
        ("POST", "/photos/k?uploadId=u", (200, {}, b"  <Error/>"), {}, None),
        ("DELETE", "/photos/k", (204, marker, b""), {}, "ObjectRemoved:DeleteMarkerCreated"),
        ("DELETE", "/photos/k?versionId=v", (204, marker, b""), {}, "ObjectRemoved:Delete"),
        ("PUT", "/photos/k?tagging", (200, {}, b""), {}, "ObjectTagging:Put"),
        ("DELETE", "/photos/k?tagging", (204, {}, b""), {}, "ObjectTagging:Delete"),
        ("PUT", "/photos/k?acl", (200, {}, b""), {}, "ObjectAcl:Put"),
    ]
    told = []
    for method, path, answer, headers, event_type in steps:
        store.answer = answer
        ask(method, path, **headers)
        told += [event_type] if event_type else []
    engine.flush()
    assert [r["eventName"] for r in taken.records] == told
    assert [r["s3"]["object"].get("eTag") for r in taken.records[:2]] == ["e", "e-2"]
    assert taken.records[2]["s3"]["object"]["versionId"] == "m"


DELETE = b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object><Object><Key>c</Key><VersionId>v</VersionId></Object></Delete>"
DELETED = (
    b"<DeleteResult><Deleted><Key>a</Key><DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>m</DeleteMarkerVersionId>"
    b"</Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error><Deleted><Key>c</Key><VersionId>v</VersionId></Deleted>"
    b"</DeleteResult>"
)


def test_each_object_of_a_deletion_of_many_is_told(mine: Mine, by: Callable[..., Ask]) -> None:
    engine, taken = mine
    store = Store()
    store.answer = (200, {}, DELETED)
    ask = by(store, engine, S3())
    assert ask("POST", "/photos?delete", DELETE)[2] == DELETED
    assert store.asked[0][2] == DELETE, "the application reads the whole body"
    store.answer = (200, {}, b"<DeleteResult/>")
    ask("POST", "/photos?delete", b"<Delete><Quiet>true</Quiet><Object><Key>q</Key></Object></Delete>")
    for wrong in (b"", b"<Delete", b'<!DOCTYPE x [<!ENTITY a "b">]><Delete/>', b"\xff"):
        ask("POST", "/photos?delete", wrong)
    engine.flush()
    assert sorted(taken.told(), key=lambda told: told[1]) == [
        ("ObjectRemoved:DeleteMarkerCreated", "a"),
        ("ObjectRemoved:Delete", "c"),
        ("ObjectRemoved:Delete", "q"),
    ]


def test_webdav_is_one_bucket(mine: Mine, by: Callable[..., Ask]) -> None:
    engine, taken = mine
    store = Store()
    ask = by(store, engine, WebDav("photos", "/dav/"))
    store.answer = (201, {}, b"")
    ask("PUT", "/dav/a/b.txt", b"12345")
    ask("COPY", "/dav/a/b.txt", destination="http://host/dav/c%20d.txt")
    ask("MOVE", "/dav/a/b.txt", destination="http://host/dav/e.txt")
    ask("MOVE", "/dav/a/b.txt", destination="http://host/elsewhere/e.txt")
    ask("PUT", "/other/a")
    store.answer = (204, {}, b"")
    ask("DELETE", "/dav/a/b.txt")
    store.answer = (207, {}, b"")
    ask("DELETE", "/dav/a/")
    ask("MKCOL", "/dav/x")
    engine.flush()
    assert sorted(taken.told()) == [
        ("ObjectCreated:Copy", "c d.txt"),
        ("ObjectCreated:Put", "a/b.txt"),
        ("ObjectRemoved:Delete", "a/b.txt"),
        ("ObjectRenamed", "e.txt"),
    ]


def test_an_engine_may_come_later_and_intents_be_durable(mine: Mine, by: Callable[..., Ask]) -> None:
    engine, taken = mine
    store = Store()
    by(store, lambda: engine, S3("/s3"), intent="durable", ack="written")("PUT", "/s3/photos/k", b"x")
    engine.flush()
    assert taken.keys() == [b"k"]


def test_a_client_that_goes_away_is_no_success(mine: Mine) -> None:
    engine, taken = mine
    seen: list[str] = []

    async def stalls(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "http":
            await asyncio.sleep(60)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    async def main() -> None:
        application = asgi.Publisher(stalls, engine, S3())
        scope = {"type": "http", "method": "PUT", "path": "/photos/k", "query_string": b"", "headers": []}
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(application(scope, receive, send), 0.05)
        await application({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    assert seen == ["http", "lifespan"]
    assert engine.stats()["reservations"] == 0
    engine.flush()
    assert taken.records == []


def test_a_real_webdav_server_is_a_publisher(mine: Mine, tmp_path: Any) -> None:
    wsgidav = pytest.importorskip("wsgidav.wsgidav_app")
    cheroot = pytest.importorskip("cheroot.wsgi")
    import http.client
    import threading

    engine, taken = mine
    files = tmp_path / "files"
    files.mkdir()
    settings = {"provider_mapping": {"/": str(files)}, "simple_dc": {"user_mapping": {"*": True}}, "verbose": 0}
    application = wsgi.Publisher(wsgidav.WsgiDAVApp(settings), engine, WebDav("photos"))
    server = cheroot.Server(("127.0.0.1", 0), application, numthreads=2)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    port = server.bind_addr[1]
    try:

        def ask(method: str, path: str, body: Optional[bytes] = None, **headers: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status

        base = f"http://127.0.0.1:{port}"
        assert ask("PUT", "/a.txt", b"12345") == 201
        assert ask("PUT", "/no/such/collection.txt", b"1") == 409
        assert ask("COPY", "/a.txt", Destination=base + "/b.txt") == 201
        assert ask("DELETE", "/a.txt") == 204
        assert ask("DELETE", "/a.txt") == 404
    finally:
        server.stop()
        thread.join()
    engine.flush()
    assert sorted(taken.told()) == [
        ("ObjectCreated:Copy", "b.txt"),
        ("ObjectCreated:Put", "a.txt"),
        ("ObjectRemoved:Delete", "a.txt"),
    ]
