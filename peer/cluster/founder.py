"""Deciding the layout, simple form: the founder of the cluster, its first voter, alone, and nobody while it is away.

Owns when a newcomer is admitted, when a joint layout completes and when it is taken back. A later version replaces this
module by agreement among voters; its interface (`take_report` and `run`, held by `peer.node` as `decider`) is small for that
reason: it is told of sync reports and of the world, and it hands finished records to `Layouts.adopt`, which persists before anything acts.
"""

import asyncio
from collections.abc import Callable, Sequence

from peer.cluster.layouts import Layouts
from peer.cluster.liveness import Liveness
from peer.config import (
    ABORT_JOINT_SECONDS,
    ADMIT_QUICK_SECONDS,
    ADMIT_SECONDS,
    COMPLETE_ANYHOW_SECONDS,
    COMPLETE_WITHOUT_SECONDS,
)
from peer.seams import Compute
from protocol import limits
from protocol.identity import NodeId
from protocol.layout import Layout, Member, abort, complete, propose, weight_of
from protocol.messages import Hello, Role

DECIDE_SECONDS = 0.25
"""How often the founder looks at the world."""


class Founder:
    """Decides the next layout when this node is the founder; does nothing otherwise."""

    def __init__(
        self, node_id: NodeId, layouts: Layouts, liveness: Liveness, is_empty: Callable[[], bool], compute: Compute
    ) -> None:
        self._node_id = node_id
        self._compute = compute
        self._layouts = layouts
        self._liveness = liveness
        self._is_empty = is_empty
        self._reports: dict[NodeId, frozenset[int]] = {}
        self._reported_version = 0
        self._joint_since = 0.0

    @property
    def deciding(self) -> bool:
        """Whether this node is the one that decides."""
        layout = self._layouts.current
        return layout is not None and layout.record.voters[0] == self._node_id

    def take_report(self, reporter: NodeId, version: int, partitions: Sequence[int]) -> None:
        """Note that `reporter` has synced `partitions` of joint layout `version`. Old reports are ignored."""
        layout = self._layouts.current
        if layout is None or version != layout.version:
            return
        if self._reported_version != version:
            self._reports.clear()
            self._reported_version = version
        self._reports[reporter] = self._reports.get(reporter, frozenset()) | frozenset(partitions)

    async def run(self) -> None:
        """Decide, until cancelled."""
        joint_version = 0
        while True:
            await asyncio.sleep(DECIDE_SECONDS)
            layout = self._layouts.current
            if layout is None or not self.deciding:
                continue
            if layout.is_joint:
                if joint_version != layout.version:
                    joint_version, self._joint_since = layout.version, self._now()
                successor = self._finish(layout)
            else:
                successor = await self._extend(layout)
            if successor is not None:
                await self._layouts.adopt(successor)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _finish(self, layout: Layout) -> Layout | None:
        reports = self._reports if self._reported_version == layout.version else {}
        everywhere, majority = True, True
        missing: set[NodeId] = set()
        for partition in layout.joint_partitions:
            owners = layout.new_set(partition) or ()
            without = [owner for owner in owners if partition not in reports.get(owner, ())]
            if without:
                everywhere = False
                missing.update(without)
            if len(owners) - len(without) < len(owners) // 2 + 1:
                majority = False
        if everywhere:
            return complete(layout)
        now = self._now()
        away = min((self._liveness.away_seconds(owner) for owner in sorted(missing)), default=0.0)
        if majority and (away >= COMPLETE_WITHOUT_SECONDS or now - self._joint_since >= COMPLETE_ANYHOW_SECONDS):
            return complete(layout)
        someone_away = any(self._liveness.away_seconds(owner) >= ABORT_JOINT_SECONDS for owner in sorted(missing))
        if not majority and someone_away and now - self._joint_since >= ABORT_JOINT_SECONDS:
            return abort(layout)
        return None

    async def _extend(self, layout: Layout) -> Layout | None:
        quick = len(layout.members) < layout.record.replication or self._is_empty()
        pace = ADMIT_QUICK_SECONDS if quick else ADMIT_SECONDS
        members = dict(layout.members)
        changed = False
        for peer in self._liveness.alive_peers():
            if peer.role is not Role.MEMBER or peer.cluster_id not in (b"", layout.cluster_id):
                continue
            if self._liveness.alive_seconds(peer.node_id) < pace:
                continue
            known = members.get(peer.node_id)
            if known is None and len(members) >= limits.MEMBERS_MAX:
                continue
            fresh = _member_of(peer, known)
            if fresh != known:
                members[peer.node_id] = fresh
                changed = True
        if not changed:
            return None
        wanted = [members[node_id] for node_id in sorted(members)]
        return await self._compute.run(lambda: propose(layout, wanted))  # seconds, when a hundred arrive at once


def _member_of(peer: Hello, known: Member | None) -> Member:
    # A weight that follows every change of free space would move data for nothing: it stays as it was at the join.
    weight = known.weight if known is not None else weight_of(peer.capacity_bytes)
    return Member(peer.node_id, peer.name, peer.zone, weight, peer.addresses)
