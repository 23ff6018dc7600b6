"""Tidewire tells the world what happens in an object store."""

import asyncio
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Optional, Protocol, Union, final, overload

from ._errors import Closed as Closed
from ._errors import Conflict as Conflict
from ._errors import Corrupt as Corrupt
from ._errors import Disconnected as Disconnected
from ._errors import Error as Error
from ._errors import Full as Full
from ._errors import Internal as Internal
from ._errors import InvalidArgument as InvalidArgument
from ._errors import InvalidConfig as InvalidConfig
from ._errors import InvalidEvent as InvalidEvent
from ._errors import IoError as IoError
from ._errors import IoUringUnavailable as IoUringUnavailable
from ._errors import Locked as Locked
from ._errors import LogFailed as LogFailed
from ._errors import NewerFormat as NewerFormat
from ._errors import NoSpace as NoSpace
from ._errors import NotFound as NotFound
from ._errors import Panic as Panic
from ._errors import ReadOnly as ReadOnly
from ._errors import Timeout as Timeout
from ._errors import WrongProcess as WrongProcess
from ._types import Attempt as Attempt
from ._types import BucketNotification as BucketNotification
from ._types import Certificates as Certificates
from ._types import DeadLetter as DeadLetter
from ._types import DestinationInfo as DestinationInfo
from ._types import DestinationStanding as DestinationStanding
from ._types import DestinationStats as DestinationStats
from ._types import DestinationTest as DestinationTest
from ._types import DestinationTestStep as DestinationTestStep
from ._types import EndpointStanding as EndpointStanding
from ._types import EventParts as EventParts
from ._types import Filing as Filing
from ._types import Finding as Finding
from ._types import GroupStats as GroupStats
from ._types import InDoubt as InDoubt
from ._types import Latency as Latency
from ._types import Plan as Plan
from ._types import Published as Published
from ._types import PublishedCounts as PublishedCounts
from ._types import Redriven as Redriven
from ._types import ReplayProgress as ReplayProgress
from ._types import RuleInfo as RuleInfo
from ._types import Stats as Stats
from ._types import Step as Step

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
    "Attempt",
    "BucketNotification",
    "Certificates",
    "DeadLetter",
    "DestinationInfo",
    "DestinationStanding",
    "DestinationStats",
    "DestinationTest",
    "DestinationTestStep",
    "EndpointStanding",
    "EventParts",
    "Filing",
    "Finding",
    "GroupStats",
    "InDoubt",
    "Latency",
    "Plan",
    "Published",
    "PublishedCounts",
    "Redriven",
    "ReplayProgress",
    "RuleInfo",
    "Stats",
    "Step",
    "FILTER_SCHEMA",
    "Batch",
    "BatchReservation",
    "Consumer",
    "Delivery",
    "Engine",
    "Entry",
    "Event",
    "EventType",
    "Filter",
    "Gap",
    "Replay",
    "Reservation",
    "Tail",
    "__version__",
    "check_config",
    "lint",
    "refresh_logging",
]

_Buffer = Union[bytes, bytearray, memoryview]
_Key = Union[str, _Buffer]
_Ack = Literal["memory", "written", "synced"]
_Priority = Literal["low", "normal", "high"]
_Origin = Literal["user", "replica", "lifecycle"]
_Event = Union[Event, EventParts, Mapping[str, Any]]
_Path = Union[str, os.PathLike[str]]
_Expect = Union[int, Literal["absent"], None]
_Backlog = Literal["keep", "drain", "dead-letter", "purge", "move"]

class _Reserving(Awaitable[Reservation], AbstractAsyncContextManager[Reservation, None], Protocol): ...

class _Writes(Protocol):
    def write(self, data: bytes, /) -> object: ...

__version__: str

FILTER_SCHEMA: str
"""The JSON Schema (draft 2020-12) of filters in the native form."""

