"""What publishing costs from Python, beside what other Python programs call for each event.

publish.py [--events N] [--rounds N] [--only NAME,...] [--json FILE]

Runs by itself: engines in a temporary directory, no network (the producer of Kafka has no broker: only its queue is measured).
Take a wheel that was built with --release. Each line is the best of the rounds, in nanoseconds per call. Names:

  empty            an empty call of the extension (Engine.closed), the floor of everything below
  publish          Engine.publish of parts, ack="memory", for a rule that wants them
  publish event    the same of an Event that is made
  publish nobody   for a bucket that no rule wants
  make event       Event(...)
  many list        Engine.publish_many of a list of Events
  many generator   the same from a generator that makes each
  produce          confluent_kafka.Producer.produce, polled, from the same list
  logging          logging.info to a handler that throws the record away
  queue            asyncio.Queue.put
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import tidewire
from tidewire import Event

# What is published is kept for nobody, so that the ring is the only thing that is measured: the filter is asked and says no.
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

PARTS: dict[str, Any] = {"size": 48213, "etag": "0f343b0931126a20f133d67c2b018a3b", "requester": "alice"}


def best(rounds: int, events: int, run: Callable[[int], object]) -> float:
    """Nanoseconds per call in the best round."""
    times = []
    for _ in range(rounds):
        gc.collect()
        begun = time.perf_counter_ns()
        run(events)
        times.append((time.perf_counter_ns() - begun) / events)
    return min(times)


class Benches:
    def __init__(self, engine: tidewire.Engine) -> None:
        self.engine = engine
        self.keys = [f"cats/{n % 1000:04}.jpg" for n in range(1000)]

    def empty(self, events: int) -> None:
        engine = self.engine
        for _ in range(events):
            engine.closed

    def publish(self, events: int) -> None:
        publish, key = self.engine.publish, "cats/tom.jpg"
        for _ in range(events):
            publish("photos", key, size=48213, etag="0f343b0931126a20f133d67c2b018a3b", ack="memory")

    def publish_event(self, events: int) -> None:
        publish, event = self.engine.publish, Event("photos", "cats/tom.jpg", **PARTS)
        for _ in range(events):
            publish(event, ack="memory")

    def publish_nobody(self, events: int) -> None:
        publish = self.engine.publish
        for _ in range(events):
            publish("nobody", "cats/tom.jpg", size=48213)

    def make_event(self, events: int) -> None:
        for _ in range(events):
            Event("photos", "cats/tom.jpg", size=48213, etag="0f343b0931126a20f133d67c2b018a3b")

    def many_list(self, events: int) -> None:
        if len(getattr(self, "list", ())) != events:
            self.list = [Event("photos", self.keys[n % 1000], **PARTS) for n in range(events)]
        self.engine.publish_many(self.list, ack="memory")

    def many_generator(self, events: int) -> None:
        def generate() -> Iterator[Event]:
            for n in range(events):
                yield Event("photos", self.keys[n % 1000], **PARTS)

        self.engine.publish_many(generate(), ack="memory")

    def produce(self, events: int) -> None:
        import confluent_kafka

        settings = {"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": 10_000_000}
        settings.update({"queue.buffering.max.kbytes": 2_000_000, "log_level": 0, "message.timeout.ms": 300_000})
        producer = confluent_kafka.Producer(settings)
        value = json.dumps({"bucket": "photos", "key": "cats/tom.jpg", **PARTS}).encode()
        messages = [(key.encode(), value) for key in self.keys]
        begun = time.perf_counter_ns()
        for n in range(events):
            key, value = messages[n % 1000]
            producer.produce("events", value, key)
        self.produced = (time.perf_counter_ns() - begun) / events
        producer.purge()
        producer.flush(1)

    def logging(self, events: int) -> None:
        logger = logging.getLogger("bench")
        logger.propagate, logger.handlers = False, [logging.NullHandler()]
        logger.setLevel(logging.INFO)
        for _ in range(events):
            logger.info("published %s/%s of %d bytes", "photos", "cats/tom.jpg", 48213)

    def queue(self, events: int) -> None:
        async def put() -> None:
            queue: asyncio.Queue[object] = asyncio.Queue()
            for n in range(events):
                await queue.put(n)

        asyncio.run(put())


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def memory_per_event(count: int) -> dict[str, float]:
    """Bytes per event in a list: of Event, of tuples, and of dicts with the same parts."""
    found = {}
    for name, make in {
        "Event": lambda n: Event("photos", f"cats/{n:09}.jpg", **PARTS),
        "dict": lambda n: {"bucket": "photos", "key": f"cats/{n:09}.jpg", **PARTS},
    }.items():
        gc.collect()
        before = resident()
        kept = [make(n) for n in range(count)]
        found[name] = (resident() - before) / count
        del kept
    return found


def generator_memory(engine: tidewire.Engine, count: int) -> float:
    """By how many MiB the process grows at most while so many events come from a generator."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine.publish_many((Event("photos", f"cats/{n:09}.jpg", **PARTS) for n in range(count)), ack="memory")
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--json")
    given = parser.parse_args()
    names = ["empty", "publish", "publish event", "publish nobody", "make event", "many list", "many generator"]
    names += ["produce", "logging", "queue"]
    wanted = given.only.split(",") if given.only else names
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, tidewire.Engine(CONFIG, data_dir=directory) as engine:
        benches = Benches(engine)
        for name in names:
            if name not in wanted:
                continue
            try:
                ns = best(given.rounds, given.events, getattr(benches, name.replace(" ", "_")))
            except ModuleNotFoundError as error:
                print(f"{name:16} left out: {error.name} is not installed")
                continue
            if name == "produce":
                # Without the making of the producer and its end.
                ns = min(ns, benches.produced)
            results.append({"name": name, "ns_per_call": ns})
            print(f"{name:16} {ns:9.0f} ns  {1e3 / ns:8.2f} M/s", flush=True)
        by_name = {r["name"]: r["ns_per_call"] for r in results}
        if "produce" in by_name and "many list" in by_name:
            print(f"publish_many of a list has {by_name['produce'] / by_name['many list']:.1f} times the rate of produce")
        if "empty" in by_name and "publish" in by_name:
            print(f"publish costs {by_name['publish'] - by_name['empty']:.0f} ns more than an empty call")
        if not given.only:
            print("bytes per event in a list:", {n: round(b) for n, b in memory_per_event(100_000).items()})
            grown = generator_memory(engine, 1_000_000)
            print(f"1,000,000 events from a generator: the process grew by {grown:.1f} MiB at most")
            print("stats:", {n: v for n, v in engine.stats().items() if n in ("accepted", "refused_full", "no_match")})
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
