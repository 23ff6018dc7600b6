"""asyncio: what a loop waits for comes through descriptors that it watches, one for each engine and one for everything else.

Nothing here keeps a thread waiting, but for what the docstrings say so of. The functions are called by the native part.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Optional

from ._errors import Closed, Full, Timeout

if TYPE_CHECKING:
    from . import Batch, Consumer, Engine, Reservation, Tail

__all__: list[str] = []

# Without a stub: it is this package's affair.
_tidewire: Any = importlib.import_module("tidewire._tidewire")

# The same as `Consumer::LOOK_AGAIN`: leases that run out are told of by nobody.
LOOK_AGAIN = 0.2
# How much longer than it was given another process may take to answer.
ANSWER_MARGIN = 5.0
# Waits for space double from the first of these to the second.
SPACE_MIN, SPACE_MAX = 0.001, 0.05

Loop = asyncio.AbstractEventLoop


get_running_loop = asyncio.get_running_loop


def _resolve(future: "asyncio.Future[Any]", answer: Any, error: Optional[BaseException]) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)


class _Waiting:
    """What a loop waits for through one descriptor: futures by number, each with its answer."""

    def __init__(self, loop: Loop, source: Any) -> None:
        self.loop = loop
        self.source = source
        self.futures: dict[int, tuple[asyncio.Future[Any], Any]] = {}
        self.fd: int = source.fileno()
        loop.add_reader(self.fd, self._readable)

    def future(self, number: int, answer: Any, timeout: Optional[float]) -> "asyncio.Future[Any]":
        future = self.loop.create_future()
        self.futures[number] = (future, answer)
        if timeout is not None:
            timer = self.loop.call_later(timeout, self._over, number)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    def _over(self, number: int) -> None:
        waiting = self.futures.pop(number, None)
        self.forget(number)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_exception(Timeout("the event was accepted, but has not reached its level yet", None, "wait again"))

    def forget(self, number: int) -> None:
        """Nobody waits for this any more."""

    def _readable(self) -> None:
        try:
            there = self.source.take()
        except Exception as error:
            # In a forked child: nothing will ever come.
            futures, self.futures = self.futures, {}
            self.loop.remove_reader(self.fd)
            for future, _ in futures.values():
                _resolve(future, None, error)
            return
        for number, failed in there:
            waiting = self.futures.pop(number, None)
            if waiting is not None:
                _resolve(*waiting, failed)


class _Acks(_Waiting):
    """The acknowledgements of one engine."""

    def __init__(self, loop: Loop, engine: "Engine") -> None:
        acks = engine._acks()
        super().__init__(loop, acks)
        self.acks = acks
        self.number = 0
        # The reader would keep this, and the loop has it until somebody takes it away.
        weakref.finalize(engine, _remove, weakref.ref(loop), self.fd, acks).atexit = False

    def next(self) -> int:
        self.number += 1
        return self.number


def _remove(loop: "weakref.ref[Loop]", fd: int, keep: object) -> None:
    """Takes a reader away, from whatever thread, before its descriptor is closed."""
    there = loop()
    if there is None or there.is_closed():
        return

    def remove(keep: object = keep) -> None:
        there.remove_reader(fd)

    try:
        there.call_soon_threadsafe(remove)
    except RuntimeError:
        pass


class _Polled(_Waiting):
    """Everything else."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop, _tidewire.Poller())

    def forget(self, number: int) -> None:
        self.source.forget(number)


_acks: "weakref.WeakKeyDictionary[Loop, weakref.WeakKeyDictionary[Engine, _Acks]]" = weakref.WeakKeyDictionary()
_polled: "weakref.WeakKeyDictionary[Loop, _Polled]" = weakref.WeakKeyDictionary()


def port(engine: "Engine") -> _Acks:
    """Where the running loop hears of acknowledgements of an engine."""
    loop = asyncio.get_running_loop()
    of_loop = _acks.get(loop)
    if of_loop is None:
        of_loop = _acks[loop] = weakref.WeakKeyDictionary()
    acks = of_loop.get(engine)
    if acks is None:
        acks = of_loop[engine] = _Acks(loop, engine)
    return acks


def _port() -> _Polled:
    loop = asyncio.get_running_loop()
    polled = _polled.get(loop)
    if polled is None:
        polled = _polled[loop] = _Polled(loop)
    return polled


def poller() -> Any:
    """Where the running loop hears of everything else."""
    return _port().source


def polled(number: int, answer: Any, timeout: Optional[float]) -> "asyncio.Future[Any]":
    """The future of a number that the poller gave."""
    return _port().future(number, answer, timeout)


