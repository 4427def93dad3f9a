"""Judge of who owns what: a change of members moves what it must, and what comes of it is fair."""

from collections import Counter
from collections.abc import Sequence

from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.limits import PARTITIONS
from protocol.placement import Row
from sims.history import History
from sims.oracles.base import Oracle
from sims.oracles.disks import latest_layout, layout_of, layout_version
from sims.plan import Plan
from sims.world import World

MOVED_SHARE = 1.05
"""Of what must move."""
LOAD_SHARE = 1.05
"""Of what is fair."""
ROUNDING = 8
"""Slots by which a share may miss a whole number, all members together."""


class MovesAreBounded(Oracle):
    """I16 and I17: a layout moves hardly more than it must, and takes no partition from many who stay; the last one is fair.

    Homes must move as their shares say. Rows move as theirs say and where homes do: whoever becomes a home becomes an owner, and with few
    more members than columns there is hardly a choice whom it replaces.
    """

    def begin(self, world: World, plan: Plan, history: History) -> None:
        """Note which layout there is already."""
        super().begin(world, plan, history)
        self._judged = max(map(layout_version, world.machines.values()), default=0)

    def tick(self) -> None:
        """Look at every layout that is new."""
        newest = max(self.world.machines.values(), key=layout_version)
        for version in range(self._judged + 1, layout_version(newest) + 1):
            layout = layout_of(newest, version)
            assert layout is not None
            if layout.is_joint:
                self._judge(layout)
            self._judged = version

    async def finish(self) -> None:
        """Weigh what everybody has in the end."""
        layout = latest_layout(self.world.machines.values())
        if layout.is_joint:
            return
        for columns in (layout.record.replication, layout.record.old_columns):
            loads, shares = _loads(layout.old_rows, columns), _shares(layout, sorted(layout.members), columns)
            for member, share in shares.items():
                if loads[member] > LOAD_SHARE * share + ROUNDING:
                    name = layout.members[member].name
                    raise self.violated("I17", f"{name} has {loads[member]} slots of {columns} columns, and its share is {share:.0f}")

    def _judge(self, layout: Layout) -> None:
        before, after = layout.old_rows, layout.wanted_rows
        staying = sorted({owner for row in after for owner in row})
        for partition in layout.joint_partitions:
            lost = [owner for owner in before[partition] if owner in staying and owner not in after[partition]]
            if len(lost) > 2:
                names = ", ".join(layout.members[owner].name for owner in lost)
                raise self.violated("I16", f"layout {layout.version} takes partition {partition} from {names} at once, who stay")
        replication, must = layout.record.replication, 0.0
        for columns, columns_before in ((replication, replication), (layout.record.new_columns, layout.record.old_columns)):
            held = _loads(before, columns_before)
            must += sum(max(0.0, share - held[member]) for member, share in _shares(layout, staying, columns).items())
            moved = sum(
                len({*new[:columns]} - {*old[:columns_before]}) for old, new in zip(before, after, strict=True) if old != new
            )
            if moved > MOVED_SHARE * must + ROUNDING:
                raise self.violated("I16", f"layout {layout.version} moves {moved} slots of {columns} columns, and {must:.0f} must")


def _loads(rows: Sequence[Row], columns: int) -> Counter[NodeId]:
    """Return how many slots each owner has in the first `columns` columns."""
    loads: Counter[NodeId] = Counter()
    for row, count in Counter(rows).items():
        for owner in row[:columns]:
            loads[owner] += count
    return loads


def _shares(layout: Layout, members: Sequence[NodeId], columns: int) -> dict[NodeId, float]:
    """Return what is fair: by weight, and nobody has a partition twice. Zones are not looked at: the swarm has none."""
    columns = min(columns, len(members))
    weights = {member: float(layout.members[member].weight) for member in members}
    least = sum(weights.values()) / PARTITIONS
    weights = {member: max(weight, least) for member, weight in weights.items()}
    shares: dict[NodeId, float] = {}
    left = float(columns * PARTITIONS)
    for member in sorted(members, key=lambda member: -weights[member]):
        shares[member] = min(float(PARTITIONS), left * weights[member] / sum(weights.values()))
        left -= shares[member]
        del weights[member]
    return shares