@final
class Event:
    """One thing that happened to one object: what :meth:`Engine.publish` takes, made once and used as often as you like.

    The arguments are those of :meth:`Engine.publish`. It never changes, compares by its parts, may be a key of a ``dict``,
    be pickled, and be used from any thread. It holds its parts encoded, in one piece of memory.

    >>> event = Event("photos", "cats/tom.jpg", size=48213)
    >>> event.size, event.event_type
    (48213, 's3:ObjectCreated:Put')
    >>> event.replace(size=5).to_dict()
    {'bucket': 'photos', 'key': b'cats/tom.jpg', 'event_type': 's3:ObjectCreated:Put', 'size': 5}

    Raises :exc:`InvalidEvent` for an unknown type or a part that has no form; limits are those of the engine, which says when
    it is published.
    """

    def __new__(
        cls,
        bucket: str,
        key: _Key,
        event_type: str = "s3:ObjectCreated:Put",
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        requester: Optional[str] = None,
        source_ip: Optional[str] = None,
        request_id: Optional[str] = None,
        host_id: Optional[str] = None,
        region: Optional[str] = None,
        content_type: Optional[str] = None,
        method: Optional[str] = None,
        user_agent: Optional[str] = None,
        bucket_owner: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        priority: _Priority = "normal",
        origin: _Origin = "user",
        hops: int = 0,
    ) -> Event: ...
    @property
    def bucket(self) -> str:
        """The bucket."""
    @property
    def key(self) -> bytes:
        """The key: raw bytes, which need not be UTF-8."""
    @property
    def event_type(self) -> str:
        """The name of the type, such as ``s3:ObjectCreated:Put``."""
    @property
    def size(self) -> Optional[int]:
        """The object's size in bytes, if it is known."""
    @property
    def etag(self) -> Optional[str]:
        """The entity tag, without quotes."""
    @property
    def version_id(self) -> Optional[str]:
        """The object's version."""
    @property
    def requester(self) -> Optional[str]:
        """Who asked for the operation."""
    @property
    def source_ip(self) -> Optional[str]:
        """The address that the request came from."""
    @property
    def request_id(self) -> Optional[str]:
        """The id of the request (``x-amz-request-id``)."""
    @property
    def host_id(self) -> Optional[str]:
        """The second id of the request (``x-amz-id-2``)."""
    @property
    def region(self) -> Optional[str]:
        """The region; ``None`` is that of the engine."""
    @property
    def content_type(self) -> Optional[str]:
        """The object's content type."""
    @property
    def method(self) -> Optional[str]:
        """The operation as the API names it, such as ``PutObject``."""
    @property
    def user_agent(self) -> Optional[str]:
        """The client's user agent."""
    @property
    def bucket_owner(self) -> Optional[str]:
        """Who owns the bucket."""
    @property
    def metadata(self) -> dict[str, str]:
        """User metadata, names without ``x-amz-meta-``. A new ``dict`` each time."""
    @property
    def tags(self) -> dict[str, str]:
        """Object tags. A new ``dict`` each time."""
    @property
    def data(self) -> bytes:
        """Data of the host: a JSON document, empty if there is none."""
    @property
    def time_ns(self) -> Optional[int]:
        """When it happened, in nanoseconds since the epoch; ``None`` is when it is published."""
    @property
    def priority(self) -> _Priority:
        """``low``, ``normal`` or ``high``."""
    @property
    def origin(self) -> _Origin:
        """``user``, ``replica`` or ``lifecycle``."""
    @property
    def hops(self) -> int:
        """How many handlers of notifications it has passed through."""
    def to_dict(self) -> EventParts:
        """The parts that are known, under the names of the arguments. ``Event(**event.to_dict())`` is the same event."""
    def replace(self, **changes: Any) -> Event:
        """The same event but for these parts; ``None`` takes one away."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __sizeof__(self) -> int: ...

@final
class Engine:
    """An event and notification engine over one data directory: of this process, or of another one that this one is connected to.

    Exactly one of ``config`` (TOML text), ``config_path`` (a file) and ``address`` says which. ``data_dir`` takes the place of
    the one in the configuration. Paths in a text are relative to the working directory, those in a file to the file's. All
    methods may be called from any thread. Use it as a context manager, or call :meth:`close`.

    Several processes over one engine: ``address`` is ``unix:`` and the path of the socket where the engine of another process
    listens (``engine.shared`` of its configuration). With ``shared=True`` all give the same configuration: the first process
    has the data directory and listens, the others are connected to it, and when it ends one of them takes it over. Connect
    after a fork, as each worker of gunicorn does in ``post_fork``. ``connect_timeout`` (seconds, 5.0 by default) is how long
    to wait for that process to listen, and for the connection to come back in calls that have no time of their own.

    All methods mean the same. When the engine's process dies the connection comes back by itself as soon as another one
    listens: meanwhile calls wait as long as they may, and then raise :exc:`Disconnected`. So does what waited for an answer, such
    as an ack level: then nobody knows whether the event was accepted. Tails and consumers end with :exc:`Disconnected`: open
    new ones. Handlers and :meth:`replace_config` belong to the process that has the engine.

    Raises :exc:`InvalidConfig`, :exc:`Locked`, :exc:`ReadOnly`, :exc:`NoSpace`, :exc:`IoUringUnavailable`,
    :exc:`NewerFormat`, :exc:`Corrupt` or :exc:`IoError`; :exc:`InvalidArgument` for an address that is none, and if this user is
    not let in; :exc:`Disconnected` if nobody listens there; :exc:`Full` if too many processes are connected.
    """

    def __new__(
        cls,
        config: Optional[str] = None,
        *,
        config_path: Optional[_Path] = None,
        data_dir: Optional[_Path] = None,
        address: Optional[str] = None,
        shared: bool = False,
        connect_timeout: Optional[float] = None,
    ) -> Engine: ...
    @overload
    def publish(
        self,
        bucket: str,
        key: _Key,
        event_type: str = "s3:ObjectCreated:Put",
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        requester: Optional[str] = None,
        source_ip: Optional[str] = None,
        request_id: Optional[str] = None,
        host_id: Optional[str] = None,
        region: Optional[str] = None,
        content_type: Optional[str] = None,
        method: Optional[str] = None,
        user_agent: Optional[str] = None,
        bucket_owner: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        priority: _Priority = "normal",
        origin: _Origin = "user",
        hops: int = 0,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Published:
        """Publishes an event. Answers what became of it: ``Published.ACCEPTED``; ``Published.NO_MATCH``, the only one that is
        false, if no rule wants events of this type in this bucket, so that nothing was kept; or ``Published.DUPLICATE``, if an
        event of the same object with this ``dedup_key`` was accepted within ``engine.dedup.window``.

        >>> engine.publish("photos", "cats/tom.jpg", size=48213, metadata={"color": "grey"})
        <Published.ACCEPTED: 1>

        Instead of its parts an :class:`Event` may be given, or a mapping of the parts. ``bucket`` and ``key`` say which object,
        a key that is no text as ``bytes``. ``event_type`` is a name of :class:`EventType` or of the configuration. ``size`` is in
        bytes, ``time_ns`` in nanoseconds since the epoch; ``None`` is now. ``data`` is JSON text, or a ``dict`` or ``list`` to
        write as JSON. ``priority`` is ``low``, ``normal`` or ``high``; ``origin`` says what the cause was: a ``user``, a
        ``replica`` or the ``lifecycle``. ``hops`` counts the handlers of notifications that the event has passed through.

        ``ack`` says how safe the event is when the call returns: ``memory`` (lost if the process dies now), ``written`` (survives
        that, but not a power failure) or ``synced`` (durable). ``timeout`` limits the waiting in seconds, ``None`` is without
        limit. ``block=False`` raises :exc:`Full` at once when there is no space, but still waits for ``ack``.

        Raises :exc:`InvalidEvent`, :exc:`InvalidArgument`, :exc:`Full`, :exc:`Closed` or :exc:`WrongProcess`: the
        event is not accepted. :exc:`Timeout`, :exc:`LogFailed` and an exception of a signal handler while waiting for
        ``ack``: it is accepted, but has not reached that level yet. Where another process has the engine, also
        :exc:`Disconnected`: nobody is connected, and with ``block`` the whole ``timeout`` over; or its process has died while its
        answer was waited for, and nobody knows.
        """
    @overload
    def publish(
        self,
        event: _Event,
        /,
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Published: ...
    @overload
    def publish_async(
        self,
        bucket: str,
        key: _Key,
        event_type: str = "s3:ObjectCreated:Put",
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        requester: Optional[str] = None,
        source_ip: Optional[str] = None,
        request_id: Optional[str] = None,
        host_id: Optional[str] = None,
        region: Optional[str] = None,
        content_type: Optional[str] = None,
        method: Optional[str] = None,
        user_agent: Optional[str] = None,
        bucket_owner: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        priority: _Priority = "normal",
        origin: _Origin = "user",
        hops: int = 0,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Awaitable[Published]:
        """As :meth:`publish`, to be awaited. The event is on its way when this returns, so that calls keep their order, unless
        there is no space: then it is tried again while you wait.
        """
    @overload
    def publish_async(
        self,
        event: _Event,
        /,
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Awaitable[Published]: ...
    def publish_many(
        self,
        events: Iterable[_Event],
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> PublishedCounts:
        """Publishes many events, from any iterable of :class:`Event` or mappings of an event's parts, and waits once for ``ack`` of
        all of them. They are taken one by one, so that a generator needs no more memory for a million of them. Answers how
        many were accepted, wanted by no rule, and repeats.

        >>> engine.publish_many(Event("photos", f"cats/{n}.jpg") for n in range(3))
        PublishedCounts(accepted=3, no_match=0, duplicates=0)

        ``ack``, ``timeout``, ``block`` and ``dedup_key`` are those of :meth:`publish`; ``timeout`` is for the longest wait for
        space, and for the wait for ``ack`` at the end.

        Raises what :meth:`publish` does for the first event that is refused, and what the iterable raises: those before it are
        accepted, and were waited for; ``published`` of the exception counts them, and ``place`` tells which event it was.
        """
    def publish_many_async(
        self,
        events: Union[Iterable[_Event], AsyncIterable[_Event]],
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Awaitable[PublishedCounts]:
        """As :meth:`publish_many`, to be awaited. Where there is no space, or after some events, others of the loop get their
        turn. The iterable may be asynchronous.
        """
    def publish_json(
        self,
        document: Union[_Buffer, str],
        content_type: str = "",
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> PublishedCounts:
        """Publishes the events of a JSON document, in its order, and waits once for ``ack`` of all of them: ``Records`` as S3 and
        its peers send them, CloudEvents (one or a batch), or a line per event with the names of the parts of :class:`Event`.

        ``document`` is text or a buffer, of at most 4 MiB, as lines 16 MiB, with at most 65,536 events. ``content_type`` says
        what it is, such as ``application/cloudevents+json``; if it does not say enough, the document does. The rest is as for
        :meth:`publish_many`.

        Raises :exc:`InvalidEvent`, with the place, if anything of the document is wrong: then nothing of it is published.
        Otherwise as :meth:`publish_many`.
        """
    def publish_json_async(
        self,
        document: Union[_Buffer, str],
        content_type: str = "",
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Awaitable[PublishedCounts]:
        """As :meth:`publish_json`, to be awaited: a thread reads the document."""
    def append_at(
        self,
        cursor: int,
        event: _Event,
        /,
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
    ) -> Published:
        """Publishes an event that stands at ``cursor`` in a log of the host, from 1. Replaying that log is harmless: what the
        engine has already is ``Published.DUPLICATE``, and :meth:`last_applied` tells where to begin.

        Cursors grow from call to call: one that is not above an earlier call's is taken for a repeat. It is for the host to
        keep calls of several threads in the order of its log. An event that was refused must be given again before the next.

        Raises :exc:`InvalidArgument` for cursor 0; otherwise as :meth:`publish`, but that after :exc:`LogFailed` the event may
        or may not be in the log: give it again to the next opening.
        """
    def last_applied(self) -> int:
        """Up to which cursor everything that :meth:`append_at` was called with is durable, 0 if nothing is: the host need not keep
        its log up to there. It follows what is durable with a delay of about ``engine.delivery.cursor_interval``.

        Raises :exc:`WrongProcess` in a forked child.
        """
    @overload
    def reserve(
        self,
        bucket: str,
        key: _Key,
        event_type: str = "s3:ObjectCreated:Put",
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        requester: Optional[str] = None,
        source_ip: Optional[str] = None,
        request_id: Optional[str] = None,
        host_id: Optional[str] = None,
        region: Optional[str] = None,
        content_type: Optional[str] = None,
        method: Optional[str] = None,
        user_agent: Optional[str] = None,
        bucket_owner: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        priority: _Priority = "normal",
        origin: _Origin = "user",
        hops: int = 0,
        intent: Literal["none", "durable"] = "none",
        bytes_max: Optional[int] = None,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = False,
    ) -> Reservation:
        """Keeps space for the event of an operation that is still to be done, and does all that may fail, so that the commit after
        the operation is not refused. Use it as a context manager: the end of the block commits, an exception aborts.

        The event is given as for :meth:`publish`, with what is known before; :meth:`Reservation.set` adds what is known after.
        If no rule wants such an event the reservation holds nothing, and is false.

        ``intent="durable"`` writes the reservation into the log before this returns: after a crash between operation and commit
        the next opening asks what became of it (:meth:`in_doubt`). ``bytes_max`` is the most bytes that the event will have
        encoded; by default what it has now and 512 more. ``block=True`` waits for space, at most ``timeout`` seconds. ``ack``
        and ``timeout`` are also for the commit at the end of the block, as for :meth:`publish`.

        >>> with engine.reserve("photos", "cats/tom.jpg") as held:
        ...     held.set(size=48213, etag="0f343b0931126a20f133d67c2b018a3b")

        Raises :exc:`Full` if there is no space, or too much is reserved (``engine.reserve_percent``): answer the client that it
        shall try again. :exc:`InvalidEvent`, :exc:`InvalidArgument`, :exc:`Closed`, :exc:`WrongProcess`; with a durable intent
        also :exc:`Timeout` and :exc:`LogFailed`. Nothing is held then.
        """
    @overload
    def reserve(
        self,
        event: _Event,
        /,
        *,
        intent: Literal["none", "durable"] = "none",
        bytes_max: Optional[int] = None,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = False,
    ) -> Reservation: ...
    @overload
    def reserve_async(
        self,
        bucket: str,
        key: _Key,
        event_type: str = "s3:ObjectCreated:Put",
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        requester: Optional[str] = None,
        source_ip: Optional[str] = None,
        request_id: Optional[str] = None,
        host_id: Optional[str] = None,
        region: Optional[str] = None,
        content_type: Optional[str] = None,
        method: Optional[str] = None,
        user_agent: Optional[str] = None,
        bucket_owner: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        priority: _Priority = "normal",
        origin: _Origin = "user",
        hops: int = 0,
        intent: Literal["none", "durable"] = "none",
        bytes_max: Optional[int] = None,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = False,
    ) -> _Reserving:
        """As :meth:`reserve`, to be awaited, or for ``async with``: the end of the block commits, an exception aborts. A durable
        intent, and ``block=True``, keep a thread waiting.
        """
    @overload
    def reserve_async(
        self,
        event: _Event,
        /,
        *,
        intent: Literal["none", "durable"] = "none",
        bytes_max: Optional[int] = None,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = False,
    ) -> _Reserving: ...
    def reserve_batch(
        self,
        events: Iterable[_Event],
        *,
        intent: Literal["none", "durable"] = "none",
        bytes_max: Optional[int] = None,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = False,
    ) -> BatchReservation:
        """As :meth:`reserve` for the events of one operation on several objects: there is space for all of them or for none. The
        options are those of :meth:`reserve`; durable intents are written together.

        Raises what :meth:`reserve` does.
        """
    def in_doubt(self) -> list[InDoubt]:
        """The reservations with durable intents that earlier runs left without an end: a list of ``dict`` with ``token``,
        ``reserved_ns`` (nanoseconds since the epoch) and ``event`` as it was declared. Say of each what became of the operation
        (:meth:`resolve`).

        Raises :exc:`WrongProcess` in a forked child.
        """
    def resolve(self, token: str, event: Optional[_Event], /) -> None:
        """Says what became of an operation that a crash left in doubt, and waits until that is durable: ``event`` if it came to
        be, of the bucket, key and type that were declared; ``None`` if it did not. To say the same again changes nothing.

        Raises :exc:`NotFound` if nothing of this token is in doubt, :exc:`InvalidArgument` if the opposite was said before,
        :exc:`InvalidEvent` if it is another event than was declared; and what :meth:`publish` does.
        """
    def flush(self, timeout: Optional[float] = 30.0) -> None:
        """Waits until every event accepted before the call is delivered or a dead letter, at most ``timeout`` seconds;
        ``None`` is without limit.

        Raises :exc:`Timeout` with the number of deliveries that still wait: they go on. :exc:`Closed` if the engine
        closes; :exc:`WrongProcess` in a forked child.
        """
    def flush_async(self, timeout: Optional[float] = 30.0) -> Awaitable[None]:
        """As :meth:`flush`, to be awaited."""
    def is_interested(self, bucket: str, event_type: str) -> bool:
        """Whether any rule could want events of this type in this bucket: if not, there is no need to collect what an
        event would say. May be true for an event that no rule takes in the end.

        Raises :exc:`InvalidEvent` for an unknown type, :exc:`Closed`, or :exc:`WrongProcess` in a forked child.
        """
    def details_wanted(self, event: _Event, /) -> dict[str, bool]:
        """Which details of an object the host should fetch for an event with this type, bucket and key: a ``dict`` of
        ``metadata`` and ``tags`` to ``bool``. Neither is of use if no rule can want the event; then nothing need be published.

        Raises :exc:`InvalidEvent`, :exc:`Closed`, or :exc:`WrongProcess` in a forked child.
        """
    def stats(self) -> Stats:
        """What the engine has counted since it was opened, as a ``dict``: see :class:`Stats`. A closed engine still tells.

        Raises :exc:`WrongProcess` in a forked child.
        """
    def prometheus(self, *, openmetrics: bool = False) -> str:
        """What the engine has counted, as the text that Prometheus scrapes (``text/plain; version=0.0.4``), or with
        ``openmetrics`` as OpenMetrics 1.0. All names begin with ``tidewire_``. A closed engine still tells.

        Raises :exc:`WrongProcess` in a forked child.
        """
    def snapshot(self, path: _Path, /) -> None:
        """Writes a consistent copy of the data directory into a file: everything accepted before the call, and what is delivered
        of it. ``tidewire restore`` makes a directory of it. The engine goes on meanwhile.

        Raises :exc:`Timeout` or :exc:`LogFailed` if what was accepted cannot be made durable; :exc:`IoError` and the like;
        :exc:`Closed`, :exc:`WrongProcess`.
        """
    def put_rule(self, rule: Union[str, dict[str, Any]], *, expect: _Expect = None) -> int:
        """Puts one rule, new or in the place of the one that it has in its bucket; the others stay as they are. Answers its version.
        It is kept in the data directory, unless the configuration says ``engine.rules = "host"``.

        ``rule`` is one ``[[rule]]`` as the configuration has it, or its table as a ``dict``: ``{"id": "images", "bucket": "photos",
        "events": ["s3:ObjectCreated:*"], "prefix": "in/", "destinations": ["hook"]}``. ``expect`` is the version that it must have
        now, or ``"absent"``.

        Raises :exc:`InvalidConfig` if the rule is wrong; :exc:`Conflict` if ``expect`` does not hold, or the rule belongs to the
        configuration; :exc:`IoError` and the like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`. Then nothing has
        changed.
        """
    def delete_rule(self, id: str, *, bucket: Optional[str] = None, expect: _Expect = None) -> None:
        """Deletes a rule that was put; ``bucket`` is ``None`` for one of every bucket. What it has matched is delivered all the same.

        Raises :exc:`NotFound` if there is none that was put; otherwise as :meth:`put_rule`.
        """
    def rule(self, id: str, *, bucket: Optional[str] = None) -> RuleInfo:
        """One rule: see :class:`RuleInfo`.

        Raises :exc:`NotFound`; :exc:`WrongProcess` in a forked child.
        """
    def rules(self) -> list[RuleInfo]:
        """All rules, also those that are not in force.

        Raises :exc:`WrongProcess` in a forked child.
        """
    @property
    def rules_version(self) -> int:
        """Grows with each change of rules and destinations."""
    def replace_config(self, config: Optional[str] = None, *, config_path: Optional[_Path] = None) -> None:
        """Replaces the configuration's rules and destinations by those of another configuration; what was put stays. What else it
        says is of no account: that needs a new opening.

        Exactly one of ``config`` (TOML text) and ``config_path`` (a file) has it.

        Raises :exc:`InvalidConfig`, :exc:`IoError`, :exc:`Closed`, :exc:`WrongProcess`; :exc:`InvalidArgument` if the engine is
        another process's. Then nothing has changed.
        """
    def put_bucket_notification(
        self,
        bucket: str,
        document: Union[str, _Buffer, dict[str, Any]],
        *,
        overlap: Literal["allow-dedupe", "strict-aws", "allow-all"] = "allow-dedupe",
        encoded: bool = False,
        ceph: bool = False,
        event_bridge: Optional[str] = None,
        expect: _Expect = None,
    ) -> int:
        """Puts the notification document of a bucket, as ``PutBucketNotificationConfiguration`` of S3 does: all rules that were put
        for the bucket are replaced by those that it has. An empty one (``{}``) switches the bucket's notifications off, but for
        rules of the configuration and of every bucket. Answers the version of the bucket's rules.

        ``document`` is XML as the API of S3 takes it, JSON, or a ``dict`` as botocore has it:
        ``{"QueueConfigurations": [{"QueueArn": "arn:tidewire:sqs:::hook", "Events": ["s3:ObjectCreated:*"]}]}``. Its ARNs name
        destinations: ``arn:tidewire:sqs:::NAME``, ``arn:minio:sqs::NAME:webhook``, or those of ``[arns]`` in the configuration.

        ``overlap`` says what to do about rules of the document that want the same event: ``allow-dedupe`` (a destination hears of
        it once), ``strict-aws`` (they are refused, as AWS does) or ``allow-all``. ``encoded``: filter values are form-encoded, as
        AWS compares them. ``ceph``: it may say what Ceph understands beyond S3. ``event_bridge`` is the destination that
        ``EventBridgeConfiguration`` means; without it documents that have it are refused. ``expect`` is the version that the
        bucket's rules must have now, or ``"absent"``.

        Raises :exc:`InvalidConfig`, which tells line and column, if the document is wrong; otherwise as :meth:`put_rule`. What to
        answer a client of S3 is in ``s3_code`` and ``s3_status`` of the exception, and :meth:`Error.to_s3_xml`.
        """
    def check_bucket_notification(
        self,
        bucket: str,
        document: Union[str, _Buffer, dict[str, Any]],
        *,
        overlap: Literal["allow-dedupe", "strict-aws", "allow-all"] = "allow-dedupe",
        encoded: bool = False,
        ceph: bool = False,
        event_bridge: Optional[str] = None,
    ) -> list[dict[str, Any]]:
        """Checks a document as :meth:`put_bucket_notification` does, and changes nothing. Answers the rules that it would make.

        Raises what that does.
        """
    def bucket_notification(
        self, bucket: str, *, format: Literal["dict", "json", "xml"] = "dict"
    ) -> BucketNotification:
        """The notification document of a bucket, as ``GetBucketNotificationConfiguration`` of S3 gives it: what was put, with ids
        for configurations that had none. Rules that were put by other ways stand in it where a document can say what they say.

        ``format`` is ``dict`` (as botocore has it), ``json`` or ``xml``. Answers a :class:`BucketNotification`.

        Raises :exc:`WrongProcess` in a forked child.
        """
    def put_destination(
        self,
        destination: Union[str, dict[str, Any]],
        *,
        expect: _Expect = None,
        backlog: _Backlog = "keep",
        move_to: Optional[str] = None,
    ) -> int:
        """Puts one destination, new or in the place of the one of its name. Answers its version. It is kept in the data directory
        with the secrets that are given as text, in files that only their owner can read.

        ``destination`` is one ``[[destination]]`` as the configuration has it, or its table as a ``dict``: ``{"name": "hook",
        "type": "webhook", "url": "https://example.com/hook"}``. ``expect`` is the version that it must have now, or ``"absent"``.
        ``backlog`` says what becomes of what waits for it, if its settings are others now: ``keep`` (it goes on with them),
        ``drain`` (it is delivered with the earlier ones), ``dead-letter``, ``purge``, or ``move`` to the destination ``move_to``.

        Raises :exc:`InvalidConfig` if it is wrong, or a rule does not fit it; :exc:`Conflict` if ``expect`` does not hold, or the
        configuration has one of its name; :exc:`NotFound` if there is no destination to move to; otherwise as :meth:`put_rule`.
        """
    def delete_destination(
        self, name: str, *, expect: _Expect = None, backlog: _Backlog = "keep", move_to: Optional[str] = None
    ) -> None:
        """Deletes a destination that was put. ``backlog`` and ``move_to`` are those of :meth:`put_destination`; with ``keep`` what
        waits is delivered.

        Raises :exc:`NotFound` if there is none; :exc:`Conflict` if ``expect`` does not hold, or rules that were put send to it;
        otherwise as :meth:`put_destination`.
        """
    def suspend_destination(self, name: str) -> None:
        """Sends a destination nothing until it is resumed; its events wait. It stays so through restarts.

        Raises :exc:`NotFound` if there is no such destination; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def resume_destination(self, name: str) -> None:
        """Sends to a destination again, at once, whatever was in the way: it was suspended or disabled, or is left alone because it
        failed.

        Raises :exc:`NotFound` if there is no such destination; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def confirm_destination(self, name: str, *, per_minute: Optional[int] = None) -> None:
        """Vouches for a destination that is pending: its endpoints count as having agreed to be sent events, to ``per_minute``
        requests per minute if that is given.

        Raises :exc:`NotFound` if there is no such destination; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def destination(self, name: str) -> DestinationStanding:
        """How a destination is doing: whether it is sent anything, why not, its endpoints, and its last attempts that failed: see
        :class:`DestinationStanding`.

        Raises :exc:`NotFound` if there is no such destination; :exc:`WrongProcess` in a forked child.
        """
    def destinations(self) -> list[DestinationInfo]:
        """All destinations, also those that are not in force: see :class:`DestinationInfo`. Settings are not told, for they may be
        secret.

        Raises :exc:`WrongProcess` in a forked child.
        """
    def test_destination(self, name: str) -> DestinationTest:
        """Sends a destination one event of its own (``s3:TestEvent``), apart from everything else that is on its way, and tells step
        by step what happened: see :class:`DestinationTest`. Takes as long as the destination's ``timeout`` at most.

        Raises :exc:`NotFound`; :exc:`InvalidConfig` or :exc:`IoError` if a file of its settings cannot be used;
        :exc:`Closed`, :exc:`WrongProcess`. That it does not take the event is no exception.
        """
    def rotate_secret(self, name: str, secret: Optional[str] = None, *, overlap: float = 86400.0) -> str:
        """Rotates a secret of a destination, and answers the new one, which is never shown again: ``secret``, or one that is made.
        What was used before stays valid for ``overlap`` seconds, at most seven days; receivers find signatures of both where the
        scheme can send several. It takes the place of the configured secret until the configuration has another.

        Raises :exc:`NotFound`; :exc:`InvalidArgument` if the destination has no secret or the new one does not fit;
        :exc:`IoError` and the like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def set_enricher(
        self,
        enricher: Optional[Callable[[Event], Optional[Mapping[str, Any]]]],
        *,
        timeout: float = 0.1,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Gives the engine a callable that adds metadata, tags or data to each event before it is matched. It takes the place of an
        earlier one; ``None`` takes that away.

        It is called with an :class:`Event`, and returns ``None``, or a ``dict`` of what is added: ``metadata`` and ``tags``, which are
        mappings, and ``data``, as for :meth:`publish`. What the event has under the same name is replaced. What it adds is
        written to the log with the event and never asked for again. Each shard has a thread for it, so it may block, and is called
        by several threads where there are several shards. What comes after an event waits for it, and so does an ack. If it
        takes longer than ``timeout`` seconds (0.001 to 60), raises, or returns what cannot be, the event gets ``metadata`` and
        ``tags`` instead; after a timeout nobody waits for it until it is back. :meth:`stats` counts.

        Raises :exc:`InvalidArgument` for a timeout, metadata or tags that cannot be; :exc:`IoError` if there can be no thread;
        :exc:`Closed`, :exc:`WrongProcess`.
        """
    @overload
    def set_handler(self, name: str, handler: Optional[Callable[[Batch], Optional[Iterable[int]]]]) -> None:
        """Gives the engine a callable, or a coroutine function, for the custom destinations that name it: ``[[destination]] name =
        "index", type = "custom"``, with ``handler = "NAME"`` if that is another. It takes the place of an earlier one; ``None``
        takes that away, and events wait.

        It is called with one :class:`Batch` after the other. When it returns, everything is taken, or all but the events whose
        places it returns as a list; an exception means that it is tried again, and is logged. It may say more by the methods of
        the batch. A callable has a thread of its own: it may block, and holds up its own destinations and nothing else. A
        coroutine function runs on ``loop``, by default the one that runs now.

        Raises :exc:`InvalidConfig` for a name that is not valid; :exc:`InvalidArgument` if there is no loop for a coroutine
        function, or if the engine is another process's, or shared; :exc:`IoError` if there can be no thread; :exc:`Closed`,
        :exc:`WrongProcess`.

        >>> told = []
        >>> engine.set_handler("mine", lambda batch: told.extend(batch.records))
        """
    @overload
    def set_handler(
        self,
        name: str,
        handler: Callable[[Batch], Awaitable[Optional[Iterable[int]]]],
        *,
        loop: Optional[asyncio.AbstractEventLoop] = None,
    ) -> None: ...
    def tail(
        self,
        *,
        start: Literal["now", "beginning", None] = "now",
        from_ns: Optional[int] = None,
        position: Optional[str] = None,
        bucket: Optional[str] = None,
        events: Optional[Iterable[str]] = None,
        filter: Union[Filter, str, dict[str, Any], None] = None,
    ) -> Tail:
        """Follows the log: an iterator, also an asynchronous one, of :class:`Entry` for the events from some place on, then for each
        one as it is published, and of :class:`Gap` for what is missing. It ends when the engine is closed.

        ``start`` is ``now`` or ``beginning``; instead ``from_ns`` begins with events whose clock is at least that, in nanoseconds
        since the epoch, and ``position`` goes on where another tail stopped (:meth:`Tail.position`). ``bucket``, ``events`` (names
        and wildcards of types) and ``filter`` (a :class:`Filter`, or the native form) say which events; what is not given is no
        condition. Only events that a rule wants, or that are kept (``engine.retention``), are in the log. A tail keeps nothing
        there: what is removed before it was read comes as a gap.

        Raises :exc:`InvalidArgument` for a position of another data directory, :exc:`InvalidConfig` for a filter, a bucket or
        types that are wrong, :exc:`Closed`, :exc:`WrongProcess`.

        >>> tail = engine.tail(bucket="photos", filter={"suffix": ".jpg"})
        >>> engine.publish("photos", "cats/tim.jpg")
        <Published.ACCEPTED: 1>
        >>> next(tail).event.key
        b'cats/tim.jpg'
        """
    def consumer(
        self,
        group: str,
        *,
        start: Literal["now", "beginning", None] = "now",
        from_ns: Optional[int] = None,
        position: Optional[str] = None,
        bucket: Optional[str] = None,
        events: Optional[Iterable[str]] = None,
        filter: Union[Filter, str, dict[str, Any], None] = None,
        visibility_timeout: float = 30.0,
        deliveries_max: int = 16,
        batch: int = 100,
        lag_bytes_max: int = 1073741824,
        lag_age_max: float = 604800.0,
    ) -> Consumer:
        """A member of a group of consumers, which is made if it is not there: an iterator, also an asynchronous one, of
        :class:`Delivery`, to be acknowledged, and :class:`Gap`.

        Members of a group share its events: each goes to one of them, on a lease. Of one key there is one event out at a time, so
        that the events of a key are processed in order. An event that is not acknowledged in time goes out again. The events that
        a group wants are kept in the log for it, whether or not a rule wants them. A group exists until :meth:`delete_group`.

        ``start`` and the others as for :meth:`tail`, for a group that is made. ``visibility_timeout`` is how long a member has for
        an event before another may get it, in seconds. ``deliveries_max`` is how often an event is given out before it becomes a
        dead letter. ``batch`` is the most that is fetched at a time, 1 to 10,000. ``lag_bytes_max`` and ``lag_age_max`` (seconds)
        limit the log that is kept for a group that is behind; what it has not read by then comes as a gap.

        Raises :exc:`InvalidArgument` for a name that is not allowed, another filter than the group's, or a position of another
        directory; :exc:`InvalidConfig` for options out of range; :exc:`Full` if there are too many groups; :exc:`IoError` and the
        like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def delete_group(self, group: str) -> None:
        """Deletes a group of consumers: what it has done is forgotten, and the log is not kept for it any more. Its members get
        :exc:`NotFound` from then on.

        Raises :exc:`NotFound` if there is no such group; :exc:`IoError` and the like if that cannot be stored; :exc:`Closed`,
        :exc:`WrongProcess`.
        """
    def groups(self) -> list[GroupStats]:
        """The groups of consumers, and how they are getting on: see :class:`GroupStats`.

        Raises :exc:`WrongProcess` in a forked child.
        """
    def dead_letters(
        self,
        *,
        limit: int = 100,
        after: Optional[str] = None,
        ids: Optional[Iterable[str]] = None,
        destination: Optional[str] = None,
        bucket: Optional[str] = None,
        key_prefix: Optional[_Key] = None,
        reason: Optional[str] = None,
        from_ns: Optional[int] = None,
        before_ns: Optional[int] = None,
    ) -> list[DeadLetter]:
        """Lists dead letters by shard and number, at most ``limit`` and 10,000: a list of :class:`DeadLetter`. The next page begins
        after the last one's id (``after``).

        The others say which are meant, those for which everything that is given holds: ``ids``, ``destination``, ``bucket``,
        ``key_prefix``, ``reason`` (a part of it), and ``from_ns`` and ``before_ns``, between which they were given up, in
        nanoseconds since the epoch.

        Raises :exc:`NotFound` for a destination that the data directory never had; :exc:`IoError` and the like if a file cannot be
        read; :exc:`InvalidArgument`, :exc:`WrongProcess`.
        """
    def export_dead_letters(
        self,
        file: Union[_Path, _Writes],
        /,
        *,
        ids: Optional[Iterable[str]] = None,
        destination: Optional[str] = None,
        bucket: Optional[str] = None,
        key_prefix: Optional[_Key] = None,
        reason: Optional[str] = None,
        from_ns: Optional[int] = None,
        before_ns: Optional[int] = None,
    ) -> int:
        """Writes dead letters as lines of JSON with everything that is known of them, the records that their destinations would have
        been sent among that. ``file`` is a path, or an object with ``write`` for ``bytes``. Which are meant is said as for
        :meth:`dead_letters`. Answers how many.

        Raises what :meth:`dead_letters` does, and what ``write`` raises.
        """
    def redrive(
        self,
        *,
        to: Optional[str] = None,
        per_second: Optional[int] = None,
        timeout: Optional[float] = 30.0,
        ids: Optional[Iterable[str]] = None,
        destination: Optional[str] = None,
        bucket: Optional[str] = None,
        key_prefix: Optional[_Key] = None,
        reason: Optional[str] = None,
        from_ns: Optional[int] = None,
        before_ns: Optional[int] = None,
    ) -> Redriven:
        """Puts dead letters back into the log, to be delivered as the same events, in the order of their keys, with a fresh budget.
        Which are meant is said as for :meth:`dead_letters`. ``to`` is a destination that gets them instead of their own,
        ``per_second`` how many a second. Waits at most ``timeout`` seconds; what is not redriven by then stays a letter. Answers a
        :class:`Redriven`.

        Raises :exc:`NotFound` if a destination is not configured; :exc:`Timeout`; :exc:`LogFailed` and the like if the log or the
        letters cannot be written; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def purge_dead_letters(
        self,
        *,
        timeout: float = 30.0,
        ids: Optional[Iterable[str]] = None,
        destination: Optional[str] = None,
        bucket: Optional[str] = None,
        key_prefix: Optional[_Key] = None,
        reason: Optional[str] = None,
        from_ns: Optional[int] = None,
        before_ns: Optional[int] = None,
    ) -> int:
        """Removes dead letters for good; which are meant is said as for :meth:`dead_letters`. Answers how many, once that is durable.

        Raises what :meth:`dead_letters` does; :exc:`Timeout` if it is not through within ``timeout`` seconds (it goes on);
        :exc:`Closed`.
        """
    def replay(
        self,
        to: Union[str, dict[str, Any]],
        *,
        name: Optional[str] = None,
        from_ns: Optional[int] = None,
        until_ns: Optional[int] = None,
        bucket: Optional[str] = None,
        events: Optional[Iterable[str]] = None,
        filter: Union[Filter, str, dict[str, Any], None] = None,
        rate_max: Optional[int] = None,
    ) -> Replay:
        """Sends events of the log again. They keep their ids and their order for each key, through a lane of the replay's own: live
        events are neither delayed nor kept in order with it. It goes on after a restart.

        ``to`` is a destination of the rules by name, or one of the replay's own: a ``dict`` as for :meth:`put_destination`, which
        is not stored. ``name`` is the replay's, by default a new one. ``from_ns`` and ``until_ns`` are clocks in nanoseconds since
        the epoch; by default everything that the log still has. ``bucket``, ``events`` and ``filter`` as for :meth:`tail`.
        ``rate_max`` is the most events per second.

        Raises :exc:`NotFound` if the rules have no such destination; :exc:`InvalidArgument` for a name that is taken or not
        allowed, or a rate of 0; :exc:`InvalidConfig` for a destination of its own that is wrong; :exc:`Full` if too many are under
        way; :exc:`IoError` and the like if it cannot be stored; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def replays(self) -> list[Replay]:
        """The replays that are not through, those of earlier runs included.

        Raises :exc:`WrongProcess` in a forked child.
        """
    def resume_replay(self, name: str, to: dict[str, Any]) -> Replay:
        """Says where a replay goes that waits since the engine was opened, because its destination is none of the rules'.

        Raises :exc:`NotFound` if there is no such replay, :exc:`InvalidArgument` if it does not wait, :exc:`InvalidConfig` if the
        destination is wrong; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def close(self, timeout: Optional[float] = None) -> None:
        """Closes the engine: takes no more events, makes durable what was accepted, delivers for at most ``timeout``
        seconds and leaves the rest in the data directory for the next engine on it. ``None`` is the ``close_timeout``
        of the configuration. Further calls do nothing. That of another process goes on: this waits until it has taken in what
        was published here, and ends the connection.

        Raises :exc:`WrongProcess` in a forked child; :exc:`Timeout` if another process has not taken in everything.
        """
    def close_async(self, timeout: Optional[float] = None) -> Awaitable[None]:
        """As :meth:`close`, to be awaited: a thread waits."""
    @property
    def closed(self) -> bool:
        """Whether the engine was closed."""
    def __enter__(self) -> Engine: ...
    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> None: ...
    def __aenter__(self) -> Awaitable[Engine]: ...
    def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> Awaitable[None]: ...
    def _acks(self) -> Any: ...
    def _ask_to_flush(self, timeout: Optional[float]) -> Any: ...
    def _flush_timeout(self) -> None: ...
    @property
    def _is_remote(self) -> bool: ...
    def _publish_some(self, events: Any, given: dict[str, Any], series: Any, last: bool) -> str: ...
    def _start_flush(self, poller: Any) -> Optional[int]: ...
    def _try_publish(
        self, event: Event, given: dict[str, Any], last: bool
    ) -> Optional[asyncio.Future[Published]]: ...

@final
class Reservation:
    """Space for one event, and the promise that its commit is not refused for want of it: see :meth:`Engine.reserve`.

    It may be used from any thread. One that nobody holds any more is aborted. It is false if no rule wants the event.
    """

    @property
    def token(self) -> Optional[str]:
        """By what a journal of the host can name it: the id that the event has once it is committed. Only with a durable intent."""
    @property
    def bytes_max(self) -> int:
        """The most bytes that the event may have encoded; 0 if nothing is held."""
    @property
    def is_open(self) -> bool:
        """Whether it is neither committed nor aborted."""
    def __bool__(self) -> bool: ...
    def set(
        self,
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        content_type: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
    ) -> None:
        """Remembers for the commit what is known of the event by now: ``size``, ``etag``, ``version_id``, ``content_type``,
        ``metadata``, ``tags``, ``data`` and ``time_ns``.
        """
    def commit(
        self,
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        content_type: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        ack: Optional[_Ack] = None,
        timeout: Optional[float] = None,
    ) -> Published:
        """The operation came to be: its event is accepted, as it was declared but for these parts and those of :meth:`set`. After
        the first time this changes nothing. Answers ``Published.NO_MATCH`` if nothing is held.

        Raises :exc:`InvalidEvent` if the event is not valid or larger than was reserved: the reservation stays open.
        :exc:`InvalidArgument` if it was aborted. :exc:`Closed` or :exc:`LogFailed`: the event is not accepted, and a durable
        intent is in doubt at the next opening. :exc:`Timeout`: it is accepted, but has not reached the ack level.
        """
    def commit_async(
        self,
        *,
        size: Optional[int] = None,
        etag: Optional[str] = None,
        version_id: Optional[str] = None,
        content_type: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        tags: Optional[Mapping[str, str]] = None,
        data: Union[_Buffer, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        ack: Optional[_Ack] = None,
        timeout: Optional[float] = None,
    ) -> Awaitable[Published]:
        """As :meth:`commit`, to be awaited. The event is on its way when this returns."""
    def abort(self) -> None:
        """The operation did not come to be: nothing is told, and the space is free again. After the first time this changes
        nothing.

        Raises :exc:`InvalidArgument` if it was committed; :exc:`Closed` or :exc:`LogFailed` if a durable intent could not be
        ended and is in doubt at the next opening; :exc:`WrongProcess`.
        """
    def __enter__(self) -> Reservation: ...
    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> None: ...
    def __aenter__(self) -> Awaitable[Reservation]: ...
    def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> Awaitable[None]: ...

@final
class BatchReservation:
    """The reservations of one operation on several objects: see :meth:`Engine.reserve_batch`. A sequence of
    :class:`Reservation`, in the order of the events, and a context manager: the end of the block commits those that are open,
    with one wait for all of them; an exception aborts them.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Reservation: ...
    def __iter__(self) -> Iterator[Reservation]: ...
    def commit_all(self) -> None:
        """Commits those that are open, as :meth:`Reservation.commit` with what was set of each, and waits once for all of them.

        Raises what :meth:`Reservation.commit` does, of the first event that it is said of: those before it are committed, it
        and those after it stay open.
        """
    def abort_all(self) -> None:
        """Aborts those that are open.

        Raises what :meth:`Reservation.abort` does, of the last event that it is said of; all are aborted.
        """
    def __enter__(self) -> BatchReservation: ...
    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> None: ...

class Entry:
    """An event of the log."""

    @property
    def event(self) -> Event:
        """The event: an :class:`Event`, with its time."""
    @property
    def id(self) -> str:
        """The event's id, as records have it."""
    @property
    def sequencer(self) -> str:
        """The event's place in the order of its key: 32 hexadecimal digits, which compare as text."""
    @property
    def shard(self) -> int:
        """The shard that has it."""
    @property
    def sequence(self) -> int:
        """Its place in the log of that shard."""
    @property
    def clock_ns(self) -> int:
        """When it was accepted: nanoseconds since the epoch, by a clock that never goes back."""

@final
class Delivery(Entry):
    """An event in the hands of a member of a group. Say what became of it: :meth:`ack` or :meth:`nack`, or use it as a context
    manager: the end of the block acknowledges, an exception gives it back.
    """

    @property
    def deliveries(self) -> int:
        """How often it was given out, this time included; more than 1 means that somebody may have processed it before."""
    def ack(self) -> None:
        """The event is processed.

        Raises :exc:`Timeout` if the lease had run out: what was done for it here may be done twice. :exc:`NotFound` if it is done
        already, or the group was deleted. :exc:`Closed`, :exc:`WrongProcess`.
        """
    def nack(self, delay: float = 0.0) -> None:
        """The event could not be processed: it goes out again after ``delay`` seconds.

        Raises what :meth:`ack` does.
        """
    def extend(self) -> None:
        """The event takes longer: the lease begins anew, with the member's whole ``visibility_timeout``.

        Raises what :meth:`ack` does.
        """
    def __enter__(self) -> Delivery: ...
    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> None: ...

@final
class Gap:
    """A stretch of the log that was wanted and is not there."""

    @property
    def shard(self) -> int:
        """The shard."""
    @property
    def first(self) -> int:
        """The first sequence that is missing."""
    @property
    def last(self) -> int:
        """The last one. Not every number between need have been an event."""
    @property
    def cause(self) -> Literal["removed", "damaged"]:
        """``removed`` (it was delivered, and retention did not keep it) or ``damaged``."""
    @property
    def since_ns(self) -> Optional[int]:
        """The clock of the last event before it, in nanoseconds since the epoch, if that is known."""
    @property
    def until_ns(self) -> Optional[int]:
        """The clock at which the log goes on, if it does."""

@final
class Tail:
    """Follows the log: see :meth:`Engine.tail`. It reads on the thread that asks it; threads that use it at the same time wait for
    each other.
    """

    def next(self, timeout: Optional[float] = None) -> Union[Entry, Gap, None]:
        """What comes next, an :class:`Entry` or a :class:`Gap`; ``None`` if there is nothing within ``timeout`` seconds.

        Raises :exc:`Closed` when the engine is closed and everything was read; :exc:`IoError` and the like if the log cannot be
        read; :exc:`Disconnected` if the engine's process has died: open another one at the position; :exc:`WrongProcess`.
        """
    def next_async(self, timeout: Optional[float] = None) -> Awaitable[Union[Entry, Gap, None]]:
        """As :meth:`next`, to be awaited."""
    @property
    def position(self) -> str:
        """How far it has come, as a text for ``position``, also of another run."""
    def __iter__(self) -> Tail: ...
    def __next__(self) -> Union[Entry, Gap]: ...
    def __aiter__(self) -> Tail: ...
    def __anext__(self) -> Awaitable[Union[Entry, Gap]]: ...
    def _ask(self, seconds: float) -> Optional[int]: ...
    @property
    def _is_remote(self) -> bool: ...
    def _watch(self, poller: Any) -> Optional[int]: ...

@final
class Consumer:
    """A member of a group of consumers: see :meth:`Engine.consumer`. Use it as a context manager, or call :meth:`close`: what it has
    not acknowledged goes out again at once; the group stays.
    """

    @property
    def group(self) -> str:
        """The group's name."""
    def fetch(self, max: int = 100, timeout: Optional[float] = None) -> list[Union[Delivery, Gap]]:
        """Takes up to ``max`` events that no member has, and waits at most ``timeout`` seconds if there are none: a list of
        :class:`Delivery` and :class:`Gap`, which may be empty. Fewer than ``max`` are no sign that there are no more.

        Raises :exc:`NotFound` if the group was deleted; :exc:`IoError` and the like if the log cannot be read;
        :exc:`Disconnected` if the engine's process has died: what it had goes out again; :exc:`Closed`, :exc:`WrongProcess`.
        """
    def fetch_async(
        self, max: int = 100, timeout: Optional[float] = None
    ) -> Awaitable[list[Union[Delivery, Gap]]]:
        """As :meth:`fetch`, to be awaited."""
    def ack(self, deliveries: Iterable[Delivery], /) -> None:
        """Acknowledges several deliveries at once.

        Raises what :meth:`Delivery.ack` does; those whose leases are good are done all the same.
        """
    def close(self) -> None:
        """Gives back what it has. Further calls do nothing."""
    def __enter__(self) -> Consumer: ...
    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> None: ...
    def __aenter__(self) -> Awaitable[Consumer]: ...
    def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> Awaitable[None]: ...
    def __iter__(self) -> Consumer: ...
    def __next__(self) -> Union[Delivery, Gap]: ...
    def __aiter__(self) -> Consumer: ...
    def __anext__(self) -> Awaitable[Union[Delivery, Gap]]: ...
    def _ask(self, max: int, seconds: float) -> Optional[int]: ...
    def _fetched(self) -> Any: ...
    def _keep(self, list: list[Any]) -> None: ...
    @property
    def _is_remote(self) -> bool: ...
    def _watch(self, poller: Any) -> Optional[int]: ...

@final
class Batch:
    """Some events of a custom destination, with the duty to say what became of them: see :meth:`Engine.set_handler`. As with every
    destination, events may come more than once, with the same ids.

    It has the records as a sequence of ``bytes``. One answer counts; further ones do nothing. One whose answer does not come
    within the destination's ``timeout``, or that nobody has any more, is tried again.
    """

    @property
    def destination(self) -> str:
        """The name of the destination."""
    @property
    def content_type(self) -> str:
        """The media type of the body."""
    @property
    def ids(self) -> list[str]:
        """The ids of the events."""
    @property
    def records(self) -> list[bytes]:
        """The record of each event by itself, as the destination's profile and format write it."""
    @property
    def headers(self) -> list[tuple[str, str]]:
        """Headers that belong to the record where the format has some, as CloudEvents in binary mode: pairs of name and value."""
    @property
    def left(self) -> float:
        """For how many seconds an answer still counts; 0 if none does any more."""
    @property
    def answered(self) -> bool:
        """Whether it was answered."""
    def body(self) -> bytes:
        """The body that a webhook would get.

        Raises :exc:`InvalidArgument` once it was answered.
        """
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def accept(self) -> None:
        """Everything was taken, and is yours to keep."""
    def accept_but(self, failed: Sequence[int], reason: str = "") -> None:
        """Everything was taken but for the events of these places, which are tried again.

        Raises :exc:`InvalidArgument` for a place that there is not.
        """
    def retry(self, reason: str = "") -> None:
        """It could not be taken now: it is tried again, with the waits of the destination's ``retry``, and counts as a failure."""
    def retry_after(self, seconds: float, reason: str = "") -> None:
        """Nothing more is to come for so many seconds; then it is tried again. Does not count as an attempt."""
    def refuse(self, reason: str = "") -> None:
        """Something in it will never be taken. It is tried again in parts, until what is refused alone is a dead letter."""
    def keep(self) -> None:
        """Keeps it, to be answered later, from any thread: that the callable returns is then no answer."""
    @property
    def _settled(self) -> bool: ...

@final
class Replay:
    """A replay under way: see :meth:`Engine.replay`. It goes on if nobody holds this."""

    @property
    def name(self) -> str:
        """The replay's name."""
    def progress(self) -> ReplayProgress:
        """How far it is: see :class:`ReplayProgress`."""
    def wait(self, timeout: Optional[float] = 30.0) -> ReplayProgress:
        """Waits until it has ended, at most ``timeout`` seconds. Answers how far it came.

        Raises :exc:`Timeout`, also for a replay that waits for a destination; :exc:`Closed` if the engine closes first: it goes on
        at the next opening.
        """
    def wait_async(self, timeout: Optional[float] = 30.0) -> Awaitable[ReplayProgress]:
        """As :meth:`wait`, to be awaited."""
    def cancel(self) -> None:
        """Ends it before it is through: what is on its way may still arrive, the rest is not sent.

        Raises :exc:`IoError` and the like if that cannot be stored; then it goes on at the next opening. :exc:`WrongProcess`.
        """

@final
class Filter:
    """A condition on events, without an engine. It never changes, and may be used from any thread.

    An event is an :class:`Event`, or a mapping of its parts, such as ``{"bucket": "photos", "key": "in/a.jpg", "size": 5}``.
    """

    @classmethod
    def parse(cls, filter: Union[str, dict[str, Any]], /) -> Filter:
        """Reads the native form: JSON text, or a ``dict`` to write as such. ``FILTER_SCHEMA`` describes it.

        Raises :exc:`InvalidConfig` with the place in it.
        """
    @classmethod
    def from_eventbridge(
        cls, pattern: Union[str, dict[str, Any]], /, *, data: bool = False, region: Optional[str] = "us-east-1"
    ) -> Filter:
        """Reads an event pattern of Amazon EventBridge: JSON text, or a ``dict``. It is about the EventBridge form of S3
        events, with ``data=True`` about the JSON data of events. ``region`` is that of events which name none.

        Raises :exc:`InvalidConfig` with the place in it.
        """
    @classmethod
    def from_cloudevents(
        cls,
        filters: Union[str, list[Any], dict[str, Any]],
        /,
        *,
        event_source: Optional[str] = "aws:s3",
        region: Optional[str] = "us-east-1",
    ) -> Filter:
        """Reads the filters of a CloudEvents subscription: JSON text, or a ``list`` or ``dict``. ``event_source`` and
        ``region`` are those of the engine whose events it is for.

        Raises :exc:`InvalidConfig` with the place in it.
        """
    @classmethod
    def from_cel(cls, expression: str, /) -> Filter:
        """Reads a condition in the Common Expression Language on the variable ``event``, such as
        ``event.key.startsWith("in/") && event.size > 0``.

        Raises :exc:`InvalidConfig` with the column.
        """
    @classmethod
    def from_s3(
        cls, filter: Union[str, dict[str, Any]], /, *, encoded: bool = False, ceph: bool = False
    ) -> Filter:
        """Reads the ``Filter`` of an S3 notification document: XML or JSON text, or a ``dict``. ``encoded``: its values are
        form-encoded. ``ceph``: it may have what Ceph has more than S3.

        Raises :exc:`InvalidConfig` with line and column.
        """
    def matches(self, event: _Event, /) -> bool:
        """Whether the event passes. One without ``time_ns`` happens now.

        Raises :exc:`InvalidEvent` for what :meth:`Engine.publish` would not take.
        """
    def explain(self, event: _Event, /) -> list[str]:
        """The conditions that the event does not meet, each with what it has instead, for people; none if it passes.

        Raises :exc:`InvalidEvent` for what :meth:`Engine.publish` would not take.
        """
    def plan(self) -> Plan:
        """What the filter is compiled to: the condition that it is filed under in the index of an engine, what is checked
        then, and what that costs: see :class:`Plan`.
        """
    def to_json(self) -> str:
        """The native form as JSON text. Read again, it passes the same events."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def lint(config: Optional[str] = None, *, config_path: Optional[_Path] = None) -> list[Finding]:
    """Looks for rules that never want an event, that always do in spite of their conditions, that say the same, or that may
    want the same event for the same destination: see :class:`Finding`.

    Exactly one of ``config`` (TOML text) and ``config_path`` (a file) has the rules; destinations and a data directory are not
    needed.

    Raises :exc:`InvalidConfig` or :exc:`IoError`.
    """
def check_config(config: Optional[str] = None, *, config_path: Optional[_Path] = None) -> None:
    """Checks a configuration as :class:`Engine` would when it is opened, as far as nothing need be opened for that.

    Exactly one of ``config`` (TOML text) and ``config_path`` (a file) has it.

    Raises :exc:`InvalidConfig` with file, line and column, or :exc:`IoError`.
    """
def refresh_logging() -> None:
    """Looks anew which messages ``logging`` wants. The levels of the logger ``tidewire`` are asked for when an engine is opened, so
    that what nobody wants costs nothing; call this after changing them.
    """

class EventType:
    """The names of the known event types; each is a plain ``str``."""

    ALL: ClassVar[tuple[str, ...]]
    """All of them, in the order of the registry."""

    OBJECT_CREATED_PUT: Final = "s3:ObjectCreated:Put"
    OBJECT_CREATED_POST: Final = "s3:ObjectCreated:Post"
    OBJECT_CREATED_COPY: Final = "s3:ObjectCreated:Copy"
    OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD: Final = "s3:ObjectCreated:CompleteMultipartUpload"
    OBJECT_REMOVED_DELETE: Final = "s3:ObjectRemoved:Delete"
    OBJECT_REMOVED_DELETE_MARKER_CREATED: Final = "s3:ObjectRemoved:DeleteMarkerCreated"
    OBJECT_REMOVED_DELETE_ALL_VERSIONS: Final = "s3:ObjectRemoved:DeleteAllVersions"
    OBJECT_REMOVED_NOOP: Final = "s3:ObjectRemoved:NoOP"
    LIFECYCLE_EXPIRATION_DELETE: Final = "s3:LifecycleExpiration:Delete"
    LIFECYCLE_EXPIRATION_DELETE_MARKER_CREATED: Final = "s3:LifecycleExpiration:DeleteMarkerCreated"
    LIFECYCLE_EXPIRATION_ABORT_MULTIPART_UPLOAD: Final = "s3:ObjectLifecycle:Expiration:AbortMultipartUpload"
    LIFECYCLE_TRANSITION: Final = "s3:LifecycleTransition"
    LIFECYCLE_TRANSITION_FAILED: Final = "s3:ObjectTransition:Failed"
    INTELLIGENT_TIERING: Final = "s3:IntelligentTiering"
    OBJECT_RESTORE_POST: Final = "s3:ObjectRestore:Post"
    OBJECT_RESTORE_COMPLETED: Final = "s3:ObjectRestore:Completed"
    OBJECT_RESTORE_DELETE: Final = "s3:ObjectRestore:Delete"
    REDUCED_REDUNDANCY_LOST_OBJECT: Final = "s3:ReducedRedundancyLostObject"
    REPLICATION_FAILED: Final = "s3:Replication:OperationFailedReplication"
    REPLICATION_MISSED_THRESHOLD: Final = "s3:Replication:OperationMissedThreshold"
    REPLICATION_REPLICATED_AFTER_THRESHOLD: Final = "s3:Replication:OperationReplicatedAfterThreshold"
    REPLICATION_NOT_TRACKED: Final = "s3:Replication:OperationNotTracked"
    REPLICATION_COMPLETED: Final = "s3:Replication:OperationCompletedReplication"
    REPLICA_CREATED: Final = "s3:ObjectSynced:Create"
    REPLICA_DELETED: Final = "s3:ObjectSynced:Delete"
    REPLICA_DELETE_MARKER_CREATED: Final = "s3:ObjectSynced:DeletionMarkerCreated"
    OBJECT_TAGGING_PUT: Final = "s3:ObjectTagging:Put"
    OBJECT_TAGGING_DELETE: Final = "s3:ObjectTagging:Delete"
    OBJECT_ACL_PUT: Final = "s3:ObjectAcl:Put"
    OBJECT_ANNOTATION_PUT: Final = "s3:ObjectAnnotation:Put"
    OBJECT_ANNOTATION_DELETE: Final = "s3:ObjectAnnotation:Delete"
    OBJECT_METADATA_PUT: Final = "s3:ObjectMetadata:Put"
    OBJECT_RETENTION_PUT: Final = "s3:ObjectRetention:Put"
    OBJECT_LEGAL_HOLD_PUT: Final = "s3:ObjectLegalHold:Put"
    OBJECT_RENAMED: Final = "s3:ObjectRenamed"
    OBJECT_ACCESSED_GET: Final = "s3:ObjectAccessed:Get"
    OBJECT_ACCESSED_HEAD: Final = "s3:ObjectAccessed:Head"
    OBJECT_ACCESSED_GET_RETENTION: Final = "s3:ObjectAccessed:GetRetention"
    OBJECT_ACCESSED_GET_LEGAL_HOLD: Final = "s3:ObjectAccessed:GetLegalHold"
    OBJECT_ACCESSED_ATTRIBUTES: Final = "s3:ObjectAccessed:Attributes"
    BUCKET_ACCESSED_LIST: Final = "s3:BucketAccessed:List"
    ACCESS_DENIED_READ: Final = "Access:Denied:Read"
    ACCESS_DENIED_WRITE: Final = "Access:Denied:Write"
    ACCESS_DENIED_DELETE: Final = "Access:Denied:Delete"
    ACCESS_DENIED_LIST: Final = "Access:Denied:List"
    ACCESS_DENIED_ADMIN: Final = "Access:Denied:Admin"
    BUCKET_CREATED: Final = "s3:BucketCreated"
    BUCKET_REMOVED: Final = "s3:BucketRemoved"
    SCANNER_MANY_VERSIONS: Final = "s3:Scanner:ManyVersions"
    SCANNER_LARGE_VERSIONS: Final = "s3:Scanner:LargeVersions"
    SCANNER_BIG_PREFIX: Final = "s3:Scanner:BigPrefix"
    CONFIGURATION_POLICY_PUT: Final = "Configuration:Policy:Put"
    CONFIGURATION_POLICY_DELETE: Final = "Configuration:Policy:Delete"
    CONFIGURATION_ACL_PUT: Final = "Configuration:Acl:Put"
    CONFIGURATION_ACL_DELETE: Final = "Configuration:Acl:Delete"
    CONFIGURATION_LIFECYCLE_PUT: Final = "Configuration:Lifecycle:Put"
    CONFIGURATION_LIFECYCLE_DELETE: Final = "Configuration:Lifecycle:Delete"
    CONFIGURATION_REPLICATION_PUT: Final = "Configuration:Replication:Put"
    CONFIGURATION_REPLICATION_DELETE: Final = "Configuration:Replication:Delete"
    CONFIGURATION_NOTIFICATION_PUT: Final = "Configuration:Notification:Put"
    CONFIGURATION_NOTIFICATION_DELETE: Final = "Configuration:Notification:Delete"
    CONFIGURATION_ENCRYPTION_PUT: Final = "Configuration:Encryption:Put"
    CONFIGURATION_ENCRYPTION_DELETE: Final = "Configuration:Encryption:Delete"
    CONFIGURATION_VERSIONING_PUT: Final = "Configuration:Versioning:Put"
    CONFIGURATION_VERSIONING_DELETE: Final = "Configuration:Versioning:Delete"
    SYSTEM_HEALTH_OK: Final = "System:Health:Ok"
    SYSTEM_HEALTH_DEGRADED: Final = "System:Health:Degraded"
    SYSTEM_HEALTH_FAILED: Final = "System:Health:Failed"
    SYSTEM_CAPACITY_NORMAL: Final = "System:Capacity:Normal"
    SYSTEM_CAPACITY_WARNING: Final = "System:Capacity:Warning"
    SYSTEM_CAPACITY_CRITICAL: Final = "System:Capacity:Critical"
    TEST_EVENT: Final = "s3:TestEvent"
    SYSTEM_DESTINATION_PENDING: Final = "System:Destination:Pending"
    SYSTEM_DESTINATION_VERIFIED: Final = "System:Destination:Verified"
    SYSTEM_DESTINATION_SUSPENDED: Final = "System:Destination:Suspended"
    SYSTEM_DESTINATION_DISABLED: Final = "System:Destination:Disabled"
    SYSTEM_DESTINATION_RESUMED: Final = "System:Destination:Resumed"
    SYSTEM_DESTINATION_FAILING: Final = "System:Destination:Failing"
    SYSTEM_DESTINATION_BREAKER_OPENED: Final = "System:Destination:BreakerOpened"
