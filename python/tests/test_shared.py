"""Several processes over one engine. That all methods do the same there, the other tests say with `--shared`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, config, custom, run_python, until
from test_life import held, no_more_than

import tidewire
from tidewire import Entry, Event


@pytest.fixture
def socket() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="tw-") as path:
        yield f"{path}/socket"


OWNER = """
import os, sys, tidewire
from conftest import custom
text = custom(engine=f'shared = {{ socket = "{sys.argv[2]}" }}\\nretention = {{ keep = "all" }}\\ndedup = {{ window = "1h" }}')
engine = tidewire.Engine(text, data_dir=sys.argv[1])
taken = []
engine.set_handler("mine", lambda batch: taken.extend(batch.ids))
print("ready", flush=True)
sys.stdin.read()
engine.flush()
engine.close()
print(len(taken), len(set(taken)), flush=True)
"""


class Owner:
    """A process that has the engine."""

    def __init__(self, data_dir: Path, socket: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, data_dir, socket],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        # Each of its threads, before anything else is done.
        until(lambda: all((t / "stat").read_text().rpartition(")")[2].split()[0] == "T" for t in tasks.iterdir()))

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> tuple[int, int]:
        """How many records came, and of how many events."""
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        records, events = out.split()
        return int(records), int(events)


@pytest.fixture
def start_owner(tmp_path: Path, socket: str) -> Iterator[Callable[[], Owner]]:
    owners: list[Owner] = []

    def start() -> Owner:
        owners.append(Owner(tmp_path / "data", socket))
        return owners[-1]

    yield start
    for owner in owners:
        owner.kill()
        for pipe in (owner.process.stdin, owner.process.stdout):
            assert pipe
            pipe.close()


def test_what_a_client_publishes_is_delivered(start_owner: Callable[[], Owner], socket: str) -> None:
    owner = start_owner()
    with tidewire.Engine(address=f"unix:{socket}") as engine:
        assert socket in repr(engine) and "open" in repr(engine)
        assert engine.publish("photos", "k") is tidewire.Published.ACCEPTED
        assert engine.publish("photos", "once", dedup_key="1") is tidewire.Published.ACCEPTED
        assert engine.publish("photos", "once", dedup_key="1") is tidewire.Published.DUPLICATE
        counts = engine.publish_many(Event("photos", f"k{i}") for i in range(5000))
        assert counts.accepted == 5000
        engine.flush()
        assert engine.stats()["delivered"] == 5002
        assert "# TYPE tidewire_" in engine.prometheus()
    assert engine.closed
    with pytest.raises(tidewire.Closed):
        engine.publish("photos", "k")
    assert owner.end() == (5002, 5002)


def test_what_belongs_to_the_engines_process_is_refused(start_owner: Callable[[], Owner], socket: str) -> None:
    start_owner()
    with tidewire.Engine(address=f"unix:{socket}") as engine:
        with pytest.raises(tidewire.InvalidArgument, match="another process"):
            engine.set_handler("mine", lambda batch: None)
        with pytest.raises(tidewire.InvalidArgument, match="another process"):
            engine.replace_config(custom())


def test_an_address_is_checked(tmp_path: Path, socket: str) -> None:
    for address in ("", "tcp:127.0.0.1:1", socket):
        with pytest.raises(tidewire.InvalidArgument, match="unix:"):
            tidewire.Engine(address=address)
    with pytest.raises(tidewire.InvalidConfig):
        tidewire.Engine(address="unix:" + "x" * 200)
    wrong: list[dict[str, Any]] = [{"config": custom()}, {"data_dir": tmp_path}, {"shared": True}]
    for options in wrong:
        with pytest.raises(tidewire.InvalidArgument, match="configuration"):
            tidewire.Engine(address=f"unix:{socket}", **options)
    with pytest.raises(tidewire.InvalidConfig, match="engine.shared.socket"):
        tidewire.Engine(custom(), data_dir=tmp_path, shared=True)
    with pytest.raises(tidewire.InvalidArgument):
        tidewire.Engine(address=f"unix:{socket}", connect_timeout=-1)
    for place in (f"unix:{socket}", "http://127.0.0.1:1/"):
        with pytest.raises(tidewire.InvalidConfig, match="is an address, not a directory") as e:
            tidewire.Engine(custom(), data_dir=place)
        assert e.value.place == "data_dir" and "name a directory" in (e.value.remedy or "")


def test_nobody_listens(socket: str) -> None:
    with pytest.raises(tidewire.Disconnected) as e:
        tidewire.Engine(address=f"unix:{socket}", connect_timeout=0.05)
    assert (e.value.code, e.value.kind) == (20, "Disconnected")
    assert isinstance(e.value, ConnectionError)
    assert socket in str(e.value)


def test_a_file_that_no_engine_listens_at_is_told_of(socket: str) -> None:
    Path(socket).write_text("")
    with pytest.raises(tidewire.Disconnected):
        tidewire.Engine(address=f"unix:{socket}", connect_timeout=0.05)


WORKERS = """
import os, sys, tidewire
from conftest import config
text = config(sys.argv[1], engine=f'shared = {{ socket = "{sys.argv[3]}" }}')
children = []
for worker in range(4):
    child = os.fork()
    if child:
        children.append(child)
        continue
    # As gunicorn's `post_fork`: each worker for itself, and whoever is first has the engine.
    with tidewire.Engine(text, data_dir=sys.argv[2], shared=True) as engine:
        for n in range(100):
            assert engine.publish("photos", f"{worker}/{n}", ack="written") is tidewire.Published.ACCEPTED
        engine.flush()
    sys.exit(0)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_forked_workers_share_an_engine(server: Server, socket: str, tmp_path: Path) -> None:
    out = run_python(WORKERS, server.url, tmp_path / "data", socket)
    assert (out.returncode, out.stdout, out.stderr) == (0, "[0, 0, 0, 0]\n", "")
    assert set(server.keys()) == {b"%d/%d" % (worker, n) for worker in range(4) for n in range(100)}


