"""The rule of the layout chain holds in the model, and not without any clause of it."""

from dataclasses import fields

import pytest

from tests.models.__main__ import violations
from tests.models.chain import Rules

SEEDS = range(1500)


def test_the_chain_never_forks_and_can_always_go_on_without_a_newcomer() -> None:
    assert not [str(violation) for _, violation in violations("chain", SEEDS)]


@pytest.mark.parametrize("clause", [field.name for field in fields(Rules)])
def test_no_clause_can_be_left_out(clause: str) -> None:
    assert next(violations("chain", SEEDS, clause), None)


def test_a_newcomer_that_votes_at_once_bricks_a_cluster_of_one() -> None:
    promises = [violation.promise for _, violation in violations("chain", range(200), "newcomer_waits")]
    assert any(" voters {0,1} joining 1, as long as the newcomer 1 is away" in promise for promise in promises)
