"""The partition table: consistent hashing with bounded loads.

Every partition has an ordered row of distinct owners. Owners are preferred by weighted rendezvous hash (Thaler and Ravishankar,
"Using name-based mappings to increase hit rates", 1998; weights as in Schindelhauer and Schomaker, SPAA 2005), no owner exceeds its quota
(Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018, with a bound of one plus rounding), and a change of members
moves only what it must.

Owns quotas, scores and `next_table`. The result is *agreed* as an explicit table in a layout record, never computed twice by two
machines: so the scores may be floating point. Columns fall into two groups with quotas of their own: the chunk
homes (bytes lie there) and the replicas that hold rows only.
"""

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from protocol import limits
from protocol.hashing import CONTEXT_PLACEMENT, derived_hash
from protocol.identity import NodeId

PARTITIONS: Final = limits.PARTITIONS
WORTH_MOVING: Final = 1.05
"""Without a change of members or weights, data moves only where a load exceeds its quota by more than this."""

Row = tuple[NodeId, ...]
Table = list[Row]


@dataclass(frozen=True, slots=True)
class Site:
    """A member, as far as placement is concerned."""

    node_id: NodeId
    weight: int
    zone: str = ""


@lru_cache(maxsize=2 * limits.MEMBERS_MAX)
def _uniform(node_id: NodeId) -> "array[float]":
    """Return for each partition the negated logarithm of a number from (0, 1) that depends on node and partition alone."""
    raw = derived_hash(CONTEXT_PLACEMENT, node_id, 8 * PARTITIONS)
    words = struct.unpack(f">{PARTITIONS}Q", raw)
    return array("d", (-math.log(((word >> 11) + 0.5) / (1 << 53)) for word in words))


def cost(site: Site, partition: int) -> float:
    """Return how much `partition` dislikes `site`: the lowest cost is the rendezvous winner."""
    return _uniform(site.node_id)[partition] / site.weight


def preference(partition: int, sites: Sequence[Site]) -> list[NodeId]:
    """Return the ids of `sites` in the order in which `partition` prefers them."""
    return [site.node_id for site in sorted(sites, key=lambda site: (cost(site, partition), site.node_id))]


def quotas(
    sites: Sequence[Site], slots: int, most: Mapping[NodeId, int], loads: Mapping[NodeId, int]
) -> dict[NodeId, int]:
    """Share `slots` (at most the sum of `most`) among `sites` by weight, nobody above `most`.

    Water-filling; what rounding leaves over goes first to those that hold it already (`loads`), then by largest
    remainder, ties by id. Every quota is its exact share rounded down or up.
    """
    shares: dict[NodeId, float] = {}
    left, weight = float(slots), float(sum(site.weight for site in sites))
    for site in sorted(sites, key=lambda site: (most[site.node_id] / site.weight, site.node_id)):
        share = min(float(most[site.node_id]), left * site.weight / weight)
        shares[site.node_id] = share
        left -= share
        weight -= site.weight
    result = {node_id: min(most[node_id], math.floor(share + 1e-6)) for node_id, share in shares.items()}
    rest = slots - sum(result.values())
    order = sorted(
        (node_id for node_id in shares if result[node_id] < most[node_id]),
        key=lambda node_id: (loads[node_id] <= result[node_id], result[node_id] - shares[node_id], node_id),
    )
    assert rest <= len(order)
    for node_id in order[:rest]:
        result[node_id] += 1
    return result


def next_table(old: Sequence[Row], sites: Sequence[Site], homes: int, columns: int) -> Table:
    """Return the table for `sites`, close to `old` (empty at genesis).

    `homes` columns hold chunks and rows, `columns` in all hold rows; both at most the number of sites. A partition loses at most one owner
    that is still a member per call, unless the table shrinks.
    """
    assert 0 < homes <= columns <= len(sites)
    return _Filling(old, sites, homes, columns).run()


