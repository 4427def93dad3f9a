"""This node's vote on the next layout: persisted before it is given.

Owns the order in which ballots are judged and that what a vote promises is durable first. The judging is `protocol.paxos`; which
layouts there should be is for those who propose (`peer.cluster.decider`).
"""

import asyncio

from peer.cluster.layouts import Layouts
from peer.errors import Refused
from peer.store.system import SystemStore
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.identity import NodeId
from protocol.messages import LayoutVote
from protocol.paxos import LayoutRequest, judge


class Voter:
    """The acceptor of one node."""

    def __init__(self, system: SystemStore, layouts: Layouts) -> None:
        self._system = system
        self._layouts = layouts
        self._one_at_a_time = asyncio.Lock()

    async def vote(self, asker: NodeId, request: LayoutRequest) -> LayoutVote:
        """Return the vote on a ballot of `asker`. What it promises is durable.

        Raises: Refused (NO_CLUSTER, INVALID), StorageFailed.
        """
        if request.ballot.node_id != asker:
            raise Refused(ErrorCode.INVALID, "the ballot is not that of the member who asks")
        async with self._one_at_a_time:
            latest = self._layouts.current
            if latest is None:
                raise Refused(ErrorCode.NO_CLUSTER, "this node belongs to no cluster yet")
            decided = await self._system.layout(request.version) if request.version <= latest.version else b""
            if decided is None:
                raise Refused(ErrorCode.INVALID, "that is older than this cluster")
            try:
                state, vote = judge(self._system.acceptor, latest, decided, request)
            except RemoteProtocolError as error:
                raise Refused(ErrorCode.INVALID, str(error)) from None
            if state is not None:
                await self._system.save_acceptor(state)
            return vote
