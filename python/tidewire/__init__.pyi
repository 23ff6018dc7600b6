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
from ._types import BucketNotification as BucketNotification
from ._types import DeadLetter as DeadLetter
from ._types import DestinationInfo as DestinationInfo
from ._types import DestinationStats as DestinationStats
from ._types import DestinationTest as DestinationTest
from ._types import DestinationTestStep as DestinationTestStep
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
    "BucketNotification",
    "DeadLetter",
    "DestinationInfo",
    "DestinationStats",
    "DestinationTest",
    "DestinationTestStep",
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
    def bucket(self) -> str: ...
    @property
    def key(self) -> bytes: ...
    @property
    def event_type(self) -> str: ...
    @property
    def size(self) -> Optional[int]: ...
    @property
    def etag(self) -> Optional[str]: ...
    @property
    def version_id(self) -> Optional[str]: ...
    @property
    def requester(self) -> Optional[str]: ...
    @property
    def source_ip(self) -> Optional[str]: ...
    @property
    def request_id(self) -> Optional[str]: ...
    @property
    def host_id(self) -> Optional[str]: ...
    @property
    def region(self) -> Optional[str]: ...
    @property
    def content_type(self) -> Optional[str]: ...
    @property
    def method(self) -> Optional[str]: ...
    @property
    def user_agent(self) -> Optional[str]: ...
    @property
    def bucket_owner(self) -> Optional[str]: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    @property
    def tags(self) -> dict[str, str]: ...
    @property
    def data(self) -> bytes: ...
    @property
    def time_ns(self) -> Optional[int]: ...
    @property
    def priority(self) -> _Priority: ...
    @property
    def origin(self) -> _Origin: ...
    @property
    def hops(self) -> int: ...
    def to_dict(self) -> EventParts: ...
    def replace(self, **changes: Any) -> Event: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __sizeof__(self) -> int: ...

@final
class Engine:
    def __new__(
        cls,
        config: Optional[str] = None,
        *,
        config_path: Optional[_Path] = None,
        data_dir: Optional[_Path] = None,
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
    ) -> Published: ...
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
    ) -> Awaitable[Published]: ...
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
    ) -> PublishedCounts: ...
    def publish_many_async(
        self,
        events: Union[Iterable[_Event], AsyncIterable[_Event]],
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Awaitable[PublishedCounts]: ...
    def publish_json(
        self,
        document: Union[_Buffer, str],
        content_type: str = "",
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> PublishedCounts: ...
    def publish_json_async(
        self,
        document: Union[_Buffer, str],
        content_type: str = "",
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
        dedup_key: Union[_Buffer, str, None] = None,
    ) -> Awaitable[PublishedCounts]: ...
    def append_at(
        self,
        cursor: int,
        event: _Event,
        /,
        *,
        ack: _Ack = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
    ) -> Published: ...
    def last_applied(self) -> int: ...
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
    ) -> Reservation: ...
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
    ) -> _Reserving: ...
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
    ) -> BatchReservation: ...
    def in_doubt(self) -> list[InDoubt]: ...
    def resolve(self, token: str, event: Optional[_Event], /) -> None: ...
    def flush(self, timeout: Optional[float] = 30.0) -> None: ...
    def flush_async(self, timeout: Optional[float] = 30.0) -> Awaitable[None]: ...
    def is_interested(self, bucket: str, event_type: str) -> bool: ...
    def details_wanted(self, event: _Event, /) -> dict[str, bool]: ...
    def stats(self) -> Stats: ...
    def prometheus(self, *, openmetrics: bool = False) -> str: ...
    def snapshot(self, path: _Path, /) -> None: ...
    def put_rule(self, rule: Union[str, dict[str, Any]], *, expect: _Expect = None) -> int: ...
    def delete_rule(self, id: str, *, bucket: Optional[str] = None, expect: _Expect = None) -> None: ...
    def rule(self, id: str, *, bucket: Optional[str] = None) -> RuleInfo: ...
    def rules(self) -> list[RuleInfo]: ...
    @property
    def rules_version(self) -> int: ...
    def replace_config(self, config: Optional[str] = None, *, config_path: Optional[_Path] = None) -> None: ...
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
    ) -> int: ...
    def check_bucket_notification(
        self,
        bucket: str,
        document: Union[str, _Buffer, dict[str, Any]],
        *,
        overlap: Literal["allow-dedupe", "strict-aws", "allow-all"] = "allow-dedupe",
        encoded: bool = False,
        ceph: bool = False,
        event_bridge: Optional[str] = None,
    ) -> list[dict[str, Any]]: ...
    def bucket_notification(
        self, bucket: str, *, format: Literal["dict", "json", "xml"] = "dict"
    ) -> BucketNotification: ...
    def put_destination(
        self,
        destination: Union[str, dict[str, Any]],
        *,
        expect: _Expect = None,
        backlog: _Backlog = "keep",
        move_to: Optional[str] = None,
    ) -> int: ...
    def delete_destination(
        self, name: str, *, expect: _Expect = None, backlog: _Backlog = "keep", move_to: Optional[str] = None
    ) -> None: ...
    def suspend_destination(self, name: str) -> None: ...
    def resume_destination(self, name: str) -> None: ...
    def confirm_destination(self, name: str, *, per_minute: Optional[int] = None) -> None: ...
    def destination(self, name: str) -> dict[str, Any]: ...
    def destinations(self) -> list[DestinationInfo]: ...
    def test_destination(self, name: str) -> DestinationTest: ...
    def rotate_secret(self, name: str, secret: Optional[str] = None, *, overlap: float = 86400.0) -> str: ...
    @overload
    def set_handler(self, name: str, handler: Optional[Callable[[Batch], Optional[Iterable[int]]]]) -> None: ...
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
    ) -> Tail: ...
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
    ) -> Consumer: ...
    def delete_group(self, group: str) -> None: ...
    def groups(self) -> list[GroupStats]: ...
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
    ) -> list[DeadLetter]: ...
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
    ) -> int: ...
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
    ) -> Redriven: ...
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
    ) -> int: ...
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
    ) -> Replay: ...
    def replays(self) -> list[Replay]: ...
    def resume_replay(self, name: str, to: dict[str, Any]) -> Replay: ...
    def close(self, timeout: Optional[float] = None) -> None: ...
    def close_async(self, timeout: Optional[float] = None) -> Awaitable[None]: ...
    @property
    def closed(self) -> bool: ...
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
    def _flush_timeout(self) -> None: ...
    def _publish_some(self, events: Any, given: dict[str, Any], series: Any, last: bool) -> str: ...
    def _start_flush(self, poller: Any) -> Optional[int]: ...
    def _try_publish(
        self, event: Event, given: dict[str, Any], last: bool
    ) -> Optional[asyncio.Future[Published]]: ...

