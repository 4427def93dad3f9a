"""Judges of an acknowledgement, at the very moment when it is given: what would be left if all machines lost their power now?"""

from collections.abc import Iterator
from dataclasses import replace

from protocol.identity import NodeId, short
from protocol.paths import name_of, parent_of
from protocol.versions import Row
from sims.history import ABSENT, Write
from sims.oracles.base import Oracle
from sims.oracles.disks import chunks_of, has_chunk, is_rotten, rows_of, what_is_missing
from sims.world import Machine

REPLICATION = 3


class AckIsDurable(Oracle):
    """I2 and I19: what is acknowledged lies durably on as many machines as promised, its row on a majority of the replicas."""

    def acked(self, write: Write) -> None:
        """Count copies on the disks."""
        machines = min(2 * REPLICATION - 1, self.plan.machines)
        majority = machines // 2 + 1
        needed = min(REPLICATION, majority)
        rows = sum(self._may_have_lost(machine, write) or self._has_row(machine, write) for machine in self.world.machines.values())
        if rows < majority:
            raise self.violated(
                "I19", f"write {write.number} of {write.path} was acknowledged with its row on {rows} disks, and a majority is {majority}"
            )
        copies = rows
        if write.digest not in (ABSENT, None):
            copies = min((copies, *self._chunk_copies(write)))
        if copies < needed or copies < write.copies:
            raise self.violated(
                "I2",
                f"write {write.number} of {write.path}: {write.copies} copies were acknowledged, {copies} are on disks, {needed} promised",
            )

    def _may_have_lost(self, machine: Machine, write: Write) -> bool:
        """Return whether a disk may have lost, since the write began, what it had: that is within what the plan may lose."""
        return machine.name in self.plan.fragile and machine.lossy_at >= write.began

    def _chunk_copies(self, write: Write) -> Iterator[int]:
        for chunk in chunks_of(self.history.contents[write.digest or ""]):
            yield sum(self._may_have_lost(machine, write) or has_chunk(machine, chunk) for machine in self.world.machines.values())

    def _has_row(self, machine: Machine, write: Write) -> bool:
        end = parent_of(write.path).encode() + b"\0" + name_of(write.path).encode()
        for key, row in rows_of(machine):
            if key[3:] == end:
                return is_rotten(machine, key) or (row is not None and knows(row, write.version, is_removal=write.is_removal))
        return False


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