async def _watched(number: Optional[int], timeout: Optional[float]) -> None:
    """Waits for a number of the poller, or until the time is over."""
    if number is None:
        return
    at = _port()
    future = at.future(number, None, None)
    try:
        await asyncio.wait((future,), timeout=timeout)
    finally:
        at.futures.pop(number, None)
        at.forget(number)


def answer(value: Any) -> "asyncio.Future[Any]":
    """A future that is done."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


async def then_none(what: Awaitable[object]) -> None:
    await what


def _deadline(timeout: Optional[float]) -> Optional[float]:
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


def _left(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())


async def publish_later(engine: "Engine", event: Any, given: "dict[str, Any]") -> Any:
    """Publishes an event for which there was no space."""
    deadline, pause = _deadline(given.get("timeout", 30.0)), SPACE_MIN
    while True:
        await asyncio.sleep(pause)
        pause = min(pause * 2, SPACE_MAX)
        left = _left(deadline)
        future = engine._try_publish(event, {**given, "timeout": left}, left == 0.0)
        if future is not None:
            return await future


async def publish_many(engine: "Engine", events: Any, given: "dict[str, Any]") -> Any:
    """Publishes from an iterable, which may be asynchronous."""
    series = _tidewire.Series()
    try:
        try:
            if hasattr(events, "__aiter__"):
                async for event in events:
                    await _some(engine, iter((event,)), given, series)
            else:
                await _some(engine, iter(events), given, series)
        finally:
            # Those before an error are on their way.
            if given["ack"] != "memory":
                number = series.start_wait(poller(), given["ack"] or "synced")
                if number is not None:
                    await polled(number, None, given["timeout"])
    except Exception as error:
        try:
            error.published = series.counts()  # type: ignore[attr-defined]
        except AttributeError:
            pass
        raise
    return series.counts()


async def _some(engine: "Engine", events: Any, given: "dict[str, Any]", series: Any) -> None:
    deadline, pause = None, SPACE_MIN
    while True:
        last = deadline is not None and _left(deadline) == 0.0
        step = engine._publish_some(events, given, series, last)
        if step == "end":
            return
        if step == "more":
            deadline, pause = None, SPACE_MIN
            await asyncio.sleep(0)
            continue
        if deadline is None:
            deadline = _deadline(given["timeout"])
        await asyncio.sleep(pause)
        pause = min(pause * 2, SPACE_MAX)


async def flush(engine: "Engine", timeout: Optional[float]) -> None:
    if engine._is_remote:
        # Connecting may take a moment; the answer comes through a descriptor.
        flushing = await in_thread(engine._ask_to_flush, (timeout,), None)
        deadline = _deadline(None if timeout is None else timeout + ANSWER_MARGIN)
        while True:
            with _closing(os.dup(flushing.fileno())) as fd:
                await _readable(fd, _left(deadline))
            if await in_thread(flushing.take, (_left(deadline) == 0.0,), None):
                return
    number = engine._start_flush(poller())
    if number is None:
        return
    try:
        await polled(number, None, timeout)
    except Timeout:
        engine._flush_timeout()


async def close(engine: "Engine", timeout: Optional[float]) -> None:
    await in_thread(engine.close, (timeout,), None)


async def in_thread(call: Callable[..., Any], args: "tuple[Any, ...]", kwargs: Optional[Mapping[str, Any]]) -> Any:
    """Has a thread of the loop's do something."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: call(*args, **(kwargs or {})))


