"""What the tests share: receivers to deliver to, and engines to publish with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional

import pytest

import tidewire

ROOT = Path(__file__).resolve().parents[2]


def config(url: str, *, bucket: str = "photos", events: str = "*", engine: str = "", destination: str = "") -> str:
    """A configuration with one rule and one webhook, and extra lines for two of its tables."""
    return f"""
[engine]
shards = 1
close_timeout = "2s"
{engine}

[[destination]]
name = "hook"
type = "webhook"
url = "{url}"
batch.linger = "0ms"
retry.backoff_min = "10ms"
retry.backoff_max = "50ms"
{destination}

[[rule]]
id = "all"
bucket = "{bucket}"
events = ["{events}"]
destinations = ["hook"]
"""


def custom(*, engine: str = "", destination: str = "", rule: str = "") -> str:
    """A configuration with one rule and one destination, `mine`, that the host serves itself."""
    return f"""
[engine]
shards = 1
close_timeout = "2s"
{engine}

[[destination]]
name = "mine"
type = "custom"
batch.linger = "0ms"
retry.backoff_min = "10ms"
retry.backoff_max = "50ms"
{destination}

[[rule]]
id = "all"
bucket = "photos"
events = ["*"]
destinations = ["mine"]
{rule}
"""


class Taken:
    """A handler that takes everything: keeps the records, in order."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.ids: list[str] = []

    def __call__(self, batch: tidewire.Batch) -> None:
        self.records += [json.loads(record) for record in batch]
        self.ids += batch.ids

    def keys(self) -> list[bytes]:
        return [urllib.parse.unquote_to_bytes(key_of(r).replace("+", " ")) for r in self.records]

    def told(self) -> list[tuple[str, str]]:
        """Type and key of each."""
        return [(r["eventName"], key.decode()) for r, key in zip(self.records, self.keys())]


class Server:
    """A receiver of webhooks made of the standard library: keeps the records of each request, in order."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.records += body["Records"] if "Records" in body else [body]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def keys(self) -> list[bytes]:
        """The keys as they were published: a record has them as a form would."""
        with self.lock:
            return [urllib.parse.unquote_to_bytes(key_of(r).replace("+", " ")) for r in self.records]


def key_of(record: dict[str, Any]) -> str:
    key: str = record["s3"]["object"]["key"]
    return key


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address and the log of a `tidewire-receiver`: a line `eventId key sequencer` per record."""
    program = Path(os.environ.get("TIDEWIRE_RECEIVER", ROOT / "target/debug/tidewire-receiver"))
    if not program.exists():
        pytest.fail(f"{program} is missing: cargo build -p tidewire-receiver")
    log = tmp_path / "receiver.log"
    with subprocess.Popen(
        [program, "--listen", "127.0.0.1:0", "--log", log], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        address = process.stdout.readline().split()[-1]
        yield f"http://{address}/", log
        process.kill()


@pytest.fixture
def dead_url() -> str:
    """An address where nothing listens: port 1 is nobody's."""
    return "http://127.0.0.1:1/"


Open = Callable[..., tidewire.Engine]


@pytest.fixture
def open_engine(tmp_path: Path, server: Server) -> Iterator[Open]:
    """Opens engines that are closed after the test; by default they deliver to `server`."""
    engines = []

    def open_(url: Optional[str] = None, *, data_dir: Optional[Path] = None, **options: str) -> tidewire.Engine:
        text = config(url or server.url, **options)
        engines.append(tidewire.Engine(text, data_dir=data_dir or tmp_path / "data"))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close(0.2)


@pytest.fixture
def engine(open_engine: Open) -> tidewire.Engine:
    return open_engine()


def run_python(script: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own, with what it needs of this file at hand."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        **options,
    )


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for something that another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


Mine = tuple[tidewire.Engine, Taken]


@pytest.fixture
def open_mine(tmp_path: Path) -> Iterator[Callable[..., Mine]]:
    """Opens engines that deliver to a handler."""
    engines = []

    def open_(**options: str) -> Mine:
        engines.append(tidewire.Engine(custom(**options), data_dir=tmp_path / f"mine{len(engines)}"))
        taken = Taken()
        engines[-1].set_handler("mine", taken)
        return engines[-1], taken

    yield open_
    for engine in engines:
        engine.close(0.2)


@pytest.fixture
def mine(open_mine: Callable[..., Mine]) -> Mine:
    return open_mine()
