"""Every async test runs on both event loops that a node may have; property tests never fail for a slow machine."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import HealthCheck, settings

for name, repeatable in (("explore", False), ("repeat", True)):
    settings.register_profile(
        name, deadline=None, print_blob=True, derandomize=repeatable, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile(os.environ.get("SHOAL_PROPERTIES", "explore"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Who starts the tests in the background of a shell has them ignore interrupts, and with them every process that they interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
