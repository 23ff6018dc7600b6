"""An ASGI application with an API like that of S3 or WebDAV as a publisher.

>>> application = Publisher(application, engine, S3())
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Union
from urllib.parse import unquote_to_bytes

from .. import Engine, Timeout
from ._held import UNAVAILABLE, Held
from .http import DOCUMENT_BYTES_MAX, Api, Request, Response, S3, WebDav, query_of
from .wsgi import REFUSED

__all__ = ["Publisher", "S3", "WebDav"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Publisher:
    """Middleware around ``application`` that publishes what its requests do: as :class:`tidewire.integrations.wsgi.Publisher`,
    whose arguments it has. Nothing keeps the loop waiting; durable intents and ``block=True`` take a thread of its executor.
    """

    def __init__(
        self, application: Application, engine: Union[Engine, Callable[[], Engine]], api: Api, **options: Any
    ) -> None:
        self.application, self.api, self.options = application, api, options
        self._engine: Callable[[], Engine] = (lambda: engine) if isinstance(engine, Engine) else engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope) if scope["type"] == "http" else None
        operations = self.api.operations(request) if request else None
        if request is None or operations is None:
            return await self.application(scope, receive, send)
        found = operations.all
        if operations.wants_request:
            body, receive = await _read(receive)
            found = self.api.of_body(request, body)
        try:
            held = await self._hold(found)
        except REFUSED:
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(UNAVAILABLE)), (b"retry-after", b"1")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            return await send({"type": "http.response.body", "body": UNAVAILABLE})
        if not held:
            return await self.application(scope, receive, send)
        answer = _Answer(self.api, held, operations.wants_response, receive, send)
        try:
            await self.application(scope, answer.receive, answer.send)
        finally:
            held.batch.abort_all()

    async def _hold(self, found: "list[Any]") -> Held:
        engine = self._engine()
        if self.options.get("block") or self.options.get("intent") == "durable":
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, lambda: Held(engine, found, self.options))
        return Held(engine, found, self.options)


class _Answer:
    """The answer of an application, between it and the server."""

    def __init__(self, api: Api, held: Held, wants_body: bool, receive: Receive, send: Send) -> None:
        self.api, self.held, self.wants_body = api, held, wants_body
        self._receive, self._send = receive, send
        self.received = 0
        self.kept: list[Message] = []
        self.ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if self.ended:
            return await self._send(message)
        self.kept.append(message)
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        # The client is not told of a success before the events are told.
        if is_last or (message["type"] == "http.response.start" and not self.wants_body):
            await self._end()

    async def _end(self) -> None:
        self.ended = True
        start = self.kept[0]
        headers = {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in start.get("headers", ())}
        body = b"".join(message.get("body", b"") for message in self.kept[1:])
        self.held.learn(self.api, Response(start["status"], headers, body, self.received))
        commits = [reservation.commit_async() for reservation in self.held.batch if reservation.is_open]
        for commit in commits:
            try:
                await commit
            except Timeout:
                # They are on their way.
                pass
        for message in self.kept:
            await self._send(message)
        self.kept = []


async def _read(receive: Receive) -> "tuple[bytes, Receive]":
    """The body of a request, and what gives it once more."""
    messages, size = [], 0
    while size <= DOCUMENT_BYTES_MAX:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
    body = b"".join(message.get("body", b"") for message in messages)

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, again


def request_of(scope: Scope) -> Request:
    """What a scope says of a request."""
    headers = {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in scope["headers"]}
    client = scope.get("client")
    # As it was sent, if the server tells: the other is text, whatever the bytes are.
    raw = scope.get("raw_path")
    path = unquote_to_bytes(raw.partition(b"?")[0]) if raw else scope["path"].encode("utf-8", "surrogateescape")
    # The root of the application is part of the path in newer servers only.
    root = scope.get("root_path", "").encode()
    return Request(
        scope["method"],
        path[len(root) :] if root and path.startswith(root) else path,
        query_of(scope.get("query_string", b"").decode("latin-1")),
        headers,
        client[0] if client else None,
    )
