"""The event loop of a process: uvloop where there is one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

try:
    import uvloop
except ImportError:  # uvloop does not exist for Windows
    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_event_loop = uvloop.new_event_loop


def new_runner() -> asyncio.Runner:
    """Return a runner with the loop of this process."""
    return asyncio.Runner(loop_factory=_new_event_loop)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end and return its result."""
    with new_runner() as runner:
        return runner.run(main)
