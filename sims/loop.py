"""An event loop on virtual time, whose only freedom is the seed.

Within one host callbacks run in the order in which they were scheduled; which of several hosts runs next is drawn from the
seed. Time is a whole number of nanoseconds, stands still while anything can run, and jumps to the next timer when nothing can. Whatever
would leave the world (a thread, a socket, a subprocess, a signal) is not there: asking for it raises; `sims.seal` sees to the rest.

A *host* is a label in the context of every callback. Killing a host drops its callbacks, now and for ever: its tasks stay
where they stood, as on a machine that lost its power, and no `finally` of theirs runs. A paused host takes no step, and what it
missed comes all at once when it goes on.
"""

import asyncio
import contextvars
import gc
import heapq
import inspect
from asyncio import events
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS_AT_ONE_INSTANT_MAX = 100_000
AWAITS_AT_END_MAX = 50
NANOSECONDS = 1_000_000_000

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


class SimTask(asyncio.Task[T]):
    """A task with a place in sets that its number decides, not its address: `TaskGroup` and others walk through sets of tasks."""

    def __init__(self, number: int, host: str, coro: Any, **options: Any) -> None:
        self._number = number  # before all else: a task enters a set of all tasks while it is made
        self.host = host
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class _Host:
    """What waits to run on one host."""

    __slots__ = ("is_dead", "is_listed", "is_paused", "name", "number", "queue", "tasks")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.queue: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.is_dead = self.is_paused = self.is_listed = False


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one run."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 0
        self._seconds = 0.0
        self._hosts: dict[str, _Host] = {}
        self._runnable: list[_Host] = []
        """Hosts that have something to run, are not paused, and are not dead."""
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._sequence = 0
        self._graves: list[asyncio.Task[Any]] = []
        self._closed = False
        self.failures: list[dict[str, Any]] = []
        """What would have been logged as an unhandled error."""
        self.on_paused: Callable[[str, bool], None] = lambda host, is_paused: None
        """Told a host that stands still, or goes on."""
        self.steps = 0
        self.fingerprint = 0
        """A number that all steps so far, their times and their hosts have made: two runs of one seed have the same."""
        self.on_step: Callable[[int, str], None] | None = None
        """Told the time and the host of each step, for whoever compares two runs."""
        self._steps_now = 0

    # -- running -------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T], *, seconds_max: float) -> T:
        """Run `main` to its end and return its result.

        Raises: Deadlock, Livelock, OutOfTime, or what `main` raised.
        """
        previous = events._get_running_loop()
        events._set_running_loop(self)
        collects = gc.isenabled()
        gc.disable()  # a cycle that is collected runs what it runs at a moment of the collector's choosing
        try:
            task = self.create_task(main)
            self._run_until(task.done, int(seconds_max * NANOSECONDS))
            return task.result()
        finally:
            events._set_running_loop(previous)
            if collects:
                gc.enable()

    def _run_until(self, is_done: Callable[[], bool], limit: int) -> None:
        """Take step after step. Every run is made of millions: what is looked up here is looked up once."""
        runnable, draw = self._runnable, self._random.random
        while not is_done():
            if not runnable:
                self._advance(limit)
                continue
            index = int(draw() * len(runnable)) if len(runnable) > 1 else 0
            host = runnable[index]
            queue = host.queue
            handle = queue.popleft()
            if not queue:
                host.is_listed = False
                last = runnable.pop()
                if last is not host:
                    runnable[index] = last
            if handle._cancelled:
                continue
            self.steps += 1
            self._steps_now += 1
            self.fingerprint = hash((self.fingerprint, self._now, host.number))
            if self.on_step is not None:
                self.on_step(self._now, host.name)
            if self._steps_now > STEPS_AT_ONE_INSTANT_MAX:
                raise Livelock(f"{STEPS_AT_ONE_INSTANT_MAX} steps at {self._seconds:.6f} s, the last of them {handle!r}")
            try:
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]  # what a loop does with a handle
            except Exception as error:  # noqa: BLE001  # as every loop does: it is told, and the loop goes on
                self.call_exception_handler({"message": f"exception in callback {handle!r}", "exception": error, "handle": handle})

    def _advance(self, limit: int) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(f"nothing can run any more at {self._seconds:.3f} s")
        when = timers[0][0]
        if when > self._now:
            self._now = when
            self._seconds = when / NANOSECONDS
            self._steps_now = 0
        if self._now > limit:
            raise OutOfTime(f"not done after {limit / NANOSECONDS:g} virtual seconds")
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                self._enqueue(handle)

    def settle(self) -> None:
        """Let go of what has ended, so that errors nobody has looked at are among the `failures`."""
        for host in self._hosts.values():
            host.tasks = [task for task in host.tasks if not task.done()]
        gc.collect()

    # -- hosts ---------------------------------------------------------------

    def kill(self, host: str) -> None:
        """Let nothing of `host` run again."""
        dead = self._host(host)
        dead.is_dead = True
        self._unlist(dead)
        dead.queue.clear()
        for task in dead.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self._graves.append(task)  # kept: a collected coroutine would run its `finally` at a moment of the collector's choosing
        dead.tasks = []

    def is_dead(self, host: str) -> bool:
        """Return whether `host` was killed."""
        return host in self._hosts and self._hosts[host].is_dead

    def pause(self, host: str) -> None:
        """Let `host` stand still. Its timers fire, and what arrives waits, all for the moment when it goes on."""
        paused = self._host(host)
        if not paused.is_paused:
            paused.is_paused = True
            self._unlist(paused)
            self.on_paused(host, True)

    def is_paused(self, host: str) -> bool:
        """Return whether `host` stands still."""
        return self._host(host).is_paused

    def resume(self, host: str) -> None:
        """Let `host` go on."""
        resumed = self._host(host)
        if resumed.is_paused:
            resumed.is_paused = False
            self._list(resumed)
            self.on_paused(host, False)

    def unfinished(self, host: str) -> list[asyncio.Task[Any]]:
        """Return the tasks of `host` that have not ended."""
        return [task for task in self._host(host).tasks if not task.done()]

    def timers(self) -> Counter[str]:
        """Return how many timers are set, by host."""
        return Counter(handle._context.get(_host, WORLD) for _, _, handle in self._timers if not handle._cancelled)  # type: ignore[attr-defined]

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(name, len(self._hosts))
        return host

    def _list(self, host: _Host) -> None:
        if host.queue and not host.is_listed and not host.is_paused and not host.is_dead:
            host.is_listed = True
            self._runnable.append(host)

    def _unlist(self, host: _Host) -> None:
        if host.is_listed:
            host.is_listed = False
            self._runnable.remove(host)

    def _enqueue(self, handle: asyncio.Handle) -> None:
        name = handle._context.get(_host, WORLD)  # type: ignore[attr-defined]  # a handle runs in its context, on the host of that
        host = self._hosts.get(name) or self._host(name)
        if not host.is_dead and not self._closed:
            host.queue.append(handle)
            if not host.is_listed and not host.is_paused:
                host.is_listed = True
                self._runnable.append(host)

    # -- what asyncio asks of a loop -----------------------------------------

    def time(self) -> float:
        """Return virtual seconds since the world began."""
        return self._seconds

    @property
    def nanoseconds(self) -> int:
        """Virtual time since the world began."""
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
        return self.call_at(self._seconds + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        nanoseconds = int(when * NANOSECONDS)
        if nanoseconds / NANOSECONDS < when:
            nanoseconds += 1  # never early: whoever compares the time with his deadline would wait again, at the same instant
        self._sequence += 1
        heapq.heappush(self._timers, (nanoseconds, self._sequence, handle))
        return handle

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
        self._sequence += 1
        host = self._host(context.get(_host, WORLD) if context is not None else _host.get())
        task: asyncio.Task[T] = SimTask(
            self._sequence, host.name, coro, loop=self, name=name or f"{host.name}:{self._sequence}", context=context
        )
        host.tasks.append(task)
        if len(host.tasks) > 256:
            host.tasks = [each for each in host.tasks if not each.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        task = context.get("future")
        if not (isinstance(task, SimTask) and self.is_dead(task.host)):  # who would have looked at it is dead
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
        """End every coroutine that has not ended: here, and not wherever the collector comes upon it."""
        self._closed = True
        for host in list(self._hosts):
            self.kill(host)
        graves, self._graves = self._graves, []
        for task in graves:
            coroutine = task.get_coro()
            if inspect.iscoroutine(coroutine):
                _end(coroutine)
        self._timers.clear()


def _end(coroutine: Coroutine[Any, Any, Any]) -> None:
    for _ in range(AWAITS_AT_END_MAX):
        try:
            coroutine.close()
        except RuntimeError:
            continue  # a `finally` awaits something that never comes
        except BaseException:  # noqa: BLE001  # it dies, and what it says while it does concerns nobody
            pass
        return
