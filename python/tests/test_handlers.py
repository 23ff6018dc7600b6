"""Destinations that are callables of the host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Callable
from typing import Any, Optional

import pytest
from conftest import Mine, Taken, until

import tidewire
from tidewire import Batch, Event


def test_a_batch_tells_what_it_is(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine(destination='profile = "aws"')
    seen: list[Any] = []

    def take(batch: Batch) -> None:
        seen.append((batch.destination, batch.content_type, batch.headers, len(batch), batch.answered))
        seen.append((batch.ids, [json.loads(r) for r in batch], json.loads(batch.body())))
        assert batch[0] == batch.records[0] and 0 < batch.left <= 60 and "mine" in repr(batch)
        batch.accept()
        assert batch.answered and batch.left > 0
        batch.retry("too late: one answer counts")
        with pytest.raises(tidewire.InvalidArgument, match="was answered"):
            batch.body()
        seen.append("done")

    engine.set_handler("mine", take)
    engine.publish("photos", "k", size=3)
    engine.flush()
    until(lambda: seen[-1] == "done")
    assert seen[0] == ("mine", "application/json", [], 1, False)
    ids, records, body = seen[1]
    assert body == {"Records": records} and records[0]["eventId"] == ids[0]


def test_headers_come_where_the_format_has_some(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine(destination='profile = "cloudevents-binary"')
    headers: dict[str, str] = {}
    engine.set_handler("mine", lambda batch: headers.update(batch.headers))
    engine.publish("photos", "k")
    engine.flush()
    assert headers["ce-subject"] == "k"


def test_an_exception_means_again_and_is_logged(mine: Mine, caplog: pytest.LogCaptureFixture) -> None:
    engine, taken = mine
    tries = 0

    def fail(batch: Batch) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise KeyError("mine")
        taken(batch)

    engine.set_handler("mine", fail)
    engine.publish("photos", "k")
    engine.flush()
    assert (tries, taken.keys()) == (3, [b"k"])
    assert [r.name for r in caplog.records if r.levelno == logging.ERROR][:2] == ["tidewire.handlers"] * 2
    assert "KeyError" in engine.stats()["destinations"][0]["last_error"]


def test_some_of_a_batch_may_be_left(open_mine: Callable[..., Mine]) -> None:
    engine, taken = open_mine(destination="batch.events_max = 10")
    first = True

    def take(batch: Batch) -> Optional[list[int]]:
        nonlocal first
        if first and len(batch) > 2:
            first = False
            taken.ids += batch.ids[:1] + batch.ids[2:]
            return [1]
        taken.ids += batch.ids
        return None

    engine.suspend_destination("mine")
    engine.set_handler("mine", take)
    engine.publish_many([Event("photos", f"k{i}") for i in range(10)])
    engine.resume_destination("mine")
    engine.flush()
    assert len(taken.ids) == len(set(taken.ids)) == 10 and not first


def test_places_that_there_are_not_are_refused(mine: Mine, caplog: pytest.LogCaptureFixture) -> None:
    engine, taken = mine
    wrong: list[Any] = [[5], "x", 7]

    def take(batch: Batch) -> Any:
        if wrong:
            return wrong.pop()
        return taken(batch)

    engine.set_handler("mine", take)
    engine.publish("photos", "k")
    engine.flush()
    assert taken.keys() == [b"k"] and not wrong


def test_what_will_never_be_taken_becomes_a_dead_letter(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine(destination="retry.poison_attempts = 1")
    engine.set_handler("mine", lambda batch: batch.refuse("no such colour"))
    engine.publish("photos", "k")
    engine.flush()
    [letter] = engine.dead_letters()
    assert "no such colour" in letter["reason"]


def test_a_pause_counts_as_no_attempt(mine: Mine) -> None:
    engine, taken = mine
    pauses = 0

    def take(batch: Batch) -> None:
        nonlocal pauses
        pauses += 1
        if pauses < 3:
            batch.retry_after(0.01, "busy")
        else:
            taken(batch)

    engine.set_handler("mine", take)
    engine.publish("photos", "k")
    engine.flush()
    assert (pauses, taken.keys()) == (3, [b"k"])


def test_a_batch_may_be_answered_later_from_another_thread(mine: Mine) -> None:
    engine, _ = mine
    kept: list[Batch] = []

    def keep(batch: Batch) -> None:
        batch.keep()
        kept.append(batch)

    engine.set_handler("mine", keep)
    engine.publish("photos", "k")
    until(lambda: len(kept) == 1)
    with pytest.raises(tidewire.Timeout):
        engine.flush(0.2)
    thread = threading.Thread(target=kept[0].accept)
    thread.start()
    thread.join()
    engine.flush()


def test_one_that_nobody_has_is_tried_again(mine: Mine) -> None:
    engine, taken = mine
    calls = 0

    def drop(batch: Batch) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            batch.keep()
        else:
            taken(batch)

    engine.set_handler("mine", drop)
    engine.publish("photos", "k")
    engine.flush()
    assert (calls, taken.keys()) == (2, [b"k"])


def test_a_coroutine_function_runs_on_the_loop(mine: Mine) -> None:
    engine, _ = mine
    taken, threads, failed = Taken(), set(), [True]

    async def take(batch: Batch) -> None:
        threads.add(threading.get_ident())
        await asyncio.sleep(0.001)
        if failed:
            failed.pop()
            raise ValueError("once")
        taken(batch)

    async def main() -> None:
        engine.set_handler("mine", take)
        counts = await engine.publish_many_async([Event("photos", f"k{i}") for i in range(100)])
        assert counts.accepted == 100
        await engine.flush_async()
        engine.set_handler("mine", None)

    asyncio.run(main())
    assert sorted(taken.keys()) == sorted(f"k{i}".encode() for i in range(100))
    assert threads == {threading.get_ident()}


def test_a_loop_that_is_gone_takes_nothing_and_loses_nothing(mine: Mine) -> None:
    engine, taken = mine

    async def take(batch: Batch) -> None:
        taken(batch)

    async def main() -> None:
        engine.set_handler("mine", take)

    asyncio.run(main())
    engine.publish("photos", "k")
    with pytest.raises(tidewire.Timeout):
        engine.flush(0.2)
    engine.set_handler("mine", taken)
    engine.flush()
    assert taken.keys() == [b"k"]


def test_what_is_no_handler_is_refused(mine: Mine) -> None:
    engine, _ = mine

    async def take(batch: Batch) -> None:
        pass

    with pytest.raises(TypeError, match="handler"):
        engine.set_handler("mine", 5)  # type: ignore[call-overload]
    with pytest.raises(tidewire.InvalidArgument, match="no loop runs here"):
        engine.set_handler("mine", take)
    with contextlib.closing(asyncio.new_event_loop()) as loop, pytest.raises(TypeError, match="loop"):
        engine.set_handler("mine", lambda batch: None, loop=loop)  # type: ignore[arg-type, return-value]
    with pytest.raises(tidewire.InvalidConfig):
        engine.set_handler("no name", lambda batch: None)


def test_a_handler_may_publish(mine: Mine) -> None:
    engine, taken = mine

    def take(batch: Batch) -> None:
        taken(batch)
        if len(taken.ids) < 10:
            engine.publish("photos", f"k{len(taken.ids)}")

    engine.set_handler("mine", take)
    engine.publish("photos", "k0")
    until(lambda: len(taken.ids) == 10)
    assert len(set(taken.keys())) == 10
