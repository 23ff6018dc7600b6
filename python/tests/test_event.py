"""Events as objects, and many of them at once."""

from __future__ import annotations

import array
import itertools
import json
import mmap
import pickle
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import LONG, Mine, Open, Server

import tidewire
from tidewire import Event, EventType, Published

WHOLE: dict[str, Any] = {
    "bucket": "photos",
    "key": b"a b/\xff.jpg",
    "event_type": EventType.OBJECT_CREATED_COPY,
    "size": 2**40,
    "etag": "e",
    "version_id": "v",
    "requester": "alice",
    "source_ip": "192.0.2.1",
    "request_id": "req",
    "host_id": "host",
    "region": "eu-west-1",
    "content_type": "image/jpeg",
    "method": "CopyObject",
    "user_agent": "curl",
    "bucket_owner": "bob",
    "metadata": {"color": "röt"},
    "tags": {"t": "1"},
    "data": b'{"deep":[1,null]}',
    "time_ns": 1_500_000_000_123_000_000,
    "priority": "high",
    "origin": "replica",
    "hops": 3,
}


def test_an_event_has_the_parts_that_it_was_given() -> None:
    event = Event(**WHOLE)
    assert event.to_dict() == WHOLE
    assert {name: getattr(event, name) for name in WHOLE} == WHOLE


def test_what_is_not_given_is_not_known() -> None:
    event = Event("photos", "k")
    assert event.to_dict() == {"bucket": "photos", "key": b"k", "event_type": "s3:ObjectCreated:Put"}
    assert (event.size, event.etag, event.time_ns, event.metadata, event.data) == (None, None, None, {}, b"")
    assert (event.priority, event.origin, event.hops) == ("normal", "user", 0)


def test_a_part_can_be_replaced_or_taken_away() -> None:
    event = Event(**WHOLE)
    other = event.replace(size=None, key="k", tags={})
    assert (other.size, other.key, other.tags, other.etag) == (None, b"k", {}, "e")
    assert event.size == 2**40
    with pytest.raises(tidewire.InvalidEvent, match="an event has no `sise`"):
        event.replace(sise=1)


def test_events_are_values() -> None:
    one, same, other = Event("b", "k", size=1), Event("b", b"k", size=1), Event("b", "k", size=2)
    assert one == same and one != other and hash(one) == hash(same)
    assert {one: "x"}[same] == "x"
    assert one != "something else"
    assert pickle.loads(pickle.dumps(Event(**WHOLE))) == Event(**WHOLE)
    assert eval(repr(Event(**WHOLE)), {"tidewire": tidewire}) == Event(**WHOLE)
    assert one.__sizeof__() < 160


@pytest.mark.parametrize(
    "wrong, kind, said",
    [
        ({"event_type": "s3:Nothing:"}, tidewire.InvalidEvent, "event type"),
        ({"size": -1}, tidewire.InvalidEvent, "size"),
        ({"hops": 256}, tidewire.InvalidEvent, "hops"),
        ({"data": "{"}, tidewire.InvalidEvent, "data"),
        ({"priority": "urgent"}, tidewire.InvalidArgument, "priority"),
        ({"metadata": {"": "x"}}, tidewire.InvalidEvent, "metadata"),
        ({"key": "x" * 1025}, tidewire.InvalidEvent, "1025"),
        ({"key": ""}, tidewire.InvalidEvent, "key is empty"),
        ({"bucket": ""}, tidewire.InvalidEvent, "bucket"),
        ({"etag": "\ud800"}, tidewire.InvalidEvent, "surrogate"),
        ({"etag": 5}, TypeError, "etag"),
        ({"key": None}, TypeError, "key"),
        ({"tags": {"a": 1}}, TypeError, "tags"),
        ({"tags": [("a", "b")]}, TypeError, "tags"),
        ({"nothing": 1}, TypeError, "nothing"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Event(**{"bucket": "b", "key": "k", **wrong})


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: memoryview(b)[::1], lambda b: array.array("B", b)])
def test_keys_and_data_come_from_any_buffer(make: Callable[[bytes], Any]) -> None:
    event = Event("b", make(b"\xff\x00k"), data=make(b"[1]"))
    assert (event.key, event.data) == (b"\xff\x00k", b"[1]")


def test_an_event_is_published_whole_or_in_parts(mine: Mine) -> None:
    engine, taken = mine
    assert engine.publish(Event("photos", "event")) is Published.ACCEPTED
    assert engine.publish({"bucket": "photos", "key": "mapping"}, ack="memory") is Published.ACCEPTED
    assert engine.publish("photos", "parts") is Published.ACCEPTED
    engine.flush()
    assert sorted(taken.keys()) == [b"event", b"mapping", b"parts"]
    with pytest.raises(TypeError, match="alone"):
        engine.publish(Event("photos", "k"), size=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="bucket"):
        engine.publish(5, "k")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="key"):
        engine.publish("photos")  # type: ignore[call-overload]


