"""The rule of dropping a copy holds in the model, and not without any clause of it."""

from dataclasses import fields

import pytest

from tests.models.__main__ import violations
from tests.models.dropping import Rules

SEEDS = range(2000)


def test_copies_are_never_fewer_than_wanted_again() -> None:
    assert not [str(violation) for _, violation in violations("dropping", SEEDS)]


@pytest.mark.parametrize("clause", [field.name for field in fields(Rules)])
def test_no_clause_can_be_left_out(clause: str) -> None:
    assert next(violations("dropping", SEEDS, clause), None)
