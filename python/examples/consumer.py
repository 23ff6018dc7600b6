"""Workers that share the events of a group: consumer.py DATA_DIR"""

import sys
import threading

import tidewire


def work(engine: tidewire.Engine, done: threading.Semaphore) -> None:
    with engine.consumer("thumbnails", events=["s3:ObjectCreated:*"], visibility_timeout=60) as consumer:
        for item in consumer:
            if isinstance(item, tidewire.Gap):
                print("missed", item.first, "to", item.last)
                continue
            with item:  # acknowledged at the end; given back after an exception
                print("made a thumbnail of", item.event.key.decode())
            done.release()


def main(data_dir: str) -> None:
    engine = tidewire.Engine("", data_dir=data_dir)
    done = threading.Semaphore(0)
    engine.consumer("thumbnails", events=["s3:ObjectCreated:*"]).close()
    workers = [threading.Thread(target=work, args=(engine, done)) for _ in range(2)]
    for worker in workers:
        worker.start()
    engine.publish_many(tidewire.Event("photos", f"{n}.jpg", size=n) for n in range(10))
    for _ in range(10):
        done.acquire(timeout=30)
    engine.close()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