class Reserving:
    """A reservation that is made when this is awaited, or at the beginning of an ``async with`` block."""

    def __init__(
        self, reserve: Callable[..., "Reservation"], args: "tuple[Any, ...]", kwargs: Optional[Mapping[str, Any]]
    ) -> None:
        self._reserve, self._args, self._kwargs = reserve, args, dict(kwargs or {})
        self._held: Optional[Reservation] = None

    async def _make(self) -> "Reservation":
        if self._kwargs.get("block") or self._kwargs.get("intent") == "durable":
            held: Reservation = await in_thread(self._reserve, self._args, self._kwargs)
            return held
        return self._reserve(*self._args, **self._kwargs)

    def __await__(self) -> "Generator[Any, None, Reservation]":
        return self._make().__await__()

    async def __aenter__(self) -> "Reservation":
        self._held = await self._make()
        return self._held

    async def __aexit__(
        self,
        exc_type: "Optional[type[BaseException]]",
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        assert self._held is not None
        await self._held.__aexit__(exc_type, exc_value, traceback)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


async def _readable(fd: int, timeout: Optional[float]) -> None:
    """Waits until a descriptor is readable that nobody else waits for, or the time is over."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _resolve, future, None, None)
    try:
        await asyncio.wait((future,), timeout=timeout)
    finally:
        loop.remove_reader(fd)


async def _asked(ask: Callable[[float], Optional[int]], most: float, left: Optional[float]) -> None:
    """Asks another process's engine for what comes next, and waits for the answer."""
    wait = most if left is None else min(most, left)
    fd = ask(wait)
    if fd is not None:
        with _closing(fd):
            await _readable(fd, wait + ANSWER_MARGIN)


async def tail_next(tail: "Tail", timeout: Optional[float]) -> Any:
    deadline = _deadline(timeout)
    while tail._is_remote:
        left = _left(deadline)
        await _asked(tail._ask, 1.0, left)
        item = tail.next(0)
        if item is not None or left == 0.0:
            return item
    while True:
        # Before looking: what comes after it wakes.
        number = tail._watch(poller())
        item = tail.next(0)
        if item is not None:
            _forget(number)
            return item
        left = _left(deadline)
        if left == 0.0:
            _forget(number)
            return None
        await _watched(number, left)


def _forget(number: Optional[int]) -> None:
    if number is not None:
        _port().forget(number)


async def anext(tail: "Tail") -> Any:
    try:
        return await tail_next(tail, None)
    except Closed:
        raise StopAsyncIteration from None


async def fetch(consumer: "Consumer", most: int, timeout: Optional[float]) -> "list[Any]":
    deadline = _deadline(timeout)
    while consumer._is_remote:
        left = _left(deadline)
        await _asked(lambda wait: consumer._ask(most, wait), LOOK_AGAIN, left)
        found = consumer.fetch(most, 0)
        if found or left == 0.0:
            return found
    while True:
        number = consumer._watch(poller())
        found = consumer.fetch(most, 0)
        left = _left(deadline)
        if found or left == 0.0:
            _forget(number)
            return found
        await _watched(number, LOOK_AGAIN if left is None else min(left, LOOK_AGAIN))


async def consumer_next(consumer: "Consumer") -> Any:
    while True:
        item = consumer._fetched()
        if item is not None:
            return item
        try:
            consumer._keep(await fetch(consumer, 100, None))
        except Closed:
            raise StopAsyncIteration from None


async def look_again(wait: Callable[[float], Any], timeout: Optional[float]) -> Any:
    """Looks now and then, for what cannot tell when it is there."""
    deadline, pause = _deadline(timeout), 0.005
    while True:
        left = _left(deadline)
        try:
            return wait(0)
        except Timeout:
            if left == 0.0:
                raise
        await asyncio.sleep(pause if left is None else min(pause, left))
        pause = min(pause * 2, 0.1)


# --- handlers -------------------------------------------------------------------------------------------------------

_log = logging.getLogger("tidewire.handlers")


def is_coroutine(handler: Any) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))


def running() -> Optional[Loop]:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _settle(batch: "Batch", failed: Any) -> None:
    """What a handler has returned is the answer, if it has not answered otherwise."""
    if batch._settled:
        return
    if failed is None:
        batch.accept()
    else:
        batch.accept_but(list(failed))


def _failed(batch: "Batch", error: BaseException) -> None:
    _log.error("the handler of %s failed; the batch is tried again", batch.destination, exc_info=error)
    batch.retry(f"{type(error).__name__}: {error}")


def log(name: str, level: int, text: str) -> None:
    logging.getLogger(name).log(level, "%s", text)


def unraisable(error: BaseException, callable: Any) -> None:
    sys.unraisablehook(
        SimpleNamespace(
            exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=None, object=callable
        )
    )


def handle(handler: Callable[["Batch"], Any], batch: "Batch") -> None:
    try:
        _settle(batch, handler(batch))
    except BaseException as error:
        _failed(batch, error)


# Tasks that nobody else holds.
_tasks: "set[asyncio.Task[None]]" = set()


def handle_on(loop: Loop, handler: Callable[["Batch"], Coroutine[Any, Any, Any]], batch: "Batch") -> None:
    async def run() -> None:
        try:
            _settle(batch, await handler(batch))
        except asyncio.CancelledError:
            batch.retry("the handler was cancelled")
            raise
        except Exception as error:
            _failed(batch, error)

    def start() -> None:
        task = loop.create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    try:
        loop.call_soon_threadsafe(start)
    except RuntimeError as error:
        _failed(batch, error)
