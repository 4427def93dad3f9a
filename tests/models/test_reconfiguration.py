"""The rule by which a partition changes its replicas holds in the model, and not without any clause of it."""

from dataclasses import fields

import pytest

from tests.models.__main__ import violations
from tests.models.replicas import Rules

SEEDS = range(1000)
SEEDS_OF_MUTANT = 400
RARE = {"entering_quarantined": 250, "purge_fence": 500, "purge_raises_fence": 2000, "purge_keeps_rows": 3000}
"""Clauses whose absence shows in fewer than one of 200 runs: where to begin, so that the test need not look at thousands."""


def test_reads_know_every_write_that_was_acked_and_every_read_before_them() -> None:
    assert not [str(violation) for _, violation in violations("reconfiguration", SEEDS)]


@pytest.mark.parametrize("clause", [field.name for field in fields(Rules)])
def test_no_clause_can_be_left_out(clause: str) -> None:
    first = RARE.get(clause, 0)
    assert next(violations("reconfiguration", range(first, first + SEEDS_OF_MUTANT), clause), None)
