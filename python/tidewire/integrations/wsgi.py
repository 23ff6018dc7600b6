"""A WSGI application with an API like that of S3 or WebDAV as a publisher.

>>> application = Publisher(application, engine, S3())
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Optional, Union

from .. import Closed, Engine, Full, LogFailed, Timeout
from ._held import UNAVAILABLE, Held
from .http import DOCUMENT_BYTES_MAX, Api, Operations, Request, Response, S3, WebDav, query_of

__all__ = ["Publisher", "S3", "WebDav"]

Environ = dict[str, Any]
ExcInfo = Union[tuple[type[BaseException], BaseException, TracebackType], tuple[None, None, None]]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

REFUSED = (Full, Timeout, LogFailed, Closed)
"""Why an event cannot be kept now."""


class Publisher:
    """Middleware around ``application`` that publishes what its requests do.

    Space for the events is reserved before the application gets the request; if there is none, the client is told to try again
    (503), and nothing is done. They are committed when the application has answered with success, before the client is told;
    an event that then has not become as safe as ``ack`` says within ``timeout`` seconds is on its way all the same, and the
    client is told of the success.

    ``api`` says what a request means: :class:`S3`, :class:`WebDav`, or one of your own. ``engine`` may be a function that
    answers the engine, for a server that forks after this is made. ``options`` are those of ``Engine.reserve``: ``intent``,
    ``ack``, ``timeout``, ``block``, ``bytes_max``.
    """

    def __init__(
        self,
        application: Application,
        engine: Union[Engine, Callable[[], Engine]],
        api: Api,
        **options: Any,
    ) -> None:
        self.application, self.api, self.options = application, api, options
        self._engine: Callable[[], Engine] = (lambda: engine) if isinstance(engine, Engine) else engine

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = request_of(environ)
        operations = self.api.operations(request)
        if operations is None:
            return self.application(environ, start_response)
        found = operations.all
        if operations.wants_request:
            body = environ["wsgi.input"].read(min(request.length or 0, DOCUMENT_BYTES_MAX))
            environ["wsgi.input"] = _Replayed(body, environ["wsgi.input"])
            found = self.api.of_body(request, body)
        engine = self._engine()
        try:
            held = Held(engine, found, self.options)
        except REFUSED:
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(UNAVAILABLE))), ("Retry-After", "1")]
            start_response("503 Service Unavailable", headers)
            return [UNAVAILABLE]
        if not held:
            return self.application(environ, start_response)
        environ["wsgi.input"] = counted = _Counted(environ["wsgi.input"])
        return _Answer(self, operations, held, counted, start_response).of(environ)


class _Answer:
    """The answer of an application, between it and the server."""

    def __init__(
        self, publisher: Publisher, operations: Operations, held: Held, counted: "_Counted", start: StartResponse
    ) -> None:
        self.publisher, self.operations, self.held, self.counted = publisher, operations, held, counted
        self.start = start
        self.told: Optional[tuple[str, list[tuple[str, str]]]] = None
        self.ended = False

    def of(self, environ: Environ) -> Iterable[bytes]:
        try:
            chunks = self.publisher.application(environ, self._started)
            if not self.operations.wants_response:
                return _Closing(self._stream(chunks), chunks)
            try:
                body = b"".join(chunks)
            finally:
                _close(chunks)
            self._end(body)
            return [body]
        except BaseException:
            self.held.batch.abort_all()
            raise

    def _started(
        self, status: str, headers: "list[tuple[str, str]]", exc_info: Optional[ExcInfo] = None
    ) -> Callable[[bytes], object]:
        if self.ended:
            return self.start(status, headers, exc_info)
        # An application may change its mind until it has sent something.
        self.told = status, headers
        return self._write

    def _write(self, data: bytes) -> object:
        self._end(b"")
        assert self._writer is not None
        return self._writer(data)

    def _stream(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for chunk in chunks:
                if chunk:
                    self._end(b"")
                yield chunk
            self._end(b"")
        finally:
            if not self.ended:
                self.held.batch.abort_all()

    def _end(self, body: bytes) -> None:
        """The application has said what became of it: the events are told, then the client is."""
        if self.ended:
            return
        if self.told is None:
            raise RuntimeError("the application has sent something before it called start_response")
        status, headers = self.told
        lower = {name.lower(): value for name, value in headers}
        self.held.learn(self.publisher.api, Response(int(status[:3]), lower, body, self.counted.count))
        try:
            self.held.batch.commit_all()
        except Timeout:
            pass
        self.ended = True
        self._writer = self.start(status, headers)

    _writer: Optional[Callable[[bytes], object]] = None


class _Closing:
    """An iterable whose ``close`` reaches that of the application."""

    def __init__(self, chunks: Iterator[bytes], inner: Iterable[bytes]) -> None:
        self._chunks, self._inner = chunks, inner

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        try:
            getattr(self._chunks, "close")()
        finally:
            _close(self._inner)


def _close(chunks: Iterable[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


class _Counted:
    """The body of a request, counted as it is read."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.count = inner, 0

    def _read(self, data: bytes) -> bytes:
        self.count += len(data)
        return data

    def read(self, *size: int) -> bytes:
        return self._read(self._inner.read(*size))

    def readline(self, *size: int) -> bytes:
        return self._read(self._inner.readline(*size))

    def readlines(self, *hint: int) -> "list[bytes]":
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            line = self.readline()
            if not line:
                return
            yield line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Replayed:
    """A body of which the beginning was read already."""

    def __init__(self, begun: bytes, inner: Any) -> None:
        self._begun, self._inner = begun, inner

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            begun, self._begun = self._begun, b""
            return begun + bytes(self._inner.read())
        begun, self._begun = self._begun[:size], self._begun[size:]
        return begun or bytes(self._inner.read(size))

    def readline(self, size: int = -1) -> bytes:
        end = self._begun.find(b"\n") + 1
        if end:
            return self.read(end if size < 0 else min(end, size))
        begun, self._begun = self._begun, b""
        return begun + bytes(self._inner.readline())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def request_of(environ: Environ) -> Request:
    """What an environment says of a request."""
    headers = {n[5:].replace("_", "-").lower(): v for n, v in environ.items() if n.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return Request(
        environ["REQUEST_METHOD"],
        # Bytes, dressed as text of Latin-1 (PEP 3333).
        environ.get("PATH_INFO", "").encode("latin-1") or b"/",
        query_of(environ.get("QUERY_STRING", "")),
        headers,
        environ.get("REMOTE_ADDR") or None,
        environ.get("REMOTE_USER") or None,
    )
