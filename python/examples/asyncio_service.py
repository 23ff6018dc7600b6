"""Publishes from asyncio, and follows what was published: asyncio_service.py DATA_DIR"""

import asyncio
import sys

import tidewire

CONFIG = """
[[destination]]
name = "index"
type = "custom"

[[rule]]
id = "images"
bucket = "photos"
events = ["s3:ObjectCreated:*"]
suffix = ".jpg"
destinations = ["index"]
"""


async def index(batch: tidewire.Batch) -> None:
    """Takes what the rule wants, on the loop."""
    for number, record in zip(batch.ids, batch):
        print("indexed", number, len(record), "bytes")


async def put_object(engine: tidewire.Engine, key: str, content: bytes) -> None:
    """An operation that is told if, and only if, it succeeds."""
    async with engine.reserve_async("photos", key) as held:
        await asyncio.sleep(0)  # the store at work
        held.set(size=len(content), etag="0f343b0931126a20f133d67c2b018a3b")


async def main(data_dir: str) -> None:
    async with tidewire.Engine(CONFIG, data_dir=data_dir) as engine:
        engine.set_handler("index", index)
        tail = engine.tail()
        await asyncio.gather(*(put_object(engine, f"{n}.jpg", b"x" * n) for n in range(3)))
        counts = await engine.publish_many_async(tidewire.Event("photos", f"many/{n}.jpg") for n in range(100))
        print(counts.accepted, "accepted")
        item = await tail.next_async(timeout=10)
        if isinstance(item, tidewire.Entry):
            print("first", item.event.key.decode())
        await engine.flush_async()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
