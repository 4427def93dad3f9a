"""A few threads that take work from one queue, and tell the loop what came of it in groups.

An executor of the standard library wakes the loop for each result and goes through two futures; where a chunk takes half a dozen such
steps, that costs more than the steps. Results that come while the loop is still busy with earlier ones travel together here.
"""

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]
"""Of one piece of work: who waits, the result, or the error."""
_Item = tuple["_Outbox", "asyncio.Future[Any]", Callable[[], Any]]


class Threads:
    """Runs work off the loop. Its threads end with it, or with the process."""

    def __init__(self, count: int, name: str) -> None:
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._outbox: _Outbox | None = None
        self._threads = [
            threading.Thread(target=_work_off, args=(self._queue,), name=f"{name} {index}", daemon=True) for index in range(count)
        ]
        for thread in self._threads:
            thread.start()
        self._end = weakref.finalize(self, _end, self._queue, count)

    async def run(self, work: Callable[[], T]) -> T:
        """Return `work()`, done in one of the threads. To be called from one event loop only."""
        loop = asyncio.get_running_loop()
        if self._outbox is None:
            self._outbox = _Outbox(loop)
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((self._outbox, future, work))
        return await future

    def close(self) -> None:
        """Finish what is under way and end the threads."""
        self._end()
        for thread in self._threads:
            thread.join()


class _Outbox:
    """Results on their way to one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []

    def add(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        """Hand over what came of one piece of work."""
        with self._lock:
            self._outcomes.append((future, result, error))
            is_first = len(self._outcomes) == 1
        if is_first:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        settle(outcomes)


def settle(outcomes: list[Outcome]) -> None:
    """Tell those who wait what came of their work. To be called on their loop."""
    for future, result, error in outcomes:
        if future.done():
            continue  # whoever waited was cancelled
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _work_off(items: "queue.SimpleQueue[_Item | None]") -> None:
    while (item := items.get()) is not None:
        outbox, future, work = item
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # it is raised where the work was asked for
            outbox.add(future, None, error)
        else:
            outbox.add(future, result, None)
        del item, outbox, future, work  # what it holds must not live on while this thread waits


def _end(items: "queue.SimpleQueue[_Item | None]", count: int) -> None:
    for _ in range(count):
        items.put(None)
