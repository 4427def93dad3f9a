"""What one of two replicas may answer alone: what it knows the other one to have stored as well.

Theory of operation
-------------------
Of a partition with two replicas both are needed to acknowledge a write and to answer a read. So each has whatever was acknowledged or
read, and what is only at one of them was neither. While one is away the other may therefore answer with rows that both have: nothing
acknowledged is missing in them, and whoever reads later, also at the other one alone, sees them or more. A row that may be here only is
refused, for it could be lost with this machine, or be missing at the other. That a row is not here is an answer as well: then nobody was
ever shown one. No layout that this node has not learned of takes effect meanwhile, for this node is needed to fence it (rules J and S).

This node *agrees* with the other about a partition when every row in it is known to be stored there just as it is here, but for the rows
*in doubt*. A row is in doubt from its change on (before it is durable, so before anybody sees it) until the other acknowledges to have
stored what it became, or sends just that. Two agree when

- their digests are the same (`peer.care.reconcile`): what was in doubt before that is not any more;
- one of them enters a partition of the other: that becomes stable only once the newcomer has pulled everything (rule S).

All of it is in memory, so a node that starts anew agrees with nobody before it has met the other one: its disk may have been put back, and
only the other one can tell (`peer.cluster.lives`). A damaged row or a wrong digest ends the agreement about its partition.

Owns that knowledge. Asks nobody: whoever ships, takes or compares rows tells it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.paths import folder_partition, name_of, parent_of, row_partition
from protocol.rows import row_digest
from protocol.versions import Row

PAIR = 2
"""Replicas of which one alone may answer: with more a majority is more than one."""
DOUBTS_MAX = 4096
"""Rows in doubt that are remembered; where there are more, all agreement ends until the next comparison."""


@dataclass(frozen=True, slots=True)
class Doubts:
    """The rows in doubt at one moment, for whoever compares what they are part of."""

    rows: Mapping[str, bytes]
    age: int


class Confirmed:
    """What this node knows the other replica to have, wherever there are exactly two."""

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self._layout: Layout | None = None
        self._others: dict[int, NodeId] = {}
        """The other replica of each partition that has just two, of both sets together."""
        self._agreed: dict[int, NodeId] = {}
        self._doubts: dict[str, bytes] = {}
        """Path -> digest of what the row became; empty where it went."""
        self._age = 0
        """Raised when agreement ends: what was compared before that says nothing."""

    # -- what may be answered --------------------------------------------------

    def row(self, path: str) -> bool:
        """Return whether what was just read of the row of `path` may be answered alone."""
        return self._is_agreed(row_partition(path)) and path not in self._doubts

    def range(self, folder: str, after: str, until: str) -> bool:
        """Return the same of the rows of `folder` with after < name <= until (empty: no bound)."""
        if not self._is_agreed(folder_partition(folder)):
            return False
        names = [name_of(path).encode() for path in self._doubts if parent_of(path) == folder]
        return not any(name > after.encode() and (not until or name <= until.encode()) for name in names)

    # -- what is learned -------------------------------------------------------

    def layout_changed(self, layout: Layout) -> None:
        """Follow the layout in force, one after another from the one on that this life began with."""
        before, self._layout = self._layout, layout
        self._others = {}
        columns = max(layout.record.old_columns, layout.record.new_columns)
        for partition in layout.partitions_of(self._node_id) if columns <= PAIR else ():
            others = [owner for owner in layout.replicas(partition) if owner != self._node_id]
            if len(others) == 1:
                self._others[partition] = others[0]
        self._agreed = {partition: node for partition, node in self._agreed.items() if self._others.get(partition) == node}
        self._doubts = {path: digest for path, digest in self._doubts.items() if row_partition(path) in self._others}
        for partition, other in self._others.items():
            begins = before is not None and layout.is_joint_at(partition) and not before.is_joint_at(partition)
            if begins and len(layout.old_set(partition)) == 1:
                self._agreed[partition] = other

    def changed(self, partition: int, path: str, digest: bytes) -> None:
        """A row is about to become what has this digest."""
        if partition not in self._others:
            return
        if len(self._doubts) >= DOUBTS_MAX and path not in self._doubts:
            self._agreed.clear()
            self._doubts.clear()
            self._age += 1
        self._doubts[path] = digest

    def forgotten(self, partition: int) -> None:
        """Nobody knows any more what the rows of a partition were."""
        self._agreed.pop(partition, None)
        self._age += 1

    def has(self, node: NodeId, rows: Sequence[Row]) -> None:
        """A replica has these rows, or more, on its disk."""
        for row in rows:
            if self._others.get(row_partition(row.path)) == node and self._doubts.get(row.path) == row_digest(row):
                del self._doubts[row.path]

    def doubts(self) -> Doubts:
        """Return what is in doubt now, to be given to `agrees` with what the comparison of now has shown."""
        return Doubts(dict(self._doubts), self._age)

    def agrees(self, node: NodeId, partitions: Iterable[int], compared: Doubts) -> None:
        """A replica has on its disk the rows of `partitions` as they were here when `compared` was in doubt."""
        if compared.age != self._age or not self._others:
            return
        agreed = {partition: node for partition in partitions if self._others.get(partition) == node}
        self._agreed.update(agreed)
        for path, digest in compared.rows.items():
            if row_partition(path) in agreed and self._doubts.get(path) == digest:
                del self._doubts[path]

    # -- inside --------------------------------------------------------------

    def _is_agreed(self, partition: int) -> bool:
        return partition in self._agreed and self._layout is not None and not self._layout.is_joint_at(partition)
