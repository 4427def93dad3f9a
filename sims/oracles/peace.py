"""Judge of peace: nothing moves without a reason."""

from sims.oracles.base import Oracle
from sims.oracles.disks import layout_version
from sims.world import Machine

SETTLE_SECONDS = 75.0
"""After a layout has changed, or everything was mended: each node has swept once by then, and has compared its rows with everybody's."""


class NothingMovesInPeace(Oracle):
    """I23: once all is mended and the layout does not change any more, no disk gets a chunk, and no row changes."""

    def __init__(self) -> None:
        self._is_quiet = False
        self._stored: dict[str, tuple[frozenset[str], dict[bytes, bytes]]] = {}
        self._version = 0
        self._changed_at = 0.0

    async def look(self) -> None:
        """Begin: from now on nobody writes."""
        self._is_quiet = True
        self._changed_at = self.world.loop.time()

    def tick(self) -> None:
        """Compare the disks with what they were a second ago."""
        if not self._is_quiet:
            return
        now, version = self.world.loop.time(), max(map(layout_version, self.world.machines.values()))
        if version != self._version:
            self._version, self._changed_at = version, now
        for name, machine in self.world.machines.items():
            chunks, rows = stored = _stored(machine)
            before_chunks, before_rows = self._stored.get(name, stored)
            self._stored[name] = stored
            if now < self._changed_at + SETTLE_SECONDS or machine.lossy_at >= 0:
                continue  # what a disk has damaged is made whole whenever somebody meets it
            if new := sorted(chunks - before_chunks):
                raise self.violated("I23", f"{name} gets chunk {new[0][5:17]}, and nothing has changed for {now - self._changed_at:.0f} s")
            if rows != before_rows:
                raise self.violated("I23", f"rows of {name} change, and nothing has happened for {now - self._changed_at:.0f} s")


def _stored(machine: Machine) -> tuple[frozenset[str], dict[bytes, bytes]]:
    database = machine.storage.databases.get("ns")
    values = database.values if database is not None else {}
    return frozenset(machine.storage.state.chunk_files()), {key: value for key, value in values.items() if key.startswith(b"r")}
