"""What a holder answers about chunks: put, get, have, and what it holds of a partition.

Owns the first home's part of a write: keep a verified copy, see to the other homes at the same time, and walk through the
fallbacks for every home that was tried and failed. The failure detector may say whom to try first, and when to try a fallback as well; a
copy counts when its holder says so, and with fewer than wanted every home has been tried, whatever is held of it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from peer.care.throttle import Throttle
from peer.errors import Refused
from peer.files.access import TRY_SECONDS, Access, milliseconds
from peer.files.quorum import collect
from peer.link import Served
from peer.seams import Faults
from peer.store.chunks import ChunkCorrupt, ChunkStore, StoreFull
from protocol import limits
from protocol.digest import digest_of_total
from protocol.errors import ErrorCode
from protocol.identity import ChunkId, NodeId, short
from protocol.layout import Layout, pack_partitions
from protocol.manifest import chunk_matches, chunk_partition
from protocol.messages import (
    ChunkData,
    ChunkDigestsGet,
    ChunkGet,
    ChunkPut,
    ChunksHave,
    ChunksHeld,
    ChunksList,
    ChunksListed,
    ChunkStored,
    DigestsAre,
    ListedChunk,
    MemberState,
    Purpose,
)

log = logging.getLogger(__name__)


class ChunkService:
    """The chunks of one holder, as its peers and clients may use them."""

    def __init__(
        self,
        access: Access,
        chunks: ChunkStore,
        faults: Faults,
        state: Callable[[NodeId], MemberState],
        outgoing: Throttle,
        is_rebalance_paused: Callable[[], bool],
    ) -> None:
        """`state` says what a node is held to be; `outgoing` bounds what others fetch to hold it."""
        self._access = access
        self._chunks = chunks
        self._faults = faults
        self._state = state
        self._outgoing = outgoing
        self._is_rebalance_paused = is_rebalance_paused
        self._storing = 0

    @property
    def is_storing(self) -> bool:
        """Whether a chunk is about to be stored here."""
        return self._storing > 0

    async def put(self, request: ChunkPut, payload: memoryview, deadline: float) -> ChunkStored:
        """Store a chunk here and, with `forward`, wherever else it belongs.

        Raises: Refused.
        """
        self._storing += 1
        try:
            return await self._put(request, payload, deadline)
        finally:
            self._storing -= 1

    async def _put(self, request: ChunkPut, payload: memoryview, deadline: float) -> ChunkStored:
        chunk_id = request.chunk_id
        if self._access.node_id not in self._access.layout.members:
            raise Refused(ErrorCode.NOT_REPLICA, "this node is no member: what it holds is not counted on")
        if not 0 < len(payload) <= limits.CHUNK_BYTES_MAX:
            raise Refused(ErrorCode.INVALID, f"a chunk has 1 to {limits.CHUNK_BYTES_MAX} bytes")
        if not await self._access.compute.run(lambda: chunk_matches(chunk_id, payload)):
            raise Refused(ErrorCode.WRONG_HASH, "the payload is not the chunk that its id names")
        if not request.forward:
            if self._faults.sometimes("chunks.full"):
                raise Refused(ErrorCode.FULL, "full for once")
            try:
                await self._chunks.put(chunk_id, payload)
            except StoreFull as error:
                raise Refused(ErrorCode.FULL, str(error)) from None
            return ChunkStored((self._access.node_id,))
        holders = await self._spread(self._access.layout, chunk_id, payload, deadline)
        if not holders:
            raise Refused(ErrorCode.FULL, "no node took the chunk")
        return ChunkStored(tuple(sorted(holders)))

    async def get(self, request: ChunkGet, deadline: float) -> Served:
        """Return a chunk; one that is fetched to be held when it is its turn.

        Raises: Refused.
        """
        if request.purpose is Purpose.REBALANCE and self._is_rebalance_paused():
            raise Refused(ErrorCode.UNAVAILABLE, "rebalancing is paused here")
        if request.purpose is not Purpose.READ and not await self._outgoing.take(await self._chunks.size(request.chunk_id), deadline):
            raise Refused(ErrorCode.BUSY, "others fetch as much as this holder may give")
        try:
            data = await self._chunks.get(request.chunk_id)
        except ChunkCorrupt:
            raise Refused(ErrorCode.CORRUPT, "this holder's copy was damaged and is set aside") from None
        if data is None:
            raise Refused(ErrorCode.NOT_FOUND, "no such chunk here")
        return ChunkData(), data

    async def have(self, request: ChunksHave) -> ChunksHeld:
        """Say which chunks are here, and under which layout that is said."""
        version = self._access.layout.version
        held = await self._chunks.holds(request.chunk_ids)
        bitmap = bytearray((len(held) + 7) // 8)
        for index, present in enumerate(held):
            bitmap[index >> 3] |= present << (index & 7)
        return ChunksHeld(version, bytes(bitmap))

    def digests(self, request: ChunkDigestsGet) -> DigestsAre:
        """Compare what is held of some partitions with what a home expects."""
        held = self._chunks.digests
        here = [p for p in held.partitions() if request.partitions[p >> 3] >> (p & 7) & 1]
        if digest_of_total(sum(map(held.total, here))) == request.digest:
            return DigestsAre(request.partitions, ())
        return DigestsAre(pack_partitions(here), tuple(map(held.of, here)))

    async def listed(self, request: ChunksList) -> ChunksListed:
        """List what is held of one partition."""
        found = await self._chunks.of_partition(request.partition, request.after, limits.CHUNKS_LISTED_MAX)
        return ChunksListed(tuple(ListedChunk(*each) for each in found))

    async def _spread(self, layout: Layout, chunk_id: ChunkId, payload: memoryview, deadline: float) -> list[NodeId]:
        own = self._access.node_id
        partition = chunk_partition(chunk_id)
        homes = [home for home in layout.homes(partition) if home != own]
        there = [home for home in homes if not self._is_dead(home)]
        doubtful = sum(self._state(home) is MemberState.SUSPECT for home in there)
        fallbacks = sorted((node for node in layout.fallbacks(partition) if node != own), key=self._is_dead)
        # No TaskGroup: a StorageFailed has to arrive as itself, for it ends the node.
        kept, holders = await asyncio.gather(
            self._keep(chunk_id, payload), self._send_to([*there, *fallbacks[:doubtful]], chunk_id, payload, len(there))
        )
        if kept:
            holders.append(own)
        absent = [home for home in homes if home not in there]
        for node in sorted([*absent, *fallbacks[doubtful:]], key=self._is_dead):
            if len(holders) >= layout.copies_wanted or asyncio.get_running_loop().time() + TRY_SECONDS > deadline:
                break
            holders += await self._send_to([node], chunk_id, payload, 1)
        return holders

    def _is_dead(self, node_id: NodeId) -> bool:
        return self._state(node_id) >= MemberState.DEAD

    async def _keep(self, chunk_id: ChunkId, payload: memoryview) -> bool:
        try:
            await self._chunks.put(chunk_id, payload)
        except StoreFull:
            return False
        return True

    async def _send_to(
        self, nodes: Sequence[NodeId], chunk_id: ChunkId, payload: memoryview, wanted: int
    ) -> list[NodeId]:
        """Send the chunk to `nodes` and return which of them have it durably."""
        message = ChunkPut(milliseconds(TRY_SECONDS), chunk_id, forward=False)

        async def send(node: NodeId) -> None:
            reply = await self._access.request(node, message, payload, timeout_seconds=TRY_SECONDS)
            assert isinstance(reply.message, ChunkStored)

        def enough(done: Mapping[NodeId, None]) -> bool:
            return len(done) >= wanted

        tried = [node for node in nodes if not self._access.recently_refused(node)]
        done, failures = await collect(tried, send, enough, TRY_SECONDS)
        for node, fault in failures.items():
            log.info("chunk %s was not taken by %s: %s", chunk_id.hex()[:10], short(node), str(fault) or "no answer in time")
        return sorted(done)
