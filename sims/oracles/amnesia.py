"""Judge of what a machine says about rows that it has lost."""

import asyncio

from peer.errors import LinkLost, RequestFailed, Unavailable
from peer.session import Session
from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.messages import RowFetch, RowIs
from protocol.paths import row_partition
from sims.history import OK, History, Write
from sims.oracles.base import Oracle
from sims.oracles.disks import latest_layout
from sims.oracles.durability import knows
from sims.plan import Plan
from sims.world import Machine, World

ASK_SECONDS = 1.0
ASKED_AT_ONCE = 5
PAUSE_SECONDS = 0.05
"""Rows are here again within tenths of a second."""


class LostRowsDoNotVote(Oracle):
    """I20: who has lost its rows votes on none of them before it knows all that had been acknowledged."""

    def begin(self, world: World, plan: Plan, history: History) -> None:
        """Hear of every loss."""
        super().begin(world, plan, history)
        self._watches: list[asyncio.Task[None]] = []
        world.on_rows_lost = self._lost

    def tick(self) -> None:
        """Hear what was seen."""
        for watch in self._watches:
            if watch.done():
                watch.result()

    async def finish(self) -> None:
        """Hear it for the last time."""
        self.tick()
        for watch in self._watches:
            watch.cancel()

    def _lost(self, machine: Machine, node_id: NodeId) -> None:
        work = self._watch(f"watch{len(self._watches)}#1", machine, node_id)
        self._watches.append(asyncio.get_running_loop().create_task(work))

    async def _watch(self, host: str, machine: Machine, node_id: NodeId) -> None:
        """Ask for the row of each write that was acknowledged before the loss, until there is a first vote on it."""
        before = latest_layout([machine])
        session: Session | None = None
        due = [write for write in self.history.writes if write.outcome == OK and write.version]
        while due:
            await asyncio.sleep(PAUSE_SECONDS)
            if machine.node is None:
                continue
            if machine.node.node_id != node_id:
                return
            layout = latest_layout([machine])
            due = [write for write in due if self._is_replica(node_id, write, before, layout)]
            try:
                session = session or await self.world.session(host, machine.name)
            except Unavailable:
                continue
            asked, due = due[:ASKED_AT_ONCE], due[ASKED_AT_ONCE:]
            for write in asked:
                if not await self._has_voted(host, session, machine, node_id, layout, write):
                    due.append(write)

    def _is_replica(self, node_id: NodeId, write: Write, before: Layout, layout: Layout) -> bool:
        """Return whether a node has been a replica of a row all the time: of a newcomer nothing is expected."""
        partition = row_partition(write.path)
        return node_id in before.old_set(partition) and layout.replica_sets(partition) == before.replica_sets(partition)

    async def _has_voted(
        self, host: str, session: Session, machine: Machine, node_id: NodeId, layout: Layout, write: Write
    ) -> bool:
        partition = row_partition(write.path)

        async def ask() -> RowIs:
            message = RowFetch(int(ASK_SECONDS * 1000), partition, layout.cfg(partition), write.path, full=True)
            reply = await session.request(node_id, message, timeout_seconds=ASK_SECONDS)
            assert isinstance(reply.message, RowIs)
            return reply.message

        try:
            vote = await self.world.on(host, ask)
        except (LinkLost, RequestFailed, TimeoutError):
            return False
        if not vote.rows or not knows(vote.rows[0], write.version, is_removal=False):
            text = f"{machine.name} has lost its rows, and votes on {write.path} without version {write.version}, acknowledged before"
            raise self.violated("I20", text)
        return True
