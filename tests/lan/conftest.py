"""Hosts for the tests of this folder; where there can be none the tests are skipped, except in CI, which requires them.

`SHOAL_ROUNDS=10` runs each module so many times, each time on a new LAN; without it, once.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hosts import Lan, missing  # the harness lies beside the tests, which are no package

REQUIRED = os.environ.get("SHOAL_LAN_TESTS") == "required"
ROUNDS = range(int(os.environ.get("SHOAL_ROUNDS", "1")))


@pytest.fixture(scope="module", params=ROUNDS)
def turn(request: pytest.FixtureRequest) -> int:
    """Which round of the module this is, from 0 on: for tests that do something else in each."""
    return request.param


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory, turn: int) -> Iterator[Lan]:
    """An empty LAN for the tests of a module."""
    reason = missing()
    if reason and not REQUIRED:
        pytest.skip(reason)
    assert not reason, reason
    with Lan(tmp_path_factory.mktemp(f"lan-{turn}")) as hosts:
        yield hosts
