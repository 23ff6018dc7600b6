"""Threads at the same engine and the same objects. With the interpreter's lock they take turns, without it they run side by side."""

from __future__ import annotations

import collections
import sys
import sysconfig
import threading
from collections.abc import Callable

import pytest
from conftest import Mine

import tidewire
from tidewire import Event

ROUNDS = 400


def side_by_side(*works: Callable[[], None]) -> None:
    """Runs each on a thread of its own, and raises what one of them did."""
    caught: list[BaseException] = []
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        try:
            begin.wait(60)
            work()
        except BaseException as e:
            caught.append(e)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if caught:
        raise caught[0]


def test_everything_may_be_called_at_once(mine: Mine) -> None:
    engine, taken = mine
    shared = Event("photos", "shared", size=1)

    def parts() -> None:
        for n in range(ROUNDS):
            assert engine.publish("photos", f"parts{n}", ack="memory")

    def events() -> None:
        for n in range(ROUNDS):
            assert engine.publish(shared, ack="memory")
            assert shared.replace(size=n).size == n and hash(shared) == hash(shared)

    def many() -> None:
        counts = engine.publish_many((Event("photos", f"many{n}") for n in range(ROUNDS)), ack="written")
        assert counts.accepted == ROUNDS

    def reservations() -> None:
        for n in range(ROUNDS):
            with engine.reserve("photos", f"held{n}", ack="memory") as held:
                if n % 2:
                    held.abort()

    def asking() -> None:
        for _ in range(ROUNDS // 4):
            assert engine.stats()["accepted"] >= 0 and engine.prometheus() and engine.is_interested("photos", "s3:ObjectCreated:Put")

    def rules() -> None:
        for n in range(ROUNDS // 20):
            engine.put_rule({"id": "other", "bucket": "others", "events": ["*"], "prefix": str(n), "destinations": ["mine"]})
        engine.delete_rule("other", bucket="others")

    side_by_side(parts, events, many, reservations, asking, rules)
    engine.flush()
    found = collections.Counter(key.rstrip(b"0123456789") for key in taken.keys())
    assert found == {b"parts": ROUNDS, b"shared": ROUNDS, b"many": ROUNDS, b"held": ROUNDS // 2}


def test_a_dict_may_change_while_it_is_published(mine: Mine) -> None:
    engine, taken = mine
    metadata = {"color": "red"}
    event: dict[str, object] = {"bucket": "photos", "key": "k", "metadata": metadata}
    done = threading.Event()

    def change() -> None:
        n = 0
        while not done.is_set():
            n += 1
            event["size"] = n
            metadata[f"name{n % 7}"] = str(n)
            event.pop("size", None)
            metadata.pop(f"name{(n + 3) % 7}", None)

    def publish() -> None:
        try:
            for _ in range(ROUNDS):
                assert engine.publish(event, ack="memory")
        finally:
            done.set()

    side_by_side(change, publish)
    engine.flush()
    assert taken.keys() == [b"k"] * ROUNDS
    assert all(record["s3"]["object"]["userMetadata"]["color"] == "red" for record in taken.records)


def test_one_tail_may_be_read_by_several(mine: Mine) -> None:
    engine, _ = mine
    tail = engine.tail(start="beginning")
    engine.publish_many(Event("photos", f"k{n}") for n in range(ROUNDS))
    found: list[bytes] = []

    def read() -> None:
        while len(found) < ROUNDS:
            item = tail.next(0.5)
            if item is not None:
                assert isinstance(item, tidewire.Entry)
                found.append(item.event.key)

    side_by_side(read, read, read)
    assert sorted(found) == sorted(f"k{n}".encode() for n in range(ROUNDS))


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has its lock")
def test_the_lock_stays_off() -> None:
    assert not getattr(sys, "_is_gil_enabled", lambda: True)()
