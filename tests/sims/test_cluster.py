"""Five real nodes in one process, on virtual time: what the first page of the README promises, over many orders and delays.

The seed chooses every order, delay, torn write and crash moment. A failing seed fails again: `pytest tests/sims -k 'seed_and_name'`.
"""

import asyncio
import os
from random import Random

import pytest

from peer.files.operations import Operations
from protocol.connection import KEEPALIVE_SECONDS, WAITING_SECONDS
from protocol.manifest import KIB
from sims.scenarios._common import NAMES, again
from sims.world import World

SEEDS = range(int(os.environ.get("SHOAL_SEEDS", "3")))
"""`make sim` runs a hundred."""
FEW_SEEDS = SEEDS[: len(SEEDS) // 3]


async def names_in(client: Operations, folder: str) -> list[str]:
    return [entry.name async for entry in client.list(folder)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_survives_a_crash_and_the_node_comes_back(seed: int) -> None:
    choice = Random(seed)
    big, small = choice.randbytes(700 * KIB), choice.randbytes(1000)
    victim, other, third = choice.sample(NAMES, 3)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client(other)
        assert (await client.put_bytes("/films/big", big)).copies >= 3
        assert (await client.put_bytes("/films/small", small)).copies >= 3
        world.crash(victim)
        assert await (await world.client(third)).get_bytes("/films/big") == big
        changed = small[::-1]
        assert (await client.put_bytes("/films/small", changed)).copies >= 3
        await world.restart(victim)
        returned = await world.client(victim)
        assert await returned.get_bytes("/films/small") == changed
        assert await returned.get_bytes("/films/big") == big
        assert await names_in(returned, "/films") == ["big", "small"]

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_with_two_of_five_lost_reads_and_writes_go_on(seed: int) -> None:
    choice = Random(seed)
    data = choice.randbytes(600 * KIB)
    one, two, other = choice.sample(NAMES, 3)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client(other)
        await client.put_bytes("/f", data)
        world.crash(one)
        world.crash(two)
        assert await client.get_bytes("/f") == data
        assert (await client.put_bytes("/g", data[::-1])).copies == 3
        assert await client.get_bytes("/g") == data[::-1]

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_three_nodes_with_one_down_say_two_copies_and_the_third_is_made_when_it_returns(seed: int) -> None:
    choice = Random(seed)
    names = NAMES[:3]
    data = choice.randbytes(600 * KIB)
    victim, other = choice.sample(names, 2)

    async def scenario(world: World) -> None:
        await world.found(names)
        client = await world.client(other)
        assert (await client.put_bytes("/before", data)).copies == 3
        world.crash(victim)
        assert (await client.put_bytes("/while", data[::-1])).copies == 2
        await world.restart(victim)
        while (await client.stat("/while")).copies < 3:
            await asyncio.sleep(1.0)

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_files_are_read_and_written_while_nodes_join_and_the_joiner_crashes(seed: int) -> None:
    choice = Random(seed)
    data = choice.randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        await world.found(NAMES[:3])
        client = await world.client("a")
        written: dict[str, bytes] = {}
        for index in range(12):
            path, content = f"/d{index % 3}/{index}", data[: choice.randrange(1, len(data))]
            await again(lambda: client.put_bytes(path, content))  # noqa: B023  # awaited in this round
            written[path] = content
            if index == 3:
                await world.start("d")
            if index == 6:
                world.crash("d")
            if index == 9:
                await world.restart("d")
                await world.start("e")
            await asyncio.sleep(choice.uniform(0.0, 10.0))
        await world.members(5)
        for name in NAMES:
            reader = await world.client(name)
            for path, content in written.items():
                assert await reader.get_bytes(path) == content, (name, path)

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_the_link_to_a_machine_without_power_ends_after_the_silence_that_is_promised(seed: int) -> None:
    async def scenario(world: World) -> None:
        await world.found(NAMES[:2])
        await asyncio.sleep(Random(seed).uniform(3.0, 12.0))
        gone = world.node("b").node_id
        world.crash("b", silent=True)
        await asyncio.sleep(1.0 + WAITING_SECONDS + KEEPALIVE_SECONDS + 0.1)  # it is probed each second, and answers no more
        assert world.node("a").links.peer(gone) is None

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    async def scenario(world: World) -> tuple[float, int, str]:
        await world.found(NAMES)
        result = await (await world.client("b")).put_bytes("/f", bytes(300 * KIB))
        world.crash("c")
        await world.restart("c")
        return world.loop.time(), world.loop.steps, result.version

    first, second = World(seed).run(scenario), World(seed).run(scenario)
    assert first == second
