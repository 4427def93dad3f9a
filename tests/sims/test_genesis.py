"""How a cluster begins: machines that were given one key and are switched on in any order found exactly one."""

import asyncio
import os
from random import Random

import pytest

from peer.cluster.foreign import LOOK_SECONDS, SILENT_SECONDS
from peer.errors import Waiting
from peer.node import Notice
from protocol.messages import Role
from sims.world import World

NAMES = ("a", "b", "c", "d", "e")
SEEDS = range(int(os.environ.get("SHOAL_SEEDS", "3")) // 3)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_fresh_machines_with_one_key_become_one_cluster_that_works(seed: int, count: int) -> None:
    names = NAMES[:count]

    async def scenario(world: World) -> None:
        await world.gather(names)
        assert len({world.node(name).layout.cluster_id for name in names}) == 1
        writer = await world.client(names[seed % count])
        assert (await writer.put_bytes("/f", b"x" * 100_000)).copies == min(3, count)
        for name in names:
            assert await (await world.client(name)).get_bytes("/f") == b"x" * 100_000

    World(seed).run(scenario, seconds_max=60.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_founder_that_crashes_while_it_founds_is_whole_or_has_founded_nothing(seed: int) -> None:
    choice = Random(seed)

    async def scenario(world: World) -> None:
        starting = asyncio.get_running_loop().create_task(world.start("a", found=True))
        await asyncio.sleep(choice.uniform(0.0, 1.6))
        world.crash("a")
        starting.cancel()
        node = await world.start("a", found=True)
        await world.members(1)
        assert node.sync.unsynced() == []
        await (await world.client("a")).put_bytes("/f", b"x")

    World(seed).run(scenario, seconds_max=60.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_machines_that_wait_found_no_second_cluster_while_the_first_is_out_of_reach(seed: int) -> None:
    async def scenario(world: World) -> None:
        await world.found(NAMES[:3])
        await (await world.client("a")).put_bytes("/f", b"x")  # from now on newcomers wait for half a minute
        await world.start("d")
        await asyncio.sleep(Random(seed).uniform(2.0, 10.0))
        for name in NAMES[:3]:
            for other in NAMES[3:]:
                world.lan.cut(name, other)
                world.lan.cut(other, name)
        await world.start("e")  # has heard of the cluster from nobody but d
        await asyncio.sleep(20.0)
        assert world.node("d").layouts.current is world.node("e").layouts.current is None
        world.lan.heal()
        await world.members(5)

    World(seed).run(scenario, seconds_max=200.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lone_machine_with_a_given_key_waits_and_the_next_one_ends_the_waiting(seed: int) -> None:
    async def scenario(world: World) -> None:
        node = await world.start("a")
        await asyncio.sleep(Random(seed).uniform(6.0, 30.0))
        assert node.layouts.current is None
        (told,) = [event.text for event in world.machines["a"].events if isinstance(event, Notice)]
        assert "--found" in told
        with pytest.raises(Waiting, match=r"node a .* is running and belongs to no cluster yet") as caught:
            await world.client("a")
        assert str(caught.value).endswith(told)
        await world.start("b")
        await world.members(2)
        client = await world.client("a")
        await client.put_bytes("/f", b"x")
        assert await (await world.client("b")).get_bytes("/f") == b"x"
        for member in (await client.status()).members:
            assert member.status is not None
            assert member.status.notices == ()  # that one had to wait is no news any more

    World(seed).run(scenario, seconds_max=120.0)


def test_a_machine_that_loses_the_cluster_it_waits_for_is_not_told_to_begin_another() -> None:
    async def scenario(world: World) -> None:
        await world.start("a", found=True)
        await world.start("b")
        while not world.node("b").links.peers():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        world.crash("a")
        await asyncio.sleep(30.0)
        assert world.node("b").layouts.current is None
        told = [event.text for event in world.machines["b"].events if isinstance(event, Notice)]
        assert len(told) == 1
        assert "not heard any more" in told[0]
        assert "--found" not in told[0]
        await world.restart("a")
        await world.members(2)

    World(0).run(scenario, seconds_max=120.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_would_found_dies_and_the_others_found_without_it(seed: int) -> None:
    choice = Random(seed)

    async def scenario(world: World) -> None:
        for name in NAMES[:4]:
            await world.start(name)
        await asyncio.sleep(choice.uniform(0.0, 3.0))
        victim = min(NAMES[:4], key=lambda name: world.node(name).node_id)
        founded = world.node(victim).layouts.current is not None
        world.crash(victim)
        rest = [name for name in NAMES[:4] if name != victim]
        if founded:  # it founded a moment ago: nobody may found another cluster, and it comes back
            await asyncio.sleep(10.0)
            await world.restart(victim)
            rest.append(victim)
        await world.members(len(rest))
        assert len({world.node(name).layout.cluster_id for name in rest}) == 1
        await (await world.client(rest[0])).put_bytes("/f", b"x")

    World(seed).run(scenario, seconds_max=120.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_would_found_stands_still_and_founds_no_second_cluster_when_it_goes_on(seed: int) -> None:
    async def scenario(world: World) -> None:
        starting = [asyncio.get_running_loop().create_task(world.start(name)) for name in NAMES[:3]]
        nodes = dict(zip(NAMES, await asyncio.gather(*starting), strict=False))
        first = min(nodes, key=lambda name: nodes[name].node_id)
        while len(nodes[first].links.peers()) < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert all(node.layouts.current is None for node in nodes.values())
        world.loop.pause(world.machines[first].host)
        await asyncio.sleep(40.0)
        world.loop.resume(world.machines[first].host)
        await world.members(3)

    World(seed).run(scenario, seconds_max=200.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_node_that_is_heard_and_cannot_be_reached_is_tried_again_until_it_can(seed: int) -> None:
    async def scenario(world: World) -> None:
        await world.start("a", found=True)
        world.lan.cut("a", "b")
        world.lan.cut("b", "a")
        await world.start("b")
        await asyncio.sleep(30.0)  # it has heard of a by now, and will not again
        world.lan.heal()
        await world.members(2)

    World(seed).run(scenario, seconds_max=90.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_newcomer_that_cannot_reach_an_old_owner_does_not_keep_others_out(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.cluster.decider.COMPLETE_ANYHOW_SECONDS", 20.0)

    async def scenario(world: World) -> None:
        world.lan.cut("b", "c")
        world.lan.cut("c", "b")
        await world.found(("a", "b"))
        await world.start("c")
        await asyncio.sleep(10.0)
        assert world.node("a").layout.is_joint  # c is there for the founder, and cannot sync
        await world.start("d")
        await world.members(4)
        await (await world.client("a")).put_bytes("/f", b"x")
        assert await (await world.client("d")).get_bytes("/f") == b"x"

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_admitted_beyond_the_limit_of_members(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.cluster.decider.limits.MEMBERS_MAX", 2)

    async def scenario(world: World) -> None:
        await world.found(("a", "b"))
        late = await world.start("c")
        await asyncio.sleep(60.0)
        assert len(world.node("a").layout.members) == 2
        assert late.layouts.current is None
        await (await world.client("b")).put_bytes("/f", b"x")

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_clusters_of_one_key_refuse_each_other_and_say_so(seed: int) -> None:
    async def scenario(world: World) -> None:
        world.lan.cut("a", "b")
        world.lan.cut("b", "a")
        await world.start("a", found=True)
        await world.start("b", found=True)
        await (await world.client("a")).put_bytes("/of-a", b"a")
        world.lan.heal()
        await asyncio.sleep(30.0)
        for name in ("a", "b"):
            assert len(world.node(name).layout.members) == 1
            told = [event.text for event in world.machines[name].events if isinstance(event, Notice)]
            assert sum("another cluster" in text for text in told) == 1
            assert not [peer for peer in world.node(name).links.peers() if peer.role is Role.MEMBER]
        names = [entry.name async for entry in (await world.client("b")).list("/")]
        assert names == []

    World(seed).run(scenario, seconds_max=120.0)


def test_another_cluster_is_told_of_for_as_long_as_it_is_there() -> None:
    async def scenario(world: World) -> None:
        world.lan.cut("a", "b")
        world.lan.cut("b", "a")
        a, _ = [await world.start(name, found=True) for name in ("a", "b")]
        world.lan.heal()
        await asyncio.sleep(3 * SILENT_SECONDS)
        assert len(a.foreign.notices) == 1
        assert len([event for event in world.machines["a"].events if isinstance(event, Notice)]) == 1
        await world.stop("b")
        await asyncio.sleep(SILENT_SECONDS + 2 * LOOK_SECONDS)
        assert a.foreign.notices == ()
        await world.start("b")
        await asyncio.sleep(30.0)
        assert len(a.foreign.notices) == 1

    World(0).run(scenario, seconds_max=3600.0)
