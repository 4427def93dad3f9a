"""Quotas, judged by what max-min fairness means: nobody could be given a slot that another one has too many of."""

from collections import defaultdict
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.hashing import plain_hash
from protocol.identity import NodeId
from protocol.quotas import PARTITIONS, Site, quotas

WEIGHTS = st.one_of(st.integers(1, 20), st.integers(1, 1 << 16))
SITES = st.lists(st.tuples(WEIGHTS, st.sampled_from(["", "", "east", "west", "north", "south", "up"])), min_size=1, max_size=40)


def sites(drawn) -> list[Site]:
    return [Site(NodeId(plain_hash(b"node %d" % index, 16)), weight, zone) for index, (weight, zone) in enumerate(drawn)]


def totals(members, quota) -> dict[str, int]:
    result: dict[str, int] = defaultdict(int)
    for member, slots in zip(members, quota, strict=True):
        result[member.zone] += slots
    return result


def judge(members, columns: int, quota, beside, width: int) -> None:
    """`width` columns in all, those beside among them."""
    assert sum(quota) == columns * PARTITIONS
    room = [PARTITIONS - slots for slots in beside]
    assert all(0 <= slots <= most for slots, most in zip(quota, room, strict=True))
    together = totals(members, [one + other for one, other in zip(quota, beside, strict=True)])
    zones = len(together)
    least, most = (PARTITIONS, (width - zones + 1) * PARTITIONS) if zones <= width else (0, PARTITIONS)
    assert all(least <= slots <= most for slots in together.values())
    everything = sum(member.weight for member in members)
    weights = [max(member.weight, everything / PARTITIONS) for member in members]
    for giver, taker in permutations(range(len(members)), 2):
        # One slot of rounding for the member and one for its zone.
        if (quota[giver] - 2) / weights[giver] > (quota[taker] + 2) / weights[taker]:
            one, other = members[giver].zone, members[taker].zone
            at_bounds = together[one] - 1 < least or together[other] + 1 > most
            assert quota[taker] == room[taker] or (one != other and at_bounds), "a slot could be shared more fairly"


@settings(max_examples=150, deadline=None)
@given(SITES, st.integers(1, 3))
def test_quotas_are_feasible_and_fair(drawn, replication):
    members = sites(drawn)
    homes, columns = min(replication, len(members)), min(2 * replication - 1, len(members))
    nothing = [0] * len(members)
    of_homes = quotas(members, homes, nothing, nothing)
    judge(members, homes, of_homes, nothing, homes)
    assert all(of_homes)
    if columns > homes:
        judge(members, columns - homes, quotas(members, columns - homes, nothing, of_homes), of_homes, columns)


@settings(max_examples=50, deadline=None)
@given(SITES, st.data())
def test_what_rounding_leaves_over_stays_where_it_is(drawn, data):
    members = sites(drawn)
    columns, nothing = min(3, len(members)), [0] * len(members)
    loads = [slots + data.draw(st.integers(-1, 1)) for slots in quotas(members, columns, nothing, nothing)]
    quota = quotas(members, columns, loads, nothing)
    assert quotas(members, columns, quota, nothing) == quota
