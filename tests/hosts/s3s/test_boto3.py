"""Drives the example S3 server with boto3 and compares the records that a webhook gets with what was done.

Usage: test_boto3.py DIRECTORY_OF_PROGRAMS. Each test works in a bucket of its own; the last line is
`N passed, M failed`.
"""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

KEYS = [
    "plain.txt",
    "with space",
    "with+plus",
    "100%",
    "%2F is not a slash",
    "é",
    "e\u0301 decomposed",
    "emoji 🌊🔌",
    "a/b//c",
    "~tilde_-.!*'()",
    "quote\"back\\slash",
    "query?x=1&y=2#z",
    "日本語/キー",
    "long/" + "x" * 100,
]


class Hook(http.server.ThreadingHTTPServer):
    """A webhook that keeps the records it gets."""

    def __init__(self):
        self.records = []
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def of(self, bucket, count, settle=0.3):
        """The records of a bucket, once there are `count` and for a moment no more."""
        mine = lambda: [r for r in self.records if r["s3"]["bucket"]["name"] == bucket]
        with self.changed:
            self.changed.wait_for(lambda: len(mine()) >= count, timeout=20)
        time.sleep(settle)
        records = mine()
        assert len(records) == count, f"{len(records)} records, not {count}: {[summary(r) for r in records]}"
        return records


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.changed:
            self.server.records += body["Records"]
            self.server.changed.notify_all()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def key_of(record):
    return urllib.parse.unquote_plus(record["s3"]["object"]["key"])


def summary(record):
    return record["eventName"], key_of(record)


