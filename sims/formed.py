"""Clusters that have formed before a run begins: their disks, as the first life of their machines left them.

To found a cluster of five costs as much computation as some twenty seconds of its life, so most runs begin with machines that are switched
on together and know each other. What is kept here is the same in every process: it comes from a world of its own seed.
"""

from collections.abc import Sequence
from functools import cache

from sims.kv import SimStorage
from sims.world import World

SEED = 0


def switch_on(world: World, names: Sequence[str]) -> None:
    """Give each machine of `world` the disk of a member of a cluster of `names`. No node runs yet."""
    for name, storage in _formed(tuple(names)).items():
        world.machine(name).storage.take_over(storage)


@cache
def _formed(names: tuple[str, ...]) -> dict[str, SimStorage]:
    world = World(SEED)

    async def form(world: World) -> None:
        await world.found(names)
        for name in names:
            await world.stop(name)

    world.run(form)
    return {name: machine.storage for name, machine in world.machines.items()}
