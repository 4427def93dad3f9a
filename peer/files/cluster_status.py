"""The cluster as seen by one who asks every member now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from peer.files.access import TRY_SECONDS, Access, milliseconds
from peer.files.quorum import collect
from protocol.identity import NodeId
from protocol.messages import MemberState, PeerInfo, Peers, PeersGet, Status, StatusGet

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
    """One member, as seen now."""

    name: str
    node_id: NodeId
    address: str
    state: str
    """`alive`, `suspect`, `dead`, `leaving` or `left`, as the member says that thinks best of it; `joining` while it is no member yet."""
    zone: str
    weight: int
    status: Status | None
    """What it says of itself, if it answered."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster, as seen now."""

    cluster_id: bytes
    layout_version: int
    moving_partitions: int
    members: tuple[MemberStatus, ...]
    copies_wanted: int
    copies_needed: int


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
    seen: dict[NodeId, MemberState] = dict.fromkeys(answers, MemberState.ALIVE)
    for peer in (peer for status in answers.values() for peer in status.peers):
        seen[peer.node_id] = min(peer.state, seen.get(peer.node_id, peer.state))
    newcomers = [node for node, state in seen.items() if node not in layout.members and state < MemberState.DEAD]
    members = [
        MemberStatus(info.name, info.node_id, next(iter(info.addresses), ""), "joining", "", 0, None)
        for info in await _ask_who(access, list(answers), newcomers)
    ]
    for node_id, member in layout.members.items():
        status = answers.get(node_id)
        address = next(iter([*access.addresses_of(node_id), *member.addresses]), "")
        state = _STATES[seen.get(node_id, MemberState.DEAD)]
        members.append(MemberStatus(member.name, node_id, address, state, member.zone, member.weight, status))
    members.sort(key=lambda member: (member.name, member.node_id))
    return ClusterStatus(
        layout.cluster_id,
        layout.version,
        len(layout.joint_partitions),
        tuple(members),
        layout.copies_wanted,
        layout.copies_needed,
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
