"""The rule by which a partition changes its replicas holds in the model, and not without any clause of it."""

from dataclasses import fields, replace

import pytest

from tests.models.__main__ import violations
from tests.models.reconfiguration import Operation, World
from tests.models.replicas import Layout, Replica, Rules
from tests.models.violation import BrokenError

SEEDS = range(1000)
SEEDS_OF_MUTANT = 400
RARE = {"entering_quarantined": 300, "joint_repair": 400, "purge_fence": 500, "purge_raises_fence": 4200, "purge_keeps_rows": 16500}
"""Clauses whose absence shows in fewer than one of 200 runs: where to begin, so that the test need not look at thousands."""


def test_reads_know_every_write_that_was_acked_and_every_read_before_them() -> None:
    assert not [str(violation) for _, violation in violations("reconfiguration", SEEDS)]


@pytest.mark.parametrize("clause", [field.name for field in fields(Rules)])
def test_no_clause_can_be_left_out(clause: str) -> None:
    first = RARE.get(clause, 0)
    assert next(violations("reconfiguration", range(first, first + SEEDS_OF_MUTANT), clause), None)


def test_a_purge_confirmed_before_a_loss_of_rows_is_not_carried_out() -> None:
    assert purge_that_a_replica_confirmed_and_forgot(Rules()).phase == 1


def test_a_purge_confirmed_before_a_loss_of_rows_would_raise_the_deleted() -> None:
    with pytest.raises(BrokenError, match="would show version 0"):
        purge_that_a_replica_confirmed_and_forgot(replace(Rules(), renewed_stamp=False))


def purge_that_a_replica_confirmed_and_forgot(rules: Rules) -> Operation:
    """Three replicas have a version, one its tombstone; that one confirms a purge, loses its rows, recovers without the tombstone."""
    world = World(0, rules)
    world.chain, world.nodes, world.count = [Layout(0b111)], [Replica(rows=0b1) for _ in range(3)], 3
    world.rows, world.covers, world.settled, world.tombstones = [0b11], [0, 0b1], 0b1, 0b10
    delete = Operation("write", 1, 0, 0b111, 0, -1, 0, payload=0b11)
    purge = Operation("purge", 2, 0, 0b111, 0, -1, 0, payload=0b11)
    world.ask(delete, 0)
    world.ask(purge, 0)
    del delete.answers[0]  # the write itself does not count on it
    world.lose(0)
    if rules.renewed_stamp:
        assert world.decide()
        for number in range(3):
            world.learn(number)
    while world.nodes[0].recovering:
        world.pull(0)
    for operation in (delete, purge, purge):
        for number in (1, 2):
            world.ask(operation, number)
    world.judge_every_read()
    return purge
