"""Opening, waiting, closing, forking: a good guest in the process of its host."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from conftest import LONG, Open, Server, config, run_python, until

import tidewire


def test_a_dead_endpoint_makes_flush_time_out_and_loses_nothing(
    open_engine: Open, server: Server, dead_url: str
) -> None:
    engine = open_engine(dead_url)
    keys = [f"k{i}" for i in range(20)]
    for key in keys:
        engine.publish("photos", key)
    start = time.monotonic()
    with pytest.raises(tidewire.Timeout) as e:
        engine.flush(0.35)
    assert time.monotonic() - start >= 0.3
    assert isinstance(e.value, TimeoutError)
    assert "20 deliveries" in e.value.message and e.value.remedy
    until(lambda: engine.stats()["destinations"][0]["last_error"] != "")
    engine.close(0)
    again = open_engine()
    again.flush()
    assert sorted(server.keys()) == sorted(key.encode() for key in keys)


def test_the_interpreter_runs_while_a_call_waits(open_engine: Open, dead_url: str) -> None:
    engine = open_engine(dead_url)
    engine.publish("photos", "k")
    rounds = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal rounds
        while not stop.wait(0.01):
            rounds += 1

    thread = threading.Thread(target=count)
    thread.start()
    with pytest.raises(tidewire.Timeout):
        engine.flush(0.5)
    stop.set()
    thread.join()
    assert rounds >= 10


@pytest.mark.local
def test_the_block_closes(open_engine: Open, server: Server) -> None:
    with open_engine() as engine:
        assert not engine.closed
        assert "open" in repr(engine)
        engine.publish("photos", "k", ack="memory")
    assert engine.closed
    assert "closed" in repr(engine)
    assert server.keys() == [b"k"]


@pytest.mark.local
def test_the_block_closes_after_an_exception(open_engine: Open, server: Server) -> None:
    engine = open_engine()
    with pytest.raises(KeyError, match="mine"):
        with engine:
            engine.publish("photos", "k", ack="memory")
            raise KeyError("mine")
    assert engine.closed
    assert server.keys() == [b"k"]


@pytest.mark.local
def test_a_closed_engine_refuses(engine: tidewire.Engine) -> None:
    engine.publish("photos", "k")
    engine.close()
    engine.close(0)
    calls: list[Callable[[], object]] = [
        lambda: engine.publish("photos", "k"),
        lambda: engine.publish("nobody", "k"),
        lambda: engine.publish("photos", "k", ack="memory", block=False),
        engine.flush,
        lambda: engine.is_interested("photos", "s3:ObjectCreated:Put"),
        engine.__enter__,
    ]
    for call in calls:
        with pytest.raises(tidewire.Closed) as e:
            call()
        assert (e.value.code, e.value.kind) == (5, "Closed")
    assert engine.stats()["delivered"] == 1


def test_closing_ends_the_waits_of_other_threads(open_engine: Open, dead_url: str) -> None:
    engine = open_engine(dead_url)
    engine.publish("photos", "k")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            engine.flush(None)
        except BaseException as e:
            caught.append(e)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for t in threads:
        t.start()
    time.sleep(0.1)
    closers = [threading.Thread(target=engine.close, args=(0.1,)) for _ in range(2)]
    for t in closers:
        t.start()
    for t in [*closers, *threads]:
        t.join(20)
        assert not t.is_alive()
    assert [type(e) for e in caught] == [tidewire.Closed] * 3


def held() -> tuple[int, int]:
    """How many descriptors and threads this process has."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def no_more_than(before: tuple[int, int]) -> None:
    """Descriptors and threads are back to what they were. Receivers of earlier tests may still let go of theirs."""
    try:
        until(lambda: all(now <= then for now, then in zip(held(), before)), 5)
    except AssertionError:
        left = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        pytest.fail(f"{held()}, not {before}: {left}")


@pytest.mark.local
def test_engines_leave_nothing_behind(tmp_path: Path, dead_url: str) -> None:
    def cycle() -> None:
        engine = tidewire.Engine(config(dead_url), data_dir=tmp_path / "cycles")
        engine.publish("photos", "k", ack="memory")
        engine.close(0)

    cycle()
    before = held()
    for _ in range(30):
        cycle()
    no_more_than(before)


def test_an_engine_that_nobody_holds_closes(open_engine: Open, tmp_path: Path, server: Server) -> None:
    before = held()
    engine = tidewire.Engine(config(server.url), data_dir=tmp_path / "dropped")
    gone = weakref.ref(engine)
    engine.publish("photos", "k", ack="memory")
    del engine
    gc.collect()
    assert gone() is None
    assert server.keys() == [b"k"]
    no_more_than(before)
    tidewire.Engine(config(server.url), data_dir=tmp_path / "dropped").close()


