"""The operations of a client, each with its begin and its end in the trace: a story that calls them is then a picture, too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from peer.errors import NoSuchPath, OutcomeUnknown
from peer.files.operations import Operations
from peer.session import Session
from sims.trace import Trace

KINDS: Final = {
    "put": "put",
    "get": "get",
    "stat": "stat",
    "remove": "remove",
    "copy": "copy",
    "move": "move",
    "make_directory": "mkdir",
}
"""Methods that are noted, and the events that they are."""
RESULTS: Final[Mapping[type[BaseException], str]] = {NoSuchPath: "absent", OutcomeUnknown: "unknown", asyncio.CancelledError: "given-up"}
"""What is said of exceptions whose names say it less well."""


def noted_operations(session: Session, trace: Trace, host: str, numbers: Iterator[int]) -> Operations:
    """Return the operations of the client process `host`, which take their numbers in the trace from `numbers`."""
    operations = Operations(session)

    @contextmanager
    def noted(kind: str, path: str, **more: str) -> Iterator[None]:
        number = next(numbers)
        trace.note(host, kind, path=path, n=number, **more)
        try:
            yield
        except GeneratorExit:
            raise  # the process is dead, and nobody knows when its tasks are swept away
        except BaseException as error:
            trace.note(host, "done", n=number, result=RESULTS.get(type(error), type(error).__name__))
            raise
        trace.note(host, "done", n=number, result="ok")

    def wrapped(kind: str, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def run(path: str, *arguments: Any, **options: Any) -> Any:
            more = {"to": arguments[0]} if kind in ("copy", "move") else {}
            with noted(kind, path, **more):
                return await work(path, *arguments, **options)

        return run

    listed = operations.list

    async def list_noted(path: str, *, recursive: bool = False) -> AsyncIterator[Any]:
        with noted("list", path):
            async for entry in listed(path, recursive=recursive):
                yield entry

    for method, kind in KINDS.items():
        setattr(operations, method, wrapped(kind, getattr(operations, method)))
    operations.list = list_noted  # type: ignore[method-assign]
    return operations
