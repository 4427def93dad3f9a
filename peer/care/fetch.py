"""Homes compare what they hold, and each gets what it lacks.

Theory of operation
-------------------
A home asks every member that is linked, home or not, for its digest over the partitions of which the asker is a home (`ChunkDigestsGet`):
one small message each, answered by one when the other holds just what both are homes of. So it learns of copies at other homes
and of those at fallbacks and former homes alike; nobody has to tell it. Only where a digest differs the ids are listed (`ChunksList`), once
for all members of one digest. What is missing here is fetched from whoever holds it, verified and stored. That one side
lacks a chunk always means that it gets it: the other one does the same as this one. So nothing is pushed: who receives knows best how
much he can take, and a home that has lost a chunk finds that out by itself.

The fewest copies first: all that is missing is listed before anything is fetched, then what has one holder is fetched, then what has two,
and so on. Between listing and fetching only partitions are kept in mind: a new home of a million chunks needs no memory for their
ids. Fetching ends after FETCH_SECONDS at the latest, so that the next pass can begin with what has become rare meanwhile. To fetch what
has as many copies as wanted is *rebalancing*, which can be paused at either end; all else is topping up, what a node holds that leaves
included. Both are bounded at either end (`peer.care.throttle`).

A chunk that is being written differs for a moment: nothing is listed before SETTLE_SECONDS, or fetched without looking whether it has come.

Owns comparing and fetching. Knows neither when (`peer.care.sweep`), nor how anything is removed.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from peer.care.throttle import Throttle
from peer.errors import LinkLost, RequestFailed
from peer.files.access import Access, milliseconds
from peer.store.chunks import ChunkStore, StoreFull
from protocol import limits
from protocol.digest import NOTHING, digest_of_total
from protocol.errors import ErrorCode
from protocol.identity import ChunkId, NodeId, short
from protocol.layout import Layout, pack_partitions, unpack_partitions
from protocol.manifest import chunk_matches, chunk_partition
from protocol.messages import ChunkDigestsGet, ChunkGet, ChunksList, ChunksListed, DigestsAre, Hello, Purpose, Role

ASK_TIMEOUT_SECONDS = 5.0
GET_TIMEOUT_SECONDS = 10.0
REFUSED_SECONDS = 1.0
"""Pause after a holder did not give a chunk: it has others to serve."""
SETTLE_SECONDS = 1.0
FETCH_SECONDS = 60.0
TRANSFERS_PER_PEER = 2
"""Chunks that are on their way from one member at a time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Missing:
    """A chunk that this node lacks as a home."""

    size: int
    holders: list[NodeId]

    def copies(self, layout: Layout) -> int:
        """Return how many copies last, by members; fewer than wanted where another node has one as well, for it waits to be rid of it."""
        lasting = sum(holder in layout.members for holder in self.holders)
        return lasting if lasting == len(self.holders) else min(lasting, layout.copies_wanted - 1)


Lacking = dict[ChunkId, _Missing]


@dataclass(frozen=True, slots=True)
class _Duty:
    """The partitions of which this node is a home by one layout."""

    layout: Layout
    homes: dict[int, list[NodeId]]
    """The other homes of each."""
    bitmap: bytes


@dataclass(slots=True)
class _View:
    """What the members hold, by digest, of the partitions of which this node is a home."""

    homes: dict[int, list[NodeId]]
    """The other homes of each of these partitions."""
    own: dict[int, bytes]
    """The digests of those of which anything is held here, as it was before the others were asked."""
    held: dict[NodeId, dict[int, bytes]]
    """The same of each member that has answered."""
    copies_wanted: int

    def partitions(self) -> list[int]:
        """Return those of which anybody holds anything, ascending."""
        return sorted(self.homes.keys() & {partition for digests in (self.own, *self.held.values()) for partition in digests})

    def differs(self, partition: int) -> bool:
        """Return whether a home holds something else than this node, or another member anything that it does not hold exactly."""
        own = self.own.get(partition, NOTHING)
        for node, digests in self.held.items():
            theirs = digests.get(partition, NOTHING)
            if theirs != own and (theirs != NOTHING or node in self.homes[partition]):
                return True
        return False


