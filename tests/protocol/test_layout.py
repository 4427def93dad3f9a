"""Layout records: validity, the three transitions, stamps, and the numbers that follow from one."""

import dataclasses
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.hashing import plain_hash
from protocol.identity import ClusterId, NodeId
from protocol.layout import (
    Layout,
    Member,
    abort,
    choose_voters,
    complete,
    follows,
    genesis,
    pack_partitions,
    propose,
    refreshed_weight,
    renewed,
    unpack_partitions,
    weight_of,
)

PARTITIONS = range(limits.PARTITIONS)
CLUSTER = ClusterId(b"c" * 16)


def member(index: int, weight: int = 1) -> Member:
    return Member(NodeId(plain_hash(b"node %d" % index, 16)), f"n{index}", "", weight, (f"192.0.2.{index}:7400",))


@cache
def chain(count: int) -> tuple[Layout, ...]:
    """Every record of a cluster that grew one by one to `count` members, joint ones included."""
    layouts = [genesis(CLUSTER, member(0))]
    for size in range(2, count + 1):
        joint = propose(layouts[-1], [member(index) for index in range(size)])
        assert joint is not None
        layouts += [joint, complete(joint)]
    return tuple(layouts)


@pytest.mark.parametrize("index", range(13))
def test_a_record_survives_its_encoding(index):
    layout = chain(7)[index]
    copy = Layout.from_bytes(layout.data)
    assert copy.record == layout.record
    assert copy.digest == layout.digest


def test_each_record_of_a_chain_follows_the_one_before_and_no_other():
    layouts = chain(7)
    for earlier, parent in enumerate(layouts):
        for later, child in enumerate(layouts):
            assert (follows(parent, child) is None) == (later == earlier + 1)


def test_a_stamp_changes_exactly_where_the_owners_do():
    for parent, child in zip(chain(7), chain(7)[1:], strict=False):
        for partition in PARTITIONS:
            changed = parent.replica_sets(partition) != child.replica_sets(partition)
            assert child.cfg(partition) == (child.version if changed else parent.cfg(partition))


def test_a_joint_layout_knows_old_and_new_owners_and_completes_or_is_taken_back():
    stable, joint, grown = chain(7)[-3:]
    assert joint.is_joint
    assert not stable.is_joint
    assert not grown.is_joint
    back = abort(joint)
    assert follows(joint, back) is None
    for partition in PARTITIONS:
        assert joint.old_set(partition) == stable.old_set(partition) == back.old_set(partition)
        assert grown.old_set(partition) == (joint.new_set(partition) or joint.old_set(partition))
        assert joint.is_joint_at(partition) == (len(joint.replica_sets(partition)) == 2)
        assert joint.homes(partition) == grown.homes(partition)
    assert frozenset(back.members) == frozenset(stable.members)
    assert frozenset(grown.members) == frozenset(joint.members)


def test_every_member_knows_its_partitions():
    joint = chain(7)[-2]
    for node_id in joint.members:
        owned = frozenset(joint.partitions_of(node_id))
        assert owned == frozenset(p for p in PARTITIONS if node_id in joint.replicas(p))
        assert owned == frozenset(p for p in PARTITIONS if joint.is_replica(node_id, p))
    assert joint.partitions_of(NodeId(b"x" * 16)) == ()


def test_homes_and_fallbacks_are_all_members_once():
    layout = chain(7)[-1]
    for partition in (0, 1, 2047, 4095):
        everyone = [*layout.homes(partition), *layout.fallbacks(partition)]
        assert sorted(everyone) == sorted(layout.members)
        assert len(layout.homes(partition)) == 3


@pytest.mark.parametrize(
    ("count", "replicas", "wanted", "needed"),
    [(1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 2), (4, 4, 3, 3), (5, 5, 3, 3), (7, 5, 3, 3)],
)
def test_the_numbers_of_small_clusters_are_those_of_the_guarantees(count, replicas, wanted, needed):
    layout = chain(count)[-1]
    assert {len(layout.replicas(partition)) for partition in PARTITIONS} == {replicas}
    assert (layout.copies_wanted, layout.copies_needed) == (wanted, needed)


