"""The reading half of a get: chunks from whoever has them, verified, in order, in bounded memory.

Owns whom to ask for a chunk and when to ask the next one as well, and the window of chunks that are fetched ahead. Every chunk is
verified here, whatever its holder claims; a dead, slow or damaged copy is passed over.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress

from peer.errors import DataLost, LinkLost, RequestFailed, Unavailable
from peer.files.access import CHUNKS_AT_ONCE, OPERATION_SECONDS, RETRY_SECONDS, Access, milliseconds
from peer.files.sides import LOOK_SECONDS, Side, Sides
from protocol.errors import ErrorCode
from protocol.hashing import Buffer
from protocol.identity import ChunkId, NodeId
from protocol.layout import Layout
from protocol.manifest import Content, chunk_matches, chunk_partition, chunk_span, unpack_manifest
from protocol.messages import ChunkData, ChunkGet

Write = Callable[[Buffer], Awaitable[None]]
"""Takes the next bytes."""

HEDGE_SECONDS = 0.5
"""A holder from which no chunk has come for so long is not waited for alone: the next one is asked as well. To ask two while the
line is merely slow would make it carry everything twice."""
FETCH_SECONDS = 10.0
WINDOW_BYTES = 16 * 1024 * 1024
WINDOW_CHUNKS = 16


class ChunkReader:
    """Fetches chunks for one operation or many."""

    def __init__(self, access: Access, sides: Sides) -> None:
        self._access = access
        self._sides = sides
        self._turns = asyncio.Semaphore(CHUNKS_AT_ONCE)
        self._in_flight: dict[NodeId, int] = {}
        self._delivered_at: dict[NodeId, float] = {}

    async def read(self, content: Content, size: int, begin: int, end: int, write: Write) -> None:
        """Write bytes `begin` to `end` of content of `size` bytes.

        Raises: DataLost, Unavailable.
        """
        if begin < 0 or end < 0:
            raise ValueError("a range counts its bytes from 0")
        if begin >= end:
            return
        if not content.chunks:
            await write(content.inline[begin:end])
            return
        ahead = max(1, min(WINDOW_CHUNKS, WINDOW_BYTES // content.chunk_bytes))
        window: deque[asyncio.Task[memoryview]] = deque()
        loop = asyncio.get_running_loop()
        first, last = begin // content.chunk_bytes, (end - 1) // content.chunk_bytes
        delivered = first

        async def deliver() -> None:
            nonlocal delivered
            chunk = await window[0]
            window.popleft()
            offset, length = chunk_span(content, size, delivered)
            if len(chunk) != length:
                raise DataLost("a chunk has another length than the file needs: the manifest is damaged")
            await write(chunk[max(0, begin - offset) : min(length, end - offset)])
            delivered += 1

        try:
            async for chunk_id in self.chunk_ids(content, first):
                window.append(loop.create_task(self.fetch(chunk_id)))
                if len(window) >= ahead:
                    await deliver()
                if delivered + len(window) > last:
                    break
            while window:
                await deliver()
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)
        if delivered <= last:
            raise DataLost("a manifest lists fewer chunks than the file has: it is damaged")

    async def manifest_ids(self, content: Content) -> AsyncIterator[ChunkId]:
        """Yield the ids of the manifests, the outer one first.

        Raises: DataLost, Unavailable.
        """
        level: Sequence[ChunkId] = content.chunks
        for remaining in range(content.depth, 0, -1):
            for chunk_id in level:
                yield chunk_id
            if remaining > 1:
                level = await self._manifest(level[0], remaining)

    async def chunk_ids(self, content: Content, first: int = 0) -> AsyncIterator[ChunkId]:
        """Yield the ids of the data chunks from number `first` on, reading manifests as they are needed.

        Raises: DataLost, Unavailable.
        """
        level: Sequence[ChunkId] = content.chunks
        skip = first
        for _ in range(content.depth - 1):
            level = await self._manifest(level[0], 2)
        if content.depth == 0:
            for chunk_id in level[skip:]:
                yield chunk_id
            return
        for blob in level:
            leaves = await self._manifest(blob, 1)
            for chunk_id in leaves[skip:]:
                yield chunk_id
            skip = max(0, skip - len(leaves))

    async def _manifest(self, chunk_id: ChunkId, depth: int) -> tuple[ChunkId, ...]:
        chunk = await self.fetch(chunk_id)
        try:
            return unpack_manifest(chunk, depth)
        except ValueError as error:
            raise DataLost(f"a manifest is damaged: {error}") from None

    async def fetch(self, chunk_id: ChunkId) -> memoryview:
        """Return a verified chunk from anybody who has it.

        It is looked for during OPERATION_SECONDS; not so long when in a layout at rest everybody lacks it but those who are gone
        (`peer.files.sides`). Nor when every member lacks it, twice: a copy may move from who is asked late to who was asked early.

        Raises: DataLost when every member was asked and none has it, Unavailable when some could not be asked.
        """
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        look_at = 0.0
        lacking: Layout | None = None
        while True:
            async with self._turns:
                give_up_at = give_up_at or loop.time() + OPERATION_SECONDS
                layout = self._access.layout
                chunk, without, failures = await self._fetch_from(self._order(chunk_id), chunk_id)
            if chunk is not None:
                return chunk
            name = f"chunk {chunk_id.hex()[2:14]}"
            if not failures:
                if lacking is layout:
                    raise DataLost(f"{name} is lost: all {without} members were asked and none has an intact copy")
                await self._look(0.0)
                lacking = layout
                continue
            lacking = None
            if loop.time() >= give_up_at:
                reasons = "; ".join(f"{self._name(node)}: {reason}" for node, reason in failures.items())
                raise Unavailable(f"{name} cannot be read now ({reasons}): try again when these nodes are back")
            if loop.time() >= look_at:
                look_at = loop.time() + LOOK_SECONDS
                await self._raise_if_gone(name, layout, failures.keys())
            await asyncio.sleep(RETRY_SECONDS)

    async def _raise_if_gone(self, what: str, asked: Layout, unasked: Collection[NodeId]) -> None:
        """Raise Unavailable if all of `unasked` are gone, and the layout by which the others were asked stands and is at rest."""
        side = await self._look(LOOK_SECONDS)
        if asked is self._access.layout and not asked.is_joint and side.gone.issuperset(unasked):
            answered = f"{len(asked.members) - len(unasked)} of {len(asked.members)} members"
            raise Unavailable(f"{what} cannot be read now: nobody who answers ({answered}) has an intact copy; {side.to_do()}")

    async def _look(self, age_seconds: float) -> Side:
        """Return who is there, asked no longer ago than that, having learned the newest layout that they know."""
        side = await self._sides.look(age_seconds)
        if side.layout_version > self._access.layout.version:
            with suppress(Unavailable):
                await self._access.catch_up(side.layout_version)
        return side

    def _order(self, chunk_id: ChunkId) -> list[NodeId]:
        """Return every member: homes first, those with least in flight here before others."""
        layout = self._access.layout
        partition = chunk_partition(chunk_id)
        homes = dict.fromkeys([*layout.homes(partition), *layout.replicas(partition)[: layout.record.replication]])
        spread = sorted(homes, key=lambda node: self._in_flight.get(node, 0))
        first = self._access.preferred(spread)
        rest = [node for node in layout.fallbacks(partition) if node not in homes]
        return [*first, *self._access.preferred(rest)]

    async def _fetch_from(self, nodes: Sequence[NodeId], chunk_id: ChunkId) -> tuple[memoryview | None, int, dict[NodeId, str]]:
        """Ask `nodes` one after another, the next one early when one is silent.

        Returns (the chunk or None, how many have no intact copy, why the others could not be asked).
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Queue[asyncio.Task[memoryview | None]] = asyncio.Queue()
        asked: dict[asyncio.Task[memoryview | None], NodeId] = {}
        waiting = list(reversed(nodes))
        without = open_count = 0
        failures: dict[NodeId, str] = {}
        found: memoryview | None = None
        may_ask = True
        try:
            while found is None and (waiting or open_count):
                if waiting and may_ask:
                    node = waiting.pop()
                    task = loop.create_task(self._ask(node, chunk_id))
                    asked[task] = node
                    task.add_done_callback(ended.put_nowait)
                    open_count += 1
                try:
                    async with asyncio.timeout(HEDGE_SECONDS if waiting else None):
                        done = await ended.get()
                except TimeoutError:
                    may_ask = not self._deliver(asked.values())
                    continue
                may_ask = True
                open_count -= 1
                try:
                    found = done.result()
                    without += found is None
                except (LinkLost, RequestFailed, TimeoutError) as error:
                    failures[asked[done]] = str(error) or "no answer in time"
            return found, without, failures
        finally:
            for task in asked:
                task.cancel()
                task.add_done_callback(_retrieve)

    def _deliver(self, nodes: Iterable[NodeId]) -> bool:
        """Return whether a chunk has come from one of `nodes` a moment ago: they are no more silent than the line is slow."""
        since = asyncio.get_running_loop().time() - HEDGE_SECONDS
        return any(self._delivered_at.get(node, since) > since for node in nodes)

    async def _ask(self, node: NodeId, chunk_id: ChunkId) -> memoryview | None:
        """Return the verified chunk of one holder, None when it has no intact copy.

        Raises: LinkLost, RequestFailed, TimeoutError.
        """
        self._in_flight[node] = self._in_flight.get(node, 0) + 1
        try:
            message = ChunkGet(milliseconds(FETCH_SECONDS), chunk_id)
            reply = await self._access.request(node, message, timeout_seconds=FETCH_SECONDS)
        except RequestFailed as failed:
            if failed.code in (ErrorCode.NOT_FOUND, ErrorCode.CORRUPT):
                return None
            raise
        finally:
            self._in_flight[node] -= 1
        assert isinstance(reply.message, ChunkData)
        self._delivered_at[node] = asyncio.get_running_loop().time()
        # What has arrived counts against the window of its reader, no longer against the credit of the link: a reader that
        # pauses would keep all others from fetching.
        reply.release()
        return reply.payload if await self._access.compute.run(lambda: chunk_matches(chunk_id, reply.payload)) else None

    def _name(self, node: NodeId) -> str:
        member = self._access.layout.members.get(node)
        return member.name if member is not None else node.hex()[:8]


def _retrieve(task: asyncio.Task[memoryview | None]) -> None:
    """Look at how a holder's answer ended that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