FORK_CALLS = ["publish", "publish to nobody", "flush", "stats", "is_interested", "close"]


def answers(engine: tidewire.Engine) -> list[str]:
    """What each call says, by the name of its exception."""
    calls: list[Callable[[], object]] = [
        lambda: engine.publish("photos", "child"),
        lambda: engine.publish("nobody", "child"),
        engine.flush,
        engine.stats,
        lambda: engine.is_interested("photos", "s3:ObjectCreated:Put"),
        engine.close,
    ]
    names = []
    for call in calls:
        try:
            call()
            names.append("nothing")
        except Exception as e:
            names.append(type(e).__name__)
    return names


def test_a_forked_child_is_refused_and_may_have_an_engine_of_its_own(
    engine: tidewire.Engine, server: Server, tmp_path: Path
) -> None:
    engine.publish("photos", "before")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            said = answers(engine)
            with tidewire.Engine(config(server.url), data_dir=tmp_path / "child") as own:
                own.publish("photos", "own")
                own.flush()
            with pytest.raises(tidewire.Locked):
                tidewire.Engine(config(server.url), data_dir=tmp_path / "data")
            del engine
            gc.collect()
            os.write(write, ",".join(said).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode().split(",")
    assert os.waitpid(child, 0)[1] == 0
    assert said == ["WrongProcess"] * len(FORK_CALLS)
    engine.publish("photos", "after")
    engine.flush()
    assert sorted(server.keys()) == [b"after", b"before", b"own"]


def in_process(engine: tidewire.Engine, pipe: Connection) -> None:
    with pipe:
        pipe.send(answers(engine))


def test_a_child_of_multiprocessing_is_refused(engine: tidewire.Engine, server: Server) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=in_process, args=(engine, theirs))
    process.start()
    assert ours.poll(20)
    assert ours.recv() == ["WrongProcess"] * len(FORK_CALLS)
    process.join(20)
    assert process.exitcode == 0
    ours.close()
    theirs.close()
    engine.publish("photos", "k")
    engine.flush()
    assert server.keys() == [b"k"]


LEAVES_BLOCK = """
import os, sys, tidewire
from conftest import config
with tidewire.Engine(config(sys.argv[1]), data_dir=sys.argv[2]) as engine:
    engine.publish("photos", "parent")
    child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("parent closed", engine.closed)
"""


@pytest.mark.local
def test_a_child_that_leaves_the_block_and_the_interpreter_harms_nobody(server: Server, tmp_path: Path) -> None:
    out = run_python(LEAVES_BLOCK, server.url, tmp_path / "data")
    assert (out.returncode, out.stdout, out.stderr) == (0, "parent closed True\n", "")
    assert server.keys() == [b"parent"]


LIVE_AT_EXIT = """
import sys, threading, tidewire
from conftest import config
engine = tidewire.Engine(config(sys.argv[1]), data_dir=sys.argv[2])
def hammer():
    while True:
        engine.publish("nobody", "k")
threading.Thread(target=hammer, daemon=True).start()
threading.excepthook = lambda args: None
for i in range(10):
    engine.publish("photos", f"k{i}", ack="memory")
if len(sys.argv) > 3:
    raise SystemExit(int(sys.argv[3]))
"""


@pytest.mark.local
def test_the_interpreter_may_end_with_a_live_engine(server: Server, tmp_path: Path) -> None:
    out = run_python(LIVE_AT_EXIT, server.url, tmp_path / "data")
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")
    assert len(server.keys()) == 10, "what was accepted goes out"
    assert run_python(LIVE_AT_EXIT, server.url, tmp_path / "data", 7).returncode == 7


WAITS = """
import sys, tidewire
from conftest import config
engine = tidewire.Engine(config(sys.argv[1], engine=""), data_dir=sys.argv[2])
engine.publish("photos", "k")
print("ready", flush=True)
try:
    engine.flush(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
engine.close(0)
"""


@pytest.mark.local
def test_ctrl_c_ends_a_flush(dead_url: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, dead_url, tmp_path / "data"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "interrupted\n", "")


def test_signals_reach_the_host(engine: tidewire.Engine, server: Server) -> None:
    caught: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(threading.get_ident()))
    try:
        for i in range(20):
            engine.publish("photos", f"k{i}", ack="memory")
            os.kill(os.getpid(), signal.SIGUSR1)
        engine.flush()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert set(caught) == {threading.main_thread().ident}
    assert len(server.keys()) == 20


