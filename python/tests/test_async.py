"""asyncio: a loop is never kept waiting, and no thread waits for it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from conftest import Mine, Open, Server

import tidewire
from tidewire import Event, Published


def test_events_are_published_by_a_loop_in_order(mine: Mine) -> None:
    engine, taken = mine

    async def main() -> None:
        threads = threading.active_count()
        calls = [engine.publish_async("photos", f"k{i % 3}", size=i, ack=ack) for i in range(300) for ack in ("synced",)]
        assert set(await asyncio.gather(*calls)) == {Published.ACCEPTED}
        assert threading.active_count() == threads, "no thread waits"
        assert await engine.publish_async(Event("nobody", "k")) is Published.NO_MATCH
        assert await engine.publish_async({"bucket": "photos", "key": "m"}, ack="memory") is Published.ACCEPTED
        assert await engine.publish_async("photos", "w", ack="written") is Published.ACCEPTED
        await engine.flush_async()

    asyncio.run(main())
    for k in range(3):
        sizes = [r["s3"]["object"]["size"] for r, key in zip(taken.records, taken.keys()) if key == f"k{k}".encode()]
        assert sizes == sorted(sizes) and len(sizes) == 100


def test_what_is_wrong_is_said_at_once(mine: Mine) -> None:
    engine, _ = mine

    async def main() -> None:
        with pytest.raises(tidewire.InvalidEvent):
            engine.publish_async("photos", "")
        with pytest.raises(tidewire.InvalidArgument):
            engine.publish_async("photos", "k", ack="maybe")  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            engine.publish_async("photos", "k", colour="red")  # type: ignore[call-overload]
        with pytest.raises(tidewire.InvalidArgument):
            engine.flush_async(-1)
        await engine.close_async()
        with pytest.raises(tidewire.Closed):
            engine.publish_async("photos", "k")
        with pytest.raises(tidewire.Closed):
            await engine.flush_async()

    asyncio.run(main())


def test_without_a_loop_there_is_nothing_to_await(mine: Mine) -> None:
    engine, taken = mine
    held = engine.reserve("photos", "k")
    calls: list[Callable[[], object]] = [lambda: engine.publish_async("photos", "k", ack="memory"), held.commit_async]
    for call in calls:
        with pytest.raises(RuntimeError, match="no running event loop"):
            call()
    held.abort()
    engine.flush()
    assert taken.records == []


def test_the_loop_runs_while_a_flush_waits(open_engine: Open, dead_url: str) -> None:
    engine = open_engine(dead_url)

    async def main() -> int:
        rounds = 0

        async def count() -> None:
            nonlocal rounds
            while True:
                await asyncio.sleep(0.005)
                rounds += 1

        counter = asyncio.create_task(count())
        await engine.publish_async("photos", "k")
        with pytest.raises(tidewire.Timeout, match="1 deliveries still wait"):
            await engine.flush_async(0.3)
        counter.cancel()
        return rounds

    assert asyncio.run(main()) >= 5


def test_a_wait_that_is_cancelled_leaves_nothing(open_engine: Open, dead_url: str) -> None:
    engine = open_engine(dead_url)

    async def main() -> None:
        await engine.publish_async("photos", "k")
        for _ in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(engine.flush_async(None), 0.02)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(engine.tail().next_async(), 0.02)
        # What comes later finds nobody, and harms nobody.
        await engine.publish_async("photos", "k")

    asyncio.run(main())


def test_closing_ends_what_waits(open_engine: Open, dead_url: str) -> None:
    engine = open_engine(dead_url)

    async def main() -> None:
        await engine.publish_async("photos", "k")
        waiting = [asyncio.ensure_future(engine.flush_async(None)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await engine.close_async(0.1)
        assert {type(e) for e in await asyncio.gather(*waiting, return_exceptions=True)} == {tidewire.Closed}

    asyncio.run(main())


def test_space_is_waited_for_without_keeping_the_loop(open_engine: Open, server: Server) -> None:
    engine = open_engine(engine='ring_bytes = "256KiB"')
    event = Event("photos", "k", metadata={"m": "x" * 4000})

    async def main() -> None:
        calls = [engine.publish_async(event, ack="memory") for _ in range(500)]
        assert set(await asyncio.gather(*calls)) == {Published.ACCEPTED}
        counts = await engine.publish_many_async([event] * 500, ack="memory")
        assert counts.accepted == 500
        with pytest.raises(tidewire.Full):
            for _ in range(2000):
                await engine.publish_async(event, ack="memory", block=False)
        await engine.flush_async(60)

    asyncio.run(main())
    assert len(server.keys()) >= 1000


def test_many_come_from_any_iterable(mine: Mine) -> None:
    engine, taken = mine

    async def slowly() -> AsyncIterator[Event]:
        for i in range(5):
            await asyncio.sleep(0)
            yield Event("photos", f"async{i}")

    async def fails() -> AsyncIterator[Event]:
        yield Event("photos", "before")
        raise KeyError("mine")

    async def main() -> None:
        assert await engine.publish_many_async(slowly()) == (5, 0, 0)
        assert await engine.publish_many_async(Event("photos", f"sync{i}") for i in range(3000)) == (3000, 0, 0)
        assert await engine.publish_many_async([], ack="memory") == (0, 0, 0)
        with pytest.raises(KeyError) as e:
            await engine.publish_many_async(fails())
        assert e.value.published == (1, 0, 0)  # type: ignore[attr-defined]
        with pytest.raises(tidewire.InvalidEvent) as wrong:
            await engine.publish_many_async([Event("photos", "k"), {"bucket": "photos"}])
        assert wrong.value.place == "events[1]: key"
        with pytest.raises(TypeError):
            await engine.publish_many_async(5)  # type: ignore[arg-type]
        document = b'{"type":"s3:ObjectCreated:Put","bucket":"photos","key":"json"}'
        assert await engine.publish_json_async(document, ack="written") == (1, 0, 0)
        await engine.flush_async()

    asyncio.run(main())
    assert len(taken.ids) == 5 + 3000 + 1 + 1 + 1


def test_an_engine_is_a_context_of_a_loop(tmp_path: Any) -> None:
    from conftest import custom

    async def main() -> tidewire.Engine:
        async with tidewire.Engine(custom(), data_dir=tmp_path) as engine:
            assert not engine.closed
            await engine.publish_async("photos", "k")
        return engine

    assert asyncio.run(main()).closed


def test_one_engine_serves_many_loops(mine: Mine) -> None:
    engine, taken = mine
    errors: list[BaseException] = []

    def run(name: str) -> None:
        async def main() -> None:
            await asyncio.gather(*(engine.publish_async("photos", f"{name}-{i}") for i in range(100)))

        try:
            asyncio.run(main())
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(f"t{n}",)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert errors == []
    engine.flush()
    assert len(set(taken.keys())) == 400


def test_an_engine_of_a_loop_is_let_go(open_mine: Callable[..., Mine]) -> None:
    async def main() -> None:
        for _ in range(5):
            engine, _taken = open_mine()
            await engine.publish_async("photos", "k")
            await engine.flush_async()
            await engine.close_async()

    asyncio.run(main())
    gc.collect()


def test_a_loop_lets_go_of_what_it_watched(tmp_path: Any) -> None:
    import os

    from conftest import custom

    def held() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        async def cycle(n: int) -> "weakref.ref[tidewire.Engine]":
            engine = tidewire.Engine(custom(), data_dir=tmp_path / str(n % 2))
            await engine.publish_async("photos", "k", ack="written")
            await engine.close_async(0)
            return weakref.ref(engine)

        await cycle(0)
        before = held()
        gone = [await cycle(n) for n in range(20)]
        await asyncio.sleep(0.01)
        gc.collect()
        assert all(ref() is None for ref in gone)
        await asyncio.sleep(0.01)
        assert held() <= before

    asyncio.run(main())
