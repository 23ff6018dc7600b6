"""Runs the command with the formats, compressions and encryptions of records, and reads what a receiver gets with libraries
that receivers use.

Usage: test_formats.py DIRECTORY_OF_PROGRAMS. The last line is `N passed, M failed`.
"""

import base64
import gzip
import hashlib
import hmac
import json
import pathlib
import sys
import urllib.parse
import xml.etree.ElementTree as xml

import http_ece
import zstandard
from azure.eventgrid import EventGridEvent
from cloudevents.http import from_http
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from jwcrypto import jwe, jwk

import test_auth
from test_auth import Command, Receiver, fails

SECRET = "It's a Secret"
GITHUB = f'{{ scheme = "github", secret = "{SECRET}" }}'
KEYS = ["a", "é b%\"", "dir/c"]


def sent(more, keys=KEYS, requests=1, auth=GITHUB, **options):
    """The requests that come for events with these keys. The signature of each is of the bytes that came."""
    receiver = Receiver()
    with Command(receiver.url, f"{auth}\n{more}", **options) as command:
        command.publish(*keys)
        got = list(receiver.wait(requests))
    for request in got:
        digest = hmac.new(SECRET.encode(), request.body, hashlib.sha256).hexdigest()
        assert request.headers["X-Hub-Signature-256"] == f"sha256={digest}", "another body was signed"
    return got


def test_cloudevents_in_binary_mode():
    got = sent('profile = "cloudevents-binary"', requests=3)
    events = [from_http(dict(r.headers), r.body) for r in got]
    # The SDK leaves the encoding of header values to its users.
    subjects = sorted(urllib.parse.unquote(e["subject"]) for e in events)
    assert subjects == sorted(KEYS), subjects
    for event in events:
        assert event["type"] == "com.amazonaws.s3.ObjectCreated:Put" and event["specversion"] == "1.0"
        assert event["partitionkey"] == f"b/{event['subject']}"
        assert event.data["s3"]["bucket"]["name"] == "b"


def test_cloudevents_in_structured_mode():
    got = sent('profile = "cloudevents-structured"', requests=3)
    assert all(r.headers["Content-Type"] == "application/cloudevents+json" for r in got)
    events = [from_http(dict(r.headers), r.body) for r in got]
    assert sorted(e["subject"] for e in events) == sorted(KEYS)


def test_cloudevents_in_xml():
    got = sent('profile = "cloudevents"\nencoding = "xml"')
    ce = "{http://cloudevents.io/xmlformat/V1}"
    events = xml.fromstring(got[0].body).findall(f"{ce}event")
    assert got[0].headers["Content-Type"] == "application/cloudevents-batch+xml"
    assert events and events[0].find(f"{ce}subject").text in KEYS
    assert json.loads(events[0].find(f"{ce}data").text)["s3"]["bucket"]["name"] == "b"


def test_event_grid():
    got = sent('profile = "azure"')
    assert got[0].headers["aeg-event-type"] == "Notification"
    for event in json.loads(got[0].body):
        read = EventGridEvent.from_json(json.dumps(event))
        assert read.event_type == "Microsoft.Storage.BlobCreated"
        assert read.subject.startswith("/blobServices/default/containers/b/blobs/")
        assert read.data["api"] == "PutBlob" and read.event_time.year > 2020


def test_json_lines():
    got = sent('encoding = "ndjson"')
    assert got[0].headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in got[0].body.decode().splitlines()]
    assert all(line["s3"]["bucket"]["name"] == "b" for line in lines)


def test_compression():
    keys = [f"{n:04}" * 40 for n in range(5)]
    for name, undo in [("gzip", gzip.decompress), ("zstd", zstandard.ZstdDecompressor().decompressobj().decompress)]:
        got = sent(f'compression = {{ algorithm = "{name}", bytes_min = 100 }}', keys)
        assert got[0].headers["Content-Encoding"] == name, dict(got[0].headers)
        assert int(got[0].headers["Content-Length"]) == len(got[0].body)
        assert json.loads(undo(got[0].body))["Records"][0]["s3"]["bucket"]["name"] == "b"
    small = sent('compression = { algorithm = "gzip", bytes_min = "1MiB" }')
    assert small[0].headers["Content-Encoding"] is None and json.loads(small[0].body)["Records"]


def public(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def text(secret):
    return json.dumps(secret)


def test_jwe():
    shared = bytes(range(32))
    pairs = {
        "RSA-OAEP-256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ECDH-ES+A256KW": ec.generate_private_key(ec.SECP256R1()),
        "X": x25519.X25519PrivateKey.generate(),
    }
    cases = [("dir", base64.b64encode(shared).decode(), jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(shared).decode())),
             ("A256KW", base64.b64encode(shared).decode(), jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(shared).decode()))]
    for name, pair in pairs.items():
        private = jwk.JWK.from_pyca(pair)
        algorithm = "ECDH-ES+A256KW" if name == "X" else name
        cases += [(algorithm, public(pair), private), (algorithm, private.export_public(), private)]
    for algorithm, secret, key in cases:
        for compression in ["", 'compression = { algorithm = "gzip", bytes_min = 0 }']:
            got = sent(
                f'encryption = {{ scheme = "jwe", algorithm = "{algorithm}", '
                f'secret = {{ text = {text(secret)}, id = "k1" }} }}\n{compression}'
            )
            assert got[0].headers["Content-Type"] == "application/jose"
            assert got[0].headers["Content-Encoding"] is None
            token = jwe.JWE(algs=[algorithm, "A256GCM"])
            token.deserialize(got[0].body.decode(), key)
            header = token.jose_header
            assert (header["kid"], header["cty"], header.get("zip")) == (
                "k1", "application/json", "DEF" if compression else None), header
            assert json.loads(token.payload)["Records"][0]["s3"]["bucket"]["name"] == "b"
            changed = got[0].body.replace(b".", b".A", 1) if algorithm != "dir" else got[0].body[:-4] + b"AAAA"
            fails("another token", lambda: jwe.JWE().deserialize(changed.decode(), key))


def test_aes128gcm():
    key = bytes(range(16))
    for record_bytes in [18, 100, 4096]:
        for compression, undo in [("", bytes), ('compression = { algorithm = "gzip", bytes_min = 0 }', gzip.decompress)]:
            got = sent(
                f'encryption = {{ scheme = "aes128gcm", record_bytes = {record_bytes}, '
                f'secret = {{ text = "{base64.b64encode(key).decode()}", id = "k1" }} }}\n{compression}'
            )
            encoding = "gzip, aes128gcm" if compression else "aes128gcm"
            assert got[0].headers["Content-Encoding"] == encoding, dict(got[0].headers)
            body = http_ece.decrypt(got[0].body, key=key)
            assert json.loads(undo(body))["Records"][0]["s3"]["bucket"]["name"] == "b"
            fails("another key", lambda: http_ece.decrypt(got[0].body, key=bytes(16)))


def test_templates():
    got = sent(
        'template = { text = "{\\"text\\": {{ \'New: \' ~ event.key }}}" }\n'
        'header_templates = { X-Key = "{{ event.bucket }}/{{ event.key }}" }',
        requests=3,
    )
    assert sorted(json.loads(r.body)["text"] for r in got) == sorted(f"New: {k}" for k in KEYS)
    assert {r.headers["X-Key"] for r in got} == {"b/a", "b/%C3%A9%20b%25%22", "b/dir/c"}


def main():
    test_auth.PROGRAMS = pathlib.Path(sys.argv[1])
    return test_auth.main(globals())


if __name__ == "__main__":
    sys.exit(main())
