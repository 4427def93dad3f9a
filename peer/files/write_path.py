"""The writing half of a put: content into durable chunks, in bounded memory.

Owns cutting, the window of chunks in flight, the choice of the first home, and the manifest. Chunks are durable before the
manifest that lists them is sent, and the manifest before the row: a crash anywhere leaves garbage, never a dangling reference.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from peer.errors import LinkLost, RequestFailed, ShoalError, SourceChanged, Unavailable
from peer.files.access import RETRY_SECONDS, STORE_SECONDS, Access, milliseconds
from protocol import limits
from protocol.errors import ErrorCode
from protocol.hashing import Buffer
from protocol.identity import ChunkId, NodeId
from protocol.manifest import (
    STRATEGY_FIXED,
    ChunkTag,
    Content,
    chunk_bytes_for,
    chunk_id_of,
    chunk_partition,
    inline_content,
    pack_manifest,
)
from protocol.messages import ChunkPut, ChunkStored

Read = Callable[[int], Awaitable[bytes]]
"""Returns up to so many bytes of the source; empty at its end."""
Progress = Callable[[int], None]
"""Called with the number of bytes that became durable, or were delivered, since the last call."""

WINDOW_BYTES = 16 * 1024 * 1024
WINDOW_CHUNKS = 16
FIRST_HOMES_MAX = 4
"""So many nodes are tried as the first home of one chunk."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Content that is durable."""

    content: Content
    size: int
    holders: frozenset[NodeId]
    """Everybody who was counted."""
    copies: int | None
    """Copies of the chunk that has the fewest; None when there are no chunks."""


async def store_content(access: Access, read: Read, size: int | None, progress: Progress, turns: asyncio.Semaphore) -> Stored:
    """Store all that `read` returns; `size` bytes, unless it is not known. Each chunk takes one of `turns` while it is sent.

    Raises: SourceChanged, Unavailable. In either case nothing became visible.
    """
    chunk_bytes = chunk_bytes_for(size)
    source = _Source(read, size)
    first = await source.take(min(chunk_bytes, limits.INLINE_BYTES_MAX + 1))
    if len(first) <= limits.INLINE_BYTES_MAX:
        progress(len(first))
        return Stored(inline_content(first), len(first), frozenset(), None)
    writer = ChunkWriter(access, progress, turns)
    tree = _Tree(writer)
    try:
        pending = first + await source.take(chunk_bytes - len(first))
        while pending:
            await tree.add(await writer.begin(ChunkTag.DATA, pending))
            pending = await source.take(chunk_bytes)
        depth, chunks = await tree.finish()
        await writer.finish()
    finally:
        await writer.close()
    content = Content(STRATEGY_FIXED, chunk_bytes, depth, chunks, b"")
    return Stored(content, source.count, frozenset(writer.holders), writer.copies)


class _Source:
    """Reads exact portions, and notices when the source is longer or shorter than it was said to be."""

    def __init__(self, read: Read, size: int | None) -> None:
        self.count = 0
        self._read = read
        self._size = size

    async def take(self, wanted: int) -> bytes:
        """Return `wanted` bytes, or fewer at the end."""
        pieces: list[bytes] = []
        missing = wanted
        while missing:
            piece = await self._read(missing)
            if not piece:
                break
            if len(piece) > missing:
                raise ValueError(f"the source gave {len(piece)} bytes when it was asked for {missing}")
            pieces.append(piece)
            missing -= len(piece)
        portion = pieces[0] if len(pieces) == 1 else b"".join(pieces)  # mostly it comes in one piece, and is not copied
        self.count += len(portion)
        if self._size is not None and (self.count > self._size or (len(portion) < wanted and self.count < self._size)):
            raise SourceChanged(
                f"the source changed while it was read: it had {self._size} bytes, now it does not: put it again"
            )
        return portion


