"""Who is left out because he is away, when nobody is, and who has come and gone too often."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.eviction import evicted, hold_reason, obstacle
from protocol.flapping import CALM_SECONDS, CHANGES_MAX, WINDOW_SECONDS, Flaps
from protocol.hashing import plain_hash
from protocol.identity import ClusterId, NodeId
from protocol.layout import Layout, Member, complete, genesis, propose
from protocol.messages import MemberState

R = 3
AFTER = 600.0
ONE = NodeId(plain_hash(b"one", 16))


def away(*seconds: float) -> dict[NodeId, float]:
    return {NodeId(plain_hash(b"node %d" % index, 16)): each for index, each in enumerate(seconds)}


@pytest.mark.parametrize(
    ("members", "seconds", "count"),
    [
        (6, (), 0),
        (6, (599.0,), 0),
        (6, (600.0,), 1),
        (5, (601.0, 600.0), 2),
        (5, (601.0, 590.0), 2),  # one move, not two
        (5, (601.0, 10.0), 1),
        (5, (700.0, 700.0, 700.0), 0),
        (4, (700.0,), 1),
        (4, (700.0, 700.0), 0),
        (3, (700.0,), 0),
        (12, (700.0,) * 3, 3),
        (12, (700.0,) * 4, 0),
        (100, (700.0,) * 25, 25),
        (100, (700.0,) * 26, 0),
    ],
)
def test_who_is_away_for_long_is_left_out_unless_too_many_are(members: int, seconds: tuple[float, ...], count: int) -> None:
    assert len(evicted(away(*seconds), members, R, AFTER)) == count


@given(st.integers(1, 128), st.lists(st.floats(0.0, 2000.0), max_size=40))
def test_a_quorum_and_the_copies_always_remain(members: int, seconds: list[float]) -> None:
    gone = evicted(away(*seconds[:members]), members, R, AFTER)
    if gone:
        assert len(gone) <= max(R - 1, members / 4)
        assert members - len(gone) >= R
        assert not hold_reason(len(seconds[:members]), members, R)


@cache
def layout_of(members: int) -> Layout:
    chosen = [Member(NodeId(plain_hash(b"node %d" % index, 16)), f"n{index}", "", 1, ()) for index in range(members)]
    moving = propose(genesis(ClusterId(bytes(16)), chosen[0]), chosen)
    assert moving is not None
    return complete(moving)


@cache
def without(members: int, node_id: NodeId) -> Layout:
    layout = layout_of(members)
    after = propose(layout, [member for member in layout.record.members if member.node_id != node_id])
    assert after is not None
    return after


@pytest.mark.parametrize("is_dead", [True, False])
@pytest.mark.parametrize("members", range(2, 8))
def test_nothing_is_in_the_way_just_when_it_can_be_decided_and_the_others_can_take_over(members: int, is_dead: bool) -> None:
    layout = layout_of(members)
    for leaver, *others in combinations(layout.members, min(3, members - 1)):
        dead = {leaver, *others} if is_dead else {*others}

        def is_majority(owners: Sequence[NodeId], dead: set[NodeId] = dead) -> bool:
            return 2 * len(dead.intersection(owners)) < len(owners)

        after = without(members, leaver)
        sets = dict.fromkeys(owners for partition in after.joint_partitions for owners in after.replica_sets(partition))
        can_be = is_majority(layout.record.voters) and all(map(is_majority, sets))
        state = {node_id: MemberState.DEAD if node_id in dead else MemberState.ALIVE for node_id in layout.members}
        assert (obstacle(layout, leaver, state.__getitem__) == "") == can_be


def test_who_goes_and_comes_more_than_three_times_within_ten_minutes_has_to_stay_for_five() -> None:
    flaps = Flaps()
    flaps.note(0.0, ONE, is_there=True)
    for number in range(CHANGES_MAX + 1):
        assert flaps.must_stay_seconds(ONE) == 0.0
        flaps.note(100.0 * number, ONE, is_there=number % 2 == 1)
        flaps.note(100.0 * number + 1.0, ONE, is_there=number % 2 == 1)  # says nothing new
    assert flaps.must_stay_seconds(ONE) == CALM_SECONDS
    flaps.note(WINDOW_SECONDS + 101.0, ONE, is_there=False)
    assert flaps.must_stay_seconds(ONE) == 0.0
