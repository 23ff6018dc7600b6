"""Greenlets: how the hubs of eventlet and gevent wait, so that a call that waits lets their other greenlets run."""

from __future__ import annotations

import sys
from typing import Any, Optional, Protocol

__all__: list[str] = []


class Hub(Protocol):
    """How the calling thread waits."""

    def wait(self, fd: int, timeout: Optional[float]) -> None:
        """Lets others run until ``fd`` is readable, or ``timeout`` seconds are over."""

    def sleep(self, seconds: float) -> None:
        """Lets others run for so long."""


class _Over(Exception):
    """The time of a wait is."""


class _Eventlet:
    def __init__(self) -> None:
        from eventlet import hubs, sleep

        self._hubs = hubs
        self.sleep = sleep

    def wait(self, fd: int, timeout: Optional[float]) -> None:
        try:
            self._hubs.trampoline(fd, read=True, timeout=timeout, timeout_exc=_Over)
        except _Over:
            pass


class _Gevent:
    def __init__(self) -> None:
        from gevent import get_hub, sleep
        from gevent.socket import wait

        self._get_hub, self._wait, self.sleep = get_hub, wait, sleep

    def wait(self, fd: int, timeout: Optional[float]) -> None:
        io = self._get_hub().loop.io(fd, 1)
        try:
            # Without an exception of its own it raises one that nobody could tell from the host's.
            self._wait(io, timeout, TimeoutError())
        except TimeoutError:
            pass
        finally:
            io.close()


_hubs: dict[str, Any] = {}


def current() -> Optional[Hub]:
    """The hub that runs the caller, if there is one: where the standard library is patched, or the caller is a greenlet of gevent.

    Nothing is imported for it that the host has not imported.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return _hub("eventlet", _Eventlet)
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return _hub("gevent", _Gevent)
    return None


def _hub(name: str, make: Any) -> Hub:
    hub = _hubs.get(name)
    if hub is None:
        hub = _hubs[name] = make()
    result: Hub = hub
    return result