class Fetch:
    """What one node lacks as a home, and how it gets it."""

    def __init__(
        self,
        access: Access,
        chunks: ChunkStore,
        peers: Callable[[], list[Hello]],
        incoming: Throttle,
        is_rebalance_paused: Callable[[], bool],
    ) -> None:
        """`incoming` bounds what is fetched; while rebalancing is paused only that comes of which there are fewer copies than wanted."""
        self.owed_chunks = 0
        """Chunks of which fewer copies than wanted were found, each counted by the lowest id among the homes that hold it, or that
        answer if none does.
        """
        self.missing_chunks = 0
        """Chunks that were found at others only, and have not come since."""
        self._access = access
        self._chunks = chunks
        self._peers = peers
        self._incoming = incoming
        self._is_rebalance_paused = is_rebalance_paused
        self._duty: _Duty | None = None
        self._passes = 0
        """Counted so that whoever gives nothing is not asked first for the same chunk again."""

    async def run(self, layout: Layout, is_over: Callable[[], bool]) -> bool:
        """Compare with everybody and fetch what is missing, until `is_over`; return whether anything has come."""
        self._passes += 1
        view = await self._compare(layout)
        own = self._access.node_id
        held = view.partitions()
        differing = {partition for partition in held if view.differs(partition)}
        if differing:
            await asyncio.sleep(SETTLE_SECONDS)
        partitions: dict[int, list[int]] = defaultdict(list)
        """Those in which something is missing, by the copies that there are of it."""
        owed = missing = 0
        for partition in held:
            if partition in differing:
                lacking, rare = await self._look(view, partition)
                for copies in sorted({each.copies(layout) for each in lacking.values()}):
                    partitions[copies].append(partition)
                owed += rare
                missing += len(lacking)
            elif self._owes(view, partition, [own, *(node for node in view.held if view.held[node].get(partition) == view.own[partition])]):
                owed += self._chunks.digests.count(partition)
        self.owed_chunks, self.missing_chunks = owed, missing
        ends_at = asyncio.get_running_loop().time() + FETCH_SECONDS
        has_come = False
        for copies in sorted(partitions):
            purpose = Purpose.TOP_UP if copies < layout.copies_wanted else Purpose.REBALANCE

            def is_enough(purpose: Purpose = purpose) -> bool:
                is_paused = purpose is Purpose.REBALANCE and self._is_rebalance_paused()
                return is_paused or is_over() or asyncio.get_running_loop().time() > ends_at

            for partition in partitions[copies]:
                if is_enough():
                    return has_come
                lacking, _ = await self._look(view, partition)
                chosen = {chunk_id: each for chunk_id, each in lacking.items() if each.copies(layout) == copies}
                has_come |= await self._fetch_all(chosen, purpose, is_enough)
        return has_come

    # -- comparing -----------------------------------------------------------

    async def _compare(self, layout: Layout) -> _View:
        """Ask all members that are linked for the digests of what they hold."""
        if self._duty is None or self._duty.layout is not layout:
            self._duty = self._find_duty(layout)
        duty, digests = self._duty, self._chunks.digests
        own = {partition: digests.of(partition) for partition in digests.partitions() if partition in duty.homes}
        view = _View(duty.homes, own, {}, layout.copies_wanted)
        members = [peer.node_id for peer in self._peers() if peer.role is Role.MEMBER]
        if duty.homes:
            await asyncio.gather(*(self._ask_digests(view, duty.bitmap, node) for node in members))
        return view

    def _find_duty(self, layout: Layout) -> _Duty:
        own = self._access.node_id
        sets = {partition: layout.homes(partition) for partition in layout.partitions_of(own)}
        homes = {partition: [home for home in nodes if home != own] for partition, nodes in sets.items() if own in nodes}
        return _Duty(layout, homes, pack_partitions(list(homes)))

    async def _ask_digests(self, view: _View, asked: bytes, node: NodeId) -> None:
        expected = {partition: digest for partition, digest in view.own.items() if node in view.homes[partition]}
        total = digest_of_total(sum(int.from_bytes(digest, "big") for digest in expected.values()))
        message = ChunkDigestsGet(milliseconds(ASK_TIMEOUT_SECONDS), asked, total)
        try:
            reply = await self._access.request(node, message, timeout_seconds=ASK_TIMEOUT_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError) as error:
            log.debug("comparing chunks with %s has to wait: %s", short(node), error)
            return
        answer = reply.message
        assert isinstance(answer, DigestsAre)
        if answer.partitions != asked or answer.digests:
            expected = dict(zip(unpack_partitions(answer.partitions), answer.digests, strict=False))
        view.held[node] = expected

    async def _look(self, view: _View, partition: int) -> tuple[Lacking, int]:
        """List one partition here and wherever it differs; return what is missing here, and of how many chunks this node says
        that they have too few copies.
        """
        own = self._access.node_id
        here = await self._list(own, partition)
        lists = {view.own.get(partition, NOTHING): here, NOTHING: {}}
        theirs: dict[NodeId, dict[ChunkId, int]] = {}
        for node in sorted(view.held):
            digest = view.held[node].get(partition, NOTHING)
            try:
                if digest not in lists:
                    lists[digest] = await self._list(node, partition)
            except (LinkLost, RequestFailed, TimeoutError) as error:
                log.debug("chunks of %s cannot be listed: %s", short(node), error)
                del view.held[node]
            else:
                theirs[node] = lists[digest]
        lacking: Lacking = {}
        for node, chunks in theirs.items():
            for chunk_id, size in chunks.items():
                if chunk_id not in here:
                    lacking.setdefault(chunk_id, _Missing(size, [])).holders.append(node)
        found = [each.holders for each in lacking.values()]
        found += [[own, *(node for node in theirs if chunk_id in theirs[node])] for chunk_id in here]
        return lacking, sum(self._owes(view, partition, holders) for holders in found)

    def _owes(self, view: _View, partition: int, holders: Sequence[NodeId]) -> bool:
        """Return whether a chunk that lies at `holders` has too few copies, and this node is the one to say so."""
        own = self._access.node_id
        homes = [own, *(node for node in view.homes[partition] if node in view.held)]
        return len(holders) < view.copies_wanted and own == min([home for home in homes if home in holders] or homes)

    async def _list(self, node: NodeId, partition: int) -> dict[ChunkId, int]:
        """Return the chunks that a node, perhaps this one, holds of one partition, with their sizes.

        Raises: LinkLost, RequestFailed, TimeoutError.
        """
        found: dict[ChunkId, int] = {}
        after = b""
        while True:
            page = await self._page(node, partition, after)
            found |= page
            if len(page) < limits.CHUNKS_LISTED_MAX:
                return found
            after = page[-1][0]

    async def _page(self, node: NodeId, partition: int, after: bytes) -> Sequence[tuple[ChunkId, int]]:
        if node == self._access.node_id:
            return await self._chunks.of_partition(partition, after, limits.CHUNKS_LISTED_MAX)
        message = ChunksList(milliseconds(ASK_TIMEOUT_SECONDS), partition, after)
        reply = await self._access.request(node, message, timeout_seconds=ASK_TIMEOUT_SECONDS)
        assert isinstance(reply.message, ChunksListed)
        ids = [chunk_id for chunk_id, _ in reply.message.chunks]
        if ids != sorted(ids) or (ids and ids[0] <= after) or any(chunk_partition(each) != partition for each in ids):
            raise RequestFailed(ErrorCode.INVALID, "a list that is not of the partition, or not in order", 0)
        return reply.message.chunks

    # -- fetching ------------------------------------------------------------

    async def _fetch_all(self, lacking: Lacking, purpose: Purpose, is_enough: Callable[[], bool]) -> bool:
        """Fetch chunks from their holders in turn; return whether any has come."""
        queues: dict[NodeId, list[ChunkId]] = defaultdict(list)
        for index, chunk_id in enumerate(sorted(lacking)):
            holders = lacking[chunk_id].holders
            queues[holders[(index + self._passes) % len(holders)]].append(chunk_id)

        async def work(node: NodeId, queue: Iterator[ChunkId]) -> bool:
            has_come = False
            for chunk_id in queue:
                await self._incoming.take(lacking[chunk_id].size)
                if is_enough():
                    break
                if await self._fetch(chunk_id, node, purpose):
                    has_come = True
                    self.missing_chunks -= 1
            return has_come

        shared = [(node, iter(queues[node])) for node in sorted(queues)]
        # No TaskGroup: a StorageFailed has to arrive as itself, for it ends the node.
        return any(await asyncio.gather(*(work(*each) for each in shared for _ in range(TRANSFERS_PER_PEER))))

    async def _fetch(self, chunk_id: ChunkId, node: NodeId, purpose: Purpose) -> bool:
        """Have one chunk here, from `node` if it has not come otherwise; return whether that was done."""
        if (await self._chunks.holds([chunk_id]))[0]:
            return False
        message = ChunkGet(milliseconds(GET_TIMEOUT_SECONDS), chunk_id, purpose)
        try:
            reply = await self._access.request(node, message, timeout_seconds=GET_TIMEOUT_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError) as error:
            log.debug("chunk %s could not be fetched from %s: %s", chunk_id.hex()[:10], short(node), error)
            await asyncio.sleep(REFUSED_SECONDS)
            return False
        try:
            if not await self._access.compute.run(lambda: chunk_matches(chunk_id, reply.payload)):
                return False
            await self._chunks.put(chunk_id, reply.payload)
        except StoreFull as error:
            log.debug("chunk %s finds no room: %s", chunk_id.hex()[:10], error)
            return False
        finally:
            reply.release()
        return True
