"""A real Swift with its real client: each operation gives exactly the right records."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from conftest import Server, until
from swift_all_in_one import Swift

CONFIG = """
[engine]
shards = 1
close_timeout = "2s"

[[destination]]
name = "hook"
type = "webhook"
url = "{url}"
batch.linger = "0ms"
retry.backoff_min = "10ms"
profile = "aws"

[[destination]]
name = "containers"
type = "webhook"
url = "{url}containers"
profile = "cloudevents"
batch.linger = "0ms"

[[rule]]
id = "objects"
events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectMetadata:*"]
destinations = ["hook"]

[[rule]]
id = "containers"
events = ["s3:BucketCreated", "s3:BucketRemoved"]
destinations = ["containers"]
"""


class Told:
    """What has come, and what is still unread of it."""

    def __init__(self, server: Server) -> None:
        self.server, self.read = server, 0

    def next(self, count: int) -> list[tuple[Any, ...]]:
        """The next records, sorted: type, container, key, size. Waits a moment for more than were expected."""
        records = self.records(count)
        return sorted(
            (
                r["eventName"],
                r["s3"]["bucket"]["name"],
                urllib.parse.unquote_plus(r["s3"]["object"]["key"]),
                r["s3"]["object"].get("size"),
            )
            for r in records
        )

    def records(self, count: int) -> list[dict[str, Any]]:
        until(lambda: len(self.all()) >= self.read + count, 30)
        time.sleep(0.3)
        records = self.all()[self.read :]
        self.read += len(records)
        return records

    def all(self) -> list[dict[str, Any]]:
        with self.server.lock:
            return [r for r in self.server.records if isinstance(r, dict) and "s3" in r]

    def containers(self) -> list[tuple[str, str]]:
        with self.server.lock:
            found: list[dict[str, Any]] = [e for r in self.server.records if isinstance(r, list) for e in r]
        return [(e["type"].rpartition(".")[2], e["data"]["bucket"]) for e in found]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def swift(receiver: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    swift = Swift(tmp_path_factory.mktemp("swift"), CONFIG.format(url=receiver.url))
    yield swift
    swift.stop()


@pytest.fixture
def told(receiver: Server) -> Told:
    told = Told(receiver)
    told.read = len(told.all())
    return told


def ok(done: Any) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def ask(swift: Swift, method: str, path: str, body: Optional[bytes] = None, **headers: str) -> tuple[int, dict[str, str]]:
    """A request of one's own, as the tester."""
    auth = urllib.request.Request(f"{swift.url}/auth/v1.0", headers={"X-Auth-User": "test:tester", "X-Auth-Key": "testing"})
    with urllib.request.urlopen(auth, timeout=30) as answer:
        token, storage = answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]
    named = {n.replace("_", "-"): v for n, v in headers.items()}
    request = urllib.request.Request(storage + path, body, {"X-Auth-Token": token, **named}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers)


def test_the_client_uploads_posts_copies_and_deletes(swift: Swift, told: Told, tmp_path: Path) -> None:
    (tmp_path / "tom 1.jpg").write_bytes(b"12345")
    ok(swift.client("upload", "photos", "tom 1.jpg", "-H", "X-Object-Meta-Color: red", cwd=tmp_path))
    [record] = told.records(1)
    thing = record["s3"]["object"]
    assert (record["eventName"], record["s3"]["bucket"]["name"], thing["key"]) == ("ObjectCreated:Put", "photos", "tom+1.jpg")
    assert (thing["size"], thing["eTag"]) == (5, "827ccb0eea8a706c4c34a16891f84e7b")
    assert thing["userMetadata"]["color"] == "red"
    assert record["userIdentity"] == {"principalId": "test:tester"} or record["userIdentity"]["principalId"].startswith("test")
    assert record["s3"]["bucket"]["ownerIdentity"] == {"principalId": "AUTH_test"}
    assert record["responseElements"]["x-amz-request-id"].startswith("tx")
    ok(swift.client("post", "photos", "tom 1.jpg", "-m", "color:blue", cwd=tmp_path))
    ok(swift.client("copy", "photos", "tom 1.jpg", "-d", "/photos/copy.jpg", cwd=tmp_path))
    ok(swift.client("delete", "photos", "tom 1.jpg", cwd=tmp_path))
    assert told.next(3) == [
        ("ObjectCreated:Copy", "photos", "copy.jpg", None),
        ("ObjectMetadata:Put", "photos", "tom 1.jpg", None),
        ("ObjectRemoved:Delete", "photos", "tom 1.jpg", None),
    ]
    assert ("BucketCreated", "photos") in told.containers()


def test_a_container_is_made_once_and_removed(swift: Swift, told: Told, tmp_path: Path) -> None:
    ok(swift.client("post", "once", cwd=tmp_path))
    ok(swift.client("post", "once", "-m", "a:b", cwd=tmp_path))
    assert ask(swift, "PUT", "/once")[0] == 202
    assert ask(swift, "DELETE", "/once")[0] == 204
    assert ask(swift, "DELETE", "/once")[0] == 404
    until(lambda: ("BucketRemoved", "once") in told.containers(), 30)
    time.sleep(0.3)
    assert [c for c in told.containers() if c[1] == "once"] == [("BucketCreated", "once"), ("BucketRemoved", "once")]