def test_a_new_address_is_a_record_that_moves_nothing():
    layout = chain(3)[-1]
    members = [dataclasses.replace(each, addresses=("198.51.100.1:7400",)) for each in layout.record.members]
    moved = propose(layout, members)
    assert moved is not None
    assert not moved.is_joint
    assert follows(layout, moved) is None
    assert moved.stamps == layout.stamps
    assert propose(layout, list(layout.record.members)) is None


def test_a_member_that_leaves_is_an_owner_until_the_move_is_complete():
    layout = chain(7)[-1]
    gone = layout.record.members[2].node_id
    joint = propose(layout, [each for each in layout.record.members if each.node_id != gone])
    assert joint is not None
    assert gone in joint.members
    assert follows(layout, joint) is None
    done = complete(joint)
    assert gone not in done.members
    assert all(gone not in done.replicas(partition) for partition in PARTITIONS)


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_id": b""},
        {"version": 0},
        {"version": 1},
        {"parent": b""},
        {"part_power": 11},
        {"replication": 0},
        {"replication": 6},
        {"members": ()},
        {"old_columns": 0},
        {"old_columns": 4},
        {"old_table": bytes(3 * limits.PARTITIONS)},
        {"old_table": bytes([9]) * (3 * limits.PARTITIONS)},
        {"new_table": bytes(limits.PARTITIONS)},
        {"new_columns": 3},
        {"cfg": bytes(4 * limits.PARTITIONS)},
        {"cfg": b"\xff" * (4 * limits.PARTITIONS)},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes):
    record = dataclasses.replace(chain(3)[-1].record, **changes)
    with pytest.raises(RemoteProtocolError):
        Layout.from_bytes(Layout(record).data)


def test_members_out_of_order_and_members_that_own_nothing_are_refused():
    record = chain(3)[-1].record
    for members in (record.members[::-1], (*record.members, dataclasses.replace(record.members[-1], node_id=NodeId(b"\xff" * 16)))):
        with pytest.raises(RemoteProtocolError):
            Layout.from_bytes(Layout(dataclasses.replace(record, members=members)).data)


def test_a_voter_twice_a_stranger_that_votes_and_no_voter_are_refused():
    record = chain(3)[-1].record
    for voters in ((), record.voters[:1] * 2, (NodeId(b"x" * 16),)):
        with pytest.raises(RemoteProtocolError):
            Layout.from_bytes(Layout(dataclasses.replace(record, voters=voters)).data)


def test_a_newcomer_votes_only_when_nothing_moves_any_more():
    """A laptop that joins a cluster of one and closes its lid must not take the vote of the first machine along."""
    for parent, child in pairwise(chain(7)):
        if child.is_joint:
            assert child.record.voters == parent.record.voters
            assert abort(child).record.voters == parent.record.voters
    alone, joint, pair = chain(2)
    assert joint.record.voters == alone.record.voters == (member(0).node_id,)
    assert sorted(pair.record.voters) == sorted(pair.members)


def test_a_member_that_leaves_votes_until_the_move_is_complete():
    layout = chain(7)[-1]
    gone = layout.record.voters[2]
    joint = propose(layout, [each for each in layout.record.members if each.node_id != gone])
    assert joint is not None
    assert gone in joint.record.voters
    assert gone not in complete(joint).record.voters


@pytest.mark.parametrize(
    ("weight", "capacity", "refreshed"),
    [
        (100, 100.9, 100),
        (100, 95.1, 100),
        (100, 94.9, 94),
        (100, 106.0, 100),
        (100, 106.2, 106),
        (1, 2.0, 1),
        (2, 1.95, 2),
        (1, 0.1, 1),
        (2, 3.5, 3),
    ],
)
def test_a_weight_changes_with_a_capacity_that_differs_by_more_than_five_percent(weight, capacity, refreshed):
    assert refreshed_weight(weight, int(capacity * 1024**3)) == refreshed


