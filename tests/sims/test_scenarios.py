"""Each named failure case, over many seeds; and that it is none of those that would notice nothing."""

import os

import pytest

from sims.planted import planted
from sims.run import run_scenario
from sims.scenarios import scenarios

SEEDS = range(int(os.environ.get("SHOAL_SEEDS", "30")) // 3)
CAUGHT = {
    "all-nodes-restart": "dots-reissued",
    "bit-rot": "corrupt-chunk-served",
    "concurrent-writers": "last-writer-wins",
    "crash-during-put": "folder-not-synced",
    "disk-full": "copies-believed",
    "lost-fsync": "corrupt-chunk-served",
    "minority-partition": "half-write-quorum",
    "one-way-partition": "copies-believed",
    "power-off-after-ack": "row-acked-before-commit",
    "retry-then-delete": "retry-applied-twice",
    "stranger": "length-unchecked",
    "torn-tail": "chunk-not-synced",
}
"""Scenarios and a bug that each of them has to notice."""
SEEDS_TO_NOTICE = range(20)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", scenarios())
def test_what_must_hold_in_a_failure_case_holds(name: str, seed: int) -> None:
    violation = run_scenario(scenarios()[name].story, seed).violation
    if violation is not None:
        pytest.fail(f"{violation}\nagain: python -m sims {name} --seed {seed}", pytrace=False)


@pytest.mark.parametrize("name", CAUGHT)
def test_a_failure_case_notices_a_planted_bug(name: str) -> None:
    with planted(CAUGHT[name]):
        assert any(run_scenario(scenarios()[name].story, seed).violation is not None for seed in SEEDS_TO_NOTICE)
