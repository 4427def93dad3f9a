"""Judge of the layout chain: whatever fails, there is one, and nobody goes back on it."""

from protocol.errors import RemoteProtocolError
from protocol.layout import Layout, follows, goes_on_from
from sims.kv import KVState
from sims.oracles.base import Oracle
from sims.oracles.disks import VALUE_HEADER_BYTES
from sims.world import Machine

LAYOUT = b"layout/"
LATEST = b"layout latest"


class LayoutsAreOne(Oracle):
    """I13: on all disks together, each version of the layout of a cluster is one record, which may follow the one before; and no disk goes
    back. A cluster that began by force has another id, and goes on from one record of the cluster before.
    """

    def __init__(self) -> None:
        self._layouts: dict[bytes, Layout] = {}
        """What every record says that was found."""
        self._records: dict[tuple[bytes, int], bytes] = {}
        """What the first disk that had it has of each version of each cluster."""
        self._latest: dict[str, tuple[KVState, int]] = {}

    def tick(self) -> None:
        """Look at every disk, also of machines that do not run."""
        for machine in self.world.machines.values():
            database = machine.storage.databases.get("sys")
            if database is not None and LATEST in database.values:
                self._look_at(machine, database)

    async def finish(self) -> None:
        """Look once more."""
        self.tick()

    def _look_at(self, machine: Machine, database: KVState) -> None:
        latest = int.from_bytes(database.values[LATEST][VALUE_HEADER_BYTES:], "big")
        before, version = self._latest.get(machine.name, (database, 0))
        if before is database and latest < version:
            raise self.violated("I13", f"{machine.name} had layout {version} and goes back to {latest}")
        self._latest[machine.name] = database, latest
        parent: Layout | None = None
        for number in range(1, latest + 1):
            record = database.values.get(LAYOUT + number.to_bytes(4, "big"))
            if record is None:
                if parent is not None:
                    raise self.violated("I13", f"{machine.name} has layout {latest} and not {number}")
                continue  # who joins a cluster that began by force knows nothing of the one before
            layout = self._layouts.get(record) or self._read(machine, number, record)
            if parent is None and number != layout.founded:
                raise self.violated("I13", f"{machine.name} has layout {latest} and not {number - 1}")
            known = self._records.setdefault((layout.cluster_id, number), record)
            if known is not record and known != record:
                raise self.violated("I13", f"{machine.name} has another layout {number} than others")
            if parent is not None and (fault := self._fault(parent, layout)) is not None:
                raise self.violated("I13", f"layout {number} of {machine.name}: {fault}")
            parent = layout

    def _read(self, machine: Machine, number: int, record: bytes) -> Layout:
        try:
            layout = Layout.from_bytes(record[VALUE_HEADER_BYTES:])
        except RemoteProtocolError as error:
            raise self.violated("I13", f"layout {number} of {machine.name}: {error}") from None
        if layout.version != number:
            raise self.violated("I13", f"layout {number} of {machine.name}: it says that it is {layout.version}")
        self._layouts[record] = layout
        return layout

    def _fault(self, parent: Layout, layout: Layout) -> str | None:
        return (follows if layout.cluster_id == parent.cluster_id else goes_on_from)(parent, layout)