def test_a_large_upload_is_its_segments_and_a_manifest(swift: Swift, told: Told, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 2_500_000)
    ok(swift.client("upload", "photos", "big", "--use-slo", "--segment-size", "1000000", cwd=tmp_path))
    found = told.next(4)
    segments = [f for f in found if f[1] == "photos_segments"]
    assert sorted(f[3] for f in segments) == [500_000, 1_000_000, 1_000_000]
    assert {f[0] for f in segments} == {"ObjectCreated:Put"}
    assert [f for f in found if f[1] == "photos"] == [("ObjectCreated:CompleteMultipartUpload", "photos", "big", None)]
    ok(swift.client("delete", "photos", "big", cwd=tmp_path))
    assert ("ObjectRemoved:Delete", "photos", "big", None) in told.next(1)
    ok(swift.client("upload", "photos", "big", "--use-dlo", "--segment-size", "1000000", cwd=tmp_path))
    found = told.next(4)
    assert ("ObjectCreated:CompleteMultipartUpload", "photos", "big", None) in found and len(found) == 4


def test_a_manifest_may_take_long_or_fail(swift: Swift, told: Told) -> None:
    assert ask(swift, "PUT", "/photos/part", b"x" * 100)[0] == 201
    told.next(1)
    good = json.dumps([{"path": "/photos/part"}]).encode()
    status, _ = ask(swift, "PUT", "/photos/slo?multipart-manifest=put&heartbeat=on", good)
    assert status == 202
    [record] = told.records(1)
    assert (record["eventName"], len(record["s3"]["object"]["eTag"])) == ("ObjectCreated:CompleteMultipartUpload", 32)
    wrong = json.dumps([{"path": "/photos/part", "etag": "0" * 32}]).encode()
    assert ask(swift, "PUT", "/photos/bad?multipart-manifest=put&heartbeat=on", wrong)[0] == 202
    assert ask(swift, "PUT", "/photos/bad?multipart-manifest=put", wrong)[0] == 400
    assert ask(swift, "PUT", "/photos/bad?multipart-manifest=put", b"no JSON")[0] == 400
    assert told.next(0) == []


def test_a_put_that_fails_is_not_told(swift: Swift, told: Told, tmp_path: Path) -> None:
    assert ask(swift, "PUT", "/photos/k", b"x", ETag="0" * 32)[0] == 422
    assert ask(swift, "PUT", "/nowhere/k", b"x")[0] == 404
    assert ask(swift, "POST", "/photos/nothing", X_Object_Meta_A="b")[0] == 404
    assert ask(swift, "DELETE", "/photos/nothing")[0] == 404
    assert ask(swift, "COPY", "/photos/nothing", Destination="/photos/x")[0] == 404
    request = urllib.request.Request(f"{swift.url}/v1/AUTH_test/photos/k", b"x", method="PUT")
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request, timeout=30)
    assert e.value.code == 401
    e.value.close()
    (tmp_path / "f").write_bytes(b"x")
    assert swift.client("upload", "y" * 300, "f", cwd=tmp_path).returncode != 0
    assert told.next(0) == []


def test_copies_and_chunks_and_keys_of_every_kind(swift: Swift, told: Told) -> None:
    assert ask(swift, "PUT", "/photos/%C3%BC%20%2B%25", b"123")[0] == 201
    assert ask(swift, "PUT", "/photos/to", X_Copy_From="/photos/%C3%BC%20%2B%25", Content_Length="0")[0] == 201
    assert ask(swift, "COPY", "/photos/to", Destination="/photos/a%20b")[0] == 201
    assert told.next(3) == [
        ("ObjectCreated:Copy", "photos", "a b", None),
        ("ObjectCreated:Copy", "photos", "to", None),
        ("ObjectCreated:Put", "photos", "ü +%", 3),
    ]
    assert ask(swift, "PUT", "/photos/chunks", iter([b"12", b"345"]))[0] == 201  # type: ignore[arg-type]
    assert told.next(1) == [("ObjectCreated:Put", "photos", "chunks", 5)]


def test_versions_leave_markers(swift: Swift, told: Told) -> None:
    assert ask(swift, "PUT", "/versions", X_Versions_Enabled="true")[0] == 201
    _, headers = ask(swift, "PUT", "/versions/k", b"1")
    version = headers["X-Object-Version-Id"]
    _, headers = ask(swift, "DELETE", "/versions/k")
    marker = headers["X-Object-Version-Id"]
    assert ask(swift, "DELETE", f"/versions/k?version-id={version}")[0] == 204
    records = told.records(3)
    found = [(r["eventName"], r["s3"]["object"]["versionId"]) for r in records]
    assert found == [
        ("ObjectCreated:Put", version),
        ("ObjectRemoved:DeleteMarkerCreated", marker),
        ("ObjectRemoved:Delete", version),
    ]


def test_many_are_deleted_at_once(swift: Swift, told: Told) -> None:
    for n in range(3):
        assert ask(swift, "PUT", f"/photos/many{n}", b"x")[0] == 201
    told.next(3)
    names = b"".join(b"photos/many%d\n" % n for n in range(4))
    assert ask(swift, "POST", "?bulk-delete", names, Content_Type="text/plain")[0] == 200
    assert told.next(3) == [("ObjectRemoved:Delete", "photos", f"many{n}", None) for n in range(3)]


def test_each_worker_has_an_engine(receiver: Server, tmp_path: Path) -> None:
    told = Told(receiver)
    told.read = len(told.all())
    swift = Swift(tmp_path / "swift", CONFIG.format(url=receiver.url), workers=2)
    try:
        assert ask(swift, "PUT", "/workers")[0] == 201
        for n in range(30):
            assert ask(swift, "PUT", f"/workers/k{n}", b"x")[0] == 201
        assert [f[2] for f in told.next(30)] == sorted(f"k{n}" for n in range(30))
        assert (tmp_path / "swift" / "tidewire" / "worker-0").is_dir()
    finally:
        swift.stop()
