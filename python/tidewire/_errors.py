"""The exceptions: one class per kind of error of the engine."""

from __future__ import annotations

from typing import Any, Optional
from xml.sax.saxutils import escape

__all__ = [
    "Closed",
    "Conflict",
    "Corrupt",
    "Disconnected",
    "Error",
    "Full",
    "Internal",
    "InvalidArgument",
    "InvalidConfig",
    "InvalidEvent",
    "IoError",
    "IoUringUnavailable",
    "Locked",
    "LogFailed",
    "NewerFormat",
    "NoSpace",
    "NotFound",
    "Panic",
    "ReadOnly",
    "Timeout",
    "WrongProcess",
]


class Error(Exception):
    """Anything the engine refuses or fails at. ``str()`` of it is a whole sentence: place, message and remedy."""

    code: int = 0
    """The number of the kind: the same as in the C interface, and stable."""
    kind: str = "Error"
    """The name of the kind, such as ``InvalidEvent``."""
    message: str
    """What happened."""
    place: Optional[str]
    """Where: a file with line and column, a rule, a field. ``None`` if there is no such place."""
    remedy: Optional[str]
    """What to do about it, where that is known."""
    s3_code: str = "InternalError"
    """What a server with the API of S3 answers its client: the code of the error document, such as ``MalformedXML``."""
    s3_status: int = 500
    """The HTTP status that goes with it."""

    def __init__(self, message: str = "", place: Optional[str] = None, remedy: Optional[str] = None) -> None:
        text = message if place is None else f"{place}: {message}"
        super().__init__(text if remedy is None else f"{text}; {remedy}")
        self.message = message
        self.place = place
        self.remedy = remedy

    def to_s3_xml(self, resource: str = "", request_id: str = "") -> str:
        """The error document that S3 answers. Of what failed in the server itself it tells the client nothing.

        ``resource`` is what the request was about, such as ``/bucket``; ``request_id`` is the server's id of it.
        """
        message = {500: "We encountered an internal error. Please try again.", 503: "Please try again later."}
        parts = [("Code", self.s3_code), ("Message", message.get(self.s3_status, str(self)))]
        parts += [("Resource", resource), ("RequestId", request_id)]
        # Other control characters are nowhere in XML 1.0.
        text = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in parts)
        text = "".join(c for c in text if c >= " " or c in "\t\n\r")
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{text}</Error>'

    def __reduce__(self) -> tuple[Any, ...]:
        # Of kind, too: a newer engine may have kinds that have no class here.
        s3 = self.s3_code, self.s3_status
        return _restore, (type(self), self.code, self.kind, self.message, self.place, self.remedy, *s3)


class InvalidEvent(Error, ValueError):
    """The event breaks a limit or names an unknown type."""

    code, kind = 1, "InvalidEvent"


class InvalidConfig(Error, ValueError):
    """The configuration is wrong; the place has file, line and column."""

    code, kind = 2, "InvalidConfig"


class Full(Error):
    """There is no space for the event now. Try again later, or let the call wait."""

    code, kind = 3, "Full"


class Timeout(Error, TimeoutError):
    """The time was over before the operation was done."""

    code, kind = 4, "Timeout"


class Closed(Error):
    """The engine is closing or closed."""

    code, kind = 5, "Closed"


class IoError(Error, OSError):
    """The operating system refused an operation on a file or socket."""

    code, kind = 6, "Io"


class Locked(Error):
    """Another process, or another engine of this one, has the data directory open."""

    code, kind = 7, "Locked"


class ReadOnly(Error, OSError):
    """The data directory cannot be written."""

    code, kind = 8, "ReadOnly"


class NoSpace(Error, OSError):
    """The file system of the data directory is full."""

    code, kind = 9, "NoSpace"


class IoUringUnavailable(Error, OSError):
    """The system does not let this process use io_uring."""

    code, kind = 10, "IoUringUnavailable"


class NewerFormat(Error):
    """A newer version of Tidewire wrote the data directory."""

    code, kind = 11, "NewerFormat"


class Corrupt(Error):
    """Stored data fails its checksum or makes no sense."""

    code, kind = 12, "Corrupt"


class LogFailed(Error):
    """The log could not be written or made durable, and takes no more events."""

    code, kind = 13, "LogFailed"


class WrongProcess(Error, RuntimeError):
    """The engine belongs to the process that this one was forked from."""

    code, kind = 14, "WrongProcess"


class Panic(Error, RuntimeError):
    """A defect of Tidewire: a call stopped half-way."""

    code, kind = 15, "Panic"


class InvalidArgument(Error, ValueError):
    """An argument has a value that it cannot have."""

    code, kind = 16, "InvalidArgument"


class NotFound(Error, LookupError):
    """There is nothing of that name."""

    code, kind = 17, "NotFound"


class Internal(Error, RuntimeError):
    """A defect of Tidewire."""

    code, kind = 18, "Internal"


class Conflict(Error, RuntimeError):
    """What is there is not what was expected: another version, or something of another owner. Read it anew."""

    code, kind = 19, "Conflict"


class Disconnected(Error, ConnectionError):
    """The process that has the engine does not answer: it has died, or nobody listens there. What waited for an answer may or
    may not have been done."""

    code, kind = 20, "Disconnected"


_BY_CODE: dict[int, type[Error]] = {cls.code: cls for cls in Error.__subclasses__()}


def make(
    code: int,
    kind: str,
    message: str,
    place: Optional[str],
    remedy: Optional[str],
    s3_code: str = "InternalError",
    s3_status: int = 500,
) -> Error:
    """The exception of an error; a plain ``Error`` with that code and kind if the kind has no class here."""
    return _restore(_BY_CODE.get(code, Error), code, kind, message, place, remedy, s3_code, s3_status)


def _restore(
    cls: type[Error],
    code: int,
    kind: str,
    message: str,
    place: Optional[str],
    remedy: Optional[str],
    s3_code: str = "InternalError",
    s3_status: int = 500,
) -> Error:
    error = cls(message, place, remedy)
    if error.code != code:
        error.code, error.kind = code, kind
    error.s3_code, error.s3_status = s3_code, s3_status
    return error


def at(error: Exception, place: str) -> Exception:
    """The same error with the place around that of its own."""
    if not isinstance(error, Error):
        return error
    inner = place if error.place is None else f"{place}: {error.place}"
    s3 = error.s3_code, error.s3_status
    return _restore(type(error), error.code, error.kind, error.message, inner, error.remedy, *s3)


for _cls in [Error, *_BY_CODE.values()]:
    _cls.__module__ = "tidewire"
