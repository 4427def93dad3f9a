"""Nothing leaves the world unnoticed: who asks for a real clock, randomness, thread, socket or process while it is sealed gets an error.

The loop itself has nothing of the kind to offer; this is for code that goes past it. Files may be opened: Python imports modules when it
likes. Only the thread that runs the world is watched.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")
_EVENTS = frozenset(
    ("socket.__new__", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn", "_thread.start_new_thread")
)
_EXEMPT = frozenset({"logging"})
"""A log line says when it was written, and nothing that a node does depends on it."""


class EscapedSimulation(Exception):
    """Code of the simulated world asked for something of the real one."""


_sealed_thread: int | None = None
_has_hook = False


@contextmanager
def sealed() -> Iterator[None]:
    """Seal the world that runs in this thread."""
    global _sealed_thread
    _install_hook()
    replaced: list[tuple[Any, str, Any]] = []
    places: list[tuple[Any, str]] = [(time, name) for name in _CLOCKS]
    places += [(os, "urandom"), (random, "_urandom"), (threading.Thread, "start"), (subprocess, "Popen")]
    places += [(random, name) for name in ("random", "randrange", "randint", "uniform", "choice", "shuffle", "getrandbits", "randbytes")]
    for owner, name in places:
        original = getattr(owner, name)
        replaced.append((owner, name, original))
        setattr(owner, name, _guarded(f"{getattr(owner, '__name__', owner)}.{name}", original))
    before, _sealed_thread = _sealed_thread, threading.get_ident()
    try:
        yield
    finally:
        _sealed_thread = before
        for owner, name, original in replaced:
            setattr(owner, name, original)


def _guarded(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*arguments: Any, **options: Any) -> Any:
        if threading.get_ident() == _sealed_thread and sys._getframe(1).f_globals.get("__name__") not in _EXEMPT:
            raise EscapedSimulation(f"{name} was called inside a simulated world: use what `Env` offers")
        return original(*arguments, **options)

    return guarded


def _install_hook() -> None:
    global _has_hook
    if not _has_hook:
        _has_hook = True
        sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _sealed_thread is not None and event in _EVENTS and threading.get_ident() == _sealed_thread:
        raise EscapedSimulation(f"{event} was asked for inside a simulated world: use what `Env` offers")
