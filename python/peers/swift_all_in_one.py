"""A real OpenStack Swift on the loopback: proxy, account, container and object server of one node, with one replica."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

BIN = Path(sys.executable).parent

BACKEND = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
mount_check = false
user = {user}
swift_dir = {root}/etc
devices = {root}/devices
log_level = WARNING
recon_cache_path = {root}/cache

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = {workers}
user = {user}
swift_dir = {root}/etc
log_level = WARNING

[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache bulk tempurl tempauth tidewire copy slo dlo versioned_writes symlink proxy-logging proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcache}
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
[filter:tidewire]
use = egg:tidewire#tidewire
config_path = {root}/etc/tidewire.toml
data_dir = {root}/tidewire
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Swift:
    """A Swift whose proxy has the filter of Tidewire, with this configuration."""

    def __init__(self, root: Path, config: str, *, workers: int = 0) -> None:
        self.root = root
        self.processes: list[subprocess.Popen[bytes]] = []
        names = ["proxy", "account", "container", "object", "memcache"]
        self.ports: dict[str, int] = dict(zip(names, free_ports(len(names))))
        etc = root / "etc"
        for directory in (etc, root / "devices" / "sda", root / "cache", root / "tidewire"):
            directory.mkdir(parents=True)
        (etc / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n")
        (etc / "tidewire.toml").write_text(config)
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        for kind in ("account", "container", "object"):
            text = BACKEND.format(kind=kind, port=self.ports[kind], root=root, user=user)
            (etc / f"{kind}-server.conf").write_text(text)
            self._ring(kind)
        proxy = PROXY.format(port=self.ports["proxy"], memcache=self.ports["memcache"], root=root, user=user, workers=workers)
        (etc / "proxy-server.conf").write_text(proxy)
        self.url = f"http://127.0.0.1:{self.ports['proxy']}"
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _ring(self, kind: str) -> None:
        builder = str(self.root / "etc" / f"{kind}.builder")
        tool = [str(BIN / "swift-ring-builder"), builder]
        device = f"r1z1-127.0.0.1:{self.ports[kind]}/sda"
        for arguments in (["create", "4", "1", "1"], ["add", device, "1"], ["rebalance"]):
            subprocess.run([*tool, *arguments], check=True, capture_output=True)

    def _spawn(self, name: str, *command: str) -> None:
        log = open(self.root / f"{name}.log", "wb")
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self.processes.append(
            subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        )
        log.close()

    def _start(self) -> None:
        user = ["-u", "root"] if os.getuid() == 0 else []
        self._spawn("memcached", "memcached", "-l", "127.0.0.1", "-p", str(self.ports["memcache"]), *user)
        for kind in ("account", "container", "object", "proxy"):
            conf = str(self.root / "etc" / f"{kind}-server.conf")
            self._spawn(kind, sys.executable, str(BIN / f"swift-{kind}-server"), conf, "verbose")
        deadline = time.monotonic() + 120
        request = urllib.request.Request(f"{self.url}/auth/v1.0", headers={"X-Auth-User": "test:tester", "X-Auth-Key": "testing"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return
            except (OSError, urllib.error.URLError):
                dead = [p.args for p in self.processes if p.poll() is not None]
                if dead or time.monotonic() > deadline:
                    logs = "\n".join(f"{f.name}: {f.read_text()[-2000:]}" for f in self.root.glob("*.log"))
                    raise RuntimeError(f"Swift does not start; ended: {dead}\n{logs}") from None
                time.sleep(0.2)

    def client(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs the client `swift`."""
        command = [str(BIN / "swift"), "-A", f"{self.url}/auth/v1.0", "-U", "test:tester", "-K", "testing", "--retries", "0"]
        return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)

    def stop(self) -> None:
        for process in reversed(self.processes):
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(20)
