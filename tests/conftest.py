"""Every async test runs on both event loops that a node may have; property tests never fail for a slow machine."""

import asyncio
import os
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import HealthCheck, settings

for name, repeatable in (("explore", False), ("repeat", True)):
    settings.register_profile(
        name, deadline=None, print_blob=True, derandomize=repeatable, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile(os.environ.get("SHOAL_PROPERTIES", "explore"))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
