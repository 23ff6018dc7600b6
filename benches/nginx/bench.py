"""PUTs of 4 KiB into nginx with the module, by wrk: what notifications cost.

Usage: bench.py MODULE RECEIVER CONTROL FIGURES [ROUNDS [SECONDS]]. In each round every case runs for so many seconds, and is
compared with the case beside it in that round, so that what changes on the machine meanwhile concerns both. Figures are
medians of the rounds, with the middle half of the ratios. The files of the store are in memory (/dev/shm), because what a
file system on a disk costs for each new file is many times what the module does, and never twice the same; the log of the
engine, and that of the control, are on the disk.
"""

import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/hosts/nginx"))
import test_nginx  # noqa: E402

BODY_BYTES = 4096
SCRIPT = f"""
local n, thread = 0, 0
function setup(t) t:set("number", thread); thread = thread + 1 end
function init() body = string.rep("x", {BODY_BYTES}) end
function request()
    n = n + 1
    return wrk.format("PUT", "/store/" .. number .. "/" .. (n % 1000), nil, body)
end
function done(summary, latency)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, summary.duration,
        e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
"""


class Case:
    """One nginx; it stays idle while others are measured."""

    def __init__(self, name, connections, ack, on=True, rule="", url=None, preload=None):
        self.name, self.connections = name, connections
        # Nothing is delivered, or nobody could tell.
        self.dead = url is not None or preload is not None or not on
        location = f"tidewire_ack {ack};"
        self.store = tempfile.TemporaryDirectory(prefix="tidewire-bench.", dir="/dev/shm")
        self.nginx = test_nginx.Nginx(location, on=on, rule=rule, url=url or RECEIVER_URL, order="key", start=False,
                                      store=self.store.name, body=f"{self.store.name}/body",
                                      engine='close_timeout = "0s"', level="warn",
                                      destination="batch = { events_max = 100, linger = \"5ms\" }")
        self.nginx.preload = preload
        self.nginx.start()
        self.pid = self.nginx.worker()
        for thread in (0, 1):
            (self.nginx.files / str(thread)).mkdir()
        (self.nginx.root / "put.lua").write_text(SCRIPT)

    def cpu(self):
        """Nanoseconds on a processor: of the worker's own thread, and of its process."""
        threads = pathlib.Path(f"/proc/{self.pid}/task")
        spent = {t.name: int((t / "schedstat").read_text().split()[0]) for t in threads.iterdir()}
        return spent[str(self.pid)], sum(spent.values())

    def measure(self, seconds):
        own, process = self.cpu()
        said = subprocess.run(
            ["wrk", "-t", "2", "-c", str(self.connections), "-d", f"{seconds}s", "-s", self.nginx.root / "put.lua",
             f"http://127.0.0.1:{self.nginx.port}"], capture_output=True, text=True, timeout=seconds + 60, check=True).stdout
        requests, us, errors, p50, p99 = map(float, re.search(r"^RESULT (.*)$", said, re.M)[1].split())
        assert errors == 0, (self.name, said, self.nginx.logged()[-2000:])
        after = self.cpu()
        self.settle()
        return {"rate": requests / us * 1e6, "p50": p50, "p99": p99, "own": (after[0] - own) / requests,
                "process": (after[1] - process) / requests}

    def settle(self):
        """Waits until what is to be delivered is, so that it does not cost the next case; a dead endpoint gets no time."""
        end = time.monotonic() + 20
        while time.monotonic() < end and not self.dead:
            text = self.nginx.ask("GET", "/metrics")[2]
            counted = dict(re.findall(r"^(tidewire_deliveries_\w+)(?:\{[^}]*\})? (\d+)$", text.decode(), re.M))
            routed = int(counted.get("tidewire_deliveries_routed_total", 0))
            if routed == int(counted["tidewire_deliveries_delivered_total"]):
                return
            time.sleep(0.05)
        assert self.dead, f"{self.name}: not delivered in time"


def quarters(values):
    q = statistics.quantiles(values, n=4)
    return q[0], q[2]


def main(figures, rounds, seconds):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{s.getsockname()[1]}/"
    elsewhere = 'bucket = "another"'
    cases = [
        Case("off", 64, "memory", on=False),
        Case("memory, no rule", 64, "memory", rule=elsewhere),
        Case("memory, rule", 64, "memory"),
        Case("memory, dead endpoint", 64, "memory", url=dead),
        Case("control", 128, "synced", preload=CONTROL),
        Case("synced, rule", 128, "synced"),
        Case("synced, dead endpoint", 128, "synced", url=dead),
    ]
    by_name = {c.name: c for c in cases}
    beside = {"memory, no rule": "off", "memory, rule": "off", "memory, dead endpoint": "off", "synced, rule": "control",
              "synced, dead endpoint": "control"}
    measured = {c.name: [] for c in cases}
    try:
        for case in cases:
            case.measure(1)
        for round in range(rounds):
            for name, other in beside.items():
                pair = [name, other] if round % 2 else [other, name]
                got = {n: by_name[n].measure(seconds) for n in pair}
                measured[name].append((got[name], got[other]))
            print(f"round {round + 1} of {rounds}", file=sys.stderr, flush=True)
    finally:
        for case in cases:
            case.nginx.stop(quick=True)
            case.nginx.receiver.server_close()
            case.nginx.temporary.cleanup()
            case.store.cleanup()
    told = []
    print(f"{'PUT of 4 KiB':<24} {'what':<22} {'measured':>10} {'beside':>10}  {'ratio':>6}  middle half")
    for name, other in beside.items():
        pairs = measured[name]
        for key, what, unit, scale in [("rate", "requests", "/s", 1), ("p50", "latency p50", "us", 1),
                                       ("p99", "latency p99", "us", 1), ("own", "CPU of the worker", "us", 1e-3),
                                       ("process", "CPU of its process", "us", 1e-3)]:
            values, others = zip(*((a[key] * scale, b[key] * scale) for a, b in pairs))
            ratios = [a / b for a, b in zip(values, others)]
            low, high = quarters(ratios)
            told.append({"name": f"nginx PUT, {name}, {what}", "value": statistics.median(values), "unit": unit,
                         "beside": f"{other} ({low:.3f}..{high:.3f})", "beside_value": statistics.median(others)})
            print(f"{name:<24} {what:<22} {statistics.median(values):>10.1f} {statistics.median(others):>10.1f}  "
                  f"{statistics.median(ratios):>6.3f}  {low:.3f}..{high:.3f}  ({other})")
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.write_text(json.dumps(told, indent=2))


if __name__ == "__main__":
    test_nginx.MODULE = pathlib.Path(sys.argv[1]).resolve()
    CONTROL = str(pathlib.Path(sys.argv[3]).resolve())
    receiver = subprocess.Popen([sys.argv[2], "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        RECEIVER_URL = f"http://{receiver.stdout.readline().split()[-1]}/"
        more = [int(a) for a in sys.argv[5:]]
        main(pathlib.Path(sys.argv[4]), *(more + [15, 2][len(more):]))
    finally:
        receiver.terminate()
        receiver.wait()
