"""Replicas compare their rows, and each gets what it lacks: who was away catches up by himself, whether anybody reads or not.

Theory of operation
-------------------
One exchange is between this node and one other member: one digest over all partitions that both have, where that differs the digest of each
partition, where one differs those of its buckets, and then the rows of the differing buckets, range by range through the partition. What
the other has otherwise comes whole and is merged here, what it wants goes to it whole. Rows are only ever merged: that one side lacks a row
means that it gets it, never that it was removed (a removal is a tombstone, a row like any other). Each step may be repeated, lost or
overtaken by a write: at worst the next exchange finds the same again.

With whom: with everybody whose link has come up or who has another layout than before, at once (the lower id of the two begins); else every
RECONCILE_SECONDS with the member with whom that was longest ago, no matter who had begun. So with the 128 members that there may be
every pair meets within some ten minutes.

How much: one exchange at a time, in it one partition and one request, and after each range as long a pause as it took. Rows that are being
written differ for a moment, and looking for them would mean to read the whole folder: a partition that has changed within SETTLE_SECONDS is
left to a later exchange, for FLUX_SECONDS at most.

A digest says what was written, not what a disk has made of it. So with every turn one partition is read and its digest verified, then none
for VERIFY_PAUSE times as long as that took: with five machines and rows in all partitions every row is read twice a day, with a million
rows in one folder it takes about two hours. A damaged row is reported, and counts for nothing once the digest has been made anew.

Owns the asking side. Runs as one task per node; `peer.files.digest_service` answers.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from peer.config import RECONCILE_SECONDS
from peer.errors import LinkLost, Refused, RequestFailed
from peer.files.access import Access, milliseconds
from peer.files.confirmed import Confirmed
from peer.files.digest_service import DigestService
from peer.files.row_shipper import RowShipper
from peer.store.rows import RowCorrupt, RowStore, RowTooLarge
from protocol import limits
from protocol.digest import bucket_of, differing_buckets, digest_of_total, pack_buckets, path_hash
from protocol.errors import ErrorCode
from protocol.identity import NodeId, short
from protocol.layout import Layout, unpack_partitions
from protocol.messages import Answer, BucketsAre, BucketsGet, DigestsAre, DigestsGet, Hello, Request, RowsCompare, RowsDiffer
from protocol.paths import name_of, parent_of, row_partition
from protocol.rows import row_digest
from protocol.versions import Row

ASK_TIMEOUT_SECONDS = 10.0
"""The other side may have to read thousands of rows."""
GATHER_SECONDS = 1.0
"""After being woken: links come in groups, and layouts reach one node after the other."""
RETRY_SECONDS = 2.0
"""Pause before somebody is asked again who should be compared with at once and could not be."""
SETTLE_SECONDS = 2.0
"""A difference that is older is no write under way."""
FLUX_SECONDS = 600.0
"""A partition that has differed for so long is looked at although it changes all the time."""
VERIFY_PAUSE = 1000.0
"""Pause after a partition was read to verify its digest, as a multiple of the time that it took."""
SHIP_MAX = 256
"""Rows that are in memory on their way to the other side."""

log = logging.getLogger(__name__)


class Reconcile:
    """Brings the rows of this node and of the other replicas together."""

    def __init__(
        self,
        access: Access,
        rows: RowStore,
        service: DigestService,
        layout: Callable[[], Layout | None],
        peers: Callable[[], list[Hello]],
        report_damage: Callable[[str], None],
        confirmed: Confirmed,
    ) -> None:
        """`report_damage` is told the path of every damaged row that is met."""
        self._access = access
        self._rows = rows
        self._service = service
        self._layout = layout
        self._peers = peers
        self._report_damage = report_damage
        self._confirmed = confirmed
        self._shipper = RowShipper(access, confirmed.has)
        self._due: dict[NodeId, None] = {}
        self._compared_at: dict[NodeId, float] = {}
        self._differs_since: dict[tuple[NodeId, int], float] = {}
        self._verified = -1
        """The partition whose digest was verified last."""
        self._verify_at = 0.0
        self._wake = asyncio.Event()

    def peer_up(self, node_id: NodeId) -> None:
        """The link to a peer has come up: compare at once."""
        if self._access.node_id < node_id:
            self._due[node_id] = None
            self._wake.set()

    def layout_changed(self) -> None:
        """Compare with everybody at once."""
        for peer in self._peers():
            self.peer_up(peer.node_id)

    async def run(self) -> None:
        """Compare, until cancelled."""
        loop = asyncio.get_running_loop()
        next_at = loop.time() + RECONCILE_SECONDS
        while True:
            await self._rest(next_at)
            for path in await self._rows.rebuild_digests():
                self._report_damage(path)
            members = self._members()
            self._due = {node: None for node in self._due if node in members}
            for node in list(self._due):
                if await self._compare(node, at_once=True):
                    self._due.pop(node, None)
            if loop.time() >= next_at:
                next_at = loop.time() + RECONCILE_SECONDS
                await self._verify_next()
                if members:
                    await self._compare(self._longest_ago(members), at_once=False)

    async def _rest(self, until: float) -> None:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(until - now, RETRY_SECONDS) if self._due else until - now):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_SECONDS)
        self._wake.clear()

    async def _verify_next(self) -> None:
        began = asyncio.get_running_loop().time()
        partition = self._rows.digests.after(self._verified)
        if partition is not None and began >= self._verify_at:
            self._verified = partition
            for path in await self._rows.verify_digest(partition):
                self._report_damage(path)
            now = asyncio.get_running_loop().time()
            self._verify_at = now + VERIFY_PAUSE * (now - began)

    def _members(self) -> list[NodeId]:
        layout = self._layout()
        members = [peer.node_id for peer in self._peers() if layout is not None and peer.node_id in layout.members]
        self._compared_at = {node: at for node, at in self._compared_at.items() if node in members}
        self._differs_since = {key: at for key, at in self._differs_since.items() if key[0] in members}
        return members

    def _longest_ago(self, members: Sequence[NodeId]) -> NodeId:
        asked_at, never = self._service.asked_at, float("-inf")
        drawn = {node: self._access.entropy.uniform("reconcile", 0.0, 1.0) for node in members}
        return min(members, key=lambda node: (max(self._compared_at.get(node, never), asked_at.get(node, never)), drawn[node]))

    async def _compare(self, node: NodeId, *, at_once: bool) -> bool:
        """Have one exchange with `node`; return whether it came to its end."""
        self._compared_at[node] = asyncio.get_running_loop().time()
        try:
            await self._exchange(node, at_once=at_once)
        except (LinkLost, RequestFailed, Refused, TimeoutError) as error:
            log.debug("comparing with %s has to wait: %s", short(node), error)
            return False
        return True

    async def _exchange(self, node: NodeId, *, at_once: bool) -> None:
        layout, now = self._access.layout, asyncio.get_running_loop().time()
        asked, digests = self._service.comparable(node), self._rows.digests
        own, doubts = digest_of_total(digests.total(asked)), self._confirmed.doubts()
        kept = {partition: digest.total for partition in unpack_partitions(asked) if (digest := digests.of(partition)) is not None}
        await self._rows.drain()  # what the question stands for is durable
        answer = await self._ask(node, DigestsGet(milliseconds(ASK_TIMEOUT_SECONDS), layout.version, asked, own))
        assert isinstance(answer, DigestsAre)
        answered = dict(zip(unpack_partitions(answer.partitions), answer.digests, strict=False))
        same = [partition for partition, theirs in answered.items() if partition in kept and digest_of_total(kept[partition]) == theirs]
        self._confirmed.agrees(node, same if answer.digests else unpack_partitions(answer.partitions), doubts)
        seen: dict[int, tuple[int, bytes]] = {}
        for partition, theirs in answered.items():
            digest = digests.of(partition)
            if digest is not None and digest_of_total(digest.total) != theirs:
                seen[partition] = digest.total, theirs
        since = {(node, partition): self._differs_since.get((node, partition), now) for partition in seen}
        self._differs_since = {key: at for key, at in self._differs_since.items() if key[0] != node} | since
        if seen and not at_once:
            await asyncio.sleep(SETTLE_SECONDS)
        for partition, totals in seen.items():
            is_overdue = at_once or now - since[node, partition] >= FLUX_SECONDS
            await self._reconcile(layout, node, partition, None if is_overdue else totals)

    async def _reconcile(self, layout: Layout, node: NodeId, partition: int, settled: tuple[int, bytes] | None) -> None:
        """Compare one partition; with `settled`, the own and the other total, only if neither has changed."""
        stamp = layout.cfg(partition)
        answer = await self._ask(node, BucketsGet(milliseconds(ASK_TIMEOUT_SECONDS), partition, stamp))
        assert isinstance(answer, BucketsAre)
        digest = self._rows.digests.of(partition)
        theirs = digest_of_total(sum(int.from_bytes(each, "big") for each in answer.digests))
        if digest is None or (settled is not None and settled != (digest.total, theirs)):
            return
        buckets = differing_buckets(digest.buckets(), answer.digests)
        after = ""
        while buckets:
            began = asyncio.get_running_loop().time()
            after = await self._compare_range(node, partition, stamp, buckets, after)
            if not after:
                break
            await asyncio.sleep(asyncio.get_running_loop().time() - began)
        self._differs_since.pop((node, partition), None)

    async def _compare_range(self, node: NodeId, partition: int, stamp: int, buckets: list[int], after: str) -> str:
        """Compare what lies behind `after`, as far as one request reaches; return where to go on, empty at the end."""
        found, more = await self._rows.row_digests(partition, after, "", limits.MARKS_MAX)
        until = found[-1][0] if more else ""
        hashed = [(path, path_hash(path), digest) for path, digest in found]
        marks = {path: hash_ + digest for path, hash_, digest in hashed if digest and bucket_of(hash_) in buckets}
        damaged = {path: None for path, digest in found if not digest}
        for path in damaged:
            self._report_damage(path)
        message = RowsCompare(
            milliseconds(ASK_TIMEOUT_SECONDS), partition, stamp, pack_buckets(buckets), after, until, tuple(marks.values())
        )
        answer = await self._ask(node, message)
        assert isinstance(answer, RowsDiffer)
        last = answer.last
        if last != until and (row_partition(last or "/x") != partition or not last or _order(last) <= _order(after)):
            raise RequestFailed(ErrorCode.INVALID, "a range that ends where it began", 0)
        rows = [row for row in answer.rows if row_partition(row.path) == partition and row.path not in damaged]
        if rows:
            await self._take(node, partition, stamp, rows)
        wanted = [
            path
            for index, path in enumerate(marks)
            if answer.wanted[index >> 3 : (index >> 3) + 1] and answer.wanted[index >> 3] >> (index & 7) & 1
            if not last or _order(path) <= _order(last)
        ]
        await self._give(node, partition, stamp, wanted, {row.path: row_digest(row) for row in rows})
        return last

    async def _take(self, node: NodeId, partition: int, stamp: int, rows: Sequence[Row]) -> None:
        """Merge rows of `node` into what is here; of many each by itself where one cannot be."""

        def guard() -> None:
            if self._access.layout.cfg(partition) != stamp:
                raise Refused(ErrorCode.STALE, "the partition has moved meanwhile")

        try:
            await self._rows.merge(rows, guard)
            self._confirmed.has(node, rows)
        except (RowCorrupt, RowTooLarge) as error:
            if len(rows) > 1:
                for row in rows:
                    await self._take(node, partition, stamp, [row])
            elif isinstance(error, RowCorrupt):
                self._report_damage(error.path)
            else:
                log.warning("a row of another replica cannot be merged: %s", error)

    async def _give(self, node: NodeId, partition: int, stamp: int, paths: Sequence[str], theirs: dict[str, bytes]) -> None:
        """Bring the rows of `paths` to `node`, but for those that it has by now: `theirs` are digests of what it sent."""
        for begin in range(0, len(paths), SHIP_MAX):
            rows = []
            for path in paths[begin : begin + SHIP_MAX]:
                try:
                    row = await self._rows.get(path)
                except RowCorrupt:
                    self._report_damage(path)
                    continue
                if row is not None and row_digest(row) != theirs.get(path):
                    rows.append(row)
            results = await asyncio.gather(
                *(self._shipper.ship(node, partition, stamp, row) for row in rows), return_exceptions=True
            )
            for error in results:
                if isinstance(error, RequestFailed) and error.code in (ErrorCode.CORRUPT, ErrorCode.TOO_LARGE):
                    log.debug("a row is not taken by %s: %s", short(node), error)
                elif error is not None:
                    raise error

    async def _ask(self, node: NodeId, message: Request) -> Answer:
        reply = await self._access.request(node, message, timeout_seconds=ASK_TIMEOUT_SECONDS)
        assert isinstance(reply.message, Answer)
        return reply.message


def _order(path: str) -> tuple[bytes, bytes]:
    """Return what orders the paths of a partition; nothing stands before all."""
    return (parent_of(path).encode(), name_of(path).encode()) if path else (b"", b"")
