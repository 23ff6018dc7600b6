"""What comes and goes beside the classes of the engine: answers, and dictionaries with their types."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, TypedDict, Union

if TYPE_CHECKING:
    from . import Event

__all__ = [
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
]


class Published(enum.IntEnum):
    """What became of an event. Only ``NO_MATCH`` is false."""

    NO_MATCH = 0
    """No rule wants events of this type in this bucket: nothing was kept."""
    ACCEPTED = 1
    """It is accepted, and has reached the ack level asked for."""
    DUPLICATE = 2
    """It was accepted before and is not accepted again. The one that was has reached the ack level asked for."""


class PublishedCounts(NamedTuple):
    """What became of many events."""

    accepted: int
    no_match: int
    """Events that no rule wants."""
    duplicates: int
    """Events that were accepted before."""


class BucketNotification(NamedTuple):
    """The notification document of a bucket: see :meth:`tidewire.Engine.bucket_notification`."""

    document: Any
    """A ``dict`` as botocore has it, or a text."""
    version: Optional[int]
    """The version of the bucket's rules; ``None`` if it never had any."""
    left_out: list[str]
    """The ids of rules that were put by other ways, and that no document can say."""


def _event(parts: dict[str, Any]) -> Event:
    """For ``pickle``."""
    from . import Event

    return Event(**parts)


class InDoubt(TypedDict):
    """A reservation of an earlier run without an end: see :meth:`tidewire.Engine.in_doubt`."""

    token: str
    reserved_ns: int
    """When it was made, in nanoseconds since the epoch."""
    event: Event
    """As it was declared."""


class RuleInfo(TypedDict):
    """One rule of a running engine."""

    rule: dict[str, Any]
    """As the configuration has it."""
    version: int
    owner: Literal["configuration", "callers", "engine"]
    inactive: Optional[str]
    """Why it is not in force."""
    matched: int
    """How many events it has wanted."""


class DestinationInfo(TypedDict):
    """One destination of a running engine."""

    name: str
    version: int
    owner: Literal["configuration", "callers", "engine"]
    inactive: Optional[str]
    """Why it is not in force."""


class _Attempt(TypedDict):
    at_ms: int
    """When it ended, milliseconds since the epoch."""
    took_ms: int
    events: int
    """How many were in it."""
    first_event: str
    """The id of the first one."""
    outcome: Literal["delivered", "partial", "retry", "wait", "denied", "gone", "wrong", "undeliverable"]
    status: int
    """The answer's status, 0 if there was none."""
    reason: str
    """What went wrong."""
    answer: str
    """The beginning of the answer's body, at most 4 KiB, without what is known to be secret."""


class Attempt(_Attempt, total=False):
    """An attempt that failed, or the first one after such that did not."""

    endpoint: str
    """Where it went, without its path; only if there are several endpoints."""


class EndpointStanding(TypedDict):
    """How one endpoint of a destination is doing."""

    at: str
    """Where it is, without its path, which may be a secret."""
    key: str
    """By what it is known again: a hash of its URL."""
    state: Literal["active", "pending", "suspended", "disabled"]
    reason: str
    """Why it is not active; empty if it is."""
    left_alone: bool
    """Whether nothing is sent for now, because it failed or asked for a pause."""
    failing_ms: int
    """For how many milliseconds it has taken nothing."""
    failing_attempts: int
    """The attempts in that time."""
    noticed: int
    """The last warning about that, in percent of the time after which it is disabled."""
    gone_ms: int
    """For how many milliseconds it has said that it is gone."""
    latency_us: int
    """How long its answers take, a moving average in microseconds; 0 if that is not known."""
    verified: str
    """To what it has agreed, as a hash; empty if to nothing."""
    granted_per_minute: Optional[int]
    """The requests per minute that it granted, if it named a number."""


class Certificates(TypedDict):
    """What is known of the certificates of a destination."""

    client_expires: Optional[int]
    """Seconds since the epoch; ``None`` if there is none, or it was not read yet."""
    server_expires: Optional[int]
    """The same of the certificate that the endpoint has shown last."""
    trouble: str
    """Why files of TLS that have changed cannot be used; what they were stays in use. Empty if they can."""


