"""Leaving the cluster in good order: nothing that this node holds is needed any more when it stops.

The wish is durable before it is answered, and told by gossip: the voters leave out whoever drains (`peer.cluster.decider`). Until then, and
until the move has ended, the node serves like any member. Once a layout without moves is in force that does not name it, its partitions
are synced elsewhere, it takes no more chunks, and the sweep drops each chunk that all homes have confirmed. When nothing is left it notes
that it has left, says so, and is to be stopped. Killed before, it goes on when it is started again.

Owns when this node may leave, how far it is, and when it has left. Moves nothing itself.
"""

import asyncio
from collections.abc import Callable

from peer.care.sweep import Sweep
from peer.cluster.detector import Detector
from peer.cluster.layouts import Layouts
from peer.errors import Refused
from peer.files.chunk_service import ChunkService
from peer.store.chunks import ChunkStore
from peer.store.rows import RowStore
from peer.store.system import Leave, SystemStore
from protocol.errors import ErrorCode
from protocol.eviction import names_of, obstacle
from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.messages import Leaving

LOOK_SECONDS = 0.5
SWEEP_AGAIN_SECONDS = 5.0
"""Pause between sweeps while something is left, when nothing else starts one."""
FAREWELL_SECONDS = 2.0
"""For so long a node that has left goes on: gossip has to pass, and whoever watches has to see it."""


class Leaver:
    """The leave of one node."""

    def __init__(
        self,
        node_id: NodeId,
        layouts: Layouts,
        detector: Detector,
        system: SystemStore,
        rows: RowStore,
        chunks: ChunkStore,
        chunk_service: ChunkService,
        sweep: Sweep,
    ) -> None:
        self._node_id = node_id
        self._layouts = layouts
        self._detector = detector
        self._system = system
        self._rows = rows
        self._chunks = chunks
        self._chunk_service = chunk_service
        self._sweep = sweep
        self._wanted = asyncio.Event()

    async def ask(self) -> Leaving:
        """Begin to leave, if that has not begun, and say how far it is.

        Raises: Refused (NO_CLUSTER, UNAVAILABLE: the others could not go on without this node).
        """
        layout = self._layouts.current
        if layout is None:
            raise Refused(ErrorCode.NO_CLUSTER, "this node belongs to no cluster yet: there is nothing to leave")
        obstacle = self._obstacle(layout)
        if self._system.leave is Leave.NO:
            if obstacle:
                raise Refused(ErrorCode.UNAVAILABLE, obstacle)
            await self._system.save_leave(Leave.DRAINING)
            self._wanted.set()
        return Leaving(
            partitions=len(layout.partitions_of(self._node_id)),
            chunks=self._chunks.count,
            chunk_bytes=self._chunks.bytes,
            has_left=self._system.leave is Leave.LEFT,
            waits_for=obstacle,
        )

    async def run(self, on_left: Callable[[], None]) -> None:
        """Leave once that is wanted, now or in an earlier life; call `on_left` when this node is to be stopped."""
        if self._system.leave is Leave.NO:
            await self._wanted.wait()
        self._detector.drain()
        loop = asyncio.get_running_loop()
        swept_at = loop.time()
        while not self._is_done():
            if loop.time() >= swept_at + SWEEP_AGAIN_SECONDS:
                self._sweep.wake()
                swept_at = loop.time()
            await asyncio.sleep(LOOK_SECONDS)
        await self._system.save_leave(Leave.LEFT)
        self._detector.leave()
        await asyncio.sleep(FAREWELL_SECONDS)
        on_left()

    def _is_done(self) -> bool:
        layout = self._layouts.current
        if layout is None or layout.is_joint or self._node_id in layout.members:
            return False
        return not (self._chunk_service.is_storing or self._chunks.count or self._rows.count)

    def _obstacle(self, layout: Layout) -> str:
        """Return what keeps this node from leaving, or from being done with it; empty when nothing does."""
        if self._node_id in layout.members:
            return obstacle(layout, self._node_id, self._detector.state)
        away = [member for member in layout.record.members if not self._detector.is_alive(member.node_id)]
        return f"what this node holds has to be confirmed by {names_of(away)} as well: away" if away and self._chunks.count else ""
