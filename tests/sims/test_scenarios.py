"""Each named failure case, over many seeds; and that it is none of those that would notice nothing."""

import os

import pytest

from peer.store.rows import RowStore
from protocol.versions import Row, Version, published, winner
from sims.planted import BUGS, planted
from sims.run import run_scenario
from sims.scenarios import scenarios

SEEDS = range(int(os.environ.get("SHOAL_SEEDS", "3")) // 3)
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
    "swizzle-clog": "half-read-quorum",
    "torn-tail": "chunk-not-synced",
}
"""Scenarios and a bug that each of them has to notice."""
PAIRS = [*CAUGHT.items(), *((bug.case, bug.name) for bug in BUGS.values() if bug.case)]
SEEDS_TO_NOTICE = 40
FIRST = {
    "forgotten-vote": 1, "joint-read-of-old": 2, "lost-fsync": 8, "no-fence": 2, "overlap-not-synced": 5,
    "rejoin-after-absence": 3, "repair-to-union": 3, "retry-then-delete": 9,
}  # fmt: skip
"""Where looking for a bug, or in a scenario, begins: the seed that noticed last time. It takes a second then, and not twenty."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", scenarios())
def test_what_must_hold_in_a_failure_case_holds(name: str, seed: int) -> None:
    violation = run_scenario(scenarios()[name].story, seed).violation
    if violation is not None:
        pytest.fail(f"{violation}\nagain: python -m sims {name} --seed {seed}", pytrace=False)


def is_noticed(name: str, bug: str = "") -> bool:
    first = FIRST.get(bug, FIRST.get(name, 0))
    return any(run_scenario(scenarios()[name].story, first + number).violation is not None for number in range(SEEDS_TO_NOTICE))


@pytest.mark.parametrize(("name", "bug"), PAIRS)
def test_a_failure_case_notices_a_planted_bug(name: str, bug: str) -> None:
    with planted(bug):
        assert is_noticed(name, bug)


def test_a_clock_that_decides_which_write_is_newer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def newest(row: Row, version: Version) -> Row:
        return row if any(head.modified_milliseconds > version.modified_milliseconds for head in row.heads) else published(row, version)

    monkeypatch.setattr("peer.files.row_service.published", newest)
    assert is_noticed("clock-jump")


def test_a_removal_that_is_forgotten_is_noticed_when_somebody_returns_who_missed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    vote = RowStore.vote

    async def forgetful(self: RowStore, path: str, *, full: bool) -> tuple[bytes, Row | None]:
        _, row = await vote(self, path, full=True)
        return await vote(self, path, full=full) if row is None or winner(row) is not None else (b"", None)

    monkeypatch.setattr(RowStore, "vote", forgetful)
    assert is_noticed("rejoin-after-absence")


def test_waiting_for_the_slow_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.files.read_path.HEDGE_SECONDS", 1e6)
    monkeypatch.setattr("peer.files.chunk_service.TRY_SECONDS", 40.0)
    assert is_noticed("slow-node")
