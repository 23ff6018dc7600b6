"""What :meth:`tidewire.Engine.stats` returns, for type checkers."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["DestinationStats", "Latency", "Stats"]


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