class ChunkWriter:
    """Sends chunks, several at a time."""

    def __init__(self, access: Access, progress: Progress, turns: asyncio.Semaphore) -> None:
        self.holders: set[NodeId] = set()
        self.copies: int | None = None
        self._access = access
        self._progress = progress
        self._turns = turns
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._ended = asyncio.Event()
        """A chunk has ended, well or not, since this was last looked at."""
        self._failure: BaseException | None = None
        self._turn = 0

    async def begin(self, tag: ChunkTag, data: Buffer) -> ChunkId:
        """Begin to store a chunk once the window has room, and return its id.

        Raises: what an earlier chunk failed with.
        """
        chunk_id = await self._access.compute.run(lambda: chunk_id_of(tag, data))
        await self._until(lambda: self._has_room(len(data)))
        self._in_flight += len(data)
        self._turn += 1
        task = asyncio.get_running_loop().create_task(self._store(chunk_id, data, self._turn, tag))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._end(done, len(data)))
        return chunk_id

    async def finish(self) -> None:
        """Wait until every chunk is durable.

        Raises: what a chunk failed with.
        """
        await self._until(lambda: not self._tasks)

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_room(self, size: int) -> bool:
        if not self._tasks:
            return True
        return len(self._tasks) < WINDOW_CHUNKS and self._in_flight + size <= WINDOW_BYTES

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while self._failure is None and not is_so():
            self._ended.clear()
            await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    def _end(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self._in_flight -= size
        failure = None if task.cancelled() else task.exception()  # looked at, even if another one came before
        self._failure = self._failure or failure
        self._ended.set()

    async def _store(self, chunk_id: ChunkId, data: Buffer, turn: int, tag: ChunkTag) -> None:
        async with self._turns:
            holders = await self._store_somewhere(chunk_id, data, turn)
        self.holders.update(holders)
        self.copies = len(holders) if self.copies is None else min(self.copies, len(holders))
        if tag is ChunkTag.DATA:
            self._progress(len(data))

    async def _store_somewhere(self, chunk_id: ChunkId, data: Buffer, turn: int) -> tuple[NodeId, ...]:
        """Send the chunk to one first home, to another when that fails.

        Raises: Unavailable.
        """
        faults = []
        needed = 0
        for round_number in range(2):
            layout = self._access.layout
            needed = layout.copies_needed
            partition = chunk_partition(chunk_id)
            homes = layout.homes(partition)
            rotated = [homes[(turn + index) % len(homes)] for index in range(len(homes))]
            candidates = [*self._access.preferred(rotated), *self._access.preferred(layout.fallbacks(partition))]
            for node in candidates[:FIRST_HOMES_MAX]:
                name = layout.members[node].name
                try:
                    holders = await self._send(node, chunk_id, data)
                except RequestFailed as failed:
                    faults.append(f"{name}: {failed.reason}")
                    if failed.code is ErrorCode.BUSY:
                        await asyncio.sleep(RETRY_SECONDS)
                except (LinkLost, TimeoutError) as error:
                    faults.append(f"{name}: {str(error) or 'no answer in time'}")
                else:
                    if len(holders) >= needed:
                        return holders
                    faults.append(f"{name}: only {len(holders)} copies")
            await asyncio.sleep(RETRY_SECONDS * (1 - round_number))
        raise Unavailable(
            f"a chunk could not be stored {needed} times ({'; '.join(faults[-FIRST_HOMES_MAX:])}): "
            "nothing was changed, try again when more nodes are back"
        )

    async def _send(self, node: NodeId, chunk_id: ChunkId, data: Buffer) -> tuple[NodeId, ...]:
        message = ChunkPut(milliseconds(STORE_SECONDS), chunk_id, forward=True)
        reply = await self._access.request(node, message, data, timeout_seconds=STORE_SECONDS)
        assert isinstance(reply.message, ChunkStored)
        return reply.message.holders


class _Tree:
    """The list of chunk ids, kept short: a full list becomes a manifest blob as soon as it is known to be needed."""

    def __init__(self, writer: ChunkWriter) -> None:
        self._writer = writer
        self._leaves: list[ChunkId] = []
        self._blobs: list[ChunkId] = []

    async def add(self, chunk_id: ChunkId) -> None:
        """Append a data chunk.

        Raises: ShoalError when the content has more chunks than a manifest can list.
        """
        if len(self._leaves) == limits.MANIFEST_FANOUT:
            await self._flush()
            if len(self._blobs) >= limits.MANIFEST_FANOUT:
                raise ShoalError("the content is larger than a manifest can list: put it in parts")
        self._leaves.append(chunk_id)

    async def finish(self) -> tuple[int, tuple[ChunkId, ...]]:
        """Return (depth, chunks) of the content."""
        if not self._blobs and len(self._leaves) <= limits.INLINE_CHUNKS_MAX:
            return 0, tuple(self._leaves)
        await self._flush()
        if len(self._blobs) == 1:
            return 1, tuple(self._blobs)
        # A manifest is sent only when what it lists is durable.
        await self._writer.finish()
        return 2, (await self._writer.begin(ChunkTag.MANIFEST, pack_manifest(self._blobs)),)

    async def _flush(self) -> None:
        await self._writer.finish()
        self._blobs.append(await self._writer.begin(ChunkTag.MANIFEST, pack_manifest(self._leaves)))
        self._leaves = []
