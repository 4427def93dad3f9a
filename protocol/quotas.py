"""How many slots of the partition table each member shall hold: shares by weight, as far as they are feasible.

A partition has several columns, and an owner stands in a row once, so nobody holds more slots than there are partitions. Zones come
first: a row reaches as many of them as it can, so a small zone holds more than its weight alone would give it, and a large one less.
What these bounds leave is shared by weight: weighted max-min fairness, by water-filling (Bertsekas and Gallager, "Data Networks", 1992,
6.5.2).

Knows nothing of which partition is whose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.identity import NodeId

PARTITIONS: Final = limits.PARTITIONS
_BISECTIONS: Final = 64
_ROUNDING: Final = 1e-6
"""A share that misses a whole number by less is that number."""


@dataclass(frozen=True, slots=True)
class Site:
    """A member, as far as placement is concerned."""

    node_id: NodeId
    weight: int
    zone: str = ""


def quotas(sites: Sequence[Site], columns: int, loads: Sequence[int], beside: Sequence[int]) -> list[int]:
    """Return the quota of each of `sites`, in their order, in `columns` columns of the table; together they are all slots.

    `beside` are the quotas in the columns that were shared out before: with them, nobody is twice in a row, and the zones are reached.
    What rounding leaves over goes first to those that hold it already (`loads`), so that it does not move. A weight counts as one
    partition's part of all weights at least: every member owns something.
    """
    if not columns:
        return [0] * len(sites)
    slots = columns * PARTITIONS
    weights = [max(float(site.weight), sum(site.weight for site in sites) / PARTITIONS) for site in sites]
    zones: dict[str, list[int]] = {}
    for index, site in enumerate(sites):
        zones.setdefault(site.zone, []).append(index)
    caps = [PARTITIONS - taken for taken in beside]
    shares = _zone_shares([[(weights[i], caps[i], beside[i]) for i in zone] for zone in zones.values()], slots)
    totals = _rounded(shares, slots, [sum(loads[i] for i in zone) for zone in zones.values()])
    result = [0] * len(sites)
    for zone, total in zip(zones.values(), totals, strict=True):
        shares = _filled(total, [weights[i] for i in zone], [caps[i] for i in zone])
        for index, quota in zip(zone, _rounded(shares, total, [loads[i] for i in zone]), strict=True):
            result[index] = quota
    return result


def _zone_shares(zones: Sequence[Sequence[tuple[float, int, int]]], slots: int) -> list[float]:
    """Return what falls to each zone, given (weight, cap, quota beside) of its sites."""
    taken = [sum(beside for _, _, beside in zone) for zone in zones]
    columns = (slots + sum(taken)) // PARTITIONS
    least = PARTITIONS if len(zones) <= columns else 0
    most = PARTITIONS * max(1, columns - len(zones) + 1)

    def shares(level: float) -> list[float]:
        wanted = [sum(min(float(cap), level * weight) for weight, cap, _ in zone) for zone in zones]
        return [max(least - beside, min(most - beside, share)) for share, beside in zip(wanted, taken, strict=True)]

    low, high = 0.0, float(PARTITIONS)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle)) < slots else (low, middle)
    return shares(high)


def _filled(total: int, weights: Sequence[float], caps: Sequence[int]) -> list[float]:
    """Share `total` by weight, nobody above the cap: whoever is full first is settled first."""
    result = [0.0] * len(weights)
    left, weight = float(total), sum(weights)
    for index in sorted(range(len(weights)), key=lambda index: caps[index] / weights[index]):
        result[index] = min(float(caps[index]), left * weights[index] / weight)
        left -= result[index]
        weight -= weights[index]
    return result


def _rounded(shares: Sequence[float], total: int, loads: Sequence[int]) -> list[int]:
    """Round `shares` down or up so that they add up to `total`: up where more is held already, then where most is cut off."""
    result = [math.floor(share + _ROUNDING) for share in shares]
    order = sorted(
        (index for index, share in enumerate(shares) if share - result[index] > _ROUNDING),
        key=lambda index: (loads[index] <= result[index], result[index] - shares[index], index),
    )
    for index in order[: total - sum(result)]:
        result[index] += 1
    assert sum(result) == total
    return result