HANDED_OVER = """
import sys, tidewire
from conftest import config
text = config(sys.argv[1], engine=f'shared = {{ socket = "{sys.argv[3]}" }}')
engine = tidewire.Engine(text, data_dir=sys.argv[2], shared=True)
engine.publish("photos", "first", ack="synced")
print("ready", flush=True)
sys.stdin.read()
"""


def test_another_takes_the_engine_over(server: Server, socket: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    arguments = [sys.executable, "-c", HANDED_OVER, server.url, str(tmp_path / "data"), socket]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as first:
        assert first.stdout and first.stdout.readline() == "ready\n"
        text = config(server.url, engine=f'shared = {{ socket = "{socket}" }}')
        with tidewire.Engine(text, data_dir=tmp_path / "data", shared=True) as engine:
            engine.publish("photos", "second", ack="synced")
            first.kill()
            first.wait()
            # Publishing waits until this process has the engine.
            assert engine.publish("photos", "third", ack="synced", timeout=60) is tidewire.Published.ACCEPTED
            engine.flush(60)
    assert sorted(set(server.keys())) == [b"first", b"second", b"third"]


def test_the_engines_process_dies_and_comes_back(start_owner: Callable[[], Owner], socket: str) -> None:
    owner = start_owner()
    engine = tidewire.Engine(address=f"unix:{socket}", connect_timeout=0.2)
    engine.publish("photos", "before")
    tail, consumer = engine.tail(), engine.consumer("g")
    caught: list[BaseException] = []

    def catch(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as e:
            caught.append(e)

    # They wait for an answer that never comes: the process is stopped, and then gone.
    owner.stop()
    done: list[object] = []
    untaken = threading.Thread(target=lambda: done.append(engine.publish("photos", "untaken", timeout=None)))
    untaken.start()
    calls: list[Callable[[], object]] = [
        lambda: engine.flush(None),
        lambda: tail.next(None),
        lambda: consumer.fetch(timeout=None),
    ]
    threads = [threading.Thread(target=catch, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert not caught
    owner.kill()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert [type(e) for e in caught] == [tidewire.Disconnected] * 3, caught

    # Nobody is connected: what may not wait says so at once, what may wait does.
    start = time.monotonic()
    with pytest.raises(tidewire.Disconnected, match="no engine is connected"):
        engine.publish("photos", "k", block=False)
    with pytest.raises(tidewire.Disconnected, match="no engine is connected"):
        engine.publish("photos", "k", timeout=0.3)
    assert time.monotonic() - start >= 0.3
    with pytest.raises(tidewire.Disconnected):
        engine.rules()
    waiting = threading.Thread(target=lambda: done.append(engine.publish("photos", "after", timeout=60)))
    waiting.start()
    time.sleep(0.2)
    assert not done
    owner = start_owner()
    for thread in (waiting, untaken):
        thread.join(60)
    # What the dead one had not taken is given to the next one.
    assert done == [tidewire.Published.ACCEPTED] * 2
    engine.flush(60)
    log = engine.tail(start="beginning")
    keys = []
    while b"after" not in keys:
        item = log.next(30)
        assert isinstance(item, Entry)
        keys.append(item.event.key)
    assert keys[0] == b"before" and b"untaken" in keys
    engine.close()
    assert owner.end()[1] >= 1


def test_signals_are_handled_while_the_engines_process_is_waited_for(
    start_owner: Callable[[], Owner], socket: str
) -> None:
    owner = start_owner()
    engine = tidewire.Engine(address=f"unix:{socket}")
    owner.stop()
    for call in (lambda: engine.publish("photos", "k"), lambda: engine.flush(None)):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            call()
        timer.join()
    owner.go_on()
    engine.flush(60)
    engine.close()


def test_a_loop_goes_on_while_it_waits(start_owner: Callable[[], Owner], socket: str) -> None:
    owner = start_owner()
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0.005)
            rounds += 1

    async def main() -> None:
        engine = tidewire.Engine(address=f"unix:{socket}")
        counter = asyncio.ensure_future(count())
        tail, other, consumer = engine.tail(), engine.tail(), engine.consumer("g")
        # Two wait at the same time, one gives up: what came for it is not lost.
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(tail.next_async(), 0.1)
        assert await tail.next_async(0) is None and await tail.next_async(0.05) is None
        both = [asyncio.ensure_future(t.next_async(30)) for t in (tail, other)]
        fetched = asyncio.ensure_future(consumer.fetch_async(10, 30))
        await asyncio.sleep(0.1)
        assert await engine.publish_async("photos", "first") is tidewire.Published.ACCEPTED
        for item in await asyncio.gather(*both):
            assert isinstance(item, Entry) and item.event.key == b"first"
        [delivery] = await fetched
        assert isinstance(delivery, tidewire.Delivery) and delivery.event.key == b"first"
        delivery.ack()
        assert await consumer.fetch_async(10, 0.3) == []
        # The owner does not answer: nothing here waits for it but who asked.
        owner.stop()
        before = rounds
        flushing = asyncio.ensure_future(engine.flush_async(None))
        waiting = [asyncio.ensure_future(engine.publish_async("photos", f"k{i}")) for i in range(100)]
        late = asyncio.ensure_future(tail.next_async(30))
        await asyncio.sleep(0.5)
        assert rounds - before >= 10
        assert not any(future.done() for future in (flushing, late, *waiting))
        owner.go_on()
        assert await asyncio.gather(*waiting) == [tidewire.Published.ACCEPTED] * 100
        await flushing
        item = await late
        assert isinstance(item, Entry) and item.event.key == b"k0"
        assert (await engine.publish_many_async(Event("photos", f"m{i}") for i in range(3000))).accepted == 3000
        twice = [await engine.publish_async("photos", "d", dedup_key="d") for _ in range(2)]
        assert twice == [tidewire.Published.ACCEPTED, tidewire.Published.DUPLICATE]
        async with engine.reserve_async("photos", "held", intent="durable") as held:
            held.set(size=1)
        seen = 0
        async for item in other:
            seen += 1
            if seen == 100 + 3000 + 2:
                break
        await engine.flush_async(60)
        counter.cancel()
        await engine.close_async()

    asyncio.run(main())
    assert owner.end() == (1 + 100 + 3000 + 2, 1 + 100 + 3000 + 2)


def test_a_loop_publishes_again_when_the_engines_process_is_back(
    start_owner: Callable[[], Owner], socket: str
) -> None:
    owner = start_owner()

    async def main() -> None:
        engine = tidewire.Engine(address=f"unix:{socket}")
        flushing = asyncio.ensure_future(engine.flush_async(None))
        await flushing
        owner.kill()
        with pytest.raises(tidewire.Disconnected):
            while True:
                await engine.publish_async("photos", "k", block=False, ack="memory")
                await asyncio.sleep(0.01)
        with pytest.raises(tidewire.Disconnected):
            await engine.publish_async("photos", "k", timeout=0.2)
        waiting = asyncio.ensure_future(engine.publish_async("photos", "after", timeout=60))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await asyncio.get_running_loop().run_in_executor(None, start_owner)
        assert await waiting is tidewire.Published.ACCEPTED
        await engine.close_async()

    asyncio.run(main())


def test_a_forked_child_of_a_client_is_refused_and_may_connect(start_owner: Callable[[], Owner], socket: str) -> None:
    owner = start_owner()
    engine = tidewire.Engine(address=f"unix:{socket}")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(tidewire.WrongProcess):
                engine.publish("photos", "child")
            with pytest.raises(tidewire.WrongProcess):
                engine.stats()
            with tidewire.Engine(address=f"unix:{socket}") as own:
                own.publish("photos", "child")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    engine.publish("photos", "parent")
    engine.flush()
    engine.close()
    assert owner.end() == (2, 2)


def test_a_snapshot_is_written_here(start_owner: Callable[[], Owner], socket: str, tmp_path: Path) -> None:
    start_owner()
    with tidewire.Engine(address=f"unix:{socket}") as engine:
        engine.publish("photos", "k")
        engine.snapshot(tmp_path / "copy")
        with pytest.raises(tidewire.Error):
            engine.snapshot(tmp_path / "nowhere" / "copy")
    assert (tmp_path / "copy").stat().st_size > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "data"]


def test_clients_leave_nothing_behind(start_owner: Callable[[], Owner], socket: str) -> None:
    start_owner()

    def cycle() -> None:
        with tidewire.Engine(address=f"unix:{socket}") as engine:
            engine.publish("photos", "k", ack="memory")
            engine.tail().next(0)
            engine.consumer("g").fetch(1, 0)

    cycle()
    before = held()
    for _ in range(50):
        cycle()
    no_more_than(before)


AT_EXIT = """
import asyncio, sys, threading, tidewire
engine = tidewire.Engine(address=f"unix:{sys.argv[1]}")
engine.publish("photos", "last", ack="memory")
threading.excepthook = lambda args: None
threading.Thread(target=engine.tail().next, daemon=True).start()
async def main():
    asyncio.ensure_future(engine.flush_async(None))
    asyncio.ensure_future(engine.tail().next_async())
    await asyncio.sleep(0.05)
asyncio.run(main())
"""


def test_the_interpreter_may_end_while_a_client_waits(start_owner: Callable[[], Owner], socket: str) -> None:
    owner = start_owner()
    out = run_python(AT_EXIT, socket)
    assert (out.returncode, out.stderr) == (0, "")
    assert owner.end() == (1, 1)


def test_clients_come_and_die_in_traffic(start_owner: Callable[[], Owner], socket: str) -> None:
    owner = start_owner()
    script = (
        "import sys, tidewire\n"
        "engine = tidewire.Engine(address=f'unix:{sys.argv[1]}')\n"
        "n = 0\n"
        "while True:\n"
        "    engine.publish('photos', f'{sys.argv[2]}/{n}', ack='written')\n"
        "    n += 1\n"
        "    print(n, flush=True)\n"
    )
    least = 0
    for client in range(3):
        with subprocess.Popen([sys.executable, "-c", script, socket, str(client)], stdout=subprocess.PIPE) as process:
            assert process.stdout
            for _ in range(50):
                process.stdout.readline()
            process.kill()
            left = process.stdout.read().split()
            least += int(left[-1]) if left else 50
    with tidewire.Engine(address=f"unix:{socket}") as engine:
        engine.flush()
        until(lambda: engine.stats()["waiting"] == 0)
    # What was acknowledged is there.
    assert owner.end()[1] >= least
