"""Work that goes on when whoever asked for it goes away: what has begun to reach the disk cannot be called back."""

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(task: "asyncio.Task[T]", *foreseen: type[Exception]) -> T:
    """Return the result of `task`. Whoever is cancelled meanwhile leaves it running.

    What it then raises concerns nobody, if it is one of `foreseen`; anything else is a bug, and goes to the loop's exception handler.
    """
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda task: _look_at(task, foreseen))
        raise


def _look_at(task: "asyncio.Task[T]", foreseen: tuple[type[Exception], ...]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, foreseen):
        message = "work that nobody waits for any more has failed"
        task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})
