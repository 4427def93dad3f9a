"""One sweep for topping up, rebalance and dropping: every chunk comes to its homes, and lies nowhere else.

What this node lacks as a home it gets from whoever holds it (`peer.care.fetch`). What it holds and is no home of (a fallback copy, or that
of a former home) the homes get in the same way: it only asks them for each such chunk (`ChunksHave`), and drops its copy when
*all* homes have confirmed a durable one in answers that name the very layout version that is in force here before and
after (cluster rule "dropping a copy": else two droppers could each count the other).

A sweep comes after a layout change, after a link has come up, soon after one that has moved anything, and every SWEEP_SECONDS.
Runs as one task per node.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from peer.care.fetch import Fetch
from peer.config import SWEEP_SECONDS
from peer.errors import LinkLost, RequestFailed
from peer.link import Reply
from peer.store.chunks import ChunkStore
from protocol import limits
from protocol.hashing import Buffer
from protocol.identity import ChunkId, NodeId, short
from protocol.layout import Layout
from protocol.manifest import chunk_partition
from protocol.messages import ChunksHave, ChunksHeld, Request

ASK_TIMEOUT_SECONDS = 5.0
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
        fetch: Fetch,
        layout: Callable[[], Layout | None],
        is_alive: Callable[[NodeId], bool],
    ) -> None:
        self.owed_chunks = 0
        """Chunks of which the last sweep found fewer copies than wanted, each counted by the lowest id among the homes that hold it, or
        that answer if none does, and by whoever holds it if no home answers."""
        self._node_id = node_id
        self._chunks = chunks
        self._asker = asker
        self._fetch = fetch
        self._layout = layout
        self._is_alive = is_alive
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Sweep soon: the layout changed, a peer came up or a copy was missed."""
        self._wake.set()

    def surplus_chunks(self) -> int:
        """Return how many chunks this node holds that belong elsewhere."""
        layout = self._layout()
        return sum(map(self._chunks.digests.count, self._surplus(layout))) if layout is not None else 0

    async def run(self) -> None:
        """Sweep, until cancelled."""
        pause = SWEEP_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            if self._wake.is_set():
                self._wake.clear()
                pause = SETTLE_SECONDS
            layout = self._layout()
            has_moved = layout is not None and not layout.is_joint and await self._sweep(layout)
            pause = SETTLE_SECONDS if has_moved else min(2 * pause, SWEEP_SECONDS)

    async def _sweep(self, layout: Layout) -> bool:
        """Go once through everything; return whether that has changed anything here."""
        has_come = await self._fetch.run(layout, lambda: self._wake.is_set() or self._layout() is not layout)
        held = self._chunks.count
        self.owed_chunks = self._fetch.owed_chunks + await self._hand_over_all(layout)
        return has_come or self._chunks.count < held

    def _surplus(self, layout: Layout) -> list[int]:
        """Return the partitions of which this node holds chunks and is no home."""
        return [partition for partition in self._chunks.digests.partitions() if self._node_id not in layout.homes(partition)]

    async def _hand_over_all(self, layout: Layout) -> int:
        """Drop what has come to its homes; return of how many chunks that belong elsewhere no home answers."""
        alone = 0
        page: list[ChunkId] = []
        for partition in self._surplus(layout):
            after = b""
            while found := await self._chunks.of_partition(partition, after, limits.CHUNKS_PER_REQUEST_MAX - len(page)):
                page += [chunk_id for chunk_id, _ in found]
                after = page[-1]
                if len(page) == limits.CHUNKS_PER_REQUEST_MAX:
                    alone += await self._hand_over(layout, page)
                    page = []
        return alone + await self._hand_over(layout, page)

    async def _hand_over(self, layout: Layout, chunk_ids: Sequence[ChunkId]) -> int:
        """Drop what all homes have of these chunks, of which this node is no home; return of how many no home answers."""
        homes = {chunk_id: layout.homes(chunk_partition(chunk_id)) for chunk_id in chunk_ids}
        asked: dict[NodeId, list[ChunkId]] = defaultdict(list)
        for chunk_id in chunk_ids:
            for home in homes[chunk_id]:
                asked[home].append(chunk_id)
        holders: dict[ChunkId, int] = dict.fromkeys(chunk_ids, 0)
        answered: set[ChunkId] = set()
        for home in sorted(asked):
            held = await self._ask(layout, home, asked[home])
            for chunk_id, is_held in zip(asked[home], held or (), strict=False):
                holders[chunk_id] += is_held
                answered.add(chunk_id)
        for chunk_id in chunk_ids:
            if holders[chunk_id] == len(homes[chunk_id]):
                await self._drop(layout, chunk_id, homes[chunk_id])
        return len(holders) - len(answered)

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

    async def _drop(self, layout: Layout, chunk_id: ChunkId, homes: Sequence[NodeId]) -> None:
        """Remove the local copy if every home confirms once more under the layout that is still in force."""
        for home in homes:
            held = await self._ask(layout, home, [chunk_id])
            if held is None or not held[0]:
                return
        if self._layout() is layout:
            await self._chunks.remove(chunk_id)
