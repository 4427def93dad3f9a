"""What people meet while machines are away: who is not answered is told why, and soon."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from peer.errors import Unavailable
from peer.files.operations import Operations
from sims.formed import switch_on
from sims.scenarios._common import NAMES, cut_off, start_all
from sims.world import World


def run(names: Sequence[str], scenario: Callable[[World], Awaitable[None]], seed: int = 1) -> None:
    """Run a scenario in a cluster of `names` that has formed before."""

    async def formed(world: World) -> None:
        switch_on(world, names)
        await start_all(world, names)
        await asyncio.sleep(2.0)
        await scenario(world)

    World(seed).run(formed)


async def refused(world: World, work: Callable[[], Awaitable[object]]) -> tuple[str, float]:
    """Return with what text something is refused as unavailable, and after how long."""
    began_at = world.loop.time()
    with pytest.raises(Unavailable) as error:
        await work()
    return str(error.value), world.loop.time() - began_at


async def listed(client: Operations, folder: str) -> list[str]:
    """Return the names in a folder."""
    return [entry.name async for entry in client.list(folder)]


def test_the_smaller_side_of_a_split_says_so_and_soon_once_the_others_have_been_away_for_some_seconds() -> None:
    async def scenario(world: World) -> None:
        client = await world.client("d")
        await client.put_bytes("/f", b"x" * 100_000)
        cut_off(world, ["d", "e", "client1"])
        works: list[Callable[[], Awaitable[object]]] = [
            lambda: client.put_bytes("/g", b"y"),
            lambda: client.get_bytes("/f"),
            lambda: listed(client, "/"),
        ]
        _, seconds = await refused(world, works[0])
        assert seconds < 9.0
        await asyncio.sleep(20.0)  # with two that hear each other, it takes long to be sure of three
        for work in works:
            text, seconds = await refused(world, work)
            assert "this machine reaches 2 of 5 members; if the network is split this is its smaller side" in text
            assert "nothing is read or written from here until 3 are reached; start a, b and c, or see to the network" in text
            assert "\n" not in text
            assert seconds < 2.5
        world.lan.heal()
        await asyncio.sleep(6.0)
        await client.put_bytes("/g", b"y")

    run(NAMES, scenario)


def test_a_restart_of_a_few_seconds_is_waited_for_and_whoever_watches_is_told() -> None:
    said: list[str] = []

    async def scenario(world: World) -> None:
        client = await world.client("a")
        client.on_wait = said.append
        for name in ("b", "c"):
            world.kill(name)
        await asyncio.sleep(2.0)
        put = asyncio.create_task(client.put_bytes("/f", b"x"))
        await asyncio.sleep(3.0)
        for name in ("b", "c"):
            await world.restart(name)
        await put

    run(NAMES[:3], scenario)
    assert said == ["waiting for b and c to answer"]


def test_who_waits_for_a_layout_to_be_taken_back_is_told() -> None:
    said: list[str] = []

    async def scenario(world: World) -> None:
        client = await world.client("a")
        await client.put_bytes("/f", b"x")
        client.on_wait = said.append
        starting = asyncio.create_task(world.start("b"))
        while not world.node("a").layout.is_joint:
            await asyncio.sleep(0.01)
        world.crash("b", silent=True)
        starting.cancel()
        assert await client.get_bytes("/f") == b"x"

    run(NAMES[:1], scenario)
    assert said == ["waiting for b to answer, or for the layout that is changing to be taken back"]
