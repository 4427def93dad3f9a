"""Who is left out of the layout because he is away, when nobody is, and whether the others could go on without somebody.

Leaving a member out makes its copies anew elsewhere: that moves data, so it is slow and guarded. Where many are away at once it is more
likely the network, or this node, that failed: then nobody is left out, and a person has to look. It needs a majority of the voters like
every step of the layout, so a minority leaves nobody out, whatever it believes.

Pure: no time but what is handed in. Used by `peer.cluster.decider`, which proposes, and by whoever shows what is to come.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from protocol import limits
from protocol.identity import NodeId
from protocol.layout import Layout, Member
from protocol.messages import MemberState

TOGETHER: Final = 0.9
"""Who has been away for so much of the time is left out along with who has been for all of it: one move, not one for each."""
AWAY_SHARE: Final = 4
"""Of so many members one may be away."""


def evicted(away_seconds: Mapping[NodeId, float], members: int, replication: int, after_seconds: float) -> frozenset[NodeId]:
    """Return whom to leave out of `members` members, of whom those in `away_seconds` are held dead, each for so long."""
    longest = max(away_seconds.values(), default=0.0)
    if not away_seconds or longest < after_seconds or hold_reason(len(away_seconds), members, replication):
        return frozenset()
    return frozenset(node_id for node_id, seconds in away_seconds.items() if seconds >= TOGETHER * after_seconds)


def hold_reason(away: int, members: int, replication: int) -> str:
    """Return why nobody is left out of `members` members while `away` of them are away; empty when nothing speaks against it."""
    most = max(replication - 1, members // AWAY_SHARE)
    if away > most:
        return f"more than {most} members are away"
    if members - away < replication:
        return f"fewer than {replication} members would remain"
    return ""


def obstacle(layout: Layout, leaver: NodeId, state: Callable[[NodeId], MemberState]) -> str:
    """Return why the others cannot decide on a layout without member `leaver`, or not go on in it; empty when nothing is in the way."""

    def away(members: Sequence[Member]) -> list[Member]:
        return [member for member in members if state(member.node_id) >= MemberState.DEAD]

    name = layout.members[leaver].name
    others = [member for member in layout.record.members if member.node_id != leaver]
    staying = [member for member in others if state(member.node_id) is not MemberState.DRAINING]
    if not staying:
        return f"{name} is the only member that stays: what it holds has nowhere to go"
    voters = [layout.members[node_id] for node_id in layout.record.voters]
    if 2 * len(away(voters)) >= len(voters):
        return f"without {names_of(away(voters))} no majority decides on it: wait until they are back"
    gone = {member.node_id for member in away(layout.record.members)}
    if any(leaver in owners and 2 * len(gone.intersection(owners)) >= len(owners) for owners in dict.fromkeys(layout.old_rows)):
        return f"with {names_of(away(others))} away nobody can take over what {name} has: wait until they are back"
    owners = min(2 * layout.record.replication - 1, len(staying))
    if len(away(staying)) >= (owners + 1) // 2:
        return f"with {names_of(away(staying))} away the others cannot go on without {name}: wait until they are back"
    return ""


def goes_on(layout: Layout, is_there: Callable[[NodeId], bool]) -> bool:
    """Return whether those who are there can decide on the next layout and read every partition: then nobody need be given up by force."""

    def majority(nodes: Sequence[NodeId]) -> bool:
        return 2 * sum(map(is_there, nodes)) > len(nodes)

    return majority(layout.record.voters) and all(map(majority, dict.fromkeys(layout.old_rows)))


def losses(layout: Layout, gone: Collection[NodeId]) -> tuple[int, int, int]:
    """Return how many partitions have no majority of their owners left without `gone`, how many of them no owner at all, and how many
    no home, so that chunks which lay at their homes are lost.
    """
    left = [[[owner for owner in owners if owner not in gone] for owners in layout.replica_sets(p)] for p in range(limits.PARTITIONS)]
    short = sum(
        any(2 * len(some) <= len(owners) for some, owners in zip(sets, layout.replica_sets(p), strict=True)) for p, sets in enumerate(left)
    )
    copies = layout.record.replication
    homeless = sum(
        all(home in gone for owners in layout.replica_sets(p) for home in owners[:copies]) for p in range(limits.PARTITIONS)
    )
    return short, sum(not any(sets) for sets in left), homeless


def names_of(members: Sequence[Member]) -> str:
    """Return the names of some members, for people, in order."""
    return ", ".join(sorted(member.name for member in members))
