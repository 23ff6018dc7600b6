"""The receiver's side, against what the engine sends."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Mine, Open
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import threading
from collections.abc import Iterator

import tidewire
from tidewire import EventType
from tidewire.receive import (
    GitHub,
    Hmac,
    InvalidRecord,
    InvalidSignature,
    Latest,
    Received,
    Receiver,
    Repeats,
    StandardWebhooks,
    compare_sequencers,
    read,
)

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = "a b+é/ü.jpg"


@pytest.fixture
def requests() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """The address of a receiver, and what it was sent."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/", got
    http.shutdown()
    thread.join()
    http.server_close()


PROFILES = {
    "aws": "s3:ObjectCreated:Put",
    "minio": "s3:ObjectCreated:Put",
    "ceph": "s3:ObjectCreated:Put",
    "eventbridge": "Object Created",
    "gcs": "OBJECT_FINALIZE",
    "azure": "Microsoft.Storage.BlobCreated",
    "cloudevents": "s3:ObjectCreated:Put",
    "cloudevents-structured": "s3:ObjectCreated:Put",
    "cloudevents-binary": "s3:ObjectCreated:Put",
    "debezium": "s3:ObjectCreated:Put",
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("key", [KEY, b"\xff\x00 raw"], ids=["text", "bytes"])
def test_every_profile_is_read(open_mine: Callable[..., Mine], profile: str, key: Any) -> None:
    engine, _ = open_mine(destination=f'profile = "{profile}"')
    got: list[Received] = []
    ids: list[str] = []

    def take(batch: tidewire.Batch) -> None:
        got.extend(read({"Content-Type": batch.content_type, **dict(batch.headers)}, batch.body()))
        ids.extend(batch.ids)

    engine.set_handler("mine", take)
    for size in (1, 2):
        engine.publish("photos", key, size=size)
    engine.flush()
    # An id of EventBridge is a UUID.
    assert len({r.id for r in got}) == 2 and (profile == "eventbridge" or [r.id for r in got] == ids)
    raw = key.encode() if isinstance(key, str) else key
    if profile == "eventbridge":
        # Its key is text, and has U+FFFD for what is none.
        raw = raw.decode(errors="replace").encode()
    assert {(r.event_type, r.bucket, r.key) for r in got} == {(PROFILES[profile], "photos", raw)}
    first, second = got
    if profile != "gcs":
        assert len(first.sequencer) == 32
    assert compare_sequencers(first.sequencer, second.sequencer) < 0


@pytest.mark.parametrize("profile", ["aws", "minio", "ceph", "eventbridge", "cloudevents", "debezium"])
def test_lines_are_read(open_mine: Callable[..., Mine], profile: str) -> None:
    engine, _ = open_mine(destination=f'profile = "{profile}"\nencoding = "ndjson"')
    keys: list[bytes] = []
    engine.set_handler("mine", lambda b: keys.extend(r.key for r in read({"content-type": b.content_type}, b.body())))
    engine.publish_many([tidewire.Event("photos", f"k{i}") for i in range(20)])
    engine.flush()
    assert sorted(keys) == sorted(f"k{i}".encode() for i in range(20))


Requests = tuple[str, list[tuple[dict[str, str], bytes]]]


def test_signatures_of_the_engine_are_verified(open_engine: Open, requests: Requests) -> None:
    url, got = requests
    engine = open_engine(url, destination=f'auth = {{ scheme = "standard-webhooks", secret = "{SECRET}" }}')
    engine.publish("photos", KEY)
    engine.flush()
    headers, body = got[0]
    receiver = Receiver(StandardWebhooks(["whsec_" + base64.b64encode(b"x" * 32).decode(), SECRET]))
    [event] = receiver.take(headers, body)
    assert event.key == KEY.encode()
    receiver.done(event)
    assert receiver.take(headers, body) == []
    for changed in (body + b" ", body.replace(b"photos", b"other!")):
        with pytest.raises(InvalidSignature, match="no signature fits"):
            receiver.take(headers, changed)
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        with pytest.raises(InvalidSignature, match=name):
            receiver.take({n: v for n, v in headers.items() if n.lower() != name}, body)
    with pytest.raises(InvalidSignature, match="from now"):
        receiver.take(headers, body, now=0)
    with pytest.raises(InvalidSignature, match="no number"):
        receiver.take({**headers, "webhook-timestamp": "١٢٣"}, body)


def test_public_keys_verify_too(open_engine: Open, requests: Requests) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    url, got = requests
    private = bytes(range(32))
    public = ed25519.Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    key = "whsk_" + base64.b64encode(private).decode()
    engine = open_engine(url, destination=f'auth = {{ scheme = "standard-webhooks", secret = "{key}" }}')
    engine.publish("photos", KEY)
    engine.flush()
    verifier = StandardWebhooks("whpk_" + base64.b64encode(public).decode())
    verifier.verify(*got[0])
    with pytest.raises(InvalidSignature):
        verifier.verify(got[0][0], got[0][1] + b" ")
    with pytest.raises(InvalidSignature):
        StandardWebhooks(SECRET).verify(*got[0])


@pytest.mark.parametrize(
    "auth, verifier",
    [
        ('{ scheme = "github", secret = "s" }', GitHub("s")),
        ('{ scheme = "hmac", header = "X-Sign", secret = "s" }', Hmac("s", header="x-sign")),
        (
            '{ scheme = "hmac", header = "X-S", prefix = "v0=", algorithm = "sha512", encoding = "base64", '
            'timestamp_header = "X-T", timestamp_separator = ":", secret = "s" }',
            Hmac(
                ["other", b"s"],
                header="X-S",
                prefix="v0=",
                algorithm="sha512",
                encoding="base64",
                timestamp_header="X-T",
                timestamp_separator=":",
            ),
        ),
    ],
    ids=["github", "hmac", "hmac with time"],
)
def test_keyed_hashes_are_verified(open_engine: Open, requests: Requests, auth: str, verifier: Any) -> None:
    url, got = requests
    engine = open_engine(url, destination=f"auth = {auth}")
    engine.publish("photos", KEY)
    engine.flush()
    headers, body = got[0]
    verifier.verify(headers, body)
    with pytest.raises(InvalidSignature):
        verifier.verify(headers, body + b" ")
    with pytest.raises(InvalidSignature):
        verifier.verify({}, body)
    name = next(n for n in headers if n.lower() in ("x-hub-signature-256", "x-sign", "x-s"))
    for wrong in ("", "sha256=zz", "v0=!", "é"):
        with pytest.raises(InvalidSignature):
            verifier.verify({**headers, name: wrong}, body)


def test_secrets_that_are_none_are_refused() -> None:
    wrongs: list[Any] = ["whsec_!", "whpk_AAAA", []]
    for wrong in wrongs:
        with pytest.raises((ValueError, ModuleNotFoundError)):
            StandardWebhooks(wrong)
    with pytest.raises(ValueError, match="algorithm"):
        Hmac("s", header="h", algorithm="md5")
    with pytest.raises(ValueError, match="encoding"):
        Hmac("s", header="h", encoding="base32")
    with pytest.raises(ValueError, match="no secret"):
        Hmac([], header="h")


def test_compressed_bodies_are_unpacked_within_bounds(open_engine: Open, requests: Requests) -> None:
    url, got = requests
    compression = 'compression = { algorithm = "gzip", bytes_min = "1B" }'
    engine = open_engine(url, destination=f'auth = {{ scheme = "github", secret = "s" }}\n{compression}')
    engine.publish("photos", KEY, metadata={"m": "x" * 2000})
    engine.flush()
    headers, body = got[0]
    assert headers["Content-Encoding"] == "gzip"
    [event] = Receiver(GitHub("s")).take(headers, body)
    assert event.key == KEY.encode()
    bomb = gzip.compress(b"[" + b" " * (65 << 20))
    for encoding, wrong in [("gzip", body[:-9]), ("gzip", b"x"), ("gzip", bomb), ("br", body)]:
        with pytest.raises(InvalidRecord):
            read({"content-encoding": encoding}, wrong)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"5", b'"x"', b"{}", b"[5]", b"\xff", b'{"Records":5}', b'{"Records":[{}]}', b'{"Records":[{"s3":{}}]}']
    + [b"[" * 100_000, b'{"specversion":"1.0"}', b'{"op":"c","source":{}}', b'{"message":{"attributes":{}}}'],
)
def test_what_is_no_record_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(InvalidRecord):
        read({}, body)