def test_repeats_are_known_by_their_key(open_mine: Callable[..., Mine]) -> None:
    engine, taken = open_mine(engine='dedup = { window = "1m" }')
    assert engine.publish("photos", "k", dedup_key="r1") is Published.ACCEPTED
    assert engine.publish("photos", "k", dedup_key=b"r1") is Published.DUPLICATE
    assert engine.publish("photos", "k", dedup_key="r1", ack="memory") is Published.DUPLICATE
    assert engine.publish("photos", "other", dedup_key="r1")
    counts = engine.publish_many([Event("photos", "k"), Event("photos", "new"), Event("x", "k")], dedup_key="r1")
    assert counts == (1, 1, 1)
    engine.flush()
    assert sorted(taken.keys()) == [b"k", b"new", b"other"]


def test_what_became_of_an_event_is_a_truth() -> None:
    assert [bool(p) for p in (Published.NO_MATCH, Published.ACCEPTED, Published.DUPLICATE)] == [False, True, True]


def test_many_are_published_in_order(mine: Mine) -> None:
    engine, taken = mine
    events = [Event("photos", f"k{i % 7}", size=i) for i in range(5000)]
    counts = engine.publish_many([*events, Event("other", "k")])
    assert (counts.accepted, counts.no_match, counts.duplicates) == (5000, 1, 0)
    engine.flush()
    assert len(taken.ids) == 5000
    for k in range(7):
        sizes = [r["s3"]["object"]["size"] for r in taken.records if r["s3"]["object"]["key"] == f"k{k}"]
        assert sizes == list(range(k, 5000, 7))


@pytest.mark.parametrize("ack", ["memory", "written", "synced"])
def test_many_come_from_any_iterable(mine: Mine, ack: Any) -> None:
    engine, taken = mine
    mixed: list[Any] = [Event("photos", "a"), {"bucket": "photos", "key": b"b", "size": 3}]
    for events in (mixed, tuple(mixed), iter(mixed), (e for e in mixed), {1: mixed[0], 2: mixed[1]}.values()):
        assert engine.publish_many(events, ack=ack).accepted == 2
    engine.flush()
    assert sorted(taken.keys()) == [b"a"] * 5 + [b"b"] * 5
    assert engine.publish_many([]) == (0, 0, 0)


def test_an_iterable_that_raises_leaves_what_came_before(mine: Mine) -> None:
    engine, taken = mine

    def events() -> Iterator[Event]:
        yield Event("photos", "before")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as e:
        engine.publish_many(events())
    assert e.value.published == (1, 0, 0)  # type: ignore[attr-defined]
    engine.flush()
    assert taken.keys() == [b"before"]


def test_the_first_that_is_refused_ends_it_and_is_named(mine: Mine) -> None:
    engine, taken = mine
    events = [{"bucket": "photos", "key": "a"}, {"bucket": "other", "key": "b"}, {"bucket": "photos"}, {"bucket": "photos", "key": "d"}]
    with pytest.raises(tidewire.InvalidEvent) as e:
        engine.publish_many(events)
    assert e.value.place == "events[2]: key"
    assert e.value.published == (1, 1, 0)  # type: ignore[attr-defined]
    engine.flush()
    assert taken.keys() == [b"a"]
    for wrong in (5, [5], [None], ["photos"]):
        with pytest.raises(TypeError):
            engine.publish_many(wrong)  # type: ignore[arg-type]


