"""The cluster as seen by one who asks every member now."""

from collections.abc import Sequence
from dataclasses import dataclass

from peer.files.access import TRY_SECONDS, Access, milliseconds
from peer.files.quorum import collect
from protocol.identity import NodeId
from protocol.messages import Status, StatusGet


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member, as seen now."""

    name: str
    node_id: NodeId
    address: str
    state: str
    """`alive` or `dead`; `joining` while it is not a member yet."""
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
    seen = {peer.node_id for status in answers.values() for peer in status.peers if peer.alive}
    newest = max((status.layout_version for status in answers.values()), default=0)
    if newest > layout.version:
        await access.catch_up(newest)
        layout = access.layout
        answers |= await _ask(access, [node for node in layout.members if node not in answers])
    members = []
    for node_id, member in layout.members.items():
        status = answers.get(node_id)
        alive = status is not None or node_id in seen
        address = next(iter([*access.addresses_of(node_id), *member.addresses]), "")
        state = "alive" if alive else "dead"
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


async def _ask(access: Access, nodes: Sequence[NodeId]) -> dict[NodeId, Status]:
    message = StatusGet(milliseconds(TRY_SECONDS))

    async def ask(node: NodeId) -> Status:
        reply = await access.request(node, message, timeout_seconds=TRY_SECONDS)
        assert isinstance(reply.message, Status)
        return reply.message

    answers, _ = await collect(nodes, ask, lambda done: len(done) == len(nodes), TRY_SECONDS)
    return answers
