"""Tidewire tells the world what happens in an object store."""

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Optional, Union, final

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
from ._types import DestinationStats as DestinationStats
from ._types import Event as Event
from ._types import Filing as Filing
from ._types import Finding as Finding
from ._types import Latency as Latency
from ._types import Plan as Plan
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
    "DestinationStats",
    "Event",
    "Filing",
    "Finding",
    "Latency",
    "Plan",
    "Stats",
    "Step",
    "FILTER_SCHEMA",
    "Engine",
    "EventType",
    "Filter",
    "__version__",
    "lint",
]

__version__: str

FILTER_SCHEMA: str
"""The JSON Schema (draft 2020-12) of filters in the native form."""

@final
class Engine:
    """An event and notification engine over one data directory.

    Exactly one of ``config`` (TOML text) and ``config_path`` (a file) says what it does; ``data_dir`` takes the place
    of the one in it. Paths in a text are relative to the working directory, those in a file to the file's. All methods
    may be called from any thread. Use it as a context manager, or call :meth:`close`.

    Raises :exc:`InvalidConfig`, :exc:`Locked`, :exc:`ReadOnly`, :exc:`NoSpace`, :exc:`IoUringUnavailable`,
    :exc:`NewerFormat`, :exc:`Corrupt` or :exc:`IoError`.
    """

    def __new__(
        cls,
        config: Optional[str] = None,
        *,
        config_path: Union[str, os.PathLike[str], None] = None,
        data_dir: Union[str, os.PathLike[str], None] = None,
    ) -> Engine: ...
    def publish(
        self,
        bucket: str,
        key: Union[str, bytes, bytearray],
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
        data: Union[bytes, bytearray, str, dict[str, Any], list[Any], None] = None,
        time_ns: Optional[int] = None,
        priority: Literal["low", "normal", "high"] = "normal",
        origin: Literal["user", "replica", "lifecycle"] = "user",
        hops: int = 0,
        ack: Literal["memory", "written", "synced"] = "synced",
        timeout: Optional[float] = 30.0,
        block: bool = True,
    ) -> bool:
        """Publishes an event. Returns whether it was accepted: ``False`` means that no rule wants events of this type
        in this bucket, so that nothing was kept.

        ``data`` is JSON text, or a ``dict`` or ``list`` to write as JSON. ``time_ns`` is in nanoseconds since the
        epoch; ``None`` is now. ``ack`` is ``memory``, ``written`` or ``synced``: how safe the event is when the call
        returns. ``timeout`` limits the waiting in seconds, ``None`` is without limit. ``block=False`` raises
        :exc:`Full` at once when there is no space, but still waits for ``ack``.

        Raises :exc:`InvalidEvent`, :exc:`InvalidArgument`, :exc:`Full`, :exc:`Closed` or :exc:`WrongProcess`: the
        event is not accepted. :exc:`Timeout`, :exc:`LogFailed` and an exception of a signal handler while waiting for
        ``ack``: it is accepted, but has not reached that level yet.
        """

    def flush(self, timeout: Optional[float] = 30.0) -> None:
        """Waits until every event accepted before the call is delivered or a dead letter, at most ``timeout`` seconds;
        ``None`` is without limit.

        Raises :exc:`Timeout` with the number of deliveries that still wait: they go on. :exc:`Closed` if the engine
        closes; :exc:`WrongProcess` in a forked child.
        """

    def stats(self) -> Stats:
        """What the engine has counted since it was opened. A closed engine still tells.

        Raises :exc:`WrongProcess` in a forked child.
        """

    def prometheus(self, *, openmetrics: bool = False) -> str:
        """What the engine has counted, as the text that Prometheus scrapes (``text/plain; version=0.0.4``), or with
        ``openmetrics`` as OpenMetrics 1.0. All names begin with ``tidewire_``. A closed engine still tells.

        Raises :exc:`WrongProcess` in a forked child.
        """

    def is_interested(self, bucket: str, event_type: str) -> bool:
        """Whether any rule could want events of this type in this bucket: if not, there is no need to collect what an
        event would say. May be true for an event that no rule takes in the end.

        Raises :exc:`InvalidEvent` for an unknown type, :exc:`Closed`, or :exc:`WrongProcess` in a forked child.
        """

    def close(self, timeout: Optional[float] = None) -> None:
        """Closes the engine: takes no more events, makes durable what was accepted, delivers for at most ``timeout``
        seconds and leaves the rest in the data directory for the next engine on it. ``None`` is the ``close_timeout``
        of the configuration. Further calls do nothing.

        Raises :exc:`WrongProcess` in a forked child.
        """

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
    ) -> None:
        """Closes the engine; a forked child that leaves the block leaves the engine to its parent."""

@final
class Filter:
    """A condition on events, without an engine. It never changes, and may be used from any thread.

    An event is a mapping with the names of the arguments of :meth:`Engine.publish`, such as ``{"bucket": "photos", "key":
    "in/a.jpg", "size": 5}``.
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
    def from_s3(cls, filter: Union[str, dict[str, Any]], /, *, encoded: bool = False, ceph: bool = False) -> Filter:
        """Reads the ``Filter`` of an S3 notification document: XML or JSON text, or a ``dict``. ``encoded``: its values are
        form-encoded. ``ceph``: it may have what Ceph has more than S3.

        Raises :exc:`InvalidConfig` with line and column.
        """

    def matches(self, event: Union[Event, Mapping[str, Any]], /) -> bool:
        """Whether the event passes. One without ``time_ns`` happens now.

        Raises :exc:`InvalidEvent` for what :meth:`Engine.publish` would not take.
        """

    def explain(self, event: Union[Event, Mapping[str, Any]], /) -> list[str]:
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

def lint(
    config: Optional[str] = None, *, config_path: Union[str, os.PathLike[str], None] = None
) -> list[Finding]:
    """Looks for rules that never want an event, that always do in spite of their conditions, that say the same, or that
    may want the same event for the same destination: see :class:`Finding`.

    Exactly one of ``config`` (TOML text) and ``config_path`` (a file) has the rules; destinations and a data directory
    are not needed.

    Raises :exc:`InvalidConfig` or :exc:`IoError`.
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
