"""Hosts for the tests of this folder; where there can be none the tests are skipped, except in CI, which requires them."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hosts import Lan, missing  # the harness lies beside the tests, which are no package

REQUIRED = os.environ.get("SHOAL_LAN_TESTS") == "required"


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """An empty LAN for the tests of a module."""
    reason = missing()
    if reason and not REQUIRED:
        pytest.skip(reason)
    assert not reason, reason
    with Lan(tmp_path_factory.mktemp("lan")) as hosts:
        yield hosts
