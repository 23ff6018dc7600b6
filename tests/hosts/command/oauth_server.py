"""An OAuth 2.0 server with the grants that a sender uses, and the check of its tokens at a resource, both by Authlib."""

import json
import os
import threading
import time
import urllib.parse

# The token endpoint is on this machine.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.oauth2 import OAuth2Error  # noqa: E402
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Payload, OAuth2Request  # noqa: E402
from authlib.oauth2.rfc6749 import ResourceProtector, TokenMixin  # noqa: E402
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant  # noqa: E402
from authlib.oauth2.rfc6750 import BearerTokenGenerator, BearerTokenValidator  # noqa: E402
from authlib.oauth2.rfc7523 import JWTBearerGrant  # noqa: E402


class Client(ClientMixin):
    def __init__(self, id, *, secret=None, method=None, key=None, scopes=("write",)):
        self.id, self.secret, self.method, self.key, self.scopes = id, secret, method, key, set(scopes)

    def get_client_id(self):
        return self.id

    def get_allowed_scope(self, scope):
        return " ".join(s for s in (scope or "").split() if s in self.scopes)

    def check_client_secret(self, secret):
        return self.secret is not None and secret == self.secret

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.method

    def check_grant_type(self, grant_type):
        return grant_type == (JWTBearerGrant.GRANT_TYPE if self.key else ClientCredentialsGrant.GRANT_TYPE)


class Token(TokenMixin):
    def __init__(self, given, client):
        self.client, self.scope, self.text = client, given.get("scope", ""), given["access_token"]
        self.end, self.revoked = time.time() + given["expires_in"], False

    def get_scope(self):
        return self.scope

    def is_expired(self):
        return time.time() >= self.end

    def is_revoked(self):
        return self.revoked


class Form(OAuth2Payload):
    def __init__(self, fields):
        self.fields = fields

    @property
    def data(self):
        return self.fields


class Request(OAuth2Request):
    def __init__(self, request):
        super().__init__(request.method, request.url, headers=request.headers)
        self.fields = dict(urllib.parse.parse_qsl(request.body.decode()))
        self.payload = Form(self.fields)

    @property
    def args(self):
        return {}

    @property
    def form(self):
        return self.fields


class Credentials(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class Assertion(JWTBearerGrant):
    def resolve_issuer_client(self, issuer):
        return self.server.query_client(issuer)

    def resolve_client_public_key(self, client):
        return client.key

    def authenticate_user(self, subject):
        return subject

    def has_granted_permission(self, client, user):
        return user == client.id

    def get_audiences(self):
        return [self.server.audience]


class Server(AuthorizationServer):
    """Gives tokens to these clients. `answer` is for a receiver at the token endpoint, `resource` for one of events."""

    def __init__(self, *clients, lifetime=3600, audience="https://tokens.example/"):
        super().__init__(scopes_supported=["write"])
        self.clients, self.audience = {c.id: c for c in clients}, audience
        self.tokens, self.refused, self.lock = [], [], threading.Lock()
        text = lambda **_: f"s3cr3t-token-{len(self.tokens)}"  # noqa: E731
        generator = BearerTokenGenerator(text, expires_generator=lambda client, grant: lifetime)
        self.register_token_generator("default", generator)
        self.register_grant(Credentials)
        self.register_grant(Assertion)
        self.protector = ResourceProtector()
        self.protector.register_token_validator(Validator(self))

    def query_client(self, id):
        return self.clients.get(id)

    def save_token(self, token, request):
        self.tokens.append(Token(token, request.client))

    def send_signal(self, name, *args, **kwargs):
        pass

    def create_oauth2_request(self, request):
        return Request(request)

    def handle_response(self, status, body, headers):
        return status, json.dumps(body).encode()

    def answer(self, request):
        with self.lock:
            status, body = self.create_token_response(request)
            if status >= 300:
                self.refused.append(json.loads(body)["error"])
            return status, body

    def resource(self, request):
        """204 for events with a good token, and what the standard says for others."""
        with self.lock:
            try:
                self.protector.validate_request(["write"], request)
                return 204, b""
            except OAuth2Error as error:
                self.refused.append(error.error)
                return error.status_code, b""


class Validator(BearerTokenValidator):
    def __init__(self, server):
        super().__init__()
        self.server = server

    def authenticate_token(self, text):
        return next((t for t in self.server.tokens if t.text == text), None)
