"""What each call costs from Python, beside what other Python programs call for each event: benches/run python [ROUNDS]

calls.py FIGURES [ROUNDS]
calls.py --only NAME TIMES     one case so many times and nothing else, for a profiler; `calls.py --only x 1` tells the names

Runs by itself: engines in a temporary directory, no network. The producer of Kafka has no broker, so that putting messages into its
queue is all it does. Every round runs every case, so that what is beside each other was measured beside each other; a figure is the
median of the rounds. Take a wheel that was built with --release.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import tidewire
from tidewire import Event

# What is published is kept for nobody, so that the way into the engine is all that is measured: the filter is asked and says no.
CONFIG = """
[engine]
shards = 1
ring_bytes = "64MiB"
close_timeout = "1s"

[[destination]]
name = "mine"
type = "custom"

[[rule]]
id = "photos"
bucket = "photos"
events = ["*"]
filter = { key = "nothing" }
destinations = ["mine"]
"""

# Of each case in each round; the ring has room for all of them.
EVENTS = 50_000
KEYS = [f"cats/{n:04}.jpg" for n in range(1000)]
PARTS: dict[str, Any] = {"size": 48213, "etag": "0f343b0931126a20f133d67c2b018a3b", "requester": "alice"}

FIRST, MANY = 100_000, 1_000_000
LISTED = 100_000


def timed(run: Callable[[], object], events: int) -> float:
    """Nanoseconds for each event."""
    begun = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - begun) / events


class Cases:
    """Each answers the nanoseconds that it took for each event."""

    def __init__(self, engine: tidewire.Engine, events: int) -> None:
        self.engine, self.events = engine, events
        # The same events prebuilt for each: Event and dict; for Kafka what it takes, key and value.
        self.dicts = [{"bucket": "photos", "key": KEYS[n % 1000], **PARTS} for n in range(events)]
        self.list = [Event(**parts) for parts in self.dicts]
        self.messages = [(parts["key"].encode(), json.dumps(parts).encode()) for parts in self.dicts]
        self.batch = [{"key": key, "value": value} for key, value in self.messages]
        self.logger = logging.getLogger("bench")
        self.logger.propagate, self.logger.handlers = False, [logging.NullHandler()]
        self.logger.setLevel(logging.INFO)
        self.producer: Any = None

    def kafka(self) -> Any:
        """A producer with nothing in its queue."""
        import confluent_kafka  # pyright: ignore[reportMissingImports]

        if self.producer is None:
            settings = {"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": 10_000_000}
            settings.update({"queue.buffering.max.kbytes": 2_000_000, "log_level": 0, "message.timeout.ms": 300_000})
            self.producer = confluent_kafka.Producer(settings)
        self.producer.purge()
        self.producer.flush(10)
        return self.producer

    def empty(self) -> float:
        method, events = self.engine.__enter__, range(self.events)

        def run() -> None:
            for _ in events:
                method()

        return timed(run, self.events)

    def publish(self) -> float:
        publish, keys = self.engine.publish, [key for _ in range(self.events // 1000) for key in KEYS]

        def run() -> None:
            for key in keys:
                publish("photos", key, ack="memory")

        return timed(run, len(keys))

    def publish_parts(self) -> float:
        publish, keys = self.engine.publish, [key for _ in range(self.events // 1000) for key in KEYS]

        def run() -> None:
            for key in keys:
                publish("photos", key, size=48213, etag="0f343b0931126a20f133d67c2b018a3b", requester="alice", ack="memory")

        return timed(run, len(keys))

    def publish_event(self) -> float:
        publish = self.engine.publish

        def run() -> None:
            for event in self.list:
                publish(event, ack="memory")

        return timed(run, self.events)

    def publish_nobody(self) -> float:
        publish, events = self.engine.publish, range(self.events)

        def run() -> None:
            for _ in events:
                publish("nobody", "cats/tom.jpg", size=48213)

        return timed(run, self.events)

    def make_event(self) -> float:
        events = range(self.events)

        def run() -> None:
            for _ in events:
                Event("photos", "cats/tom.jpg", size=48213, etag="0f343b0931126a20f133d67c2b018a3b", requester="alice")

        return timed(run, self.events)

    def many_list(self) -> float:
        return timed(lambda: self.engine.publish_many(self.list, ack="memory"), self.events)

    def many_dicts(self) -> float:
        return timed(lambda: self.engine.publish_many(self.dicts, ack="memory"), self.events)

    def many_generator(self) -> float:
        return timed(lambda: self.engine.publish_many(generate(self.events), ack="memory"), self.events)

    def publish_async(self) -> float:
        async def run() -> None:
            publish = self.engine.publish_async
            for event in self.list:
                await publish(event, ack="memory")

        return timed(lambda: asyncio.run(run()), self.events)

    def produce(self) -> float:
        produce = self.kafka().produce

        def run() -> None:
            for key, value in self.messages:
                produce("events", value, key)

        return timed(run, self.events)

    def produce_dicts(self) -> float:
        produce, dumps = self.kafka().produce, json.dumps

        def run() -> None:
            for parts in self.dicts:
                produce("events", dumps(parts), parts["key"])

        return timed(run, self.events)

    def produce_batch(self) -> float:
        producer = self.kafka()
        return timed(lambda: producer.produce_batch("events", self.batch), self.events)

    def log(self) -> float:
        info, events = self.logger.info, range(self.events)

        def run() -> None:
            for _ in events:
                info("published %s/%s of %d bytes", "photos", "cats/tom.jpg", 48213)

        return timed(run, self.events)

    def queue(self) -> float:
        async def run() -> None:
            queue: asyncio.Queue[object] = asyncio.Queue()
            for event in self.list:
                await queue.put(event)

        return timed(lambda: asyncio.run(run()), self.events)


NAMES = [name for name in vars(Cases) if not name.startswith("_") and name != "kafka"]

# What is told of each: a case, the name in the table, what it is beside (a case, or a limit in nanoseconds), its name.
CALLS: "list[tuple[str, str, str | int, str]]" = [
    ("publish", "publish, bucket and key", "empty", "empty method"),
    ("publish", "publish, bucket and key", 1000, "limit"),
    ("publish_parts", "publish, six parts", "empty", "empty method"),
    ("publish_parts", "publish, six parts", 1000, "limit"),
    ("publish_event", "publish, Event", "empty", "empty method"),
    ("publish_nobody", "publish, no rule wants it", "empty", "empty method"),
    ("publish_parts", "publish, six parts", "produce", "confluent_kafka produce"),
    ("publish_parts", "publish, six parts", "log", "logging.info to nowhere"),
    ("publish_async", "publish_async, Event, awaited", "queue", "asyncio.Queue.put"),
    ("make_event", "Event, six parts", "empty", "empty method"),
]
RATES = [
    ("many_list", "publish_many, list", "produce", "confluent_kafka produce, same list"),
    ("many_list", "publish_many, list", "produce_batch", "confluent_kafka produce_batch"),
    ("many_dicts", "publish_many, list of dict", "produce_dicts", "produce, json.dumps of the dict"),
    ("many_generator", "publish_many, generator", "produce_dicts", "produce, json.dumps of the dict"),
]


def generate(count: int) -> Iterator[Event]:
    for n in range(count):
        yield Event("photos", KEYS[n % 1000], **PARTS)


def memory(name: str) -> int:
    """A line of the process's memory, in bytes: VmRSS, or VmHWM, the most since the last `clear_refs`."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def growth(engine: tidewire.Engine, count: int) -> float:
    """By how many MiB the process grows at most while so many events come from a generator."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")
    before = memory("VmRSS")
    engine.publish_many(generate(count), ack="memory")
    return max(memory("VmHWM") - before, 0) / 2**20


def of_memory() -> None:
    """Prints what is told of memory: of a process that has done nothing before."""
    with tempfile.TemporaryDirectory() as directory, tidewire.Engine(CONFIG, data_dir=directory) as engine:
        first, many = growth(engine, FIRST), growth(engine, MANY)
    bytes_of = []
    # Each with parts of its own, as a program has them that reads them from somewhere.
    makes: list[Callable[[dict[str, Any]], object]] = [lambda parts: Event(**parts), lambda parts: parts]
    for make in makes:
        gc.collect()
        before = memory("VmRSS")
        kept = [make({"bucket": "photos", "key": f"cats/{n:09}.jpg", **PARTS, "etag": f"{n:032x}"}) for n in range(LISTED)]
        bytes_of.append((memory("VmRSS") - before) / LISTED)
        del kept
    told = [
        figure(f"memory grows by, {MANY:,} of a generator", many, "MiB", f"the first {FIRST:,} of one", first),
        figure(f"memory of each of {LISTED:,} Events", bytes_of[0], "bytes", "dict of the same parts", bytes_of[1]),
    ]
    print(json.dumps(told))


def figure(name: str, value: float, unit: str, beside: str, beside_value: float) -> "dict[str, Any]":
    return {"name": name, "value": value, "unit": unit, "beside": beside, "beside_value": beside_value}


def measure(rounds: int) -> "dict[str, float]":
    """Nanoseconds for each event, of each case."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as directory, tidewire.Engine(CONFIG, data_dir=directory) as engine:
        cases = Cases(engine, EVENTS)
        # A round that is not counted: what is made at the first call is not measured.
        for number in range(rounds + 1):
            for name in NAMES:
                gc.collect()
                ns = getattr(cases, name)()
                if number > 0:
                    found[name].append(ns)
        stats = engine.stats()
        if stats["refused_full"]:
            print(f"there was no space for {stats['refused_full']} events", file=sys.stderr)
        cases.kafka()
    return {name: statistics.median(times) for name, times in found.items()}


