"""Judge of memory: quorums rest on members that do not forget."""

from protocol.codec import decode
from protocol.lives import Life
from sims.oracles.base import Oracle
from sims.oracles.disks import VALUE_HEADER_BYTES, identity_on
from sims.world import Machine


class NobodyForgets(Oracle):
    """I20: who runs once all is mended has on his disk all that anybody remembers him to have promised."""

    async def look(self) -> None:
        """Compare each disk with what the others remember of it."""
        running = [machine for machine in self.world.machines.values() if machine.node is not None]
        for machine in running:
            node_id = identity_on(machine)
            assert node_id is not None
            boot, commits = _number(machine, "sys", b"boot"), _number(machine, "sys", b"commits") + _number(machine, "ns", b"commits")
            for other in running:
                value = other.storage.databases["sys"].values.get(b"life/" + node_id)
                if value is None:
                    continue
                life = decode(Life, value[VALUE_HEADER_BYTES:])
                if life.boot > boot or life.commits > commits:
                    raise self.violated(
                        "I20",
                        f"{machine.name} runs, at start {boot} with {commits} promises on its disk, and {other.name} remembers "
                        f"start {life.boot} with {life.commits}",
                    )


def _number(machine: Machine, database: str, key: bytes) -> int:
    value = machine.storage.databases[database].values.get(key)
    return int.from_bytes(value[VALUE_HEADER_BYTES:], "big") if value is not None else 0
