"""Runs the command with credentials of every scheme, and verifies what a receiver gets with libraries that receivers use.

Usage: test_auth.py DIRECTORY_OF_PROGRAMS. The last line is `N passed, M failed`.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import jwt
import standardwebhooks
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import WAIT, Receiver, main  # noqa: E402

SECRETS = ["whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3)]


class Command:
    """`tidewire run` with one destination."""

    def __init__(self, url, auth, *, path="/hook?x=1", environment=None, shards=1):
        self.dir = tempfile.TemporaryDirectory()
        root = pathlib.Path(self.dir.name)
        (root / "t.toml").write_text(
            f"""
[engine]
data_dir = "data"
shards = {shards}
close_timeout = "1s"
[[source]]
type = "http"
listen = "127.0.0.1:0"
[[destination]]
name = "hook"
type = "webhook"
url = "{url}{path}"
batch = {{ events_max = 5, linger = "20ms" }}
retry = {{ backoff_min = "1200ms", backoff_max = "1200ms" }}
auth = {auth}
[[rule]]
id = "all"
events = ["*"]
destinations = ["hook"]
"""
        )
        for name, contents in FILES.items():
            (root / name).write_bytes(contents)
        self.log = open(root / "log", "w+b")
        self.process = subprocess.Popen(
            [PROGRAMS / "tidewire", "run", "--config", root / "t.toml"],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "TIDEWIRE_LOG": "debug", **(environment or {})},
        )
        self.address = None
        for line in self.process.stdout:
            text = line.decode()
            if "listening on" in text:
                self.address = text.split()[-1]
            if text.startswith("tidewire: ready"):
                break
        assert self.address, self.logged()

    def publish(self, *keys):
        lines = [json.dumps({"type": "s3:ObjectCreated:Put", "bucket": "b", "key": k, "size": 1}) for k in keys]
        request = urllib.request.Request(f"{self.address}/v1/events", "\n".join(lines).encode(), method="POST")
        request.add_header("Content-Type", "application/x-ndjson")
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            assert answer.status < 300, answer.status

    def logged(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        logged = self.logged()
        for secret in HIDDEN:
            assert secret not in logged, f"a secret is in the log: {logged}"
        self.process.stdout.close()
        self.log.close()
        self.dir.cleanup()


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


KEYS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
}
ACCOUNT = {"type": "service_account", "private_key": pem(KEYS["rsa"]).decode(), "private_key_id": "k1",
           "client_email": "me@project.example"}
FILES = {f"{name}.pem": pem(key) for name, key in KEYS.items()} | {"account.json": json.dumps(ACCOUNT).encode()}
HIDDEN = SECRETS + ["hunter2", "s3cr3t-token"] + [pem(k).decode().splitlines()[1] for k in KEYS.values()]


def one(auth, **options):
    """The request that comes for two events."""
    receiver = Receiver()
    with Command(receiver.url, auth, **options) as command:
        command.publish("a", "é b")
        return receiver.wait(1)[0]


def fails(what, do):
    try:
        do()
    except Exception:
        return
    raise AssertionError(f"{what} is taken for good")


def test_standard_webhooks():
    # Attempts fail until one has another time than the first, and so another signature. Jitter may make the first few
    # retries come within the second of the first attempt.
    TIME = "webhook-timestamp"

    def answer(request):
        later = receiver.requests and receiver.requests[0].headers[TIME] != request.headers[TIME]
        return (204, b"") if later else (503, b"")

    receiver = Receiver(answer)
    seed = KEYS["ed25519"].private_bytes_raw()
    secret = "[" + ", ".join(
        f'{{ text = "{s}" }}' for s in SECRETS[:2]
    ) + f', "whsk_{base64.b64encode(seed).decode()}", {{ text = "{SECRETS[2]}", until = 2020-01-01T00:00:00Z }}]'
    with Command(receiver.url, f'{{ scheme = "standard-webhooks", secret = {secret} }}') as command:
        command.publish("a", "b")
        receiver.wait_until(lambda requests: requests and requests[-1].headers[TIME] != requests[0].headers[TIME])
        first, second = receiver.requests[0], receiver.requests[-1]
    for request in (first, second):
        for known in SECRETS[:2]:
            assert standardwebhooks.Webhook(known).verify(request.body, request.headers)
        fails("an expired secret", lambda: standardwebhooks.Webhook(SECRETS[2]).verify(request.body, request.headers))
        changed = request.body.replace(b'"a"', b'"A"')
        fails("another body", lambda: standardwebhooks.Webhook(SECRETS[0]).verify(changed, request.headers))
        id, at = request.headers["webhook-id"], request.headers[TIME]
        [asymmetric] = [s for s in request.headers["webhook-signature"].split() if s.startswith("v1a,")]
        message = f"{id}.{at}.".encode() + request.body
        KEYS["ed25519"].public_key().verify(base64.b64decode(asymmetric[4:]), message)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_keyed_hashes():
    request = one('{ scheme = "github", secret = "hunter2" }')
    expected = "sha256=" + hmac.new(b"hunter2", request.body, "sha256").hexdigest()
    assert hmac.compare_digest(request.headers["X-Hub-Signature-256"], expected)
    for algorithm in ("sha1", "sha256", "sha512"):
        request = one(
            f'{{ scheme = "hmac", header = "X-Sign", prefix = "v0=", algorithm = "{algorithm}", encoding = "base64", '
            'timestamp_header = "X-Time", timestamp_separator = ":", secret = "hunter2" }'
        )
        at = request.headers["X-Time"]
        assert abs(int(at) - time.time()) < 300
        expected = base64.b64encode(hmac.new(b"hunter2", f"{at}:".encode() + request.body, algorithm).digest())
        assert request.headers["X-Sign"] == "v0=" + expected.decode()


def test_passwords_tokens_and_keys():
    request = one('{ scheme = "basic", username = "me", secret = { env = "PASSWORD" } }', environment={"PASSWORD": "hunter2"})
    scheme, encoded = request.headers["Authorization"].split()
    assert (scheme, base64.b64decode(encoded)) == ("Basic", b"me:hunter2")
    request = one('[{ scheme = "bearer", secret = "s3cr3t-token" }, { scheme = "token", header = "X-T", secret = "hunter2" }]')
    assert (request.headers["Authorization"], request.headers["X-T"]) == ("Bearer s3cr3t-token", "hunter2")
    request = one('{ scheme = "api-key", query = "key", secret = "hunter2" }')
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query) == {"x": ["1"], "key": ["hunter2"]}


class Resolver(HTTPSignatureKeyResolver):
    def __init__(self, keys):
        self.keys = keys

    def resolve_public_key(self, key_id):
        return self.keys[key_id]


def test_message_signatures():
    cases = [
        ("hmac-sha256", algorithms.HMAC_SHA256, '{ text = "hunter2", id = "k" }', b"hunter2"),
        ("ed25519", algorithms.ED25519, '{ file = "ed25519.pem", id = "k" }', KEYS["ed25519"].public_key()),
        ("ecdsa-p256-sha256", algorithms.ECDSA_P256_SHA256, '{ file = "ec.pem", id = "k" }', KEYS["ec"].public_key()),
        ("rsa-pss-sha512", algorithms.RSA_PSS_SHA512, '{ file = "rsa.pem", id = "k" }', KEYS["rsa"].public_key()),
    ]
    for name, algorithm, secret, key in cases:
        request = one(
            f'[{{ scheme = "http-message-signatures", algorithm = "{name}", valid_for = "5m", secret = {secret} }}, '
            '{ scheme = "api-key", query = "key", secret = "hunter2" }]'
        )
        verifier = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=Resolver({"k": key}))
        [result] = verifier.verify(request)
        covered = [c.strip('"') for c in result.covered_components if c != '"@signature-params"']
        assert covered == ["@method", "@target-uri", "content-digest", "content-type", "webhook-id"], covered
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        assert request.headers["Content-Digest"] == f"sha-256=:{digest}:"
        request.url += "&more=1"
        fails("another target", lambda: verifier.verify(request))


def test_two_keys_sign_under_two_labels():
    request = one(
        '{ scheme = "http-message-signatures", algorithm = "hmac-sha256", '
        'secret = [{ text = "hunter2", id = "new" }, { text = "s3cr3t-token", id = "old" }] }'
    )
    keys = Resolver({"new": b"hunter2", "old": b"s3cr3t-token"})
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=keys)
    verifier.allow_label_only_selection = True
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for label, key_id in (("sig1", "new"), ("sig2", "old")):
            [result] = verifier.verify(request, expect_label=label)
            assert result.parameters["keyid"] == key_id


def test_signed_tokens():
    for algorithm, file, key in (
        ("RS256", "rsa.pem", "rsa"),
        ("ES256", "ec.pem", "ec"),
        ("EdDSA", "ed25519.pem", "ed25519"),
        ("RS256", "account.json", "rsa"),
    ):
        issuer = "" if file == "account.json" else 'issuer = "me@project.example", '
        request = one(
            f'{{ scheme = "jwt-bearer", algorithm = "{algorithm}", {issuer}audience = "https://a.example/", '
            f'claims = {{ target = "t" }}, secret = {{ file = "{file}" }} }}'
        )
        token = request.headers["Authorization"].removeprefix("Bearer ")
        public = KEYS[key].public_key()
        claims = jwt.decode(token, public, algorithms=[algorithm], audience="https://a.example/",
                            options={"require": ["exp", "iat", "jti"]})
        assert (claims["iss"], claims["sub"], claims["target"]) == ("me@project.example",) * 2 + ("t",)
        fails("another audience", lambda: jwt.decode(token, public, algorithms=[algorithm], audience="b"))


def test_a_token_is_given_for_credentials_and_for_a_signed_token():
    def give(request):
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        if form["grant_type"] == "client_credentials":
            encoded = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
            user, password = map(urllib.parse.unquote_plus, encoded.split(":"))
            good = (user, password, form.get("scope")) == ("me: too", "hunter2", "write")
        else:
            assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer", form
            public = KEYS["ec"].public_key()
            jwt.decode(form["assertion"], public, algorithms=["ES256"], audience=tokens.url)
            good = True
        if not good:
            return 401, b'{"error": "invalid_client"}'
        token = f"s3cr3t-token-{len(tokens.requests)}"
        return 200, json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).encode()

    tokens = Receiver(give)
    credentials = (
        f'{{ scheme = "oauth2-client-credentials", token_url = "{tokens.url}/t", client_id = "me: too", scope = "write", '
        'secret = "hunter2" }'
    )
    assertion = (
        f'{{ scheme = "jwt-bearer", algorithm = "ES256", issuer = "me", audience = "{tokens.url}", '
        f'token_url = "{tokens.url}/t", secret = {{ file = "ec.pem" }} }}'
    )
    for n, auth in enumerate((credentials, assertion)):
        assert one(auth).headers["Authorization"] == f"Bearer s3cr3t-token-{n}"
    assert len(tokens.requests) == 2


def test_a_secret_that_is_missing_is_told_at_the_start():
    receiver = Receiver()
    try:
        Command(receiver.url, '{ scheme = "bearer", secret = { env = "TIDEWIRE_NO_SUCH_SECRET" } }')
    except AssertionError as e:
        assert "t.toml:15:38: destination `hook`: auth: " in str(e) and "no environment variable TIDEWIRE_NO_SUCH_SECRET; set" in str(e), e
    else:
        raise AssertionError("it starts without the secret")


if __name__ == "__main__":
    PROGRAMS = pathlib.Path(sys.argv[1])
    sys.exit(main(globals()))
