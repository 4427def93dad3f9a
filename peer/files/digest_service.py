"""What a replica answers to those who compare rows with it (`peer.care.reconcile`).

Owns which partitions can be compared with whom, and the answering side: digests of partitions and buckets, and one range of a
partition row by row. Changes nothing: what is wanted here arrives by `RowMerge`, behind the fence of `peer.files.row_service`.
"""

import asyncio
from collections.abc import Callable

from peer.errors import Refused
from peer.files.access import Access
from peer.files.confirmed import Confirmed
from peer.seams import Faults
from peer.store.rows import RowCorrupt, RowStore
from protocol import limits
from protocol.digest import PATH_HASH_BYTES, bucket_of, digest_of_total, path_hash, unpack_buckets
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.layout import Layout, pack_partitions, unpack_partitions
from protocol.messages import BucketsAre, BucketsGet, DigestsAre, DigestsGet, RowsCompare, RowsDiffer
from protocol.rows import row_bytes
from protocol.versions import Row


class DigestService:
    """The digests of one replica, as other members may use them."""

    def __init__(
        self,
        access: Access,
        rows: RowStore,
        unsynced: Callable[[], list[int]],
        faults: Faults,
        report_damage: Callable[[str], None],
        confirmed: Confirmed,
    ) -> None:
        """`unsynced` says of which partitions this node does not know everything yet; `report_damage` is told of damaged rows."""
        self.asked_at: dict[NodeId, float] = {}
        """When each member last compared with this one."""
        self._access = access
        self._rows = rows
        self._unsynced = unsynced
        self._faults = faults
        self._report_damage = report_damage
        self._confirmed = confirmed
        self._layout: Layout | None = None
        self._shared: dict[NodeId, bytes] = {}

    def comparable(self, peer: NodeId) -> bytes:
        """Return the partitions, as a bitmap, that `peer` and this node are replicas of and
        that this node can speak for: it has synced them, and their digest is known.

        Raises: Refused while this node belongs to no cluster.
        """
        layout, own = self._access.layout, self._access.node_id
        if layout is not self._layout:
            self._layout = layout
            self._shared.clear()
            self.asked_at = {node: at for node, at in self.asked_at.items() if node in layout.members}
        if peer not in self._shared:
            both = [partition for partition in layout.partitions_of(own) if layout.is_replica(peer, partition)]
            self._shared[peer] = pack_partitions(both)
        mute = [*self._unsynced(), *self._rows.digests.unknown()]
        return _without(self._shared[peer], pack_partitions(mute)) if mute else self._shared[peer]

    async def digests(self, peer: NodeId, request: DigestsGet) -> DigestsAre:
        """Answer a member that compares all that both have. What the answer stands for is durable.

        Raises: Refused.
        """
        version = self._access.layout.version
        if request.layout_version != version:
            raise Refused(ErrorCode.STALE, f"layout {request.layout_version} is not {version}")
        self.asked_at[peer] = asyncio.get_running_loop().time()
        common = _and(request.partitions, self.comparable(peer))
        digests = self._rows.digests
        if common == request.partitions and digest_of_total(digests.total(common)) == request.digest:
            self._confirmed.agrees(peer, unpack_partitions(common), self._confirmed.doubts())
            await self._rows.drain()
            return DigestsAre(common, ())
        totals = [digest.total for partition in unpack_partitions(common) if (digest := digests.of(partition)) is not None]
        await self._rows.drain()
        return DigestsAre(common, tuple(map(digest_of_total, totals)))

    def buckets(self, request: BucketsGet) -> BucketsAre:
        """Answer a member that has found a partition to differ.

        Raises: Refused.
        """
        self._check(request.partition, request.stamp)
        digest = self._rows.digests.of(request.partition)
        if digest is None:
            raise Refused(ErrorCode.UNAVAILABLE, "the digests of the partition are being made anew")
        return BucketsAre(digest.buckets())

    async def compare(self, request: RowsCompare) -> RowsDiffer:
        """Compare one range row by row, as far as the answer has room.

        Raises: Refused.
        """
        self._check(request.partition, request.stamp)
        buckets = unpack_buckets(request.buckets)
        theirs = {mark[: PATH_HASH_BYTES]: mark[PATH_HASH_BYTES :] for mark in request.rows}
        found, more = await self._rows.row_digests(request.partition, request.after, request.until, limits.MARKS_MAX)
        page = _Page(1 if self._faults.sometimes("rows.short-page") else limits.ROWS_PER_MESSAGE_MAX)
        settled: dict[bytes, None] = {}
        last, looked_at = found[-1][0] if more else request.until, ""
        for path, digest in found:
            hashed = path_hash(path)
            if bucket_of(hashed) in buckets and theirs.get(hashed, b"") != digest:
                row = await self._row(path)
                if row is not None and not page.add(row):
                    last = looked_at
                    break
                if row is None:
                    settled[hashed] = None
            elif hashed in theirs:
                settled[hashed] = None
            looked_at = path
        wanted = bytearray((len(request.rows) + 7) // 8)
        for index, hashed in enumerate(theirs):
            wanted[index >> 3] |= (hashed not in settled) << (index & 7)
        return RowsDiffer(tuple(page.rows), bytes(wanted), last)

    async def _row(self, path: str) -> Row | None:
        """Return a row; None for one that is damaged (nothing may be merged into it) or has just been removed."""
        try:
            return await self._rows.get(path)
        except RowCorrupt:
            self._report_damage(path)
            return None

    def _check(self, partition: int, stamp: int) -> None:
        layout = self._access.layout
        if not layout.is_replica(self._access.node_id, partition):
            raise Refused(ErrorCode.NOT_REPLICA, "this node is no replica of the partition")
        if stamp != layout.cfg(partition):
            raise Refused(ErrorCode.STALE, f"stamp {stamp} is not {layout.cfg(partition)}")


class _Page:
    """Rows that fit one message, one at least."""

    def __init__(self, rows_max: int) -> None:
        self.rows: list[Row] = []
        self._rows_max = rows_max
        self._bytes_left = limits.PAGE_BYTES_MAX

    def add(self, row: Row) -> bool:
        """Take `row` if there is room for it."""
        size = len(row_bytes(row))
        if self.rows and (len(self.rows) >= self._rows_max or size > self._bytes_left):
            return False
        self.rows.append(row)
        self._bytes_left -= size
        return True


def _and(left: bytes, right: bytes) -> bytes:
    return bytes(one & other for one, other in zip(left, right, strict=True))


def _without(bitmap: bytes, removed: bytes) -> bytes:
    return bytes(one & ~other for one, other in zip(bitmap, removed, strict=True))