class Store:
    """The running server."""

    def __init__(self, program, directory, hook):
        (directory / "tidewire.toml").write_text(
            f"""
[engine]
data_dir = "events"
shards = 2
[[destination]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:{hook.server_port}/"
batch = {{ linger = "1ms" }}
[[rule]]
id = "all"
events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
destinations = ["hook"]
"""
        )
        (directory / "host.toml").write_text(
            """
listen = "127.0.0.1:0"
root = "data"
access_key = "AKIDTEST"
secret_key = "not so secret"
tidewire = "tidewire.toml"
"""
        )
        self.process = subprocess.Popen([program, directory / "host.toml"], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on "), line
        self.url = "http://" + line.removeprefix("listening on ")

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="AKIDTEST",
            aws_secret_access_key="not so secret",
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as e:
        got = e.response["Error"]["Code"]
        assert got == code, f"{got}, not {code}"
    else:
        raise AssertionError(f"not refused with {code}")


def test_put_tells_of_every_key_as_it_is(s3, hook, bucket):
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    records = {key_of(r): r for r in hook.of(bucket, len(KEYS))}
    assert sorted(records) == sorted(KEYS), set(KEYS) ^ set(records)
    for key, record in records.items():
        assert record["eventName"] == "ObjectCreated:Put"
        assert record["s3"]["object"]["size"] == len(key.encode()), key


def test_put_tells_what_the_object_is_and_who_made_it(s3, hook, bucket):
    answer = s3.put_object(
        Bucket=bucket, Key="k", Body=b"hello", ContentType="text/x-test", Metadata={"colour": "blue", "n": "1"}
    )
    (record,) = hook.of(bucket, 1)
    thing = record["s3"]["object"]
    assert thing["size"] == 5
    assert thing["eTag"] == answer["ETag"].strip('"') == "5d41402abc4b2a76b9719d911017c592"
    assert thing["contentType"] == "text/x-test"
    assert thing["userMetadata"] == {"colour": "blue", "n": "1"}
    assert record["userIdentity"]["principalId"] == "AKIDTEST"
    assert record["requestParameters"]["sourceIPAddress"] == "127.0.0.1"
    assert record["responseElements"]["x-amz-request-id"] == answer["ResponseMetadata"]["RequestId"]
    assert record["s3"]["configurationId"] == "all"


def test_overwriting_one_key_keeps_the_order(s3, hook, bucket):
    for n in range(30):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x" * n)
    records = hook.of(bucket, 30)
    assert [r["s3"]["object"]["size"] for r in records] == list(range(30))
    sequencers = [r["s3"]["object"]["sequencer"] for r in records]
    assert sequencers == sorted(set(sequencers))


def test_many_clients_of_one_key_end_with_the_event_of_its_last_state(s3, hook, bucket):
    def work(thread):
        client = STORE.client()
        for n in range(10):
            client.put_object(Bucket=bucket, Key="k", Body=b"x" * (thread * 10 + n))

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    records = sorted(hook.of(bucket, 40), key=lambda r: r["s3"]["object"]["sequencer"])
    assert records[-1]["s3"]["object"]["size"] == s3.head_object(Bucket=bucket, Key="k")["ContentLength"]


def test_copy_tells_of_the_new_object(s3, hook, bucket):
    s3.put_object(Bucket=bucket, Key="from here", Body=b"12345")
    s3.copy_object(Bucket=bucket, Key="to/thère +1", CopySource={"Bucket": bucket, "Key": "from here"})
    records = hook.of(bucket, 2)
    assert sorted(map(summary, records)) == [
        ("ObjectCreated:Copy", "to/thère +1"),
        ("ObjectCreated:Put", "from here"),
    ]
    assert all(r["s3"]["object"]["size"] == 5 for r in records)


def test_multipart_tells_once_at_the_end(s3, hook, bucket):
    key, part = "big file (1).bin", b"p" * (5 << 20)
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, body in enumerate([part, part, b"end"], 1):
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    hook.of(bucket, 0)
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    (record,) = hook.of(bucket, 1)
    assert summary(record) == ("ObjectCreated:CompleteMultipartUpload", key)
    assert record["s3"]["object"]["size"] == 2 * len(part) + 3
    assert record["s3"]["object"]["eTag"] == s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')


def test_an_aborted_upload_tells_nothing(s3, hook, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    hook.of(bucket, 0)


def test_delete_comes_after_put(s3, hook, bucket):
    for key in ("a b", "c+d"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        s3.delete_object(Bucket=bucket, Key=key)
    records = hook.of(bucket, 4)
    for key in ("a b", "c+d"):
        names = [r["eventName"] for r in records if key_of(r) == key]
        assert names == ["ObjectCreated:Put", "ObjectRemoved:Delete"], names
    removed = [r for r in records if r["eventName"] == "ObjectRemoved:Delete"]
    assert all("size" not in r["s3"]["object"] for r in removed)


def test_deleting_many_tells_of_each(s3, hook, bucket):
    keys = [f"dir/{n} é" for n in range(20)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys]})
    records = hook.of(bucket, 40)
    assert sorted(key_of(r) for r in records if r["eventName"] == "ObjectRemoved:Delete") == sorted(keys)


def test_reading_tells_nothing(s3, hook, bucket):
    s3.put_object(Bucket=bucket, Key="dir/k", Body=b"hello")
    hook.of(bucket, 1)
    assert s3.get_object(Bucket=bucket, Key="dir/k")["Body"].read() == b"hello"
    assert s3.head_object(Bucket=bucket, Key="dir/k")["ContentLength"] == 5
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["dir/k"]
    assert [o["Key"] for o in s3.list_objects(Bucket=bucket, Prefix="dir/")["Contents"]] == ["dir/k"]
    assert bucket in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    hook.of(bucket, 1)


def test_what_fails_tells_nothing(s3, hook, bucket):
    before = len(hook.records)
    missing = bucket + "-missing"
    refused("NoSuchBucket", s3.put_object, Bucket=missing, Key="k", Body=b"x")
    refused("NoSuchBucket", s3.delete_object, Bucket=missing, Key="k")
    refused("NoSuchBucket", s3.delete_objects, Bucket=missing, Delete={"Objects": [{"Key": "k"}]})
    refused("NoSuchKey", s3.copy_object, Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "none"})
    refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="none")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    hook.of(bucket, 1)
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="k", Body=b"y", IfNoneMatch="*")
    refused("BadDigest", s3.put_object, Bucket=bucket, Key="m", Body=b"y", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    hook.of(bucket, 1)
    assert len(hook.records) == before + 1, [summary(r) for r in hook.records[before:]]


STORE = None


def main():
    global STORE
    programs = pathlib.Path(sys.argv[1])
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    passed = failed = 0
    hook = Hook()
    # A proxy of the environment is not for these.
    os.environ["no_proxy"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as directory:
        STORE = Store(programs / "tidewire-s3-host", pathlib.Path(directory), hook)
        try:
            for number, (name, test) in enumerate(tests):
                bucket = f"bucket-{number}"
                try:
                    s3 = STORE.client()
                    s3.create_bucket(Bucket=bucket)
                    test(s3, hook, bucket)
                    print(f"ok      {name}")
                    passed += 1
                except Exception:
                    print(f"FAILED  {name}")
                    traceback.print_exc(file=sys.stdout)
                    failed += 1
        finally:
            code = STORE.stop()
        if code == 0:
            passed += 1
            print("ok      stops when told to")
        else:
            failed += 1
            print(f"FAILED  the server ended with {code}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