def test_a_test_of_s3_has_no_events() -> None:
    assert read({}, b'{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}') == []


def test_records_of_s3_itself_are_read() -> None:
    record = {
        "eventName": "ObjectRemoved:Delete",
        "eventSource": "aws:s3",
        "responseElements": {"x-amz-request-id": "R"},
        "s3": {"bucket": {"name": "b"}, "object": {"key": "red+flower%2Bx.jpg", "sequencer": "0055AED6DCD90281E5"}},
    }
    [event] = read({}, json.dumps({"Records": [record]}).encode())
    assert event[:5] == ("R", EventType.OBJECT_REMOVED_DELETE, "b", b"red flower+x.jpg", "0055AED6DCD90281E5")


def test_sequencers_are_compared_as_numbers() -> None:
    assert compare_sequencers("0A", "9") > 0 and compare_sequencers("a", "0A") == 0 and compare_sequencers("1", "F0") < 0
    for wrong in ("", "xyz", "0x1", "-1", "1" * 65, "١"):
        with pytest.raises(ValueError, match="sequencer"):
            compare_sequencers(wrong, "1")


def test_repeats_are_known_up_to_a_number() -> None:
    repeats = Repeats(3)
    assert [repeats.add(x) for x in "abcab"] == [True, True, True, False, False]
    assert repeats.add("d") and "c" not in repeats and "a" in repeats and len(repeats) == 3
    with pytest.raises(ValueError):
        Repeats(0)


def test_an_older_event_is_known_from_a_newer_one() -> None:
    def event(key: bytes, sequencer: str) -> Received:
        return Received("id", "t", "b", key, sequencer, {})

    latest = Latest(2)
    assert latest.add(event(b"k", "05")) and latest.add(event(b"k", "06")) and latest.add(event(b"k", "06"))
    assert not latest.add(event(b"k", "05")) and latest.is_stale(event(b"k", "04"))
    assert latest.add(event(b"other", "01")) and latest.add(event(b"k", ""))
    assert latest.add(event(b"third", "01"))
    assert latest.add(event(b"k", "01")), "the key that was not heard of for longest was forgotten"
    with pytest.raises(ValueError):
        Latest(0)


def test_repeats_within_a_request_are_left_out() -> None:
    record = {"eventName": "ObjectCreated:Put", "eventId": "1", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}
    body = json.dumps({"Records": [record, record, {**record, "eventId": "2"}]}).encode()
    assert [e.id for e in Receiver(None).take({}, body)] == ["1", "2"]


def test_a_known_vector_of_standard_webhooks() -> None:
    """Made here with the standard library alone, after the text of Standard Webhooks 1.0.0."""
    body = b'{"test": 2432232314}'
    signed = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330." + body
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    headers = {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330"}
    headers["webhook-signature"] = "v1a,AAAA v2,x " + signature
    StandardWebhooks("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").verify(headers, body, now=1614265340)
