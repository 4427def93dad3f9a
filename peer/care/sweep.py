"""One sweep for topping up, rebalance and dropping: every local chunk is where its homes are, or is brought there.

For each local chunk all homes of the layout in force are asked (`ChunksHave`). What a home lacks is pushed by the
lowest node id among the holders that answered, so that one copy travels once. A node that is no home drops its
copy only when *all* homes have confirmed a durable one in answers that name the very layout version
that is in force here before and after (cluster rule "dropping a copy": else two droppers could each count the other).

Owns the plan and the work; runs as one task per node. A later version adds classes of urgency and throttling.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

from peer.config import SWEEP_SECONDS
from peer.errors import LinkLost, RequestFailed
from peer.link import Reply
from peer.store.chunks import ChunkCorrupt, ChunkStore
from protocol import limits
from protocol.hashing import Buffer
from protocol.identity import ChunkId, NodeId, short
from protocol.layout import Layout
from protocol.manifest import chunk_partition
from protocol.messages import ChunkPut, ChunksHave, ChunksHeld, Request

ASK_TIMEOUT_SECONDS = 5.0
PUSH_TIMEOUT_SECONDS = 10.0
SETTLE_SECONDS = 1.0
"""After being woken: changes come in groups."""

log = logging.getLogger(__name__)


class Asker(Protocol):
    """How other nodes are asked (`peer.node.Node`)."""

    async def request(
        self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float
    ) -> Reply:
        """Ask one node."""


class Sweep:
    """Brings the chunks of this node to their homes."""

    def __init__(
        self,
        node_id: NodeId,
        chunks: ChunkStore,
        asker: Asker,
        layout: Callable[[], Layout | None],
        is_alive: Callable[[NodeId], bool],
    ) -> None:
        self.owed_chunks = 0
        """Chunks of which the last sweep found fewer copies than wanted, each counted by the lowest id among its holders."""
        self._node_id = node_id
        self._chunks = chunks
        self._asker = asker
        self._layout = layout
        self._is_alive = is_alive
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Sweep soon: the layout changed, a peer came up or a copy was missed."""
        self._wake.set()

    async def run(self) -> None:
        """Sweep, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(SETTLE_SECONDS)
            self._wake.clear()
            layout = self._layout()
            if layout is not None and not layout.is_joint:
                self.owed_chunks = await self._sweep(layout)

    async def _sweep(self, layout: Layout) -> int:
        owed = 0
        after: ChunkId | None = None
        while True:
            page = await self._chunks.page(after, limits.CHUNKS_PER_REQUEST_MAX)
            if not page or self._layout() is not layout:
                return owed
            after = page[-1][0]
            owed += await self._sweep_page(layout, [chunk_id for chunk_id, _ in page])

    async def _sweep_page(self, layout: Layout, chunk_ids: Sequence[ChunkId]) -> int:
        homes = {chunk_id: layout.homes(chunk_partition(chunk_id)) for chunk_id in chunk_ids}
        asked: dict[NodeId, list[ChunkId]] = defaultdict(list)
        for chunk_id in chunk_ids:
            for home in homes[chunk_id]:
                if home != self._node_id:
                    asked[home].append(chunk_id)
        holders: dict[ChunkId, list[NodeId]] = {chunk_id: [] for chunk_id in chunk_ids}
        lacking: dict[ChunkId, list[NodeId]] = {chunk_id: [] for chunk_id in chunk_ids}
        for home in sorted(asked):
            held = await self._ask(layout, home, asked[home])
            for index, chunk_id in enumerate(asked[home]):
                if held is not None:
                    (holders if held[index] else lacking)[chunk_id].append(home)
        owed = 0
        for chunk_id in chunk_ids:
            is_home = self._node_id in homes[chunk_id]
            if lacking[chunk_id] and self._node_id <= min(holders[chunk_id], default=self._node_id):
                for home in lacking[chunk_id]:
                    if await self._push(chunk_id, home):
                        holders[chunk_id].append(home)
            if not is_home and len(holders[chunk_id]) == len(homes[chunk_id]):
                await self._drop(layout, chunk_id, homes[chunk_id])
            elif len(holders[chunk_id]) + 1 < layout.copies_wanted and self._node_id <= min(holders[chunk_id], default=self._node_id):
                owed += 1  # by one of its holders, so that the sum over all nodes is the number of chunks
        return owed

    async def _ask(self, layout: Layout, home: NodeId, chunk_ids: list[ChunkId]) -> list[bool] | None:
        """Return which of `chunk_ids` a home holds, or None when it cannot say so under this layout."""
        if not self._is_alive(home):
            return None
        message = ChunksHave(int(ASK_TIMEOUT_SECONDS * 1000), tuple(chunk_ids))
        try:
            reply = await self._asker.request(home, message, timeout_seconds=ASK_TIMEOUT_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError) as error:
            log.debug("home %s cannot be asked: %s", short(home), error)
            return None
        answer = reply.message
        assert isinstance(answer, ChunksHeld)
        if answer.layout_version != layout.version or len(answer.held) != (len(chunk_ids) + 7) // 8:
            return None
        return [bool(answer.held[index >> 3] >> (index & 7) & 1) for index in range(len(chunk_ids))]

    async def _push(self, chunk_id: ChunkId, home: NodeId) -> bool:
        try:
            data = await self._chunks.get(chunk_id)
        except ChunkCorrupt:
            return False
        if data is None:
            return False
        message = ChunkPut(int(PUSH_TIMEOUT_SECONDS * 1000), chunk_id, forward=False)
        try:
            await self._asker.request(home, message, data, timeout_seconds=PUSH_TIMEOUT_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError) as error:
            log.debug("chunk %s could not be pushed to %s: %s", chunk_id.hex()[:10], short(home), error)
            return False
        return True

    async def _drop(self, layout: Layout, chunk_id: ChunkId, homes: Sequence[NodeId]) -> None:
        """Remove the local copy if every home confirms once more under the layout that is still in force."""
        for home in homes:
            held = await self._ask(layout, home, [chunk_id])
            if held is None or not held[0]:
                return
        if self._layout() is layout:
            await self._chunks.remove(chunk_id)