@final
class Reservation:
    @property
    def token(self) -> Optional[str]: ...
    @property
    def bytes_max(self) -> int: ...
    @property
    def is_open(self) -> bool: ...
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
    ) -> None: ...
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
    ) -> Published: ...
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
    ) -> Awaitable[Published]: ...
    def abort(self) -> None: ...
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
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Reservation: ...
    def commit_all(self) -> None: ...
    def abort_all(self) -> None: ...
    def __enter__(self) -> BatchReservation: ...
    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> None: ...

class Entry:
    @property
    def event(self) -> Event: ...
    @property
    def id(self) -> str: ...
    @property
    def sequencer(self) -> str: ...
    @property
    def shard(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def clock_ns(self) -> int: ...

@final
class Delivery(Entry):
    @property
    def deliveries(self) -> int: ...
    def ack(self) -> None: ...
    def nack(self, delay: float = 0.0) -> None: ...
    def extend(self) -> None: ...
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
    @property
    def shard(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def cause(self) -> Literal["removed", "damaged"]: ...
    @property
    def since_ns(self) -> Optional[int]: ...
    @property
    def until_ns(self) -> Optional[int]: ...

@final
class Tail:
    def next(self, timeout: Optional[float] = None) -> Union[Entry, Gap, None]: ...
    def next_async(self, timeout: Optional[float] = None) -> Awaitable[Union[Entry, Gap, None]]: ...
    @property
    def position(self) -> str: ...
    def __iter__(self) -> Tail: ...
    def __next__(self) -> Union[Entry, Gap]: ...
    def __aiter__(self) -> Tail: ...
    def __anext__(self) -> Awaitable[Union[Entry, Gap]]: ...
    def _watch(self, poller: Any) -> Optional[int]: ...

@final
class Consumer:
    @property
    def group(self) -> str: ...
    def fetch(self, max: int = 100, timeout: Optional[float] = None) -> list[Union[Delivery, Gap]]: ...
    def fetch_async(
        self, max: int = 100, timeout: Optional[float] = None
    ) -> Awaitable[list[Union[Delivery, Gap]]]: ...
    def ack(self, deliveries: Iterable[Delivery], /) -> None: ...
    def close(self) -> None: ...
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
    def _fetched(self) -> Any: ...
    def _keep(self, list: list[Any]) -> None: ...
    def _watch(self, poller: Any) -> Optional[int]: ...

@final
class Batch:
    @property
    def destination(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def ids(self) -> list[str]: ...
    @property
    def records(self) -> list[bytes]: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    @property
    def left(self) -> float: ...
    @property
    def answered(self) -> bool: ...
    def body(self) -> bytes: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def accept(self) -> None: ...
    def accept_but(self, failed: Sequence[int], reason: str = "") -> None: ...
    def retry(self, reason: str = "") -> None: ...
    def retry_after(self, seconds: float, reason: str = "") -> None: ...
    def refuse(self, reason: str = "") -> None: ...
    def keep(self) -> None: ...
    @property
    def _settled(self) -> bool: ...

@final
class Replay:
    @property
    def name(self) -> str: ...
    def progress(self) -> ReplayProgress: ...
    def wait(self, timeout: Optional[float] = 30.0) -> ReplayProgress: ...
    def wait_async(self, timeout: Optional[float] = 30.0) -> Awaitable[ReplayProgress]: ...
    def cancel(self) -> None: ...

@final
class Filter:
    @classmethod
    def parse(cls, filter: Union[str, dict[str, Any]], /) -> Filter: ...
    @classmethod
    def from_eventbridge(
        cls, pattern: Union[str, dict[str, Any]], /, *, data: bool = False, region: Optional[str] = "us-east-1"
    ) -> Filter: ...
    @classmethod
    def from_cloudevents(
        cls,
        filters: Union[str, list[Any], dict[str, Any]],
        /,
        *,
        event_source: Optional[str] = "aws:s3",
        region: Optional[str] = "us-east-1",
    ) -> Filter: ...
    @classmethod
    def from_cel(cls, expression: str, /) -> Filter: ...
    @classmethod
    def from_s3(
        cls, filter: Union[str, dict[str, Any]], /, *, encoded: bool = False, ceph: bool = False
    ) -> Filter: ...
    def matches(self, event: _Event, /) -> bool: ...
    def explain(self, event: _Event, /) -> list[str]: ...
    def plan(self) -> Plan: ...
    def to_json(self) -> str: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def lint(config: Optional[str] = None, *, config_path: Optional[_Path] = None) -> list[Finding]: ...
def check_config(config: Optional[str] = None, *, config_path: Optional[_Path] = None) -> None: ...
def refresh_logging() -> None: ...

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
