"""Two machines lose sight of each other while a put is under way, and each of them is read alone.

What both are known to have is shown, and all that was acknowledged is among it. What may be on one of them only is not: whoever asks the
other one next would see less.
"""

import asyncio

from peer.errors import Unavailable
from peer.files.operations import Operations
from sims.formed import switch_on
from sims.network import machine_of
from sims.scenarios._common import NAMES, cut_off, expect, put_for_certain, start_all
from sims.world import World

PAIR = NAMES[:2]
ROUNDS = 6
PUT_SECONDS = 0.02
"""So long does a put take where nothing is in its way."""
CALM_SECONDS = 15.0
"""In half of the rounds that long after the last one the two have compared what they have."""


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    switch_on(world, PAIR)
    await start_all(world, PAIR)
    clients = [await world.client(name) for name in PAIR]
    await put_for_certain(clients[0], "/f", bytes([0]))
    for number in range(1, ROUNDS + 1):
        before = [world.node(name).rows.commits for name in PAIR]
        putting = asyncio.get_running_loop().create_task(put_for_certain(random.choice(clients), "/f", bytes([number])))
        if random.random() < 0.7:
            while [world.node(name).rows.commits for name in PAIR] == before:
                await asyncio.sleep(0.0001)
        else:
            await asyncio.sleep(random.uniform(0.0, PUT_SECONDS))
        at_least = number if putting.done() else number - 1
        cut_off(world, [PAIR[0], machine_of(world.clients[0])])
        for client in random.sample(clients, 2):
            at_least = await _read(client, at_least)
        world.lan.heal()
        await putting
        await expect(world, "/f", bytes([number]))
        await asyncio.sleep(random.choice((0.0, CALM_SECONDS)))


async def _read(client: Operations, at_least: int) -> int:
    """Read, and return what nobody may see less than from now on."""
    try:
        (seen,) = await client.get_bytes("/f")
    except Unavailable:
        return at_least
    assert seen >= at_least, f"put {seen} is read after put {at_least} was acknowledged or read"
    return seen