def test_a_large_change_takes_several_steps_and_then_nothing_is_worth_moving():
    layout = chain(4)[-1]
    members = [member(index) for index in range(9)]
    steps = 0
    while (joint := propose(layout, members)) is not None:
        assert follows(layout, joint) is None
        assert all(len(set(joint.old_set(p)) - set(joint.new_set(p) or joint.old_set(p))) <= 1 for p in PARTITIONS)
        layout, steps = complete(joint), steps + 1
    assert steps > 1


@pytest.mark.parametrize(("members", "voters"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (7, 7), (8, 7), (9, 7), (128, 7)])
def test_the_number_of_voters_is_odd_but_for_two_members(members, voters):
    assert len(choose_voters([member(index) for index in range(members)], ())) == voters


@given(st.lists(st.sampled_from(["", "attic", "cellar", "shed"]), min_size=1, max_size=12), st.data())
def test_voters_are_spread_over_zones_and_who_votes_already_comes_first(zones, data):
    members = [dataclasses.replace(member(index), zone=zone) for index, zone in enumerate(zones)]
    before = data.draw(st.lists(st.sampled_from(members), max_size=7, unique_by=lambda each: each.node_id))
    voters = choose_voters(members, [each.node_id for each in before])
    assert choose_voters(members, voters) == voters
    taken = Counter(each.zone for each in members if each.node_id in voters)
    for each in members:
        if each.node_id not in voters:
            assert taken[each.zone] + 1 >= max(taken.values())
            assert each not in before or all(other in before for other in members if other.zone == each.zone and other.node_id in voters)


def test_stamps_are_renewed_and_nothing_else_changes():
    layout = chain(7)[-1]
    loser = layout.record.members[3].node_id
    new = renewed(layout, layout.partitions_of(loser))
    assert follows(layout, Layout.from_bytes(new.data)) is None
    for partition in PARTITIONS:
        is_his = layout.is_replica(loser, partition)
        assert new.cfg(partition) == (new.version if is_his else layout.cfg(partition))
        assert new.replica_sets(partition) == layout.replica_sets(partition)
    assert (new.record.members, new.record.voters) == (layout.record.members, layout.record.voters)


def test_no_stamp_is_renewed_while_anything_moves():
    for parent, child in pairwise(chain(7)[-3:]):
        cfg = child.version.to_bytes(4, "big") * limits.PARTITIONS
        assert follows(parent, Layout(dataclasses.replace(child.record, cfg=cfg))) is not None


def test_a_successor_that_changes_what_it_may_not_is_no_successor():
    stable, joint, grown = chain(4)[-3:]
    newcomer = tuple(node_id for node_id in joint.members if node_id not in stable.members)
    for parent, child, changes in [
        (stable, joint, {"cluster_id": ClusterId(b"d" * 16)}),
        (stable, joint, {"voters": stable.record.voters[:1]}),
        (stable, joint, {"voters": grown.record.voters[:2] + newcomer}),
        (stable, joint, {"parent": b"p" * 16}),
        (stable, joint, {"old_table": joint.record.new_table[: len(joint.record.old_table)]}),
        (stable, joint, {"cfg": stable.record.cfg}),
        (joint, grown, {"cfg": joint.record.cfg}),
        (joint, grown, {"old_table": joint.record.new_table[::-1]}),
    ]:
        assert follows(parent, child) is None
        assert follows(parent, Layout(dataclasses.replace(child.record, **changes))) is not None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 20_000), st.integers(0, 255))
def test_a_damaged_record_is_refused_or_is_another_record(junk, at, value):
    with pytest.raises(RemoteProtocolError):
        Layout.from_bytes(junk)
    data = bytearray(chain(3)[-1].data)
    data[at % len(data)] = value
    try:
        copy = Layout.from_bytes(bytes(data))
    except RemoteProtocolError:
        return
    assert copy.data == bytes(data)


@given(st.sets(st.integers(0, limits.PARTITIONS - 1)))
def test_a_set_of_partitions_survives_its_bitmap(partitions):
    assert unpack_partitions(pack_partitions(sorted(partitions))) == sorted(partitions)


def test_weight_follows_capacity_within_bounds():
    assert weight_of(0) == 1
    assert weight_of(500 * 1024**3) == 500
    assert weight_of(1 << 62) == 1 << 16
