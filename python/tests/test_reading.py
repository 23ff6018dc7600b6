"""Tails, groups of consumers, dead letters and replays."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union

import pytest
from conftest import Engines, Mine, custom, until

import tidewire
from tidewire import Delivery, Entry, Event, EventType, Filter, Gap

Item = Union[Entry, Gap, None]


def entry(item: Item) -> Entry:
    assert isinstance(item, Entry)
    return item


def delivery(item: Union[Delivery, Gap]) -> Delivery:
    assert isinstance(item, Delivery)
    return item


def test_a_tail_gives_events_as_they_come(mine: Mine) -> None:
    engine, _ = mine
    tail = engine.tail()
    assert tail.next(0) is None and tail.next(0.05) is None
    before = time.time_ns()
    engine.publish("photos", b"\xff", size=7, tags={"a": "b"})
    found = entry(tail.next(10))
    assert (found.event.key, found.event.size, found.event.tags) == (b"\xff", 7, {"a": "b"})
    assert found.event.time_ns is not None and abs(found.event.time_ns - before) < 60e9
    assert abs(found.clock_ns - before) < 60e9 and found.shard == 0
    assert len(found.sequencer) == 32 and found.id in repr(found)
    engine.publish("photos", "next")
    newer = entry(tail.next(10))
    assert newer.sequencer > found.sequencer and newer.sequence > found.sequence


def test_a_tail_begins_where_it_is_told(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine(engine='retention = { keep = "all" }')
    for i in range(5):
        engine.publish("photos", f"k{i}")
    tail = engine.tail(start="beginning")
    keys = [entry(tail.next(10)).event.key for _ in range(3)]
    assert keys == [b"k0", b"k1", b"k2"]
    rest = engine.tail(position=tail.position)
    fourth = entry(rest.next(10))
    assert fourth.event.key == b"k3"
    late = engine.tail(from_ns=fourth.clock_ns)
    assert entry(late.next(10)).event.key == b"k3"
    wanted = engine.tail(start="beginning", bucket="photos", events=["s3:ObjectCreated:*"], filter={"suffix": "4"})
    assert entry(wanted.next(10)).event.key == b"k4"
    assert entry(engine.tail(start="beginning", filter=Filter.parse({"key": "k2"})).next(10)).event.key == b"k2"


def test_a_tail_that_cannot_be_is_refused(mine: Mine) -> None:
    engine, _ = mine
    wrong: list[dict[str, Any]] = [
        {"start": "yesterday"},
        {"start": "now", "from_ns": 5},
        {"position": "nowhere"},
    ]
    for arguments in wrong:
        with pytest.raises(tidewire.InvalidArgument):
            engine.tail(**arguments)
    wrong = [{"bucket": "x" * 300}, {"events": ["s3:Nothing:*"]}, {"filter": {"sise": 1}}]
    for arguments in wrong:
        with pytest.raises(tidewire.InvalidConfig):
            engine.tail(**arguments)
    with pytest.raises(TypeError, match="events"):
        engine.tail(events="s3:ObjectCreated:*")


def test_a_tail_ends_with_its_engine(mine: Mine) -> None:
    engine, _ = mine
    keys: list[bytes] = []

    def follow() -> None:
        for item in engine.tail(start="beginning"):
            keys.append(entry(item).event.key)

    thread = threading.Thread(target=follow)
    engine.publish("photos", "before")
    thread.start()
    until(lambda: keys == [b"before"])
    engine.close()
    thread.join(20)
    assert not thread.is_alive()
    with pytest.raises(tidewire.Closed):
        engine.tail()


def test_a_tail_can_be_followed_by_a_loop(mine: Mine) -> None:
    engine, _ = mine

    async def main() -> list[bytes]:
        tail = engine.tail()
        assert await tail.next_async(0) is None
        assert await tail.next_async(0.02) is None

        async def publish() -> None:
            for i in range(20):
                await engine.publish_async("photos", f"k{i}", ack="written")
                await asyncio.sleep(0.001)
            await engine.flush_async()
            await engine.close_async()

        task = asyncio.create_task(publish())
        keys = [entry(item).event.key async for item in tail]
        await task
        return keys

    assert asyncio.run(main()) == [f"k{i}".encode() for i in range(20)]


def test_what_was_removed_comes_as_a_gap(tmp_path: Path) -> None:
    config = custom(engine='log = { segment_bytes = "1MiB" }\ndelivery = { cursor_interval = "10ms" }')
    with tidewire.Engine(config, data_dir=tmp_path) as engine:
        engine.set_handler("mine", lambda batch: None)
        engine.publish("photos", "first")
        tail = engine.tail(start="beginning")
        assert entry(tail.next(10)).event.key == b"first"
        big = [Event("photos", f"k{i}", metadata={"m": "x" * 20_000}) for i in range(50)]

        def publish() -> bool:
            engine.publish_many(big)
            engine.flush()
            return engine.stats()["segments"] <= 4 and engine.stats()["stored"] > 400

        until(publish, 60)
        gap = tail.next(10)
        while isinstance(gap, Entry):
            gap = tail.next(10)
        assert isinstance(gap, Gap)
        assert gap.cause == "removed" and gap.first <= gap.last and gap.shard == 0
        assert gap.since_ns is None or gap.since_ns > 0
        assert gap.until_ns is None or gap.until_ns > 0
        assert "removed" in repr(gap)


def test_members_of_a_group_share_its_events(mine: Mine) -> None:
    engine, _ = mine
    with engine.consumer("g") as one, engine.consumer("g", batch=5) as two:
        assert one.group == "g"
        assert one.fetch(timeout=0) == []
        engine.publish_many([Event("photos", f"k{i}") for i in range(10)])
        keys: list[bytes] = []
        while len(keys) < 10:
            for consumer in (one, two):
                for item in consumer.fetch(3, timeout=0.05):
                    found = delivery(item)
                    assert found.deliveries == 1
                    keys.append(found.event.key)
                    found.ack()
        assert sorted(keys) == sorted(f"k{i}".encode() for i in range(10))
        [group] = engine.groups()
        assert (group["name"], group["given"], group["acknowledged"], group["out"]) == ("g", 10, 10, 0)


def test_what_is_given_back_comes_again(mine: Mine) -> None:
    engine, _ = mine
    consumer = engine.consumer("g")
    engine.publish("photos", "k")
    [first] = map(delivery, consumer.fetch(timeout=10))
    first.extend()
    first.nack(0.01)
    [second] = map(delivery, consumer.fetch(timeout=10))
    assert second.deliveries == 2
    with pytest.raises(tidewire.Timeout):
        first.ack()
    with pytest.raises(KeyError):
        with second:
            raise KeyError
    [third] = map(delivery, consumer.fetch(timeout=10))
    with third:
        pass
    with pytest.raises(tidewire.NotFound):
        third.ack()
    assert consumer.fetch(timeout=0.05) == []


def test_a_lease_runs_out(mine: Mine) -> None:
    engine, _ = mine
    consumer = engine.consumer("g", visibility_timeout=0.05, deliveries_max=2)
    engine.publish("photos", "k")
    assert len(consumer.fetch(timeout=10)) == 1
    [again] = map(delivery, consumer.fetch(timeout=10))
    assert again.deliveries == 2
    until(lambda: engine.groups()[0]["dead_lettered"] == 1 or bool(consumer.fetch(timeout=0)))


def test_what_a_closed_consumer_had_goes_out_again(mine: Mine) -> None:
    engine, _ = mine
    consumer = engine.consumer("g")
    engine.publish("photos", "k")
    [had] = map(delivery, consumer.fetch(timeout=10))
    consumer.close()
    consumer.close()
    with pytest.raises(tidewire.Closed, match="goes out again"):
        had.ack()
    with pytest.raises(tidewire.Closed):
        consumer.fetch()
    with engine.consumer("g") as other:
        [found] = map(delivery, other.fetch(timeout=10))
        other.ack([found])
    engine.delete_group("g")
    assert engine.groups() == []
    with pytest.raises(tidewire.NotFound):
        engine.delete_group("g")


def test_a_group_that_cannot_be_is_refused(mine: Mine) -> None:
    engine, _ = mine
    with pytest.raises(tidewire.InvalidArgument):
        engine.consumer("no name!")
    with pytest.raises(tidewire.InvalidConfig):
        engine.consumer("g", batch=0)
    with pytest.raises(tidewire.InvalidArgument):
        engine.consumer("g", visibility_timeout=-1)
    engine.consumer("g", bucket="photos")
    with pytest.raises(tidewire.InvalidArgument):
        engine.consumer("g", bucket="other")


def test_a_group_can_be_iterated(mine: Mine) -> None:
    engine, _ = mine
    keys: list[bytes] = []

    def work() -> None:
        with engine.consumer("g") as consumer:
            for item in consumer:
                with delivery(item) as found:
                    keys.append(found.event.key)

    engine.consumer("g")
    engine.publish_many([Event("photos", f"k{i}") for i in range(50)])
    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: len(keys) == 50)
    engine.publish("photos", "late")
    until(lambda: len(keys) == 51)
    engine.close()
    thread.join(20)
    assert not thread.is_alive()


def test_a_group_can_be_iterated_by_a_loop(mine: Mine) -> None:
    engine, _ = mine

    async def main() -> list[bytes]:
        keys = []
        async with engine.consumer("g") as consumer:
            assert await consumer.fetch_async(5, 0.02) == []

            async def publish() -> None:
                await asyncio.sleep(0.01)
                await engine.publish_many_async([Event("photos", f"k{i}") for i in range(50)])

            task = asyncio.create_task(publish())
            async for item in consumer:
                with delivery(item) as found:
                    keys.append(found.event.key)
                if len(keys) == 50:
                    break
            await task
        return keys

    assert sorted(asyncio.run(main())) == sorted(f"k{i}".encode() for i in range(50))


@pytest.fixture
def dead(open_mine: Callable[..., Mine], engines: Engines) -> Mine:
    """An engine with three dead letters."""
    engine, taken = open_mine(destination="retry.poison_attempts = 1")
    engines.owner(engine).set_handler("mine", lambda batch: batch.refuse("spoilt"))
    for key in ("a", "b", b"\xff"):
        engine.publish("photos", key, size=5)
    engine.flush()
    until(lambda: engine.stats()["dead_letters_kept"] == 3)
    return engine, taken


def test_dead_letters_say_what_is_known(dead: Mine) -> None:
    engine, _ = dead
    letters = engine.dead_letters()
    assert sorted(letter["key"] for letter in letters) == [b"a", b"b", b"\xff"]
    letters.sort(key=lambda letter: letter["key"])
    first = letters[0]
    assert (first["destination"], first["rule"], first["bucket"]) == ("mine", "all", "photos")
    assert first["event_type"] == EventType.OBJECT_CREATED_PUT and "spoilt" in first["reason"]
    assert first["event"] is not None and first["event"].size == 5
    assert first["attempts"] >= 1 and first["given_up_ns"] >= first["accepted_ns"] - 10**9
    [second] = engine.dead_letters(limit=1, after=first["id"])
    assert second["key"] == b"b"
    assert [x["key"] for x in engine.dead_letters(ids=[second["id"]])] == [b"b"]
    assert len(engine.dead_letters(destination="mine", bucket="photos", reason="spoilt", key_prefix=b"\xff")) == 1
    assert engine.dead_letters(before_ns=1) == [] and len(engine.dead_letters(from_ns=1)) == 3
    assert engine.dead_letters(bucket="other") == []


def test_dead_letters_that_cannot_be_meant(dead: Mine) -> None:
    engine, _ = dead
    with pytest.raises(tidewire.InvalidArgument, match="no id"):
        engine.dead_letters(ids=[])
    with pytest.raises(tidewire.InvalidArgument):
        engine.dead_letters(ids=["x"])
    with pytest.raises(tidewire.NotFound):
        engine.dead_letters(destination="never")
    with pytest.raises(TypeError, match="colour"):
        engine.dead_letters(colour="red")  # type: ignore[call-arg]


def test_dead_letters_are_redriven_and_purged(dead: Mine, engines: Engines) -> None:
    engine, taken = dead
    engines.owner(engine).set_handler("mine", taken)
    done = engine.redrive(key_prefix="a")
    assert (done["redriven"], done["left"], done["why"]) == (1, 0, [])
    engine.flush()
    assert taken.keys() == [b"a"]
    assert engine.purge_dead_letters(key_prefix="b") == 1
    assert [x["key"] for x in engine.dead_letters()] == [b"\xff"]
    with pytest.raises(tidewire.NotFound):
        engine.redrive(to="nobody")


def test_dead_letters_are_exported(dead: Mine, tmp_path: Path) -> None:
    engine, _ = dead
    assert engine.export_dead_letters(tmp_path / "letters.ndjson") == 3
    lines = [json.loads(line) for line in (tmp_path / "letters.ndjson").read_text().splitlines()]
    assert [line.get("key") for line in lines] == ["a", "b", None]
    file = io.BytesIO()
    assert engine.export_dead_letters(file, key_prefix="b") == 1
    assert json.loads(file.getvalue())["key"] == "b"

    class Full:
        def write(self, data: bytes) -> None:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        engine.export_dead_letters(Full())
    with pytest.raises(tidewire.IoError):
        engine.export_dead_letters(tmp_path / "no" / "such" / "directory")


def test_the_log_is_sent_again(open_mine: Callable[..., Mine], engines: Engines) -> None:
    engine, taken = open_mine(engine='retention = { keep = "all" }')
    engine.publish_many([Event("photos", f"k{i}") for i in range(10)])
    engine.flush()
    again: list[str] = []
    engine.put_destination({"name": "second", "type": "custom"})
    engines.owner(engine).set_handler("second", lambda batch: again.extend(batch.ids))
    replay = engine.replay("second", name="r", filter={"prefix": "k"}, rate_max=10_000)
    assert replay.name == "r" and "r" in repr(replay)
    done = replay.wait()
    assert (done["state"], done["delivered"], done["found"], done["read"]) == ("done", 10, 10, 1.0)
    assert replay.progress()["state"] == "done"
    assert sorted(again) == sorted(taken.ids)
    replay.cancel()

    async def main() -> None:
        one_off = engine.replay({"name": "own", "type": "custom", "handler": "second"}, events=["s3:ObjectCreated:*"])
        assert (await one_off.wait_async())["delivered"] == 10

    asyncio.run(main())
    with pytest.raises(tidewire.NotFound):
        engine.replay("nobody")
    with pytest.raises(tidewire.InvalidArgument):
        engine.replay("second", rate_max=0)
    with pytest.raises(tidewire.NotFound):
        engine.resume_replay("nobody", {"name": "own", "type": "custom"})


def test_a_replay_is_cancelled(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine(engine='retention = { keep = "all" }')
    engine.publish_many([Event("photos", f"k{i}") for i in range(10)])
    engine.flush()
    engine.put_destination({"name": "second", "type": "custom"})
    replay = engine.replay("second", name="slow")
    assert [r.name for r in engine.replays()] == ["slow"]
    with pytest.raises(tidewire.Timeout):
        replay.wait(0.05)
    replay.cancel()
    assert replay.wait()["state"] == "cancelled"


def test_a_snapshot_is_a_file(mine: Mine, tmp_path: Path) -> None:
    engine, _ = mine
    engine.publish("photos", "k")
    engine.snapshot(tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size > 0
    with pytest.raises(tidewire.IoError):
        engine.snapshot(tmp_path / "no" / "directory" / "copy")
