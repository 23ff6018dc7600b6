"""The dictionaries that come and go, for type checkers: statistics, events, plans and findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Optional, TypedDict, Union

__all__ = ["DestinationStats", "Event", "Filing", "Finding", "Latency", "Plan", "Stats", "Step"]


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
    stored: int
    """Events written to the log."""
    routed: int
    """Deliveries that the stored events call for: one per event and destination."""
    delivered: int
    dead_lettered: int
    """Deliveries given up and kept as dead letters."""
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
    unhealthy: list[str]
    """What is wrong, per shard that is not well."""
    destinations: list[DestinationStats]
    latency_us: Latency


class _EventNeeds(TypedDict):
    bucket: str
    key: Union[str, bytes, bytearray]


class Event(_EventNeeds, total=False):
    """An event as :class:`tidewire.Filter` looks at it: ``bucket``, ``key``, and what else of the arguments of
    :meth:`tidewire.Engine.publish` is known."""

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