class DestinationStanding(TypedDict):
    """How a destination is doing: see :meth:`tidewire.Engine.destination`."""

    state: Literal["active", "pending", "suspended", "disabled"]
    """``pending`` has not agreed yet; ``disabled`` was stopped because it failed for too long or said that it is gone."""
    reason: str
    """Why it is not active; empty if it is."""
    since_ms: int
    """Since when, milliseconds since the epoch; 0 if that is not known."""
    failing_ms: int
    """For how many milliseconds of running engines it has taken nothing."""
    failing_attempts: int
    """The attempts in that time."""
    noticed: int
    """The last warning about that, in percent of the time after which it is disabled."""
    gone_ms: int
    """For how many milliseconds it has said that it is gone."""
    certificates: Certificates
    next_verification_ms: int
    """When a pending destination is asked next, milliseconds since the epoch; 0 if that is not known."""
    endpoints: list[EndpointStanding]
    attempts: list[Attempt]
    """The last ones that failed, oldest first."""


class DestinationTestStep(TypedDict):
    """A step of a test."""

    what: str
    took_us: int
    """Microseconds."""


class DestinationTest(TypedDict):
    """What came of :meth:`tidewire.Engine.test_destination`."""

    ok: bool
    failure: Optional[str]
    """Why it did not take the event."""
    steps: list[DestinationTestStep]


class DeadLetter(TypedDict):
    """An event that was given up."""

    id: str
    """Which it is, for as long as its data directory lives."""
    event_id: str
    """The event's id, the same as in every record of it."""
    destination: str
    rule: str
    event_type: str
    bucket: str
    key: bytes
    accepted_ns: int
    """Nanoseconds since the epoch."""
    given_up_ns: int
    """Nanoseconds since the epoch."""
    attempts: int
    """How often delivery was tried."""
    hops: int
    """How often the event was dead before."""
    status: int
    """The status of the last answer, 0 if there was none."""
    reason: str
    answer: bytes
    """The beginning of the last answer's body, up to 4 KiB."""
    event: Optional[Event]
    """As it was accepted; ``None`` if a newer version has written it."""


class Redriven(TypedDict):
    """What :meth:`tidewire.Engine.redrive` did."""

    redriven: int
    """Letters whose events are in the log again."""
    left: int
    """Letters that were left where they are."""
    why: list[tuple[str, int]]
    """Why they were left, with the number of letters for each reason."""


class ReplayProgress(TypedDict):
    """How far a replay is. Counts are of this run of the engine."""

    state: Literal["running", "waiting", "done", "cancelled", "failed"]
    """``waiting`` is for a destination: see :meth:`tidewire.Engine.resume_replay`."""
    read: float
    """How much of the log was read, from 0 to 1."""
    found: int
    """Events found that the filter wants."""
    delivered: int
    dead_lettered: int
    retried: int
    """Events put off for another attempt, each time counted."""
    missing: int
    """Sequences that were asked for and are not in the log any more."""
    last_error: str


class GroupStats(TypedDict):
    """What a group of consumers has done and has still to do. Counts are of this run of the engine."""

    name: str
    given: int
    """Events given out, each time counted."""
    repeated: int
    """Of those, events that had been given out before."""
    expired: int
    """Leases that ran out."""
    acknowledged: int
    dead_lettered: int
    missed: int
    """Sequences that the group should have had and did not get."""
    out: int
    """Events that members have now."""
    lag: int
    """Sequences of the log behind the oldest event that is not done."""


class Latency(TypedDict):
    """Times from an event's acceptance to the destination's answer, in microseconds, to two significant digits."""

    count: int
    mean: float
    min: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int


class DestinationStats(TypedDict):
    """What an engine has counted for one destination."""

    name: str
    routed: int
    """Deliveries called for by events of this run."""
    delivered: int
    retried: int
    """Deliveries put off for another attempt, each time counted."""
    dead_lettered: int
    """Deliveries given up."""
    requests: int
    failures: int
    """Requests that failed."""
    waiting: int
    """Deliveries not done yet."""
    connections: int
    """Connections made."""
    last_error: str
    """What went wrong last; empty if nothing ever did."""


