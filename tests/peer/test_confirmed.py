"""What one of two replicas knows the other one to have, step by step."""

import pytest

from peer.files.confirmed import DOUBTS_MAX, Confirmed
from protocol.identity import ClusterId, NodeId, OpId
from protocol.layout import Layout, Member, abort, complete, genesis, propose
from protocol.manifest import inline_content
from protocol.paths import row_partition
from protocol.rows import row_digest
from protocol.versions import Dot, Kind, Row, Version, empty_row, published

A, B, C = (NodeId(name * 16) for name in (b"a", b"b", b"c"))
MEMBERS = {node: Member(node, chr(node[0]), "", 1, ()) for node in (A, B, C)}
ONE = genesis(ClusterId(bytes(16)), MEMBERS[A])
P = row_partition("/d/f")


def moved(layout: Layout, *nodes: NodeId) -> Layout:
    proposed = propose(layout, [MEMBERS[node] for node in nodes])
    assert proposed is not None
    return proposed


JOINING = moved(ONE, A, B)
TWO = complete(JOINING)


def row(counter: int, path: str = "/d/f") -> Row:
    version = Version(Dot(A, counter), (), counter, OpId(counter.to_bytes(16)), Kind.FILE, 0, 0o644, 0, "", inline_content(b""))
    return published(empty_row(path), version)


def change(confirmed: Confirmed, *rows: Row) -> None:
    for each in rows:
        confirmed.changed(row_partition(each.path), each.path, row_digest(each))


@pytest.fixture
def confirmed() -> Confirmed:
    """The first of two, which has seen the second one join."""
    made = Confirmed(A)
    for layout in (ONE, JOINING, TWO):
        made.layout_changed(layout)
    return made


def test_who_has_seen_the_other_one_join_agrees_once_that_is_complete_but_for_what_has_changed_since() -> None:
    confirmed = Confirmed(A)
    confirmed.layout_changed(ONE)
    change(confirmed, row(1, "/d/before"))
    confirmed.layout_changed(JOINING)
    change(confirmed, row(2))
    assert not confirmed.row("/d/before")
    confirmed.layout_changed(TWO)
    assert confirmed.row("/d/before")
    assert not confirmed.row("/d/f")


def test_who_starts_while_the_other_one_joins_does_not_know_what_has_changed() -> None:
    confirmed = Confirmed(A)
    for layout in (JOINING, TWO):
        confirmed.layout_changed(layout)
    assert not confirmed.row("/d/f")
    confirmed.agrees(B, [P], confirmed.doubts())
    assert confirmed.row("/d/f")


def test_a_row_is_in_doubt_until_the_other_one_has_what_it_became(confirmed: Confirmed) -> None:
    change(confirmed, row(1), row(2))
    confirmed.has(B, [row(1)])
    confirmed.has(C, [row(2)])
    assert not confirmed.row("/d/f")
    confirmed.has(B, [row(2)])
    assert confirmed.row("/d/f")


def test_a_comparison_says_nothing_of_what_has_changed_since_it_began(confirmed: Confirmed) -> None:
    change(confirmed, row(1), row(2, "/d/g"))
    compared = confirmed.doubts()
    change(confirmed, row(3))
    confirmed.agrees(B, [P], compared)
    assert not confirmed.row("/d/f")
    assert confirmed.row("/d/g")


def test_of_a_range_every_row_has_to_be_beyond_doubt(confirmed: Confirmed) -> None:
    change(confirmed, row(1))
    assert not confirmed.range("/d", "", "")
    assert not confirmed.range("/d", "e", "f")
    assert confirmed.range("/d", "f", "")
    assert confirmed.range("/d", "", "e")


def test_a_partition_of_which_something_was_damaged_has_to_be_compared_anew(confirmed: Confirmed) -> None:
    compared = confirmed.doubts()
    confirmed.forgotten(P)
    confirmed.agrees(B, [P], compared)
    assert not confirmed.row("/d/f")
    confirmed.agrees(B, [P], confirmed.doubts())
    assert confirmed.row("/d/f")


def test_of_three_none_answers_alone_and_of_two_again_after_a_comparison(confirmed: Confirmed) -> None:
    joining = moved(TWO, A, B, C)
    confirmed.layout_changed(joining)
    assert not confirmed.row("/d/f")
    confirmed.layout_changed(abort(joining))
    assert not confirmed.row("/d/f")
    confirmed.agrees(B, [P], confirmed.doubts())
    assert confirmed.row("/d/f")


def test_what_is_remembered_is_bounded_and_then_nothing_is_known(confirmed: Confirmed) -> None:
    change(confirmed, *(row(1, f"/d/{number}") for number in range(DOUBTS_MAX)))
    assert confirmed.row("/d/f")
    compared = confirmed.doubts()
    change(confirmed, row(1))
    confirmed.agrees(B, [P], compared)
    assert not confirmed.row("/d/0")
    assert not confirmed.row("/d/g")
