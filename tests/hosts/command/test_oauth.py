"""Runs the command with tokens of an OAuth 2.0 server that is a library's, at a receiver whose tokens are checked by it.

Usage: test_oauth.py DIRECTORY_OF_PROGRAMS. The last line is `N passed, M failed`.
"""

import pathlib
import sys
import time

import test_auth
from oauth_server import Client, Server
from test_auth import KEYS, WAIT, Command, Receiver

AUDIENCE = "https://tokens.example/"
KEYS_OF_EVENTS = [f"k{n}" for n in range(40)]


def places(server):
    """The token endpoint, and the receiver of events."""
    return Receiver(server.answer), Receiver(server.resource)


def credentials(tokens, *, auth="basic", secret='"hunter2"'):
    return (
        f'{{ scheme = "oauth2-client-credentials", token_url = "{tokens.url}/t", client_id = "tide:wire", '
        f'client_auth = "{auth}", scope = "write", secret = {secret} }}'
    )


def assertion(tokens, audience=AUDIENCE):
    return (
        f'{{ scheme = "jwt-bearer", algorithm = "ES256", issuer = "tidewire", audience = "{audience}", '
        f'scope = "write", token_url = "{tokens.url}/t", secret = {{ file = "ec.pem" }} }}'
    )


def client(auth="basic"):
    method = {"basic": "client_secret_basic", "body": "client_secret_post"}[auth]
    return Client("tide:wire", secret="hunter2", method=method)


def signer():
    from cryptography.hazmat.primitives import serialization
    from joserfc.jwk import ECKey

    public = KEYS["ec"].public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return Client("tidewire", key=ECKey.import_key(public.public_bytes(serialization.Encoding.PEM, form)))


def until(what, condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


def has_all(events, keys):
    """Whether each key is in some request that was taken."""
    bodies = b"".join(r.body for r in events.requests if r.status == 204)
    return all(f'"key":"{key}"'.encode() in bodies for key in keys)


def test_one_token_serves_the_whole_engine():
    for name, known, auth in (
        ("client_secret_basic", client("basic"), lambda t: credentials(t)),
        ("client_secret_post", client("body"), lambda t: credentials(t, auth="body")),
        ("a signed assertion", signer(), assertion),
    ):
        server = Server(known, audience=AUDIENCE)
        tokens, events = places(server)
        with Command(events.url, auth(tokens), shards=2) as command:
            command.publish(*KEYS_OF_EVENTS)
            until(f"{name}: all are taken", lambda: has_all(events, KEYS_OF_EVENTS))
        assert (len(server.tokens), server.refused) == (1, []), (name, len(server.tokens), server.refused)


def test_a_token_is_replaced_before_it_ends():
    server = Server(client(), lifetime=12)
    tokens, events = places(server)
    with Command(events.url, credentials(tokens), shards=2) as command:
        sent = []
        while len({r.headers["Authorization"] for r in events.requests}) < 3:
            assert len(sent) < 20 * WAIT, "the token stays the same"
            sent.append(f"n{len(sent)}")
            command.publish(sent[-1])
            time.sleep(0.1)
        until("all are taken", lambda: has_all(events, sent))
    assert server.refused == [], server.refused


def test_a_refused_token_is_replaced_once():
    server = Server(client())
    tokens, events = places(server)
    with Command(events.url, credentials(tokens), shards=2) as command:
        for given in (1, 2):
            with server.lock:
                for token in server.tokens:
                    token.revoked = True
            # Many requests are refused at the same time.
            keys = [f"{given}-{key}" for key in KEYS_OF_EVENTS]
            command.publish(*keys)
            until("all are taken", lambda: has_all(events, keys))
            assert len(server.tokens) == given, len(server.tokens)
    assert server.refused and set(server.refused) == {"invalid_token"}, server.refused


def test_wrong_credentials_are_told_and_can_be_mended():
    server = Server(client())
    tokens, events = places(server)
    test_auth.FILES["client-secret"] = b"wrong\n"
    with Command(events.url, credentials(tokens, secret='{ file = "client-secret" }')) as command:
        command.publish("a")
        until("it is told", lambda: "it answered 401: invalid_client" in command.logged())
        assert events.requests == [], "something was sent without a token"
        (pathlib.Path(command.dir.name) / "client-secret").write_bytes(b"hunter2\n")
        until("it is taken", lambda: has_all(events, ["a"]))
    assert set(server.refused) == {"invalid_client"} and len(server.tokens) == 1, server.refused


def test_an_assertion_for_somebody_else_is_told():
    server = Server(signer(), audience=AUDIENCE)
    tokens, events = places(server)
    with Command(events.url, assertion(tokens, "https://other.example/")) as command:
        command.publish("a")
        until("it is told", lambda: "it answered 400: invalid_grant" in command.logged())
        assert events.requests == [] and server.tokens == []


if __name__ == "__main__":
    test_auth.PROGRAMS = pathlib.Path(sys.argv[1])
    sys.exit(test_auth.main(globals()))