class Stats(TypedDict):
    """What an engine has counted since it was opened."""

    shards: int
    accepted: int
    refused_full: int
    """Events refused because there was no space."""
    invalid: int
    """Events refused because they broke a limit."""
    no_match: int
    """Events that no rule wanted."""
    refused_queue: int
    """Events refused because the queue of a destination, or the log, was full."""
    duplicates: int
    """Events not accepted because they were accepted before."""
    stored: int
    """Events written to the log."""
    routed: int
    """Deliveries that the stored events call for: one per event and destination."""
    delivered: int
    dead_lettered: int
    """Deliveries given up and kept as dead letters."""
    dropped: int
    """Deliveries dropped by a policy, or because the log was damaged."""
    reservations: int
    """Reservations that are neither committed nor aborted."""
    in_doubt: int
    """Intents of earlier runs that are not resolved."""
    dead_letters_kept: int
    """Dead letters that are kept, those of earlier runs included."""
    waiting: int
    """Deliveries not done yet."""
    log_bytes: int
    commits: int
    """Groups of events written."""
    syncs: int
    """Times the log was made durable."""
    segments: int
    """Files of the log."""
    damaged: int
    """Damaged stretches found in the log."""
    ring_used_bytes: int
    held_bytes: int
    """Bytes of records held for delivery."""
    enriched: int
    """Events that the enricher saw, whether it added anything or not."""
    enrich_timeouts: int
    """Events for which it took too long; these and the next three have got the fallback."""
    enrich_failed: int
    """Events for which it raised, or returned what cannot be."""
    enrich_panicked: int
    """Events for which it came upon a defect of Tidewire."""
    enrich_skipped: int
    """Events that it did not see, because it had not come back from an earlier one, or the engine closed."""
    unhealthy: list[str]
    """What is wrong, per shard that is not well."""
    destinations: list[DestinationStats]
    latency_us: Latency


class _EventNeeds(TypedDict):
    bucket: str
    key: Union[str, bytes, bytearray, memoryview]


class EventParts(_EventNeeds, total=False):
    """An event as a mapping: ``bucket``, ``key``, and what else of the arguments of :class:`tidewire.Event` is known."""

    event_type: Optional[str]
    size: Optional[int]
    etag: Optional[str]
    version_id: Optional[str]
    requester: Optional[str]
    source_ip: Optional[str]
    request_id: Optional[str]
    host_id: Optional[str]
    region: Optional[str]
    content_type: Optional[str]
    method: Optional[str]
    user_agent: Optional[str]
    bucket_owner: Optional[str]
    metadata: Optional[Mapping[str, str]]
    tags: Optional[Mapping[str, str]]
    data: Union[bytes, bytearray, str, dict[str, Any], list[Any], None]
    time_ns: Optional[int]
    priority: Optional[Literal["low", "normal", "high"]]
    origin: Optional[Literal["user", "replica", "lifecycle"]]
    hops: Optional[int]


class Step(TypedDict):
    """One step of what is checked of a filter: a test of one field, and where it goes on."""

    condition: dict[str, Any]
    """In the native form."""
    then: Union[int, Literal["accept", "reject"]]
    """If it holds: a later step, or the end."""
    otherwise: Union[int, Literal["accept", "reject"]]


class Filing(TypedDict):
    """One place that a filter is filed in."""

    predicate: Optional[dict[str, Any]]
    """The condition that an event comes here by, in the native form; ``None``: each event comes here."""
    program: list[Step]
    """What is left to check here; empty: nothing."""


class Plan(TypedDict):
    """What a filter is compiled to."""

    buckets: Optional[list[str]]
    """The buckets whose events are looked at; ``None`` is every bucket."""
    types: list[dict[str, Any]]
    """Conditions on the type, which cost nothing more."""
    filings: list[Filing]
    cost: Literal["never", "indexed", "free", "compare", "scan"]
    """With the last two, each event is tried."""
    reasons: list[str]
    """Why it is not filed under a condition; empty if it is."""
    regexes: int
    regex_bytes: int
    """The memory that the regular expressions take compiled."""


class Finding(TypedDict):
    """Something that :func:`tidewire.lint` found."""

    kind: Literal["never", "always", "same", "overlap", "unfinished"]
    rules: list[str]
    """The ids of the rules that it is about."""
    message: str
