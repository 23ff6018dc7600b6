"""What the tests share: receivers to deliver to, and engines to publish with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
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
LONG = bool(os.environ.get("TIDEWIRE_LONG"))
# Needs packages that are large.
collect_ignore = [] if LONG else ["test_moto.py"]


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
        self.records: list[Any] = []
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

            def log_message(self, format: str, *args: object) -> None:
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shared", action="store_true", help="all engines are those of another process, as far as they know")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "local: of an engine of this process only")
    config.addinivalue_line("markers", "long: takes long, or needs much; only with TIDEWIRE_LONG")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [name for name, out in (("local", config.getoption("--shared")), ("long", not LONG)) if out]
    out = [item for item in items if any(item.get_closest_marker(name) for name in left_out)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


class Engines:
    """Opens engines that are closed after the test; with `--shared` each has a client, which the test gets."""

    def __init__(self, shared: bool) -> None:
        self.shared = shared
        self.opened: list[tidewire.Engine] = []
        # The path of a socket is short.
        self.sockets = tempfile.TemporaryDirectory(prefix="tw-")

    def open(self, text: str, data_dir: Path) -> tuple[tidewire.Engine, tidewire.Engine]:
        """The engine that the test uses, and the one that has the data directory."""
        if not self.shared:
            engine = tidewire.Engine(text, data_dir=data_dir)
            self.opened.append(engine)
            return engine, engine
        for engine in self.opened[1::2]:
            # The test has closed its client, and opens the directory again.
            if engine.closed:
                self.opened[self.opened.index(engine) - 1].close(0)
        socket = f"{self.sockets.name}/{len(self.opened)}"
        text = text.replace("[engine]", f'[engine]\nshared = {{ socket = "{socket}" }}', 1)
        owner = tidewire.Engine(text, data_dir=data_dir)
        client = tidewire.Engine(address=f"unix:{socket}")
        self.opened += [owner, client]
        return client, owner

    def owner(self, engine: tidewire.Engine) -> tidewire.Engine:
        """The one that has the data directory."""
        at = self.opened.index(engine)
        return self.opened[at - 1] if self.shared else engine

    def close(self) -> None:
        for engine in reversed(self.opened):
            engine.close(0.2)
        self.sockets.cleanup()


@pytest.fixture
def engines(request: pytest.FixtureRequest) -> Iterator[Engines]:
    engines = Engines(bool(request.config.getoption("--shared")))
    yield engines
    engines.close()


@pytest.fixture
def open_engine(tmp_path: Path, server: Server, engines: Engines) -> Open:
    """Opens engines that are closed after the test; by default they deliver to `server`."""

    def open_(url: Optional[str] = None, *, data_dir: Optional[Path] = None, **options: str) -> tidewire.Engine:
        return engines.open(config(url or server.url, **options), data_dir or tmp_path / "data")[0]

    return open_


@pytest.fixture
def engine(open_engine: Open) -> tidewire.Engine:
    return open_engine()


def run_python(script: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own, with what it needs of this file at hand."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=240,
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
def open_mine(tmp_path: Path, engines: Engines) -> Callable[..., Mine]:
    """Opens engines that deliver to a handler."""

    def open_(**options: str) -> Mine:
        engine, owner = engines.open(custom(**options), tmp_path / f"mine{len(engines.opened)}")
        taken = Taken()
        owner.set_handler("mine", taken)
        return engine, taken

    return open_


@pytest.fixture
def mine(open_mine: Callable[..., Mine]) -> Mine:
    return open_mine()