class _Filling:
    """One computation of a table: release what must go, fill the holes group by group, swap where stuck."""

    def __init__(self, old: Sequence[Row], sites: Sequence[Site], homes: int, columns: int) -> None:
        self.sites = {site.node_id: site for site in sorted(sites, key=lambda site: site.node_id)}
        self.columns = columns
        self.sizes = (homes, columns - homes)
        self.zones = len({site.zone for site in sites})
        self.old = old or [()] * PARTITIONS
        rows = old or [()] * PARTITIONS
        self.groups = [
            [[owner for owner in row[:homes] if owner in self.sites] for row in rows],
            [[owner for owner in row[homes:columns] if owner in self.sites] for row in rows],
        ]
        self.released = [False] * PARTITIONS

    def run(self) -> Table:
        most = dict.fromkeys(self.sites, PARTITIONS)
        for group, size in enumerate(self.sizes):
            if size == 0:
                continue
            loads = self._loads(group)
            quota = quotas(list(self.sites.values()), size * PARTITIONS, most, loads)
            self._release(group, loads, quota)
            self._fill(group, loads, quota)
            for node_id in most:
                most[node_id] -= loads[node_id]
        return [tuple(self.groups[0][p] + self.groups[1][p]) for p in range(PARTITIONS)]

    def _loads(self, group: int) -> dict[NodeId, int]:
        loads = dict.fromkeys(self.sites, 0)
        for row in self.groups[group]:
            for owner in row:
                loads[owner] += 1
        return loads

    def _release(self, group: int, loads: dict[NodeId, int], quota: Mapping[NodeId, int]) -> None:
        """Take from each owner above its quota the slots that it was liked least for."""
        rows = self.groups[group]
        complete = all(len(row) == self.sizes[group] for row in rows)
        if complete and not self._worth_moving(loads, quota):
            return
        for node_id, site in self.sites.items():
            excess = loads[node_id] - quota[node_id]
            if excess <= 0:
                continue
            held = [p for p in range(PARTITIONS) if node_id in rows[p] and not self.released[p]]
            held.sort(key=lambda p: (-cost(site, p), p))
            for partition in held[:excess]:
                rows[partition].remove(node_id)
                loads[node_id] -= 1
                self.released[partition] = True

    def _worth_moving(self, loads: Mapping[NodeId, int], quota: Mapping[NodeId, int]) -> bool:
        return any(
            loads[node_id] > quota[node_id] * WORTH_MOVING + 1 or loads[node_id] * WORTH_MOVING + 1 < quota[node_id]
            for node_id in self.sites
        )

    def _fill(self, group: int, loads: dict[NodeId, int], quota: Mapping[NodeId, int]) -> None:
        rows = self.groups[group]
        holes = [p for p in range(PARTITIONS) for _ in range(self.sizes[group] - len(rows[p]))]
        for partition in holes:
            owner = self._best(group, partition, loads, quota) or self._swap(group, partition, loads, quota)
            rows[partition].append(owner)
            loads[owner] += 1
            if group == 0 and owner in self.groups[1][partition]:
                self.groups[1][partition].remove(owner)  # a replica of the rows became a home

    def _taken(self, group: int, partition: int) -> list[NodeId]:
        homes = self.groups[0][partition]
        return homes if group == 0 else homes + self.groups[1][partition]

    def _best(
        self, group: int, partition: int, loads: Mapping[NodeId, int], quota: Mapping[NodeId, int]
    ) -> NodeId | None:
        taken = self._taken(group, partition)
        zones = [self.sites[owner].zone for owner in taken]
        spread = len(set(zones)) < min(self.columns, self.zones)
        best: tuple[bool, bool, float, NodeId] | None = None
        for node_id, site in self.sites.items():
            if loads[node_id] >= quota[node_id] or node_id in taken:
                continue
            # Whoever has just been released is still an owner of the rows if it can stay as one.
            moves = group == 1 and node_id not in self.old[partition]
            key = (spread and site.zone in zones, moves, cost(site, partition), node_id)
            if best is None or key < best:
                best = key
        return best[3] if best is not None else None

    def _swap(self, group: int, partition: int, loads: dict[NodeId, int], quota: Mapping[NodeId, int]) -> NodeId:
        """Free an owner for a hole that no owner below its quota can take: such an owner takes its place elsewhere."""
        rows = self.groups[group]
        taken = self._taken(group, partition)
        free = [node_id for node_id in self.sites if loads[node_id] < quota[node_id]]
        start = partition + 1
        for only_new in (True, False):
            for step in range(PARTITIONS):
                other = (start + step) % PARTITIONS
                if only_new is False and self.released[other]:
                    continue
                other_taken = self._taken(group, other)
                for index, owner in enumerate(rows[other]):
                    if owner in taken or (only_new and owner in self.old[other]):
                        continue
                    for node_id in free:
                        if node_id not in other_taken:
                            rows[other][index] = node_id
                            if group == 0 and node_id in self.groups[1][other]:
                                self.groups[1][other].remove(node_id)
                            self.released[other] = True
                            loads[node_id] += 1
                            loads[owner] -= 1
                            return owner
        candidates = [node_id for node_id in self.sites if node_id not in taken]
        return min(candidates, key=lambda node_id: (loads[node_id] / self.sites[node_id].weight, node_id))
