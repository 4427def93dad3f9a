"""Judges of an acknowledgement, at the very moment when it is given: what would be left if all machines lost their power now?"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from protocol.identity import NodeId, short
from protocol.layout import Layout
from protocol.paths import row_partition
from protocol.placement import Row as Owners
from protocol.versions import Row
from sims.history import ABSENT, History, Write
from sims.oracles.base import Oracle
from sims.oracles.disks import (
    chunks_of,
    has_chunk,
    identity_on,
    is_rotten,
    latest_layout,
    layout_of,
    layout_version,
    row_key,
    row_under,
    rows_of,
    what_is_missing,
)
from sims.plan import Plan
from sims.world import Machine, World


class AckIsDurable(Oracle):
    """I2, I15 and I19: what is acknowledged lies durably on as many machines as promised, its row on a majority of its replicas.

    On a majority of the old owners by the newest layout that any disk has: whoever moved there has synced from those who had the row.
    And on a majority of the new ones as well, if the old owners had all stored that layout before the write began: they refuse any other.
    """

    def begin(self, world: World, plan: Plan, history: History) -> None:
        """See the world."""
        super().begin(world, plan, history)
        self._machines: dict[NodeId, dict[str, Machine]] = {}
        """Who has, or had, the disk of a node: more than one machine where a disk was copied."""
        self._stored: dict[str, list[tuple[float, int]]] = {}
        """Since when each machine has had which layout, in order."""
        self._columns: dict[int, int] = {}
        """How many owners a partition has by each layout, before what it moves has moved."""

    def tick(self) -> None:
        """Note who is who, and which layouts are stored."""
        for machine in self.world.machines.values():
            node_id, version = identity_on(machine), layout_version(machine)
            if node_id is not None:
                self._machines.setdefault(node_id, {})[machine.name] = machine
            stored = self._stored.setdefault(machine.name, [(0.0, 0)])
            if stored[-1][1] != version:
                stored.append((self.world.loop.time(), version))

    def acked(self, write: Write) -> None:
        """Count copies on the disks."""
        self.tick()
        layout = latest_layout(self.world.machines.values())
        partition = row_partition(write.path)
        what = f"write {write.number} of {write.path} was acknowledged with its row on"
        for owners in self._sets(layout, partition, write):
            rows = sum(self._counts(owner, write) for owner in owners)
            if rows <= len(owners) // 2:
                raise self.violated(
                    "I15" if owners == layout.new_set(partition) else "I19",
                    f"{what} {rows} of its {len(owners)} replicas by layout {layout.version}, and a majority is {len(owners) // 2 + 1}",
                )
        machines = self.world.machines.values()
        rows = sum(self._may_have_lost(machine, write) or _has_row(machine, write) for machine in machines)
        gone = sum(self._may_have_dropped(machine, layout, write) and not _has_row(machine, write) for machine in machines)
        chunks = tuple(self._chunk_copies(write)) if write.digest not in (ABSENT, None) else ()
        copies = min((rows, *chunks))
        needed = self._needed(layout, write)
        if copies < needed or min((rows + gone, *chunks)) < min(write.copies, layout.copies_wanted):
            raise self.violated(
                "I2",
                f"write {write.number} of {write.path}: {write.copies} copies were acknowledged, {copies} are on disks, {needed} promised",
            )

    def _sets(self, layout: Layout, partition: int, write: Write) -> Sequence[Owners]:
        old, new = layout.old_set(partition), layout.new_set(partition)
        known = all(self._version_at(owner, write.began) == layout.version for owner in old)
        return (old, new) if new is not None and known else (old,)

    def _version_at(self, node_id: NodeId, at: float) -> int:
        """Return which layout a node had stored, at least, at a moment; 0 if it had none."""
        stored = [self._stored[name] for name in self._machines.get(node_id, ())]
        return min((next(version for since, version in reversed(each) if since <= at) for each in stored), default=0)

    def _needed(self, layout: Layout, write: Write) -> int:
        """Return how many copies a write needed, by whichever layout that a member may have had since it began."""
        versions = [self._version_at(member, write.began) for member in layout.members]
        oldest = min((version for version in versions if version), default=layout.version)
        columns = min(self._columns_of(version) for version in range(oldest, layout.version + 1))
        return min(layout.record.replication, columns // 2 + 1)

    def _columns_of(self, version: int) -> int:
        if version not in self._columns:
            layout = next(layout for machine in self.world.machines.values() if (layout := layout_of(machine, version)) is not None)
            self._columns[version] = layout.record.old_columns
        return self._columns[version]

    def _may_have_lost(self, machine: Machine, write: Write) -> bool:
        """Return whether a disk may have lost, since the write began, what it had: that is within what the plan may lose."""
        return machine.lossy_at >= write.began

    def _may_have_dropped(self, machine: Machine, layout: Layout, write: Write) -> bool:
        """Return whether a disk may have dropped, since the write began, a row that was counted there: its node is no replica any more."""
        has_learned = self._stored[machine.name][-1][0] >= write.began
        return has_learned and identity_on(machine) not in layout.replicas(row_partition(write.path))

    def _counts(self, owner: NodeId, write: Write) -> bool:
        """Return whether a replica has the row of a write, or may have lost it since."""
        return any(
            self._may_have_lost(machine, write) or (identity_on(machine) == owner and _has_row(machine, write))
            for machine in self._machines.get(owner, {}).values()
        )

    def _chunk_copies(self, write: Write) -> Iterator[int]:
        for chunk in chunks_of(self.history.contents[write.digest or ""]):
            yield sum(self._may_have_lost(machine, write) or has_chunk(machine, chunk) for machine in self.world.machines.values())


def _has_row(machine: Machine, write: Write) -> bool:
    key = row_key(write.path)
    row = row_under(machine, key)
    return is_rotten(machine, key) or (row is not None and knows(row, write.version, is_removal=write.is_removal))


def knows(row: Row, version: str, *, is_removal: bool) -> bool:
    """Return whether a row has a version, or one that supersedes it."""
    if not version:  # the client is not told which version a removal is
        return not is_removal or bool(row.heads)
    actor, _, counter = version.partition(".")
    dots = [dot for head in row.heads for dot in (head.dot, *head.context)]
    if any(short(dot.actor) == actor and dot.counter >= int(counter) for dot in dots):
        return True
    return any(short(dot.actor) == actor and dot.counter == int(counter) for known in row.operations for dot in known.dots)


class RowsTravelWhole(Oracle):
    """I5: who has a version of a coordinator has, or has seen superseded, every earlier version of it that stands in that row."""

    def tick(self) -> None:
        """Compare the row of each coordinator with those of all others."""
        rows: dict[bytes, list[tuple[NodeId, Row]]] = {}
        for machine in self.world.machines.values():
            for key, row in rows_of(machine) if machine.node is not None else ():
                if machine.node is not None and row is not None and not is_rotten(machine, key):
                    rows.setdefault(key, []).append((machine.node.node_id, row))
        for replicas in rows.values():
            if any(row is not replicas[0][1] for _, row in replicas):
                self._compare(replicas)

    def _compare(self, replicas: list[tuple[NodeId, Row]]) -> None:
        for coordinator, row in replicas:
            own = replace(row, heads=tuple(head for head in row.heads if head.dot.actor == coordinator))
            for other, other_row in replicas if own.heads else ():
                missing = what_is_missing(own, other_row) if other != coordinator else None
                if missing is not None:
                    raise self.violated("I5", f"{row.path}: node {short(other)} lacks {missing}, node {short(coordinator)}")


class DotsAreUnique(Oracle):
    """I21: no version number is given to two writes, whatever a coordinator may have forgotten."""

    def __init__(self) -> None:
        self._given: dict[str, Write] = {}

    def acked(self, write: Write) -> None:
        """Compare with all before."""
        if not write.version:
            return
        other = self._given.setdefault(write.version, write)
        if other is not write:
            raise self.violated("I21", f"version {write.version} was given to write {other.number} and to write {write.number}")
