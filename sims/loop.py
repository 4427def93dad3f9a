"""An event loop on virtual time, whose only freedom is the seed.

Within one host callbacks run in the order in which they were scheduled; which of several hosts runs next is drawn from the
seed. Time stands still while anything can run, and jumps to the next timer when nothing can. Whatever would leave the world (a thread, a
socket, a subprocess, a signal) is not there: asking for it raises.

A *host* is a label in the context of every callback. Killing a host drops its callbacks, now and for ever: its tasks stay
where they stood, as on a machine that lost its power, and no `finally` of theirs runs.
"""

import asyncio
import contextvars
import heapq
import inspect
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS_AT_ONE_INSTANT_MAX = 100_000

WORLD = "world"
"""Host of what drives a run from outside."""

_host: contextvars.ContextVar[str] = contextvars.ContextVar("host", default=WORLD)


class Deadlock(Exception):
    """Nothing can run, no timer is set, and the run has not ended."""


class Livelock(Exception):
    """Something runs again and again while time stands still."""


class OutOfTime(Exception):
    """The run took more virtual time than it was given."""


def current_host() -> str:
    """Return the host whose code runs."""
    return _host.get()


def context_of(host: str) -> contextvars.Context:
    """Return a fresh context in which code runs as `host`."""
    context = contextvars.copy_context()
    context.run(_host.set, host)
    return context


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one run."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 0.0
        self._ready: dict[str, deque[asyncio.Handle]] = {}
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._sequence = 0
        self._dead: dict[str, None] = {}
        self._graves: list[asyncio.Task[Any]] = []
        self._tasks: dict[str, list[asyncio.Task[Any]]] = {}
        self._closed = False
        self.failures: list[dict[str, Any]] = []
        """What would have been logged as an unhandled error."""
        self.steps = 0
        self._steps_now = 0

    # -- running -------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T], *, seconds_max: float) -> T:
        """Run `main` to its end and return its result.

        Raises: Deadlock, Livelock, OutOfTime, or what `main` raised.
        """
        previous = events._get_running_loop()
        events._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._step(seconds_max)
            return task.result()
        finally:
            events._set_running_loop(previous)

    def _step(self, seconds_max: float) -> None:
        hosts = [host for host, queue in self._ready.items() if queue]
        if not hosts:
            self._advance(seconds_max)
            return
        host = hosts[0] if len(hosts) == 1 else hosts[self._random.randrange(len(hosts))]
        handle = self._ready[host].popleft()
        if not handle.cancelled():
            self.steps += 1
            self._steps_now += 1
            if self._steps_now > STEPS_AT_ONE_INSTANT_MAX:
                raise Livelock(f"{STEPS_AT_ONE_INSTANT_MAX} steps at {self._now:.6f} s, the last of them {handle!r}")
            handle._run()

    def _advance(self, seconds_max: float) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise Deadlock(f"nothing can run any more at {self._now:.3f} s")
        if self._timers[0][0] > self._now:
            self._now = self._timers[0][0]
            self._steps_now = 0
        if self._now > seconds_max:
            raise OutOfTime(f"not done after {seconds_max} virtual seconds")
        while self._timers and self._timers[0][0] <= self._now:
            handle = heapq.heappop(self._timers)[2]
            if not handle.cancelled():
                self._enqueue(handle)

    def kill(self, host: str) -> None:
        """Let nothing of `host` run again."""
        self._dead[host] = None
        self._ready.pop(host, None)
        for task in self._tasks.pop(host, []):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self._graves.append(task)  # kept: a collected coroutine would run its `finally` at a moment of the collector's choosing

    # -- what asyncio asks of a loop -----------------------------------------

    def time(self) -> float:
        """Return virtual seconds since the world began."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, handle))
        return handle

    def _enqueue(self, handle: asyncio.Handle) -> None:
        host = handle._context.get(_host, WORLD)  # type: ignore[attr-defined]
        if host not in self._dead and not self._closed:
            self._ready.setdefault(host, deque()).append(handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is skipped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name=name, context=context)
        host = (context or contextvars.copy_context()).get(_host, WORLD)
        tasks = self._tasks.setdefault(host, [])
        tasks.append(task)
        if len(tasks) > 256:
            self._tasks[host] = [each for each in tasks if not each.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Debugging changes nothing in this world."""

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        for host in list(self._tasks):
            self.kill(host)
        for task in self._graves:
            coroutine = task.get_coro()
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # it never began, and Python would say so