def main(arguments: "list[str]") -> int:
    if arguments == ["--memory"]:
        of_memory()
        return 0
    if len(arguments) == 3 and arguments[0] == "--only" and arguments[2].isdecimal():
        if arguments[1] not in NAMES:
            print(f"no case '{arguments[1]}'; there are: {' '.join(NAMES)}", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory() as directory, tidewire.Engine(CONFIG, data_dir=directory) as engine:
            cases = Cases(engine, EVENTS)
            for _ in range(int(arguments[2])):
                print(f"{getattr(cases, arguments[1])():.0f} ns")
        return 0
    if len(arguments) not in (1, 2) or not all(a.isdecimal() and int(a) > 0 for a in arguments[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    own = subprocess.run([sys.executable, __file__, "--memory"], check=True, stdout=subprocess.PIPE, text=True)
    ns = measure(int(arguments[1]) if len(arguments) == 2 else 15)
    figures = [
        figure(name, ns[case], "ns", beside, ns[peer] if isinstance(peer, str) else peer) for case, name, peer, beside in CALLS
    ]
    figures += [figure(name, 1e3 / ns[case], "M/s", beside, 1e3 / ns[peer]) for case, name, peer, beside in RATES]
    figures += json.loads(own.stdout)
    with open(arguments[0], "w") as file:
        json.dump(figures, file, indent=1)
    with open(arguments[0].removesuffix(".json") + ".calls.json", "w") as file:
        json.dump([{"name": name, "ns_per_call": value} for name, value in ns.items()], file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
