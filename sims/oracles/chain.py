"""Judge of the layout chain: whatever fails, there is one, and nobody goes back on it."""

from protocol.errors import RemoteProtocolError
from protocol.layout import Layout, follows
from sims.kv import KVState
from sims.oracles.base import Oracle
from sims.oracles.disks import VALUE_HEADER_BYTES
from sims.world import Machine

LAYOUT = b"layout/"
LATEST = b"layout latest"


class LayoutsAreOne(Oracle):
    """I13: on all disks together, each version of the layout is one record, which may follow the one before; and no disk goes back."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}
        """What the first disk that had it has under the key of each version."""
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
        for number in range(1, latest + 1):
            key = LAYOUT + number.to_bytes(4, "big")
            record = database.values.get(key)
            if record is None:
                raise self.violated("I13", f"{machine.name} has layout {latest} and not {number}")
            if key not in self._records:
                self._records[key] = record
                fault = self._fault(number, record)
                if fault is not None:
                    raise self.violated("I13", f"layout {number} of {machine.name}: {fault}")
            elif self._records[key] != record:
                raise self.violated("I13", f"{machine.name} has another layout {number} than others")

    def _fault(self, number: int, record: bytes) -> str | None:
        try:
            layout = Layout.from_bytes(record[VALUE_HEADER_BYTES:])
        except RemoteProtocolError as error:
            return str(error)
        if layout.version != number:
            return f"it says that it is {layout.version}"
        if number == 1:
            return None
        parent = self._records[LAYOUT + (number - 1).to_bytes(4, "big")]
        return follows(Layout.from_bytes(parent[VALUE_HEADER_BYTES:]), layout)
