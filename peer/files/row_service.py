"""What a replica answers about rows: publish, merge, fetch, list, pull.

Owns the fence (rule F): a request is served only under the stamp that is this replica's own `cfg[p]`, and never where its rows are lost
(`peer.cluster.sync`); both are checked again immediately before every commit, and behind every read: who is no replica any more drops its
rows. Owns the coordinator's part of a write: find the operation or make the version, commit locally, ship the whole row, count. Knows
nothing of how a client comes to its context.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from peer.errors import Refused, RequestFailed, Unavailable
from peer.files.access import TRY_SECONDS, Access
from peer.files.confirmed import Confirmed
from peer.files.quorum import collect, has_majority
from peer.files.row_shipper import RowShipper
from peer.seams import Faults
from peer.store.rows import RowCorrupt, RowStore, RowTooLarge
from peer.store.system import SystemStore
from protocol import limits
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.layout import Layout, unpack_partitions
from protocol.messages import (
    Done,
    ListFetch,
    ListPage,
    PartitionPull,
    Published,
    PulledRows,
    RowFetch,
    RowIs,
    RowMerge,
    RowPublish,
)
from protocol.paths import folder_partition, name_of
from protocol.rows import range_digest, row_digest
from protocol.versions import Dot, Kind, Row, Version, find_operation, has_seen, published, winner


class RowService:
    """The rows of one replica, as its peers and clients may use them."""

    def __init__(
        self,
        access: Access,
        rows: RowStore,
        system: SystemStore,
        faults: Faults,
        report_damage: Callable[[str], None],
        confirmed: Confirmed,
    ) -> None:
        """`report_damage` is told the path of every damaged row that is met."""
        self._access = access
        self._report_damage = report_damage
        self._rows = rows
        self._faults = faults
        self._confirmed = confirmed
        self._shipper = RowShipper(access, confirmed.has)
        self._system = system
        self._hlc = 0

    async def publish(self, request: RowPublish, deadline: float) -> Published:
        """Coordinate a write.

        Raises: Refused; OUTCOME_UNKNOWN when it is stored here but not on a majority of each set.
        """
        layout = await self._gathered(request.partition, request.stamp)
        for holder in request.holders:
            if holder not in layout.members:
                raise Refused(ErrorCode.STALE, "a holder of the chunks is no member any more")
        dot = Dot(self._access.node_id, await self._system.next_counter())

        def edit(row: Row) -> Row:
            self._check(request.partition, request.stamp)
            if find_operation(row, request.op_id) is not None:
                return row
            standing = winner(row)
            if standing is not None and request.kind is not Kind.TOMBSTONE:
                may_be_dead = not has_seen(row, request.context)
                if standing.kind is not request.kind:
                    raise _other_kind(standing, request, may_be_dead=may_be_dead)
                if request.kind is Kind.DIRECTORY and not may_be_dead:
                    return row  # the folder is marked: a marker more would say nothing
            return published(row, self._version(request, dot, row))

        try:
            row = await self._rows.change(request.path, edit)
        except RowTooLarge as error:
            raise Refused(ErrorCode.TOO_LARGE, f"{error}: resolve them first") from None
        except RowCorrupt as error:
            raise self._damaged(error) from None
        if self._faults.sometimes("rows.slow-ship"):
            await asyncio.sleep(self._access.entropy.uniform("slow ship", 0.0, TRY_SECONDS))
        copies = await self._ship(layout, request, row, deadline)
        if self._faults.sometimes("rows.outcome-unknown"):
            raise Refused(ErrorCode.OUTCOME_UNKNOWN, "it is stored, and for once nobody is told")
        standing = winner(row)
        dot = find_operation(row, request.op_id) or (standing.dot if standing is not None else dot)
        return Published(dot, copies)

    async def merge(self, sender: NodeId, request: RowMerge) -> Done:
        """Merge whole rows; durable when answered. A replica sends what it has stored."""
        await self._fenced(request.partition, request.stamp)

        def guard() -> None:
            self._check(request.partition, request.stamp)

        try:
            await self._rows.merge(request.rows, guard)
        except RowTooLarge as error:
            raise Refused(ErrorCode.TOO_LARGE, str(error)) from None
        except RowCorrupt as error:
            raise self._damaged(error) from None
        self._confirmed.has(sender, request.rows)
        return Done()

    async def fetch(self, request: RowFetch) -> RowIs:
        """Vote on one row."""
        await self._gathered(request.partition, request.stamp)
        try:
            digest, row = await self._rows.vote(request.path, full=request.full)
        except RowCorrupt as error:
            raise self._damaged(error) from None
        self._check(request.partition, request.stamp)
        return RowIs(digest, (row,) if row is not None else (), self._confirmed.row(request.path))

    async def list(self, request: ListFetch) -> ListPage:
        """Vote on a range of a folder."""
        if folder_partition(request.folder) != request.partition:
            raise Refused(ErrorCode.INVALID, "the folder lies in another partition")
        await self._gathered(request.partition, request.stamp)
        try:
            if not request.full:
                digest = await self._rows.digest(request.folder, request.after, request.until)
                self._check(request.partition, request.stamp)
                return ListPage(digest, request.until, (), self._confirmed.range(request.folder, request.after, request.until))
            rows, more = await self._rows.page(
                request.folder,
                request.after,
                request.until,
                rows_max=self._page_rows(),
                bytes_max=limits.PAGE_BYTES_MAX,
            )
        except RowCorrupt as error:
            raise self._damaged(error) from None
        self._check(request.partition, request.stamp)
        last = name_of(rows[-1].path) if more else request.until
        confirmed = self._confirmed.range(request.folder, request.after, last)
        return ListPage(range_digest(row_digest(row) for row in rows), last, tuple(rows), confirmed)

    async def pull(self, request: PartitionPull) -> PulledRows:
        """Give a page of rows to a new owner, once this source is fenced for all of the partitions (rule S).

        Where all owners gather, a row that is damaged here is left to the others: else one would keep all partitions from being read.
        """
        partitions = unpack_partitions(request.partitions)

        def check() -> None:
            for partition in partitions:
                self._check(partition, request.stamp)

        await self._catch_up(request.stamp)
        check()
        await self._rows.drain()  # what was accepted under the stamp before must be visible to the pull
        after = (request.after_partition, request.after_path) if request.after_path else None
        try:
            rows, more = await self._rows.pull(
                partitions,
                after,
                rows_max=self._page_rows(),
                bytes_max=limits.PAGE_BYTES_MAX,
                report_damage=self._report_damage if all(map(self._access.layout.gathers, partitions)) else None,
            )
        except RowCorrupt as error:
            raise self._damaged(error) from None
        check()
        return PulledRows(tuple(rows), more)

    def _page_rows(self) -> int:
        return 1 if self._faults.sometimes("rows.short-page") else limits.ROWS_PER_MESSAGE_MAX

    def _damaged(self, error: RowCorrupt) -> Refused:
        self._report_damage(error.path)
        return Refused(ErrorCode.CORRUPT, "a row of this replica is damaged")

    # -- the fence -----------------------------------------------------------

    async def _fenced(self, partition: int, stamp: int) -> Layout:
        """Return the layout in which `stamp` is current for `partition`, catching up if the sender knows more.

        Raises: Refused with STALE or NOT_REPLICA, or UNAVAILABLE while the rows of the partition are lost.
        """
        await self._catch_up(stamp)
        return self._check(partition, stamp)

    async def _gathered(self, partition: int, stamp: int) -> Layout:
        """As `_fenced`, where this replica answers for what is in the partition.

        Raises: Refused, also with UNAVAILABLE while it does not have what the owners who were left together have.
        """
        layout = await self._fenced(partition, stamp)
        if layout.gathers(partition) and self._system.synced(partition) != stamp:
            raise Refused(ErrorCode.UNAVAILABLE, "this replica gathers what the others have")
        return layout

    async def _catch_up(self, stamp: int) -> None:
        if stamp > self._access.layout.version:
            try:
                await self._access.catch_up(stamp)
            except Unavailable as error:
                raise Refused(ErrorCode.UNAVAILABLE, f"this replica cannot catch up: {error}") from None

    def _check(self, partition: int, stamp: int) -> Layout:
        layout = self._access.layout
        if not layout.is_replica(self._access.node_id, partition):
            raise Refused(ErrorCode.NOT_REPLICA, "this node is no replica of the partition")
        if stamp != layout.cfg(partition):
            raise Refused(ErrorCode.STALE, f"stamp {stamp} is not {layout.cfg(partition)}")
        if self._system.is_lost(partition) and not (layout.gathers(partition) and stamp >= self._system.lost_at):
            raise Refused(ErrorCode.UNAVAILABLE, "this replica has lost its rows and does not have them again yet")
        return layout

    # -- the coordinator -----------------------------------------------------

    def _version(self, request: RowPublish, dot: Dot, row: Row) -> Version:
        now = self._access.wall_clock.milliseconds() << 16
        self._hlc = max(now, self._hlc + 1, *(head.hlc + 1 for head in row.heads))
        return Version(
            dot=dot,
            context=request.context,
            hlc=self._hlc,
            op_id=request.op_id,
            kind=request.kind,
            size=request.size,
            mode=request.mode,
            modified_milliseconds=request.modified_milliseconds,
            writer=request.writer,
            content=request.content,
        )

    async def _ship(self, layout: Layout, request: RowPublish, row: Row, deadline: float) -> int:
        """Bring the whole row to the other replicas; return the number of machines that have it durably, this one included."""
        partition, own = request.partition, self._access.node_id
        sets = layout.replica_sets(partition)

        async def send(node: NodeId) -> None:
            await self._shipper.ship(node, partition, request.stamp, row)

        def enough(done: Mapping[NodeId, None]) -> bool:
            return has_majority(sets, {own: None, **done}) and len(done) + 1 >= layout.copies_wanted

        seconds = min(TRY_SECONDS, deadline - asyncio.get_running_loop().time())
        others = [node for node in layout.replicas(partition) if node != own]
        done, failures = await collect(others, send, enough, seconds, finish=True)
        if has_majority(sets, {own: None, **done}):
            return len(done) + 1
        newest = max((e.layout_version for e in failures.values() if isinstance(e, RequestFailed)), default=0)
        if newest > layout.version:
            with suppress(Unavailable):
                await self._access.catch_up(newest)
        raise Refused(ErrorCode.OUTCOME_UNKNOWN, "it is stored here, but too few replicas have confirmed it in time")


def _other_kind(standing: Version, request: RowPublish, *, may_be_dead: bool) -> Refused:
    """A folder does not become a file, nor the reverse, without being removed first; whether it was, another replica may know."""
    what = "a folder" if standing.kind is Kind.DIRECTORY else "a file"
    if may_be_dead:
        return Refused(ErrorCode.UNAVAILABLE, f"{request.path} is {what} here, and this replica has missed what the writer has seen of it")
    return Refused(ErrorCode.EXISTS, f"{request.path} is {what}")
