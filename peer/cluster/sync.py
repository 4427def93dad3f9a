"""Rule S: an owner of a moving partition pulls its rows from a majority of the fenced old owners before it counts.

Owns which partitions of this node are not synced yet, the pulling, the report to the voters, and the dropping of
rows of partitions that are no longer here. Runs as one task per node. Knows nothing of chunks: any
verified copy of a chunk is right, so chunks need none of this.

A replica that a layout completed without (a majority of W was enough) goes on here until it is synced as well: then
from a majority of the partition's owners.

*A replica that has lost its rows* stays who it is, and has forgotten what it voted for. It refuses whatever counts as a vote on a partition
(`SystemStore.is_lost`) until it has pulled what may have been acknowledged with its vote. That is on a majority of the owners, so on
one at least of any M - majority + 1 *others*: it pulls from so many. But a coordinator may still hold a vote of its earlier life, and
complete its majority with replicas that were pulled from before they got the write. Therefore it pulls only under a stamp that is newer
than all under which it has voted in that life: its sources refuse the older ones by then. It says which stamps are void by that, and
those who decide give its partitions new ones (`peer.cluster.decider`). Replicas that have lost theirs as well are no
sources. Where too few others are left it waits, and votes on nothing.

Where a cluster began by force what was acknowledged may lie with a single owner. So there every owner pulls from all others, but for those
that have been away for long, before it answers for the partition at all. Who loses its rows in the midst of that gives what it has, like
everybody, and pulls from all others without exception: whoever counts on its vote has stored what that was for before it asked.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from peer.cluster.layouts import Layouts, Peers
from peer.config import COMPLETE_WITHOUT_SECONDS
from peer.errors import LinkLost, RequestFailed
from peer.store.rows import RowCorrupt, RowStore, RowTooLarge
from peer.store.system import SystemStore
from protocol import limits
from protocol.identity import NodeId, short
from protocol.layout import Layout, pack_partitions, sources_needed
from protocol.messages import PartitionPull, PulledRows, SyncReport
from protocol.paths import row_partition
from protocol.versions import Row

RETRY_SECONDS = 0.5
"""Pause after a round in which not every source could answer: it has to learn the layout first, or come back."""
REPORT_SECONDS = 2.0
"""A report is repeated for as long as the layout is joint: voters keep reports in memory only."""
PULL_TIMEOUT_SECONDS = 10.0

log = logging.getLogger(__name__)


class Sync:
    """Brings the partitions of this node up to date."""

    def __init__(
        self,
        node_id: NodeId,
        layouts: Layouts,
        system: SystemStore,
        rows: RowStore,
        peers: Peers,
        report_damage: Callable[[str], None],
        away_seconds: Callable[[NodeId], float],
        on_stored: Callable[[NodeId, Sequence[Row]], None],
    ) -> None:
        """`on_stored` is told which rows a source has."""
        self._node_id = node_id
        self._layouts = layouts
        self._system = system
        self._rows = rows
        self._peers = peers
        self._report_damage = report_damage
        self._away_seconds = away_seconds
        self._on_stored = on_stored
        self._wake = asyncio.Event()
        self._reported: tuple[int, Sequence[int]] = 0, ()
        """Version and partitions of the last report, and (below) when it was made."""
        self._reported_at = 0.0
        self._complete_at = 0
        """The version of a layout without moves under which everything is synced, and what is foreign dropped."""

    def wake(self) -> None:
        """Look again: the layout changed or a peer came up."""
        self._wake.set()

    def unsynced(self) -> list[int]:
        """Return the partitions that this node owns and has not synced, in order."""
        layout = self._layouts.current
        if layout is None or layout.version == self._complete_at:
            return []
        return [partition for partition in layout.wanted_partitions_of(self._node_id) if not self._is_synced(layout, partition)]

    async def run(self) -> None:
        """Sync, report and drop, until cancelled."""
        while True:
            layout = self._layouts.current
            pause: float | None = None
            if layout is not None:
                pause = await self._round(layout)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _is_synced(self, layout: Layout, partition: int) -> bool:
        return self._system.synced(partition) == layout.stamps[partition]

    async def _round(self, layout: Layout) -> float | None:
        if layout.version == self._complete_at:
            return None  # what is synced stays so for as long as the layout does
        missing = self.unsynced()
        if missing:
            void = [partition for partition in missing if layout.cfg(partition) <= self._system.lost_at]
            if void:
                await self._layouts.renew(self._system.lost_at, void)
            await self._pull_missing(layout, missing)
        complete = not missing or not self.unsynced()
        if layout.unsettled_partitions:
            await self._report(layout)
            return REPORT_SECONDS if complete else RETRY_SECONDS
        if not complete:
            return RETRY_SECONDS
        await self._drop_foreign(layout)
        if self._system.lost_at:
            await self._system.rows_recovered()
            log.info("all rows that were lost are here again")
        self._complete_at = layout.version
        return None

    async def _pull_missing(self, layout: Layout, missing: list[int]) -> None:
        groups: dict[int, list[int]] = defaultdict(list)
        for partition in missing:
            stamp = layout.cfg(partition)
            if stamp > self._system.lost_at or (stamp == self._system.lost_at and layout.gathers(partition)):
                groups[stamp].append(partition)
        for stamp, partitions in sorted(groups.items()):
            await self._pull_group(layout, stamp, partitions)

    async def _pull_group(self, layout: Layout, stamp: int, partitions: list[int]) -> None:
        gathers = layout.gathers(partitions[0])
        peers = [peer for peer in self._peers.peers() if peer.cluster_id in (b"", layout.cluster_id)]
        heard = dict.fromkeys(partitions, 0)
        needed = self._sources_needed(layout, partitions, [peer.node_id for peer in peers])
        partitions = list(needed)
        for peer in peers:
            wanted = [
                partition
                for partition in partitions
                if heard[partition] < needed[partition] and peer.node_id in layout.old_set(partition)
            ]
            if wanted and await self._pull_from(peer.node_id, stamp, wanted, gathers=gathers):
                for partition in wanted:
                    heard[partition] += 1
        done = [partition for partition in partitions if heard[partition] >= needed[partition]]
        current = self._layouts.current
        if done and current is not None:
            still = [partition for partition in done if current.cfg(partition) == stamp]
            await self._system.mark_synced(still, stamp)

    def _sources_needed(self, layout: Layout, partitions: list[int], linked: Sequence[NodeId]) -> dict[int, int]:
        """Return from how many others of the old owners each partition is pulled; those are left out that have to wait for somebody."""
        needed = {}
        reached = {self._node_id, *linked}
        awaited = {owner for owner in layout.members if owner not in reached and self._away_seconds(owner) < COMPLETE_WITHOUT_SECONDS}
        for partition in partitions:
            owners = layout.old_set(partition)
            majority = len(owners) // 2 + 1
            if layout.gathers(partition) and layout.cfg(partition) == self._system.lost_at:
                needed[partition] = len(owners) - 1
            elif layout.gathers(partition):
                if awaited.isdisjoint(owners):
                    is_owner = self._node_id in owners
                    needed[partition] = max(majority, len(reached.intersection(owners))) - is_owner
            elif self._node_id not in owners:
                needed[partition] = majority
            elif self._system.is_lost(partition):
                needed[partition] = sources_needed(len(owners))
            else:
                needed[partition] = majority - layout.is_joint_at(partition)  # while it moves this node is one of the majority itself
        return needed

    async def _pull_from(self, source: NodeId, stamp: int, partitions: list[int], *, gathers: bool) -> bool:
        bitmap = pack_partitions(partitions)
        after_partition, after_path = 0, ""
        while True:
            message = PartitionPull(int(PULL_TIMEOUT_SECONDS * 1000), stamp, bitmap, after_partition, after_path)
            try:
                reply = await self._peers.request(source, message, timeout_seconds=PULL_TIMEOUT_SECONDS)
            except (LinkLost, RequestFailed, TimeoutError) as error:
                log.debug("sync from %s has to wait: %s", short(source), error)
                return False
            page = reply.message
            assert isinstance(page, PulledRows)
            if page.rows:
                try:
                    await self._merge(page.rows, gathers=gathers)
                except RowCorrupt as error:
                    self._report_damage(error.path)
                    return False
                except RowTooLarge as error:
                    log.warning("a row cannot be synced and keeps its partition from counting here: %s", error)
                    return False
                self._on_stored(source, page.rows)
                after_path = page.rows[-1].path
                after_partition = row_partition(after_path)
            if not page.more:
                return True
            if not page.rows:
                return False

    async def _merge(self, rows: Sequence[Row], *, gathers: bool) -> None:
        """Merge what was pulled; in what is gathered from all owners it takes the place of rows that are damaged here.

        Raises: RowCorrupt, RowTooLarge.
        """
        try:
            await self._rows.merge(rows)
        except RowCorrupt:
            if not gathers:
                raise
            for row in rows:
                await self._rows.replace_damaged(row, lambda: None)
            await self._rows.merge(rows)

    async def _report(self, layout: Layout) -> None:
        wanted = layout.wanted_partitions_of(self._node_id)
        unsettled = frozenset(layout.unsettled_partitions)
        synced = [partition for partition in wanted if partition in unsettled and self._is_synced(layout, partition)]
        # A report dials who has no link, and who then answers there in its place wakes this task: only news are told at once.
        now = asyncio.get_running_loop().time()
        if not synced or ((layout.version, synced) == self._reported and now < self._reported_at + REPORT_SECONDS):
            return
        self._reported, self._reported_at = (layout.version, synced), now
        message = SyncReport(int(REPORT_SECONDS * 1000), layout.version, pack_partitions(synced))
        await asyncio.gather(*(self._tell(voter, message) for voter in layout.record.voters))

    async def _tell(self, voter: NodeId, message: SyncReport) -> None:
        try:
            await self._peers.request(voter, message, timeout_seconds=REPORT_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError) as error:
            log.debug("the report to %s has to wait: %s", short(voter), error)

    async def _drop_foreign(self, layout: Layout) -> None:
        """Drop the rows of partitions that this node owns no more: the new owners are synced, so the old drop last.

        That takes a while, and meanwhile a newer layout may have it enter one of them again.
        """
        owned = frozenset(layout.partitions_of(self._node_id))
        foreign = [partition for partition in range(limits.PARTITIONS) if partition not in owned]

        def may_go(partition: int) -> bool:
            current = self._layouts.current
            return current is not None and not current.is_replica(self._node_id, partition)

        if foreign:
            await self._rows.drop(foreign, may_go)
