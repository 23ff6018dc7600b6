"""An event is told if, and only if, the operation came to be."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Engines, Mine, custom, run_python

import tidewire
from tidewire import Event, Published


def test_the_end_of_the_block_commits(mine: Mine, engines: Engines) -> None:
    engine, taken = mine
    with engine.reserve("photos", "k", requester="alice") as held:
        assert held and held.is_open and held.token is None and held.bytes_max > 512
        # One of another process is held there until it is committed.
        assert engine.stats()["reservations"] == (0 if engines.shared else 1)
        held.set(size=5, etag="wrong")
        held.set(etag="e", version_id="v", metadata={"a": "b"}, tags={"t": "1"}, data={"x": 1}, content_type="c")
    assert not held.is_open
    engine.flush()
    [record] = taken.records
    thing = record["s3"]["object"]
    assert (thing["size"], thing["eTag"], thing["versionId"], thing["contentType"]) == (5, "e", "v", "c")
    assert (thing["userMetadata"], thing["tags"], record["data"]) == ({"a": "b"}, {"t": "1"}, {"x": 1})
    assert record["userIdentity"] == {"principalId": "alice"}


def test_an_exception_aborts_and_goes_on(mine: Mine) -> None:
    engine, taken = mine
    with pytest.raises(KeyError, match="mine"):
        with engine.reserve("photos", "k"):
            raise KeyError("mine")
    assert engine.stats()["reservations"] == 0
    engine.flush()
    assert taken.records == []


def test_a_commit_or_an_abort_within_the_block_is_the_end(mine: Mine) -> None:
    engine, taken = mine
    with engine.reserve("photos", "committed") as held:
        assert held.commit(size=1) is Published.ACCEPTED
        assert held.commit(size=2) is Published.ACCEPTED
        with pytest.raises(tidewire.InvalidArgument, match="was committed"):
            held.abort()
    with engine.reserve("photos", "aborted") as held:
        held.abort()
        held.abort()
        with pytest.raises(tidewire.InvalidArgument, match="was aborted"):
            held.commit()
    engine.flush()
    assert taken.keys() == [b"committed"]
    assert taken.records[0]["s3"]["object"]["size"] == 1


def test_what_nobody_wants_is_not_held(mine: Mine) -> None:
    engine, _ = mine
    with engine.reserve(Event("nobody", "k")) as held:
        assert not held and not held.is_open and held.bytes_max == 0
        held.set(size=5)
    assert held.commit() is Published.NO_MATCH
    held.abort()
    assert engine.stats()["no_match"] == 1


def test_one_that_nobody_has_any_more_is_aborted(mine: Mine) -> None:
    engine, taken = mine
    engine.reserve("photos", "k")
    gc.collect()
    assert engine.stats()["reservations"] == 0
    engine.flush()
    assert taken.records == []


def test_what_is_wrong_leaves_the_reservation_open(mine: Mine) -> None:
    engine, taken = mine
    with engine.reserve("photos", "k") as held:
        with pytest.raises(tidewire.InvalidArgument, match="`sise`"):
            held.set(sise=1)  # type: ignore[call-arg]
        with pytest.raises(tidewire.InvalidEvent, match="size"):
            held.set(size=-1)
        with pytest.raises(tidewire.InvalidEvent, match="were reserved"):
            held.commit(metadata={"m": "x" * 1000})
        with pytest.raises(tidewire.InvalidArgument, match="timeout"):
            held.commit(timeout=-1)
        assert held.is_open
    engine.flush()
    assert taken.keys() == [b"k"]
    with pytest.raises(tidewire.InvalidArgument, match="bytes_max"):
        engine.reserve("photos", "k", bytes_max=1)
    with pytest.raises(tidewire.InvalidArgument, match="unknown intent"):
        engine.reserve("photos", "k", intent="maybe")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="alone"):
        engine.reserve(Event("photos", "k"), size=1)  # type: ignore[call-overload]


def test_too_much_is_refused(open_mine: Callable[..., Mine]) -> None:
    engine, _ = open_mine(engine='ring_bytes = "256KiB"\nreserve_percent = 10')
    held = []
    with pytest.raises(tidewire.Full, match="too much is reserved") as e:
        for i in range(5000):
            held.append(engine.reserve("photos", f"k{i}"))
    assert (e.value.s3_code, e.value.s3_status) == ("ServiceUnavailable", 503)
    assert 0 < len(held) < 5000
    held.pop().abort()
    assert engine.reserve("photos", "k")


def test_a_batch_is_held_as_a_whole(mine: Mine) -> None:
    engine, taken = mine
    events = [Event("photos", "a"), Event("nobody", "b"), Event("photos", "c"), Event("photos", "d")]
    with engine.reserve_batch(events) as batch:
        assert [bool(held) for held in batch] == [True, False, True, True]
        assert len(batch) == 4 and batch[-1].is_open
        batch[0].set(size=7)
        batch[2].abort()
        with pytest.raises(IndexError):
            batch[4]
    engine.flush()
    assert sorted(taken.keys()) == [b"a", b"d"]
    assert [r["s3"]["object"].get("size") for r in taken.records if r["s3"]["object"]["key"] == "a"] == [7]
    with pytest.raises(ZeroDivisionError):
        with engine.reserve_batch(events):
            raise ZeroDivisionError
    assert engine.stats()["reservations"] == 0
    with pytest.raises(TypeError, match="sise"):
        engine.reserve_batch(events, sise=1)  # type: ignore[call-arg]


DIES = """
import os, sys, tidewire
from conftest import custom
engine = tidewire.Engine(custom(), data_dir=sys.argv[1])
held = [engine.reserve("photos", f"k{i}", intent="durable") for i in range(3)]
print(" ".join(h.token for h in held), flush=True)
os._exit(0)
"""


def test_a_durable_intent_is_asked_about_after_a_crash(tmp_path: Path) -> None:
    out = run_python(DIES, tmp_path / "data")
    tokens = out.stdout.split()
    assert len(tokens) == 3, out.stderr
    keys = []
    with tidewire.Engine(custom(), data_dir=tmp_path / "data") as engine:
        engine.set_handler("mine", lambda batch: keys.extend(batch.ids))
        doubts = engine.in_doubt()
        assert [d["token"] for d in doubts] == tokens
        assert [d["event"].key for d in doubts] == [b"k0", b"k1", b"k2"]
        assert all(d["reserved_ns"] > 1e18 for d in doubts)
        engine.resolve(tokens[0], doubts[0]["event"].replace(size=5))
        engine.resolve(tokens[0], doubts[0]["event"])
        engine.resolve(tokens[1], None)
        with pytest.raises(tidewire.InvalidArgument, match="aborted before"):
            engine.resolve(tokens[1], doubts[1]["event"])
        with pytest.raises(tidewire.InvalidEvent, match="key"):
            engine.resolve(tokens[2], Event("photos", "other"))
        with pytest.raises(tidewire.NotFound):
            engine.resolve(tokens[0].replace(tokens[0][:4], "FFFF"), None)
        assert engine.stats()["in_doubt"] == 1
        engine.flush()
    assert keys == [tokens[0]]


def test_a_durable_intent_has_a_token_and_its_event_the_same_id(mine: Mine) -> None:
    engine, taken = mine
    with engine.reserve("photos", "k", intent="durable") as held:
        token = held.token
    engine.flush()
    assert taken.ids == [token]


def test_reservations_can_be_awaited(mine: Mine) -> None:
    engine, taken = mine

    async def main() -> None:
        async with engine.reserve_async("photos", "a") as held:
            held.set(size=5)
        with pytest.raises(KeyError):
            async with engine.reserve_async("photos", "b", intent="durable"):
                raise KeyError
        held = await engine.reserve_async(Event("photos", "c"))
        assert await held.commit_async(size=1) is Published.ACCEPTED
        async with await engine.reserve_async("photos", "d"):
            pass
        async with engine.reserve_async("nobody", "e") as held:
            assert not held
            assert await held.commit_async() is Published.NO_MATCH
        await engine.flush_async()

    asyncio.run(main())
    assert sorted(taken.keys()) == [b"a", b"c", b"d"]


def test_a_reservation_in_a_forked_child_is_refused(mine: Mine) -> None:
    engine, _ = mine
    held = engine.reserve("photos", "k")
    child = os.fork()
    if child == 0:
        try:
            held.commit()
        except tidewire.WrongProcess:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert held.commit() is Published.ACCEPTED
