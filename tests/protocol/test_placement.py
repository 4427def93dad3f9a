"""The table: bounded loads, least movement, no owner twice."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.hashing import plain_hash
from protocol.identity import NodeId
from protocol.placement import PARTITIONS, Site, Table, next_table, preference, quotas

R = 3


def sites(weights, zones=("",)) -> list[Site]:
    return [
        Site(NodeId(plain_hash(b"node %d" % index, 16)), weight, zones[index % len(zones)])
        for index, weight in enumerate(weights)
    ]


def shape(count: int) -> tuple[int, int]:
    return min(R, count), min(2 * R - 1, count)


def table_for(members, old=()) -> Table:
    return next_table(old, members, *shape(len(members)))


def loads(table: Table, members, first: int, end: int) -> dict[NodeId, int]:
    result = {site.node_id: 0 for site in members}
    for row in table:
        for owner in row[first:end]:
            result[owner] += 1
    return result


def moved(old: Table, new: Table, columns: int | None = None) -> int:
    return sum(len(set(after[:columns]) - set(before[:columns])) for before, after in zip(old, new, strict=True))


def feasible(members, slots: int, most) -> dict[NodeId, float]:
    """Exact shares by weight with nobody above `most`: what an ideal table would give, fractions allowed."""
    shares: dict[NodeId, float] = {}
    left, open_sites = float(slots), list(members)
    while open_sites:
        weight = sum(site.weight for site in open_sites)
        full = [site for site in open_sites if left * site.weight / weight >= most[site.node_id]]
        if not full:
            return shares | {site.node_id: left * site.weight / weight for site in open_sites}
        for site in full:
            shares[site.node_id] = most[site.node_id]
            left -= most[site.node_id]
            open_sites.remove(site)
    return shares


def check(table: Table, members) -> None:
    """Every rule that holds for any table."""
    homes, columns = shape(len(members))
    assert len(table) == PARTITIONS
    assert all(len(set(row)) == len(row) == columns for row in table)
    most = {site.node_id: PARTITIONS for site in members}
    for first, end in ((0, homes), (homes, columns)):
        if first == end:
            continue
        load = loads(table, members, first, end)
        shares = feasible(members, (end - first) * PARTITIONS, most)
        for node_id, count in load.items():
            # A slot is whole: one more than the exact share is the least that rounding needs.
            assert count <= max(1.02 * shares[node_id], shares[node_id] + 1)
            most[node_id] -= count


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 4]), min_size=3, max_size=100))
def test_no_owner_exceeds_its_feasible_share_by_more_than_two_percent(weights):
    members = sites(weights)
    check(table_for(members), members)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 10, 30, 100])
def test_equal_nodes_have_equal_loads(count):
    members = sites([1] * count)
    table = table_for(members)
    check(table, members)
    homes, columns = shape(count)
    for first, end in ((0, homes), (homes, columns)):
        if first < end:
            load = loads(table, members, first, end).values()
            assert max(load) - min(load) <= 1


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 4]), min_size=5, max_size=60))
def test_a_join_moves_little_more_than_the_newcomers_share(weights):
    members = sites(weights)
    before, newcomer = members[:-1], members[-1].node_id
    old = settled(before)
    new = table_for(members, old)
    share = sum(newcomer in row for row in new)
    home_share = sum(newcomer in row[:R] for row in new)
    # Beside the newcomer's share, what rounding shifts between the others: at most a slot each and group.
    assert moved(old, new) <= 1.05 * share + 2 * len(members)
    assert moved(old, new, R) <= 1.05 * home_share + 2 * len(members)
    check(new, members)


def settled(members) -> Table:
    """The table that remains when nothing is worth moving any more."""
    table = table_for(members)
    for _ in range(10):
        again = table_for(members, table)
        if again == table:
            return table
        table = again
    raise AssertionError("the table does not settle")


def test_equal_nodes_join_with_exactly_the_ideal_movement():
    members = sites([1] * 30)
    table = table_for(members[:3])
    for count in range(4, 31):
        new = table_for(members[:count], table)
        newcomer = members[count - 1].node_id
        assert moved(table, new) <= 1.05 * sum(newcomer in row for row in new)
        table = new
        check(table, members[:count])


def test_replicas_grow_and_shrink_with_the_cluster():
    members = sites([1] * 6)
    table: Table = []
    for count in (1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1):
        table = table_for(members[:count], table)
        assert {len(row) for row in table} == {shape(count)[1]}


def test_a_partition_loses_one_owner_at_a_time_unless_nodes_are_gone():
    members = sites([1] * 12)
    table = table_for(members[:10])
    new = table_for(members[:11], table)
    assert max(len(set(before) - set(after)) for before, after in zip(table, new, strict=True)) == 1


def test_a_removed_node_owns_nothing_and_only_its_slots_move():
    members = sites([1] * 10)
    table = table_for(members)
    gone = members[3].node_id
    new = table_for([site for site in members if site.node_id != gone], table)
    assert all(gone not in row for row in new)
    lost = sum(gone in row for row in table)
    assert moved(table, new) <= 1.05 * lost


def test_nothing_moves_when_nothing_changes():
    members = sites([1, 2, 4] * 4)
    table = settled(members)
    assert table_for(members, table) == table


def test_sixty_joins_and_leaves_stay_near_the_ideal():
    choice = random.Random(5)
    pool = sites([1] * 60)
    members = pool[:20]
    table = table_for(members)
    total = ideal = 0
    for _ in range(60):
        outside = [site for site in pool if site not in members]
        if choice.random() < 0.5 and len(members) > 10:
            gone = choice.choice(members)
            ideal += sum(gone.node_id in row for row in table)
            members = [site for site in members if site is not gone]
        else:
            members = [*members, choice.choice(outside)]
            ideal += 5 * PARTITIONS // len(members)
        new = table_for(members, table)
        total += moved(table, new)
        table = new
        check(table, members)
    assert total <= 1.05 * ideal


def test_owners_are_spread_over_zones():
    members = sites([1] * 9, ("east", "west", "north"))
    zone_of = {site.node_id: site.zone for site in members}
    spread = [len({zone_of[owner] for owner in row[:R]}) for row in table_for(members)]
    assert sum(count == 3 for count in spread) > 0.95 * PARTITIONS


def test_quotas_add_up_and_are_shares_rounded():
    members = sites([1, 2, 4])
    most = {site.node_id: PARTITIONS for site in members}
    result = quotas(members, 2 * PARTITIONS, most, dict.fromkeys(most, 0))
    assert sum(result.values()) == 2 * PARTITIONS
    assert result[members[2].node_id] == PARTITIONS


def test_preference_names_everybody_once_and_follows_weight():
    members = sites([1, 1, 1, 50])
    first = [preference(partition, members)[0] for partition in range(400)]
    assert sorted(preference(7, members)) == sorted(site.node_id for site in members)
    assert first.count(members[3].node_id) > 300
