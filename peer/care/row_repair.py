"""Damaged rows are made whole from the other replicas.

A row that fails its checksum is no vote, and nothing may be merged into it: this replica has forgotten what it once promised
about the path. It counts again only after it has learned what every acknowledged write may have left elsewhere. Such a write is on a
majority of each set, so on at least one of any M - majority + 1 *other* replicas of the set: so many of each set are asked, and
the merge of their rows takes the place of the damaged one (protocol-aware recovery: Alagappan et al., FAST 2018).

A coordinator may still hold its vote, though, and complete a majority with replicas that are asked here before they get the write. So the
partition gets a new stamp first, and the row is fetched under that one only, as all rows are where all are lost (`peer.cluster.sync`).

Owns which rows are known to be damaged, and the healing; runs as one task per node. `peer.files.row_service` and
`peer.cluster.sync` report what they stumble over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from peer.errors import Refused
from peer.files.access import TRY_SECONDS, Access
from peer.files.quorum import collect, fetch_row
from peer.store.rows import RowStore, RowTooLarge
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import RowIs
from protocol.paths import row_partition
from protocol.versions import empty_row, merge

DAMAGED_MAX = 1024
"""Damaged rows that are remembered; one more is found again when it is asked for."""
RETRY_SECONDS = 5.0
"""Pause after a round in which too few replicas could be asked."""

log = logging.getLogger(__name__)


class RowRepair:
    """Heals the damaged rows of one replica."""

    def __init__(self, access: Access, rows: RowStore, renew: Callable[[int, Sequence[int]], Awaitable[None]]) -> None:
        """`renew` asks for new stamps (`peer.cluster.layouts`)."""
        self._access = access
        self._rows = rows
        self._renew = renew
        self._damaged: dict[str, int] = {}
        """Paths, each with the layout version under which it was first dealt with; 0 before."""
        self._wake = asyncio.Event()

    def report(self, path: str) -> None:
        """Note that the row of `path` is damaged here."""
        if len(self._damaged) < DAMAGED_MAX and path not in self._damaged:
            log.warning("the row of %s is damaged here: it is fetched from the other replicas", path)
            self._damaged[path] = 0
            self._wake.set()

    def wake(self) -> None:
        """Look again: the layout has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Heal, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(RETRY_SECONDS if self._damaged else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            for path in list(self._damaged):
                if await self._heal(path):
                    del self._damaged[path]
            if self._damaged:
                await self._renew_stamps()

    async def _renew_stamps(self) -> None:
        layout = self._access.layout
        first_seen = [(row_partition(path), version) for path, version in self._damaged.items()]
        void = [partition for partition, version in first_seen if layout.cfg(partition) <= version]
        if void:
            await self._renew(layout.version, void)

    async def _heal(self, path: str) -> bool:
        """Return whether the row is whole again, or is none of ours any more."""
        partition, own = row_partition(path), self._access.node_id
        layout = self._access.layout
        stamp = layout.cfg(partition)
        if not layout.is_replica(own, partition):
            return True
        self._damaged[path] = self._damaged[path] or layout.version
        if stamp <= self._damaged[path]:
            return False
        sets = layout.replica_sets(partition)
        others = [owner for owner in layout.replicas(partition) if owner != own]

        async def fetch(node: NodeId) -> RowIs:
            return await fetch_row(self._access, layout, node, path, full=True)

        def enough(votes: Mapping[NodeId, RowIs]) -> bool:
            return all(sum(owner in votes for owner in owners) >= len(owners) - len(owners) // 2 for owners in sets)

        votes, _ = await collect(others, fetch, enough, TRY_SECONDS)
        if not enough(votes):
            return False
        row = empty_row(path)
        for node in sorted(votes):
            for found in votes[node].rows:
                row = merge(row, found)

        def guard() -> None:
            if self._access.layout.cfg(partition) != stamp:
                raise Refused(ErrorCode.STALE, "the partition has moved meanwhile")

        try:
            await self._rows.replace_damaged(row, guard)
        except (Refused, RowTooLarge) as error:
            log.info("%s stays damaged for now: %s", path, error)
            return False
        return True
