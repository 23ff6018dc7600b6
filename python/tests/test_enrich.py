"""What a callable of the host adds to events before they are matched."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, Optional

import pytest
from conftest import Mine, until

import tidewire
from tidewire import Event


def entries(engine: tidewire.Engine, wanted: int) -> dict[bytes, Event]:
    """What is in the log, by key."""
    found: dict[bytes, Event] = {}
    for item in engine.tail(start="beginning"):
        assert isinstance(item, tidewire.Entry)
        found[item.event.key] = item.event
        if len(found) == wanted:
            break
    return found


def test_what_it_returns_is_part_of_the_event(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine()
    seen: list[tuple[bytes, Optional[int], dict[str, str]]] = []

    def enrich(event: Event) -> Optional[dict[str, Any]]:
        seen.append((event.key, event.size, event.tags))
        if event.key == b"plain":
            return None
        return {"metadata": {"album": "summer"}, "tags": {"t": "2"}, "data": {"a": 1}}

    engine.set_enricher(enrich, timeout=60)
    engine.publish("photos", "k", size=3, tags={"t": "1", "u": "3"})
    engine.publish("photos", "plain")
    found = entries(engine, 2)
    assert seen == [(b"k", 3, {"t": "1", "u": "3"}), (b"plain", None, {})]
    event = found[b"k"]
    assert (event.metadata, event.tags, json.loads(event.data)) == ({"album": "summer"}, {"t": "2", "u": "3"}, {"a": 1})
    assert found[b"plain"].metadata == {}
    assert engine.stats()["enriched"] == 2
    engine.set_enricher(None)
    engine.publish("photos", "later")
    assert len(seen) == 2


def test_what_it_raises_or_returns_amiss_leaves_the_fallback(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine()
    answers: dict[bytes, Any] = {
        b"list": [1],
        b"other": {"size": 5},
        b"number": {"tags": {"a": 1}},
        b"pairs": {"metadata": 7},
        b"json": {"data": "{"},
        b"large": {"tags": {"a": "x" * 70000}},
        b"surrogate": {"tags": {"a": "\ud800"}},
    }

    def enrich(event: Event) -> Any:
        if event.key == b"raises":
            raise KeyError("mine")
        return answers[event.key]

    engine.set_enricher(enrich, timeout=60, metadata={"by": "nobody"}, tags={"fallback": "yes"})
    keys = [*answers, b"raises"]
    for key in keys:
        engine.publish("photos", key)
    for event in entries(engine, len(keys)).values():
        assert (event.metadata, event.tags) == ({"by": "nobody"}, {"fallback": "yes"}), event
    assert (engine.stats()["enriched"], engine.stats()["enrich_failed"]) == (0, len(keys))


def test_nobody_waits_for_one_that_is_away(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine()
    go_on = threading.Event()

    def wait(event: Event) -> None:
        go_on.wait()

    engine.set_enricher(wait, timeout=0.02)
    try:
        engine.publish("photos", "a")
        assert engine.stats()["enrich_timeouts"] == 1
    finally:
        go_on.set()

    def answered() -> bool:
        engine.publish("photos", "b")
        return engine.stats()["enriched"] > 0

    until(answered)


def test_arguments(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine()
    with pytest.raises(TypeError, match="'enricher'"):
        engine.set_enricher(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'tags'"):
        engine.set_enricher(None, tags=5)  # type: ignore[arg-type]
    for timeout in (0, 61, -1, float("nan")):
        with pytest.raises(tidewire.InvalidArgument, match="timeout"):
            engine.set_enricher(None, timeout=timeout)
    with pytest.raises(tidewire.InvalidArgument, match="without a name"):
        engine.set_enricher(None, tags={"": "x"})
    engine.close()
    with pytest.raises(tidewire.Closed):
        engine.set_enricher(None)