def test_many_from_a_generator_take_no_more_memory(open_engine: Open, dead_url: str) -> None:
    engine = open_engine(dead_url)

    def events(count: int) -> Iterator[Event]:
        for i in range(count):
            yield Event("nobody", f"key-{i:09}")

    engine.publish_many(events(1000))
    tracemalloc.start()
    try:
        count = 1_000_000 if LONG else 50_000
        assert engine.publish_many(events(count)).no_match == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_full_ring_is_waited_for_or_refused(open_engine: Open, server: Server) -> None:
    engine = open_engine(engine='ring_bytes = "256KiB"')
    events = [Event("photos", f"k{i}", metadata={"m": "x" * 1000}) for i in range(500)]
    assert engine.publish_many(events, ack="memory").accepted == 500
    engine.flush()
    assert len(server.keys()) == 500
    with pytest.raises(tidewire.Full) as e:
        for _ in range(200):
            engine.publish_many(events, ack="memory", block=False)
    assert e.value.published.accepted < 500  # type: ignore[attr-defined]
    assert str(e.value.place).startswith("events[")


def test_other_threads_run_while_many_are_published(mine: Mine) -> None:
    engine, _ = mine
    event, rounds, stop = Event("nobody", "k"), 0, threading.Event()

    def count() -> None:
        nonlocal rounds
        while not stop.is_set():
            rounds += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = rounds
    try:
        # Nothing of Python runs meanwhile, which would let the other thread run by itself.
        engine.publish_many(itertools.repeat(event, 3_000_000 if LONG else 300_000))
        after = rounds
    finally:
        stop.set()
        thread.join()
    assert after > before


def test_json_is_published_in_every_form(mine: Mine) -> None:
    engine, taken = mine
    line = {"type": "s3:ObjectCreated:Put", "bucket": "photos", "key": "line", "size": 1}
    lines = (json.dumps(line) + "\n" + json.dumps({**line, "key": "next"})).encode()
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "photos"}, "object": {"key": "s3+key"}}}
    records = json.dumps({"Records": [record]})
    buffer = mmap.mmap(-1, len(lines))
    buffer.write(lines)
    documents: list[tuple[Any, int]] = [(lines, 2), (bytearray(lines), 2), (memoryview(lines), 2), (buffer, 2), (records, 1)]
    for document, count in documents:
        assert engine.publish_json(document).accepted == count
    assert engine.publish_json(lines.replace(b"photos", b"others")).no_match == 2
    engine.flush()
    assert sorted(taken.keys()) == [b"line"] * 4 + [b"next"] * 4 + [b"s3 key"]


def test_a_wrong_document_is_published_not_at_all(mine: Mine) -> None:
    engine, taken = mine
    good = b'{"type":"s3:ObjectCreated:Put","bucket":"photos","key":"k"}\n'
    for wrong in (b"{", good + b'{"bucket":5}', b"\xff", b""):
        with pytest.raises(tidewire.InvalidEvent) as e:
            engine.publish_json(wrong)
        assert e.value.published == (0, 0, 0)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="document"):
        engine.publish_json({"bucket": "photos"})  # type: ignore[arg-type]
    engine.flush()
    assert taken.keys() == []


def test_a_log_of_the_host_can_be_replayed(open_mine: Callable[..., Mine]) -> None:
    engine, taken = open_mine()
    assert engine.append_at(1, Event("photos", "a")) is Published.ACCEPTED
    assert engine.append_at(2, {"bucket": "photos", "key": "b"}, ack="memory") is Published.ACCEPTED
    assert engine.append_at(1, Event("photos", "a")) is Published.DUPLICATE
    with pytest.raises(tidewire.InvalidArgument, match="cursor is 0"):
        engine.append_at(0, Event("photos", "a"))
    engine.flush()
    assert sorted(taken.keys()) == [b"a", b"b"]
    assert engine.last_applied() <= 2


def test_the_details_that_are_of_use_are_told(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine(destination='metadata = "none"\ntags = "all"')
    assert engine.details_wanted(Event("photos", "k")) == {"metadata": False, "tags": True}
    assert engine.details_wanted({"bucket": "other", "key": "k"}) == {"metadata": False, "tags": False}
