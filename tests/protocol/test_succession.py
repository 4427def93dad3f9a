"""A cluster that goes on from another by force: its first record, when it may be, what it costs, and who is whose."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.eviction import goes_on, losses
from protocol.hashing import plain_hash
from protocol.identity import ClusterId, NodeId
from protocol.layout import Former, Layout, Member, complete, follows, forced, genesis, goes_on_from, propose
from protocol.messages import Hello, LinkKind, Role
from protocol.succession import Relation, heard, relation, told

PARTITIONS = range(limits.PARTITIONS)
OLD, NEW, THIRD = (ClusterId(letter * 16) for letter in (b"o", b"n", b"t"))


def member(index: int) -> Member:
    return Member(NodeId(plain_hash(b"node %d" % index, 16)), f"n{index}", "", 1, (f"192.0.2.{index}:7400",))


@cache
def grown() -> tuple[Layout, ...]:
    """Every record of a cluster that grew to eight members and of which two left again, joint ones included."""
    layouts = [genesis(OLD, member(0))]
    for size in (2, 3, 4, 5, 6, 7, 8, 6):
        while (step := propose(layouts[-1], [member(index) for index in range(size)])) is not None:
            layouts += [step, complete(step)] if step.is_joint else [step]
    return tuple(layouts)


@settings(max_examples=40)
@given(st.integers(0, len(grown()) - 1), st.data())
def test_every_owner_who_is_left_is_one_and_the_cluster_goes_on_from_there(index: int, data: st.DataObject) -> None:
    parent = grown()[index]
    gone = data.draw(st.sets(st.sampled_from(sorted(parent.members)), max_size=len(parent.members) - 1))
    child = forced(parent, NEW, gone, [])
    assert Layout.from_bytes(child.data).record == child.record
    assert goes_on_from(parent, child) is None
    assert follows(parent, child) is not None
    assert child.members.keys() == parent.members.keys() - gone
    assert child.record.former == (Former(OLD, parent.version),)
    assert child.is_gathering
    assert child.copies_wanted <= len(child.members)
    for partition in PARTITIONS:
        assert set(parent.replicas(partition)) - gone <= set(child.old_set(partition))
        assert child.gathers(partition)
        assert child.cfg(partition) > parent.version
    after = complete(child)
    assert follows(child, after) is None
    assert not after.unsettled_partitions
    assert after.stamps == child.stamps
    short, lost, _ = losses(parent, gone)
    assert lost <= short
    assert (lost > 0) == any(set(parent.replicas(p)) <= gone for p in PARTITIONS)
    if not parent.is_joint:
        assert (short == 0) <= goes_on(replace_voters(parent, sorted(parent.members.keys() - gone)[:1]), lambda node: node not in gone)


def replace_voters(layout: Layout, voters: list[NodeId]) -> Layout:
    return Layout(replace(layout.record, voters=tuple(voters)))


def test_a_cluster_goes_on_while_its_voters_and_the_owners_of_each_partition_have_a_majority() -> None:
    five = next(layout for layout in grown() if len(layout.members) == 5 and not layout.is_joint)
    everyone = sorted(five.members)
    assert goes_on(five, lambda node: node in everyone[:3])
    assert not goes_on(five, lambda node: node in everyone[:2])
    assert losses(five, everyone[2:])[:2] == (limits.PARTITIONS, 0)
    assert losses(five, everyone[:2]) == (0, 0, 0)
    eight = grown()[-1]
    owners = eight.old_set(0)
    there = replace_voters(eight, [node for node in eight.members if node not in owners[:3]][:1])
    assert not goes_on(there, lambda node: node not in owners[:3])  # a voter is there, and most of partition 0 is gone


def test_what_may_not_go_on_from_a_layout_does_not() -> None:
    parent = next(layout for layout in grown() if len(layout.members) == 5 and not layout.is_joint)
    child = forced(parent, NEW, sorted(parent.members)[3:], [])
    record = child.record
    other_table = bytes((index + 1) % 3 for index in record.old_table)
    assert goes_on_from(parent, Layout(replace(record, old_table=other_table))) is None  # their order says nothing
    for changed in (
        replace(record, cluster_id=OLD),
        replace(record, former=()),
        replace(record, former=(Former(OLD, parent.version - 1),)),
        replace(record, version=record.version + 1),
        replace(record, parent=bytes(16)),
        replace(record, replication=2),
        replace(record, cfg=bytes(3) + b"\1" + record.cfg[4:]),
        replace(record, members=(*record.members, member(20))),
        replace(record, old_columns=2, old_table=b"\0\1" * (limits.PARTITIONS - 1) + b"\1\2"),
    ):
        assert goes_on_from(parent, Layout(changed)) is not None
    joint = propose(complete(child), [*child.record.members, member(20)])
    assert joint is not None
    assert follows(child, Layout(replace(joint.record, version=child.version + 1, parent=child.digest))) is not None


def test_of_too_many_former_clusters_the_last_are_known() -> None:
    layout = genesis(OLD, member(0))
    for number in range(20):
        layout = complete(forced(layout, ClusterId(bytes([number]) * 16), [], []))
    assert len(layout.record.former) == limits.FORMERS_MAX
    assert layout.record.former[-1] == Former(ClusterId(bytes([18]) * 16), layout.founded - 1)
    assert Layout.from_bytes(layout.data).record == layout.record


def hello(layout: Layout | None, sender: NodeId, receiver: NodeId) -> Hello:
    optional = told(layout, receiver) if layout is not None else {}
    cluster_id, version = (layout.cluster_id, layout.version) if layout is not None else (ClusterId(b""), 0)
    return Hello(1, 1, 0, LinkKind.CTL, Role.MEMBER, sender, 1, cluster_id, version, b"", "n", "", 0, (), optional)


def test_two_nodes_agree_what_they_are_to_each_other() -> None:
    at = {layout.version: layout for layout in grown()}
    end = next(layout for layout in grown() if len(layout.members) == 5 and not layout.is_joint)
    one, two, three, four, five = (each.node_id for each in end.record.members)
    second = complete(forced(end, NEW, [four, five], []))
    last = complete(forced(second, THIRD, [three], []))

    def both(own: Layout | None, me: NodeId, theirs: Layout | None, other: NodeId) -> tuple[Relation, Relation]:
        there, here = hello(theirs, other, me), hello(own, me, other)
        return relation(own, there, heard(there.optional)), relation(theirs, here, heard(here.optional))

    assert both(end, one, at[end.version - 1], two) == (Relation.OURS, Relation.OURS)
    assert both(end, one, None, two) == (Relation.OURS, Relation.OURS)
    for behind in (end, at[end.version - 2]):
        assert both(behind, two, second, one) == (Relation.HEIR, Relation.FOLLOWER)
        assert both(behind, two, last, one) == (Relation.HEIR, Relation.FOLLOWER)
        assert both(behind, four, second, one) == (Relation.SUCCESSOR, Relation.LEFT)
        assert both(behind, three, last, one) == (Relation.SUCCESSOR, Relation.LEFT)
    assert both(second, two, last, one) == (Relation.HEIR, Relation.FOLLOWER)
    assert both(at[end.version + 1], two, second, one) == (Relation.SUCCESSOR, Relation.LEFT)  # the old one has gone on as well
    assert both(second, one, complete(forced(end, THIRD, [five], [])), two) == (Relation.SIBLING, Relation.SIBLING)
    assert both(second, one, genesis(THIRD, member(20)), member(20).node_id) == (Relation.FOREIGN, Relation.FOREIGN)


def test_what_no_node_says_of_its_past_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        heard({"former": b"\x91\x90"})
