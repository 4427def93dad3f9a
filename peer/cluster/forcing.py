"""Going on by force: where a majority is gone for good, a person has those who are left begin another cluster with what they have.

Nothing is agreed on here, for too few are left to agree: one node makes the first layout of the new cluster its own, durably, and all
its links end. The hellos that follow say where that cluster comes from, and every member that meets it goes over by itself, whether it was
there or not, each by a single commit (`Layouts.follow`). So a crash leaves a node in one of the two, and the same request may be
repeated wherever nothing has come of it. Two nodes that are forced at the same time begin two clusters: each is foreign to the other, and
says so (`peer.cluster.foreign`).

Nobody leaves a cluster that goes on as it is: that is asked of who begins as well as of who follows (`protocol.eviction.goes_on`).

Owns when it may be done and what it costs. Knows nothing of how it is followed.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from peer.cluster.detector import Detector
from peer.cluster.layouts import Layouts, Peers
from peer.errors import LinkLost, Refused, RequestFailed, Unavailable
from peer.seams import Compute, Entropy
from protocol.errors import ErrorCode
from protocol.eviction import goes_on, losses, names_of
from protocol.identity import CLUSTER_ID_BYTES, ClusterId, NodeId
from protocol.layout import Layout, Member, forced
from protocol.messages import Status, StatusGet

ASK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What would come of it."""

    layout: Layout | None
    """The first one of the new cluster; None when there is nothing to do."""
    short: int
    """Partitions that have no majority of their owners left, and (below) those of them that have none, and those that have no home left."""
    lost: int
    homeless: int


class Forcing:
    """What one node may do where the majority is gone."""

    def __init__(
        self,
        node_id: NodeId,
        layouts: Layouts,
        detector: Detector,
        peers: Peers,
        is_with_us: Callable[[NodeId], bool],
        entropy: Entropy,
        compute: Compute,
    ) -> None:
        """`is_with_us` says who is there and of the same cluster."""
        self._node_id = node_id
        self._layouts = layouts
        self._detector = detector
        self._peers = peers
        self._is_with_us = is_with_us
        self._entropy = entropy
        self._compute = compute

    async def plan(self, named: Collection[NodeId]) -> Plan:
        """Return what comes of going on without the members `named`.

        Raises: Refused (NO_CLUSTER; INVALID: one of them is there, or nothing has to be forced; UNAVAILABLE: the others cannot go on
        either, or one of them does not answer).
        """
        layout = self._layouts.current
        if layout is None:
            raise Refused(ErrorCode.NO_CLUSTER, "this node belongs to no cluster yet")
        gone = [node_id for node_id in layout.members if node_id in named]
        if not gone:
            return Plan(None, 0, 0, 0)
        here = [layout.members[node_id] for node_id in gone if self._detector.is_alive(node_id)]
        if here:
            are = "is there, or was a moment ago" if len(here) == 1 else "are there, or were a moment ago"
            raise Refused(ErrorCode.INVALID, f"{names_of(here)} {are}: nobody who is can be given up")
        if goes_on(layout, self._is_with_us):
            raise Refused(ErrorCode.INVALID, "a majority is there: `shoal forget` without --force leaves out who is dead")
        there = [member for member in layout.record.members if self._is_with_us(member.node_id)]
        await self._ask(layout, there)
        cluster_id = ClusterId(self._entropy.token("cluster id", CLUSTER_ID_BYTES))
        wanted = await self._compute.run(lambda: forced(layout, cluster_id, gone, [member.node_id for member in there]))
        if not goes_on(wanted, self._is_with_us):
            away = [member for member in wanted.record.members if not self._is_with_us(member.node_id)]
            fault = f"with {names_of(away)} away the others cannot go on either: wait for them, or name them as well"
            raise Refused(ErrorCode.UNAVAILABLE, fault)
        return Plan(wanted, *await self._compute.run(lambda: losses(layout, gone)))

    async def _ask(self, layout: Layout, members: Collection[Member]) -> None:
        """Make sure that nobody who is there knows a newer layout, or has gone over to another cluster.

        Raises: Refused (UNAVAILABLE).
        """
        others = [member for member in members if member.node_id != self._node_id]
        for member, status in zip(others, await asyncio.gather(*(self._status(member) for member in others)), strict=True):
            if status.cluster_id != layout.cluster_id:
                raise Refused(ErrorCode.UNAVAILABLE, f"{member.name} is of another cluster by now: see its `shoal status`")
            if status.layout_version > layout.version:
                try:
                    await self._layouts.catch_up(status.layout_version)
                except Unavailable as error:
                    raise Refused(ErrorCode.UNAVAILABLE, str(error)) from None
        if self._layouts.current is not layout:
            raise Refused(ErrorCode.UNAVAILABLE, "the layout has changed this moment: try again")

    async def _status(self, member: Member) -> Status:
        try:
            reply = await self._peers.request(member.node_id, StatusGet(int(ASK_SECONDS * 1000)), timeout_seconds=ASK_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError):
            raise Refused(ErrorCode.UNAVAILABLE, f"{member.name} was there a moment ago and does not answer: try again") from None
        assert isinstance(reply.message, Status)
        return reply.message
