"""A filter in the pipeline of OpenStack Swift's proxy: what clients do to objects and containers becomes events.

In ``proxy-server.conf``, behind authentication and before ``copy``, ``slo`` and ``dlo``::

    [pipeline:main]
    pipeline = catch_errors … tempauth tidewire copy … slo dlo … proxy-server

    [filter:tidewire]
    use = egg:tidewire#tidewire
    config_path = /etc/swift/tidewire.toml
    data_dir = /var/lib/tidewire

==========================================  =============================================================================
``PUT`` of an object                        ``s3:ObjectCreated:Put``
``COPY``, ``PUT`` with ``X-Copy-From``      ``s3:ObjectCreated:Copy``, of the new object
``PUT`` of a manifest (SLO and DLO)         ``s3:ObjectCreated:CompleteMultipartUpload``; its segments are objects of their own
``POST`` to an object                       ``s3:ObjectMetadata:Put``
``DELETE`` of an object                     ``s3:ObjectRemoved:Delete``; ``…:DeleteMarkerCreated`` if its versions are kept
``DELETE`` with ``multipart-manifest``      ``s3:ObjectRemoved:Delete`` of the manifest
``PUT``, ``DELETE`` of a container          ``s3:BucketCreated`` if it is new, ``s3:BucketRemoved``
==========================================  =============================================================================

The container is the bucket; the account is ``bucket_owner``. Each worker of the proxy has an engine of its own, in the first
directory below ``data_dir`` that no other has open: give it as many as there are workers. The endpoints of all are those of the
configuration.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, Optional

from .. import Engine, EventType, Locked
from .http import Api, Fields, Operation, Operations, Request, Response, etag
from .wsgi import Application, Environ, Publisher, StartResponse, request_of

__all__ = ["Swift", "Tidewire", "filter_factory"]

WORKERS_MAX = 1024
MANIFEST_BYTES_MAX = 8 << 20


class Swift(Api):
    """The object API of Swift: ``/v1/account/container/object``. A manifest is known by its whole body, which is read before."""

    def operations(self, request: Request) -> Optional[Operations]:
        parts = request.path.split(b"/", 4)
        if len(parts) < 4 or parts[0] or not re.fullmatch(rb"v1(\.0)?", parts[1]) or not parts[2] or not parts[3]:
            return None
        try:
            account, container = parts[2].decode(), parts[3].decode()
        except UnicodeDecodeError:
            return None
        key = parts[4] if len(parts) > 4 else b""
        given: dict[str, Any] = {"bucket": container, "key": key, "bucket_owner": account, "source_ip": request.remote}
        given["requester"] = (request.user or "").split(",")[0] or None
        given["user_agent"] = request.headers.get("user-agent")
        given["request_id"] = request.headers.get("x-trans-id")
        return self._object(request, given, account) if key else self._container(request, given)

    def _container(self, request: Request, given: "dict[str, Any]") -> Optional[Operations]:
        if request.method == "PUT":
            # 202: it was there before.
            made = Operation({**given, "event_type": EventType.BUCKET_CREATED}, lambda r: {} if r.status == 201 else None)
            return Operations([made])
        if request.method == "DELETE":
            return Operations([Operation({**given, "event_type": EventType.BUCKET_REMOVED})])
        return None

    def _object(self, request: Request, given: "dict[str, Any]", account: str) -> Optional[Operations]:
        method, query, headers = request.method, request.query, request.headers
        metadata = {n[len("x-object-meta-") :]: v for n, v in headers.items() if n.startswith("x-object-meta-") and v}
        described = {**given, "metadata": metadata, "content_type": headers.get("content-type")}
        if method == "COPY":
            to = urllib.parse.unquote_to_bytes(headers.get("destination", "")).lstrip(b"/")
            container, _, key = to.partition(b"/")
            try:
                given.update(bucket=container.decode(), key=key)
            except UnicodeDecodeError:
                return None
            owner = headers.get("destination-account")
            given["bucket_owner"] = urllib.parse.unquote(owner) if owner else account
            return self._copied({**given, "metadata": metadata}) if key else None
        if method == "PUT" and "x-copy-from" in headers:
            return self._copied({**given, "metadata": metadata})
        if method == "PUT" and query.get("multipart-manifest") == "put":
            event = {**described, "event_type": EventType.OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD}
            heartbeat = query.get("heartbeat", "").lower() in ("on", "true", "yes", "1", "t", "y")
            return Operations([Operation(event, _beaten if heartbeat else _put)], wants_response=heartbeat)
        if method == "PUT" and "x-object-manifest" in headers:
            return Operations([Operation({**described, "event_type": EventType.OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD}, _put)])
        if method == "PUT":
            event = {**described, "event_type": EventType.OBJECT_CREATED_PUT}
            size = request.length
            return Operations([Operation(event, lambda r: {"size": r.received if size is None else size, **_put(r)})])
        if method == "POST":
            return Operations([Operation({**described, "event_type": EventType.OBJECT_METADATA_PUT}, _version)])
        if method == "DELETE":
            version = query.get("version-id")
            removed = {**given, "version_id": version, "event_type": EventType.OBJECT_REMOVED_DELETE}
            if query.get("multipart-manifest") == "delete":
                return Operations([Operation(removed, _all_deleted)], wants_response=True)
            if version:
                return Operations([Operation(removed)])
            marked = {**given, "event_type": EventType.OBJECT_REMOVED_DELETE_MARKER_CREATED}
            return Operations([Operation(removed, _unmarked), Operation(marked, _marked)])
        return None

    def _copied(self, event: "dict[str, Any]") -> Operations:
        return Operations([Operation({**event, "event_type": EventType.OBJECT_CREATED_COPY}, _put)])


def _version(response: Response) -> Fields:
    version = response.headers.get("x-object-version-id")
    return {"version_id": version} if version and version != "null" else {}


def _put(response: Response) -> Fields:
    return {**etag(response.headers), **_version(response)}


def _marked(response: Response) -> Optional[Fields]:
    return _version(response) or None


def _unmarked(response: Response) -> Optional[Fields]:
    return None if _version(response) else {}


def _said(response: Response) -> "dict[str, str]":
    """What Swift says at the end of an answer that began before the outcome was known, in JSON or as lines."""
    text = response.body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
        return {str(name): str(value) for name, value in document.items()} if isinstance(document, dict) else {}
    except ValueError:
        pairs = (line.partition(":") for line in text.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}


def _beaten(response: Response) -> Optional[Fields]:
    said = _said(response)
    if not said.get("Response Status", "").startswith("2"):
        return None
    return etag({"etag": said.get("Etag", "")})


def _all_deleted(response: Response) -> Optional[Fields]:
    # The manifest goes last: it is gone if nothing failed.
    return {} if _said(response).get("Response Status", "").startswith("200") else None


class Tidewire:
    """The filter. ``engine`` answers the engine of this process."""

    def __init__(self, application: Application, engine: Callable[[], Engine], **options: Any) -> None:
        self.application = application
        self.publisher = Publisher(application, engine, Swift(), **options)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # What filters further on ask for by themselves does not come by here; what those before do (bulk, formpost, s3api) is
        # what a client wants.
        if "swift.trans_id" in environ:
            environ.setdefault("HTTP_X_TRANS_ID", environ["swift.trans_id"])
        return self.publisher(environ, start_response)


class _PerWorker:
    """The engine of a worker: opened when it is first asked for, for workers are forked after the pipeline is made."""

    def __init__(self, config_path: str, data_dir: str) -> None:
        self.config_path, self.data_dir = config_path, data_dir
        self._lock = threading.Lock()
        self._engine: Optional[Engine] = None
        self._process = 0

    def __call__(self) -> Engine:
        if self._engine is None or self._process != os.getpid():
            with self._lock:
                if self._engine is None or self._process != os.getpid():
                    self._engine, self._process = self._open(), os.getpid()
        return self._engine

    def _open(self) -> Engine:
        for n in range(WORKERS_MAX):
            directory = os.path.join(self.data_dir, f"worker-{n}")
            os.makedirs(directory, exist_ok=True)
            try:
                return Engine(config_path=self.config_path, data_dir=directory)
            except Locked:
                continue
        raise RuntimeError(f"all {WORKERS_MAX} directories below {self.data_dir} are in use")


def filter_factory(global_conf: "dict[str, str]", **local_conf: str) -> Callable[[Application], Tidewire]:
    """For ``paste.deploy``. ``config_path`` and ``data_dir`` are needed; ``ack`` (``memory``, ``written``, ``synced``), ``intent``
    (``none``, ``durable``) and ``timeout`` (seconds) are those of ``Engine.reserve``.
    """
    for name in ("config_path", "data_dir"):
        if name not in local_conf:
            raise ValueError(f"[filter:tidewire] lacks {name}")
    # Swift adds some by itself, such as __name__ and what is about its log.
    named = {name for name in local_conf if not name.startswith(("__", "log_"))} - global_conf.keys()
    unknown = named - {"config_path", "data_dir", "ack", "intent", "timeout"}
    if unknown:
        raise ValueError(f"[filter:tidewire] does not know {', '.join(sorted(unknown))}")
    options: dict[str, Any] = {name: local_conf[name] for name in ("ack", "intent") if name in local_conf}
    if "timeout" in local_conf:
        options["timeout"] = float(local_conf["timeout"])
    engine = _PerWorker(local_conf["config_path"], local_conf["data_dir"])
    try:
        from swift.common.registry import register_swift_info

        register_swift_info("tidewire")
    except ImportError:
        logging.getLogger("tidewire.integrations").debug("there is no Swift here")
    return lambda application: Tidewire(application, engine, **options)
