"""Judge of what replicas become when nothing disturbs them any more."""

import asyncio

from sims.oracles.base import Oracle
from sims.oracles.disks import is_rotten, latest_layout, running
from sims.world import Machine

CONVERGENCE_SECONDS = 60.0
"""From the recovery on. Five machines compare each with each within some twenty seconds."""


class RowsConverge(Oracle):
    """I18: once everything is mended all replicas have the same rows, though nobody has read them since."""

    async def look(self) -> None:
        """Wait until the rows of all replicas are the same, byte by byte, but for what a disk has damaged."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + CONVERGENCE_SECONDS
        while (difference := self._difference()) is not None:
            if loop.time() >= give_up_at:
                raise self.violated("I18", difference)
            await asyncio.sleep(1.0)

    def _difference(self) -> str | None:
        machines = running(self.world)
        layout = latest_layout(machines.values())
        rows = {node: _rows(machine) for node, machine in machines.items()}
        for key in dict.fromkeys(key for each in rows.values() for key in each):
            partition = int.from_bytes(key[1:3], "big")
            if layout.is_joint_at(partition):
                continue
            replicas = [node for node in layout.replicas(partition) if node in machines and not is_rotten(machines[node], key)]
            difference = self._difference_at(key, {machines[node].name: rows[node].get(key) for node in replicas})
            if difference is not None:
                return difference
        return None

    def _difference_at(self, key: bytes, states: dict[str, bytes | None]) -> str | None:
        if len(set(states.values())) < 2:
            return None
        without = [name for name, state in states.items() if state is None]
        folder, _, name = key[3:].decode().partition("\0")
        what = f"{', '.join(without)} lack it" if without else f"{', '.join(states)} have it each in its own way"
        return f"row {name} of {folder} is not the same on all replicas {CONVERGENCE_SECONDS:.0f} s after the recovery: {what}"


def _rows(machine: Machine) -> dict[bytes, bytes]:
    values = machine.storage.databases["ns"].values
    return {key: value for key, value in values.items() if key.startswith(b"r")}
