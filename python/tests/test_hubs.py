"""eventlet and gevent: a call that waits lets the other greenlets run. Each in a process of its own, for both patch the library."""

from __future__ import annotations

import pytest
from conftest import run_python

EVENTLET = "import eventlet; eventlet.monkey_patch(); from eventlet import spawn, sleep; join = lambda g: g.wait()"
GEVENT = "from gevent import monkey; monkey.patch_all(); from gevent import spawn, sleep; join = lambda g: g.get()"

WAITS = """
import sys, time, tidewire
from conftest import config, custom
rounds = 0
def count():
    global rounds
    while True:
        sleep(0.002)
        rounds += 1
spawn(count)

def passes(what, least=3):
    global rounds
    before = rounds
    what()
    assert rounds - before >= least, (what, rounds - before)

engine = tidewire.Engine(config("http://127.0.0.1:1/"), data_dir=sys.argv[1] + "/a")
engine.publish("photos", "k")
def flush():
    try:
        engine.flush(0.3)
    except tidewire.Timeout:
        return
    raise AssertionError("it cannot be flushed")
passes(flush, 20)
passes(lambda: engine.close(0.3), 1)

engine = tidewire.Engine(custom(), data_dir=sys.argv[1] + "/b")
taken = []
engine.set_handler("mine", lambda batch: taken.extend(batch.ids))
def publish(n):
    for i in range(20):
        assert engine.publish("photos", f"{n}-{i}") is tidewire.Published.ACCEPTED
passes(lambda: [join(g) for g in [spawn(publish, n) for n in range(20)]])
assert engine.publish_many(tidewire.Event("photos", f"many{i}") for i in range(3000)).accepted == 3000
with engine.reserve("photos", "held", intent="durable") as held:
    held.set(size=1)
assert engine.append_at(1, tidewire.Event("photos", "at")) is tidewire.Published.ACCEPTED
assert engine.publish_json('{"type":"s3:ObjectCreated:Put","bucket":"photos","key":"json"}').accepted == 1
engine.put_rule({"id": "r", "bucket": "b", "events": ["*"], "destinations": ["mine"]})
engine.flush()
assert len(taken) == 400 + 3000 + 3, len(taken)

tail, consumer = engine.tail(), engine.consumer("g")
def later():
    sleep(0.1)
    engine.publish("photos", "late")
g = spawn(later)
passes(lambda: tail.next(10).event.key == b"late" or 1 / 0)
join(g)
[item] = consumer.fetch(timeout=10)
item.ack()
passes(lambda: consumer.fetch(timeout=0.1))

async_error = None
class Boom(Exception): pass
def raises():
    try:
        engine.publish("photos", "")
    except tidewire.InvalidEvent:
        raise Boom
try:
    join(spawn(raises))
except Boom:
    pass
engine.close()
print("done")
"""

FULL = """
import sys, tidewire
from conftest import custom
engine = tidewire.Engine(custom(engine='ring_bytes = "256KiB"'), data_dir=sys.argv[1])
engine.set_handler("mine", lambda batch: None)
event = tidewire.Event("photos", "k", metadata={"m": "x" * 4000})
done = []
def publish():
    for _ in range(60):
        engine.publish(event, ack="memory")
    done.append(1)
for g in [spawn(publish) for _ in range(4)]:
    join(g)
engine.flush(60)
assert engine.stats()["accepted"] == 240
engine.close()
print("done")
"""


@pytest.mark.parametrize("hub", [EVENTLET, GEVENT], ids=["eventlet", "gevent"])
@pytest.mark.parametrize("script", [WAITS, FULL], ids=["waits", "full"])
def test_other_greenlets_run_while_one_waits(hub: str, script: str, tmp_path: object) -> None:
    out = run_python(hub + script, tmp_path)
    assert (out.returncode, out.stdout) == (0, "done\n"), out.stderr
