"""The rows of the table of bad input that need several machines: a disk that is full, a clock that is wrong by years."""

from collections.abc import Sequence
from random import Random

import pytest

from peer.files.operations import Operations
from protocol.manifest import KIB
from sims.world import World

NAMES = ("a", "b", "c", "d", "e")
YEAR_MILLISECONDS = 366 * 24 * 3600 * 1000


async def names_in(client: Operations, folder: str) -> list[str]:
    return [entry.name async for entry in client.list(folder)]


@pytest.mark.parametrize("seed", range(5))
def test_where_a_disk_is_full_chunks_go_to_the_next_node_and_all_else_goes_on(seed: int) -> None:
    choice = Random(seed)
    before, after = choice.randbytes(900 * KIB), choice.randbytes(900 * KIB)
    full = choice.sample(NAMES, 2)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client(full[0])
        assert (await client.put_bytes("/d/before", before)).copies == 3
        held = {name: world.node(name).chunks.count for name in full}
        for name in full:
            world.machines[name].storage.fill()
        assert (await client.put_bytes("/d/after", after)).copies == 3
        assert {name: world.node(name).chunks.count for name in full} == held
        for path in ("/d/before", "/d/after"):
            for place in [place async for place in client.where(path)]:
                assert len(place.nodes) >= 3
        assert await client.get_bytes("/d/before") == before
        assert await client.get_bytes("/d/after") == after
        assert (await client.put_bytes("/d/small", b"lies in its row")).copies >= 3
        await client.remove("/d/before")
        assert await names_in(client, "/d") == ["after", "small"]
        assert not [name for name in NAMES if world.node(name).failed.done()]

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("years", [(-30, 0, 50, 0, 0), (50, 50, 0, -30, 7)], ids=["two are off", "four are off"])
def test_clocks_that_are_off_by_years_change_nothing_but_times(seed: int, years: Sequence[int]) -> None:
    choice = Random(seed)
    order = choice.sample(NAMES, len(NAMES))

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        for name, off in zip(NAMES, years, strict=True):
            world.machines[name].clock.offset_milliseconds = off * YEAR_MILLISECONDS
        contents = {}
        for number, name in enumerate(order):  # each overwrites and removes what another clock has dated
            client = await world.client(name)
            contents[number] = choice.randbytes(choice.choice((100, 300 * KIB)))
            await client.put_bytes("/d/f", contents[number])
            await client.put_bytes(f"/d/{number}", contents[number])
            if number:
                await client.remove(f"/d/{number - 1}")
            for reader in NAMES:
                other = await world.client(reader)
                assert await other.get_bytes("/d/f") == contents[number]
                assert await names_in(other, "/d") == sorted([str(number), "f"])
        world.crash(order[0])
        client = await world.client(order[1])
        await client.put_bytes("/d/f", b"last")
        await world.restart(order[0])
        assert await (await world.client(order[0])).get_bytes("/d/f") == b"last"

    World(seed).run(scenario)
