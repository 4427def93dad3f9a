"""The cluster as seen by one who asks every member now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from peer.config import EVICT_SECONDS
from peer.files.access import TRY_SECONDS, Access, milliseconds
from peer.files.quorum import collect
from protocol.eviction import hold_reason
from protocol.identity import NodeId
from protocol.layout import Former, Layout, sources_needed
from protocol.messages import MemberState, PeerInfo, Peers, PeersGet, PeerStatus, Status, StatusGet

_STATES: Final = {
    MemberState.ALIVE: "alive",
    MemberState.DRAINING: "leaving",
    MemberState.SUSPECT: "suspect",
    MemberState.REFUSED: "suspect",
    MemberState.DEAD: "dead",
    MemberState.LEFT: "left",
}


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member, as seen now, or a node that is none yet or no more."""

    name: str
    node_id: NodeId
    address: str
    state: str
    """`alive`, `suspect`, `dead`, `leaving` or `left`, as the member says that thinks best of it; `joining` while it is no member yet,
    `recovering` while one that is alive fetches rows that it has lost.
    """
    zone: str
    weight: int
    """0 for one that is no member."""
    status: Status | None
    """What it says of itself, if it answered."""
    away_seconds: int = 0
    """For how long it has been held dead, as the member says that has known it for longest."""

    @property
    def is_member(self) -> bool:
        """Whether the layout names it."""
        return self.weight > 0


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster, as seen now."""

    cluster_id: bytes
    layout_version: int
    moving_partitions: int
    members: tuple[MemberStatus, ...]
    copies_wanted: int
    copies_needed: int
    entering: tuple[str, ...] = ()
    """Names of the members that the move under way makes owners."""
    departing: tuple[str, ...] = ()
    """Names of the members that own nothing any more once it has ended."""
    evict_seconds: float = EVICT_SECONDS
    """A member that has been dead for so long is left out."""
    eviction_hold: str = ""
    """Why nobody is left out, however long; empty when nothing speaks against it."""
    recovery_sources: int = 0
    """So many other members with their rows does a member need that has lost its own."""
    former: tuple[Former, ...] = ()
    """The clusters that this one goes on from by force, the last one last."""


async def cluster_status(access: Access) -> ClusterStatus:
    """Ask every member how it is.

    Raises: nothing for members that do not answer: their state says so.
    """
    layout = access.layout
    answers = await _ask(access, tuple(layout.members))
    newest = max((status.layout_version for status in answers.values()), default=0)
    if newest > layout.version:
        await access.catch_up(newest)
        layout = access.layout
        answers |= await _ask(access, [node for node in layout.members if node not in answers])
    views: dict[NodeId, list[PeerStatus]] = {node: [PeerStatus(node, MemberState.ALIVE, 0)] for node in answers}
    for view in (view for status in answers.values() for view in status.peers):
        views.setdefault(view.node_id, []).append(view)
    states = {node: _best_state(view.state for view in views.get(node, ())) for node in (*layout.members, *views)}
    others = [node for node, state in states.items() if node not in layout.members and state < MemberState.DEAD]
    members = [
        MemberStatus(
            info.name,
            info.node_id,
            next(iter(info.addresses), ""),
            "leaving" if states[info.node_id] is MemberState.DRAINING else "joining",
            "",
            0,
            answers.get(info.node_id),
        )
        for info in await _ask_who(access, list(answers), others)
    ]
    for node_id, member in layout.members.items():
        address = next(iter([*access.addresses_of(node_id), *member.addresses]), "")
        state = states[node_id]
        own = answers.get(node_id)
        recovers = state is MemberState.ALIVE and own is not None and own.lost_partitions > 0
        away = max((view.away_seconds for view in views.get(node_id, ())), default=0) if state >= MemberState.DEAD else 0
        members.append(
            MemberStatus(
                member.name, node_id, address, "recovering" if recovers else _STATES[state], member.zone, member.weight, own, away
            )
        )
    members.sort(key=lambda member: (member.name, member.node_id))
    entering, departing = _changing(layout)
    dead = sum(states[node_id] >= MemberState.DEAD for node_id in layout.members)
    return ClusterStatus(
        layout.cluster_id,
        layout.version,
        len(layout.joint_partitions),
        tuple(members),
        layout.copies_wanted,
        layout.copies_needed,
        entering,
        departing,
        min((status.evict_seconds for status in answers.values()), default=EVICT_SECONDS),
        hold_reason(dead, len(layout.members), layout.record.replication),
        sources_needed(layout.record.old_columns),
        layout.record.former,
    )


def _best_state(states: Iterable[MemberState]) -> MemberState:
    """Return what the one says that thinks best of a node; who has heard that it leaves knows more than who has not."""
    seen = set(states)
    best = min(seen, default=MemberState.DEAD)
    return MemberState.DRAINING if best is MemberState.ALIVE and MemberState.DRAINING in seen else best


def _changing(layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the members that a joint layout lets in, and of those that it leaves out."""
    old = {owner for row in layout.old_rows for owner in row}
    new = {owner for row in layout.wanted_rows for owner in row}
    members = layout.record.members
    return (
        tuple(member.name for member in members if member.node_id not in old),
        tuple(member.name for member in members if member.node_id not in new),
    )


async def _ask_who(access: Access, members: Sequence[NodeId], newcomers: Sequence[NodeId]) -> list[PeerInfo]:
    """Ask those `members` until each of `newcomers` has a name; return whoever has one."""
    if not newcomers:
        return []
    message = PeersGet(milliseconds(TRY_SECONDS))

    async def ask(node: NodeId) -> dict[NodeId, PeerInfo]:
        reply = await access.request(node, message, timeout_seconds=TRY_SECONDS)
        assert isinstance(reply.message, Peers)
        return {info.node_id: info for info in reply.message.peers if info.node_id in newcomers}

    def enough(done: Mapping[NodeId, Mapping[NodeId, PeerInfo]]) -> bool:
        return all(any(newcomer in named for named in done.values()) for newcomer in newcomers)

    answers, _ = await collect(members, ask, enough, TRY_SECONDS, at_first=1)
    named = {node: info for answer in answers.values() for node, info in answer.items()}
    return list(named.values())


async def _ask(access: Access, nodes: Sequence[NodeId]) -> dict[NodeId, Status]:
    message = StatusGet(milliseconds(TRY_SECONDS))

    async def ask(node: NodeId) -> Status:
        reply = await access.request(node, message, timeout_seconds=TRY_SECONDS)
        assert isinstance(reply.message, Status)
        return reply.message

    answers, _ = await collect(nodes, ask, lambda done: len(done) == len(nodes), TRY_SECONDS)
    return answers