@pytest.mark.local
def test_engines_come_and_go_without_end(tmp_path: Path, dead_url: str) -> None:
    def cycle() -> None:
        with tidewire.Engine(config(dead_url), data_dir=tmp_path / "cycles") as engine:
            engine.publish("photos", "k", ack="memory")
            engine.set_handler("unused", lambda batch: None)
            engine.close(0)

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(20):
        cycle()
    gc.collect()
    before, memory = held(), resident()
    tracemalloc.start()
    first = tracemalloc.get_traced_memory()[0]
    try:
        for _ in range(500 if LONG else 60):
            cycle()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - first < 256 << 10
    finally:
        tracemalloc.stop()
    no_more_than(before)
    assert resident() - memory < 48 << 20


MANY_FORKS = """
import os, sys, tidewire
from conftest import config
engine = tidewire.Engine(config(sys.argv[1]), data_dir=sys.argv[2])
for n in range(50):
    engine.publish("photos", f"k{n}", ack="memory")
    child = os.fork()
    if child == 0:
        try:
            engine.publish("photos", "child")
        except tidewire.WrongProcess:
            sys.exit(7)
        sys.exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
engine.flush()
engine.close()
print(engine.stats()["delivered"])
"""


@pytest.mark.local
def test_fifty_forks_harm_nobody(server: Server, tmp_path: Path) -> None:
    out = run_python(MANY_FORKS, server.url, tmp_path / "data")
    assert (out.returncode, out.stdout, out.stderr) == (0, "50\n", "")
    assert len(server.keys()) == 50


HANDLER_AT_EXIT = """
import sys, time, tidewire
from conftest import custom
engine = tidewire.Engine(custom(), data_dir=sys.argv[1])
def take(batch):
    print("called", flush=True)
    time.sleep(float(sys.argv[2]))
engine.set_handler("mine", take)
engine.publish("photos", "k")
time.sleep(0.2)
"""


@pytest.mark.local
def test_the_interpreter_may_end_while_a_handler_runs(tmp_path: Path) -> None:
    for seconds in (0.5, 5):
        out = run_python(HANDLER_AT_EXIT, tmp_path / "data", seconds)
        assert out.returncode == 0 and "called" in out.stdout, out.stderr


# It asks for the interpreter again and again, so it is certainly caught at that.
BUSY_AT_EXIT = """
import sys, time, tidewire
from conftest import custom
engine = tidewire.Engine(custom(), data_dir=sys.argv[1])
def forever(*_):
    while True:
        time.sleep(0.0001)
if sys.argv[2] == "handler":
    engine.set_handler("mine", forever)
else:
    engine.set_enricher(forever, timeout=0.01)
engine.publish("photos", "k")
time.sleep(0.2)
"""


@pytest.mark.local
@pytest.mark.parametrize("what", ["handler", "enricher"])
def test_the_interpreter_may_end_while_a_callable_asks_for_it(what: str, tmp_path: Path) -> None:
    for n in range(3):
        out = run_python(BUSY_AT_EXIT, tmp_path / f"data{n}", what)
        assert out.returncode == 0, (out.returncode, out.stderr)


ASYNC_AT_EXIT = """
import asyncio, sys, tidewire
from conftest import config
engine = tidewire.Engine(config(sys.argv[1]), data_dir=sys.argv[2])
async def main():
    await engine.publish_async("photos", "k")
    asyncio.ensure_future(engine.flush_async(None))
    asyncio.ensure_future(engine.tail().next_async())
    await asyncio.sleep(0.05)
asyncio.run(main())
"""


@pytest.mark.local
def test_the_interpreter_may_end_while_a_loop_waited(dead_url: str, tmp_path: Path) -> None:
    out = run_python(ASYNC_AT_EXIT, dead_url, tmp_path / "data")
    assert (out.returncode, out.stderr) == (0, "")


SUBINTERPRETER = """
try:
    # One with a lock of its own, and one that shares that of the main one.
    import _interpreters as interpreters
    made, run = [interpreters.create("isolated"), interpreters.create("legacy")], interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    made, run = [interpreters.create(isolated=True), interpreters.create(isolated=False)], interpreters.run_string
import tidewire
code = '''
try:
    import tidewire
except ImportError as e:
    print("refused:", e)
else:
    print("taken")
'''
for i in made:
    failed = run(i, code)
    assert failed is None, failed
    interpreters.destroy(i)
print(tidewire.Event("photos", "k").key)
"""


@pytest.mark.local
def test_a_subinterpreter_is_refused() -> None:
    out = run_python(SUBINTERPRETER)
    assert out.returncode == 0, out.stdout + out.stderr
    *refused, own = out.stdout.splitlines()
    assert len(refused) == 2 and all(line.startswith("refused: ") for line in refused) and own == "b'k'"
