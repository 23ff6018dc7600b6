"""What an HTTP request to a store means: which events it leads to, if it succeeds.

An API is a function of a :class:`Request` to the :class:`Operation` s that it is, for :class:`tidewire.integrations.wsgi.Publisher`
and :class:`tidewire.integrations.asgi.Publisher`. There are two: :class:`S3` and :class:`WebDav`.
"""

from __future__ import annotations

import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from .. import EventType

__all__ = ["Api", "Operation", "Request", "Response", "S3", "WebDav"]

DOCUMENT_BYTES_MAX = 2 << 20
"""The most of a body that is read to know what it means."""


@dataclass(frozen=True)
class Request:
    """A request, before it is answered."""

    method: str
    path: bytes
    """Decoded, from the root of the application on."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """With names in lower case."""
    remote: Optional[str] = None
    """The address that it came from."""
    user: Optional[str] = None
    """Who the server says it is from."""

    @property
    def length(self) -> Optional[int]:
        """Its ``Content-Length``."""
        text = self.headers.get("content-length", "")
        return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


@dataclass(frozen=True)
class Response:
    """The answer to it. ``body`` is there if the operation asked for it."""

    status: int
    headers: Mapping[str, str]
    """With names in lower case."""
    body: bytes = b""
    received: int = 0
    """How many bytes the body of the request had."""


Fields = dict[str, Any]


def _plain(response: Response) -> Optional[Fields]:
    return {}


@dataclass(frozen=True)
class Operation:
    """One event that a request leads to."""

    event: "dict[str, Any]"
    """Its parts, as far as they are known."""
    learn: Callable[[Response], Optional[Fields]] = field(default=_plain)
    """What the answer, which says that the request succeeded, adds: parts as for ``Reservation.set``. ``None``: this event did
    not come to be after all. Where only the answer tells which of two events it is, both are operations, and one of them is
    none in the end."""


@dataclass(frozen=True)
class Operations:
    """What a request is."""

    all: "list[Operation]"
    wants_request: bool = False
    """``all`` depends on the body of the request: it was made without, and :meth:`Api.of_body` makes it."""
    wants_response: bool = False
    """Whether the body of the answer is needed."""


class Api:
    """An API. Subclasses say what a request means."""

    def operations(self, request: Request) -> Optional[Operations]:
        """What a request is; ``None`` if it leads to no event."""
        raise NotImplementedError

    def of_body(self, request: Request, body: bytes) -> "list[Operation]":
        """For a request whose meaning is in its body."""
        raise NotImplementedError

    def succeeded(self, response: Response) -> bool:
        """Whether an answer says that the operation came to be."""
        return 200 <= response.status < 300


def about(request: Request) -> "dict[str, Any]":
    """What each event of a request says of who has sent it."""
    known = {
        "requester": request.user,
        "source_ip": request.remote,
        "user_agent": request.headers.get("user-agent"),
        "request_id": request.headers.get("x-amz-request-id") or request.headers.get("x-request-id"),
    }
    return {name: value for name, value in known.items() if value}


def split(path: bytes) -> "tuple[str, bytes]":
    """The first part of a path, and the rest. A first part that is no text is none."""
    first, _, rest = path.lstrip(b"/").partition(b"/")
    try:
        return first.decode(), rest
    except UnicodeDecodeError:
        return "", rest


def etag(headers: Mapping[str, str]) -> Fields:
    text = headers.get("etag", "")
    text = text[2:] if text.startswith("W/") else text
    text = text.strip('"')
    return {"etag": text} if text else {}


def _find(root: ElementTree.Element, name: str) -> "list[ElementTree.Element]":
    return [e for e in root.iter() if e.tag.rpartition("}")[2] == name]


def _text(root: ElementTree.Element, name: str) -> Optional[str]:
    found = _find(root, name)
    return (found[0].text or "") if found else None


def _xml(body: bytes) -> Optional[ElementTree.Element]:
    # Entities could make much out of little.
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        return None
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return None


class S3(Api):
    """The API of S3 with the bucket in the path: ``/bucket/key``, below ``base``.

    Objects that are put, copied, completed and deleted, one or many at a time, changes of tags, ACLs, retention and legal holds,
    and buckets that are made and removed.
    """

    def __init__(self, base: str = "/") -> None:
        self.base = base.rstrip("/").encode() + b"/"

    def operations(self, request: Request) -> Optional[Operations]:
        if not request.path.startswith(self.base):
            return None
        bucket, key = split(request.path[len(self.base) :])
        if not bucket:
            return None
        given: dict[str, Any] = {"bucket": bucket, "key": key, **about(request)}
        method, query = request.method, request.query
        if not key:
            if method == "POST" and "delete" in query:
                return Operations([], wants_request=True, wants_response=True)
            if query.keys() - {"x-id", "location"} or method not in ("PUT", "DELETE"):
                return None
            made = method == "PUT"
            event_type = EventType.BUCKET_CREATED if made else EventType.BUCKET_REMOVED
            return Operations([Operation({**given, "event_type": event_type})])
        return self._object(request, given)

    def _object(self, request: Request, given: "dict[str, Any]") -> Optional[Operations]:
        method, query, headers = request.method, request.query, request.headers
        metadata = {n[len("x-amz-meta-") :]: v for n, v in headers.items() if n.startswith("x-amz-meta-")}
        for name, (put, delete) in {
            "tagging": (EventType.OBJECT_TAGGING_PUT, EventType.OBJECT_TAGGING_DELETE),
            "acl": (EventType.OBJECT_ACL_PUT, None),
            "retention": (EventType.OBJECT_RETENTION_PUT, None),
            "legal-hold": (EventType.OBJECT_LEGAL_HOLD_PUT, None),
        }.items():
            if name in query:
                of = {"PUT": put, "DELETE": delete}.get(method)
                version = {"version_id": query["versionId"]} if "versionId" in query else {}
                learn = _version
                return Operations([Operation({**given, **version, "event_type": of}, learn)]) if of else None
        if method == "PUT" and "partNumber" not in query:
            if query.keys() - {"x-id"}:
                return None
            if "x-amz-copy-source" in headers:
                event = {**given, "event_type": EventType.OBJECT_CREATED_COPY}
                return Operations([Operation(event, _copied)], wants_response=True)
            given["event_type"] = EventType.OBJECT_CREATED_PUT
            given["content_type"] = headers.get("content-type")
            given["metadata"] = metadata
            if "x-amz-tagging" in headers:
                given["tags"] = dict(urllib.parse.parse_qsl(headers["x-amz-tagging"], keep_blank_values=True))
            length = headers.get("x-amz-decoded-content-length")
            size = int(length) if length and re.fullmatch(r"[0-9]{1,19}", length) else request.length
            return Operations([Operation(given, lambda r: {"size": r.received if size is None else size, **_put(r)})])
        if method == "POST" and "uploadId" in query:
            event = {**given, "event_type": EventType.OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD}
            return Operations([Operation(event, _completed)], wants_response=True)
        if method == "DELETE" and "uploadId" not in query:
            version = {"version_id": query["versionId"]} if "versionId" in query else {}
            event = {**given, **version, "event_type": EventType.OBJECT_REMOVED_DELETE}
            removed = Operation(event, _version if version else _unmarked)
            marked = {**given, "event_type": EventType.OBJECT_REMOVED_DELETE_MARKER_CREATED}
            return Operations([removed] if version else [removed, Operation(marked, _marked)])
        return None

    def of_body(self, request: Request, body: bytes) -> "list[Operation]":
        bucket, _ = split(request.path[len(self.base) :])
        root = _xml(body)
        operations = []
        for thing in _find(root, "Object") if root is not None else []:
            key, version = _text(thing, "Key"), _text(thing, "VersionId")
            if key:
                event: dict[str, Any] = {"bucket": bucket, "key": key, **about(request)}
                removed = {**event, "version_id": version, "event_type": EventType.OBJECT_REMOVED_DELETE}
                operations.append(Operation(removed, _Deleted(key, version, False)))
                if not version:
                    marked = {**event, "event_type": EventType.OBJECT_REMOVED_DELETE_MARKER_CREATED}
                    operations.append(Operation(marked, _Deleted(key, version, True)))
        return operations


def _put(response: Response) -> Fields:
    return {**etag(response.headers), **(_version(response) or {})}


def _version(response: Response) -> Optional[Fields]:
    version = response.headers.get("x-amz-version-id")
    return {"version_id": version} if version and version != "null" else {}


def _is_marker(response: Response) -> bool:
    return response.headers.get("x-amz-delete-marker") == "true"


def _unmarked(response: Response) -> Optional[Fields]:
    return None if _is_marker(response) else _version(response)


def _marked(response: Response) -> Optional[Fields]:
    return _version(response) if _is_marker(response) else None


def _of_document(response: Response) -> Optional[Fields]:
    """What the document of a success says; of an error behind a status of success, nothing."""
    root = _xml(response.body)
    if root is not None and root.tag.rpartition("}")[2] == "Error":
        return None
    fields = _put(response)
    text = _text(root, "ETag") if root is not None else None
    if text:
        fields["etag"] = text.strip('"')
    return fields


_copied = _completed = _of_document


def _deleted(response: Response, key: str, version: Optional[str]) -> Optional[ElementTree.Element]:
    """What the answer to a deletion of many says of one; ``None`` if that was not deleted."""
    root = _xml(response.body)
    if root is None:
        return None
    for error in _find(root, "Error"):
        if _text(error, "Key") == key and (_text(error, "VersionId") or None) == version:
            return None
    for deleted in _find(root, "Deleted"):
        if _text(deleted, "Key") == key and (_text(deleted, "VersionId") or None) == version:
            return deleted
    # One that asked for silence is told only of what was not.
    return ElementTree.Element("Deleted")


@dataclass(frozen=True)
class _Deleted:
    key: str
    version: Optional[str]
    marked: bool

    def __call__(self, response: Response) -> Optional[Fields]:
        deleted = _deleted(response, self.key, self.version)
        if deleted is None:
            return None
        # Of one that was asked for by its version, the answer tells whether it was a marker that is gone.
        is_marked = self.version is None and _text(deleted, "DeleteMarker") == "true"
        if is_marked != self.marked:
            return None
        marker = _text(deleted, "DeleteMarkerVersionId")
        return {"version_id": marker} if marker and is_marked else {}


class WebDav(Api):
    """WebDAV (RFC 4918) below ``base``: ``PUT``, ``DELETE``, ``COPY``, ``MOVE`` and ``PROPPATCH`` of resources.

    All is one bucket, ``bucket``. A collection that is deleted, copied or moved is told as a whole, with a slash at its end.
    """

    def __init__(self, bucket: str, base: str = "/") -> None:
        self.bucket = bucket
        self.base = base.rstrip("/").encode() + b"/"

    def operations(self, request: Request) -> Optional[Operations]:
        key = self._key(request.path)
        if not key:
            return None
        given: dict[str, Any] = {"bucket": self.bucket, "key": key, **about(request)}
        if request.method == "PUT":
            given["event_type"], size = EventType.OBJECT_CREATED_PUT, request.length
            given["content_type"] = request.headers.get("content-type")
            return Operations(
                [Operation(given, lambda r: {"size": r.received if size is None else size, **etag(r.headers)})]
            )
        if request.method == "DELETE":
            return Operations([Operation({**given, "event_type": EventType.OBJECT_REMOVED_DELETE})])
        if request.method == "PROPPATCH":
            return Operations([Operation({**given, "event_type": EventType.OBJECT_METADATA_PUT})])
        if request.method in ("COPY", "MOVE"):
            to = urllib.parse.urlsplit(request.headers.get("destination", ""))
            new = self._key(urllib.parse.unquote_to_bytes(to.path))
            if not new:
                return None
            if request.method == "COPY":
                return Operations([Operation({**given, "key": new, "event_type": EventType.OBJECT_CREATED_COPY})])
            # Of the new name, and says the old one.
            renamed = {**given, "key": new, "event_type": EventType.OBJECT_RENAMED}
            renamed["data"] = {"sourceKey": key.decode(errors="replace")}
            return Operations([Operation(renamed)])
        return None

    def succeeded(self, response: Response) -> bool:
        # 207 tells of parts that failed.
        return 200 <= response.status < 300 and response.status != 207

    def _key(self, path: bytes) -> Optional[bytes]:
        return path[len(self.base) :] if path.startswith(self.base) else None


def query_of(text: str) -> "dict[str, str]":
    """The first value of each name of a query; a name without a value is there too."""
    query: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(text, keep_blank_values=True):
        query.setdefault(name, value)
    return query


def fits(events: Iterable["dict[str, Any]"]) -> "list[dict[str, Any]]":
    """Without the parts that nobody knows."""
    return [{name: value for name, value in event.items() if value is not None} for event in events]
