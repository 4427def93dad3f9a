"""Who decides the layout: voters, of whom any minority may be away, in any order and with power failing at any moment."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from peer.errors import LinkLost
from protocol.errors import CloseCode
from protocol.flapping import CALM_SECONDS
from protocol.identity import NodeId
from protocol.layout import Layout, renewed
from protocol.messages import Ballot, Hello, LayoutAccept, LayoutPrepare, LayoutVote, LinkKind, Verdict
from sims.formed import switch_on
from sims.loop import context_of
from sims.scenarios._common import NAMES, chain_judged, cut_off, start_all
from sims.world import PORT, World

SEEDS = range(max(1, int(os.environ.get("SHOAL_SEEDS", "3")) // 3))


def run(world: World, scenario: Callable[[World], Awaitable[None]], seconds: float = 300.0) -> None:
    """Run a scenario under the eyes of the judge of the chain."""

    async def judged(world: World) -> None:
        with chain_judged(world):
            await scenario(world)

    world.run(judged, seconds_max=seconds)


async def formed(world: World, names: Sequence[str]) -> None:
    """Switch on a cluster that has formed before."""
    switch_on(world, names)
    await start_all(world, names)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_whose_founder_is_gone_for_good_admits_another_machine(seed: int) -> None:
    silent = Random(seed).random() < 0.5

    async def scenario(world: World) -> None:
        await world.found(NAMES[:3])
        await (await world.client("b")).put_bytes("/f", b"x" * 100_000)
        world.crash("a", silent=silent)
        await world.start("d")
        await world.members(4)
        client = await world.client("d")
        assert await client.get_bytes("/f") == b"x" * 100_000
        await client.put_bytes("/g", b"y")

    run(World(seed), scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_voters_that_all_propose_at_once_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.cluster.decider.turn_seconds", lambda node_id, parent, live: 0.0)

    async def scenario(world: World) -> None:
        await formed(world, NAMES[:3])
        await asyncio.gather(world.start("d"), world.start("e"))
        await world.members(5)
        await (await world.client("e")).put_bytes("/f", b"x")

    run(World(seed), scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_a_cluster_that_is_split_the_majority_alone_decides(seed: int) -> None:
    minority = Random(seed).sample(NAMES, 2)

    async def scenario(world: World) -> None:
        await formed(world, NAMES)
        before = world.node("a").layout.version
        for newcomer in ("f", "g"):
            world.machine(newcomer)
        cut_off(world, [*minority, "f"])
        await world.start("f")
        await world.start("g")
        await asyncio.sleep(60.0)
        for name in minority:
            assert world.node(name).layout.version == before
        assert world.node("f").layouts.current is None
        assert len(world.node("g").layout.members) == 6
        world.lan.heal()
        await world.members(7)

    run(World(seed), scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_machine_that_joins_a_cluster_of_one_and_dies_costs_it_seconds(seed: int) -> None:
    choice = Random(seed)

    async def scenario(world: World) -> None:
        await world.start("a", found=True)
        client = await world.client("a")
        await client.put_bytes("/f", b"x" * 100_000)
        for silent, seconds in ((False, 5.0), (True, 12.0)):
            joining = asyncio.get_running_loop().create_task(world.start("b"))
            while not world.node("a").layout.is_joint:
                await asyncio.sleep(0.001)
            world.crash("b", silent=silent)
            joining.cancel()
            await asyncio.sleep(choice.uniform(0.0, 2.0))
            async with asyncio.timeout(seconds):
                assert await client.get_bytes("/f") == b"x" * 100_000
                await client.put_bytes("/g", b"y" * 100_000)
            assert len(world.node("a").layout.members) == 1
        await world.start("b")
        await asyncio.sleep(CALM_SECONDS - 5.0)  # it has come and gone so often that it has to stay first
        assert len(world.node("a").layout.members) == 1
        await world.members(2)
        assert await (await world.client("b")).get_bytes("/g") == b"y" * 100_000

    run(World(seed), scenario, seconds=400.0)


@pytest.mark.parametrize("seed", range(4))
def test_a_voter_that_loses_its_power_when_it_has_voted_keeps_its_word(seed: int) -> None:
    async def scenario(world: World) -> None:
        await formed(world, NAMES[:3])
        layout = world.node("a").layout
        rival = replace(layout.record, version=layout.version + 1, parent=layout.digest)
        voter, asker = (world.node(name).node_id for name in "ab")

        async def ask(request: LayoutPrepare | LayoutAccept) -> LayoutVote:
            reply = await world.node("b").request(voter, request, timeout_seconds=2.0)
            assert isinstance(reply.message, LayoutVote)
            return reply.message

        async def lose_power() -> None:
            world.crash("a")
            await world.start("a")
            await world.members(3)

        fifth, version = Ballot(5, asker), layout.version + 1
        assert (await ask(LayoutPrepare(2000, version, fifth))).verdict is Verdict.GRANTED
        await lose_power()
        refused = await ask(LayoutPrepare(2000, version, Ballot(4, asker)))
        assert (refused.verdict, refused.ballot) == (Verdict.OUTBID, fifth)
        record = Layout(rival).data
        assert (await ask(LayoutAccept(2000, version, fifth, record))).verdict is Verdict.GRANTED
        await lose_power()
        vote = await ask(LayoutPrepare(2000, version, Ballot(6, asker)))
        assert (vote.verdict, vote.ballot, vote.record) == (Verdict.GRANTED, fifth, record)

    run(World(seed), scenario)


@pytest.mark.parametrize("step", range(1, 9))
def test_a_voter_may_lose_its_power_at_any_step_while_a_layout_is_decided(step: int) -> None:
    async def scenario(world: World) -> None:
        await formed(world, NAMES[:3])
        await asyncio.sleep(1.0)
        victim = world.random.choice("abc")
        world.machines[victim].storage.state.steps_left = step
        await world.start("d")
        give_up_at = world.loop.time() + 5.0
        while world.machines[victim].is_up and world.loop.time() < give_up_at:
            await asyncio.sleep(0.01)
        if not world.machines[victim].is_up:
            await world.start(victim)
        await world.members(4)
        await (await world.client(victim)).put_bytes("/f", b"x")

    run(World(step), scenario, seconds=60.0)


@pytest.mark.parametrize("seed", range(3))
def test_what_a_member_said_before_counts_no_more_against_what_it_said_since(seed: int) -> None:
    async def scenario(world: World) -> None:
        await formed(world, NAMES[:3])
        before = world.node("a").layout.version
        while (known := world.node("a").links.peer(world.node("b").node_id)) is None:
            await asyncio.sleep(0.1)
        news = replace(known, name="new", layout_version=before)
        world.node("a").links._hellos[known.node_id] = news  # as if its link were newer than the one to c
        await asyncio.sleep(30.0)
        for name in NAMES[:3]:
            assert world.node(name).layout.version == before + 1
            assert world.node(name).layout.members[known.node_id].name == "new"

    run(World(seed), scenario)


def test_what_a_peer_has_joined_since_its_hello_is_known() -> None:
    async def scenario(world: World) -> None:
        await world.gather(NAMES[:3])
        for name in NAMES[:3]:
            peers = world.node(name).links.peers()
            assert {peer.cluster_id for peer in peers} == {world.node(name).layout.cluster_id}

    run(World(0), scenario)


def test_a_hello_that_was_on_its_way_while_the_layout_changed_leaves_nobody_behind() -> None:
    async def scenario(world: World) -> None:
        await formed(world, NAMES)
        await asyncio.sleep(5.0)
        before = world.node("a").layout
        late = world.node("e").node_id
        await world.on(world.machines["d"].host, world.node("d").leaver.ask)
        world.crash("e")
        while world.node("a").layout.version < before.version + 2:
            await asyncio.sleep(0.5)
        for name in NAMES[:4]:
            node = world.node(name)

            def hello(kind: LinkKind, peer: NodeId, hello: Callable[[LinkKind, NodeId], Hello] = node.hello) -> Hello:
                said = hello(kind, peer)
                return replace(said, layout_version=before.version, layout_digest=before.digest) if peer == late else said

            node.hello = hello
        node = await world.start("e")
        await asyncio.sleep(5.0)
        assert node.layout.version == world.node("a").layout.version

    run(World(1), scenario)


def test_a_layout_that_has_reached_the_disk_is_in_force_though_whoever_asked_for_it_has_gone() -> None:
    async def scenario(world: World) -> None:
        await formed(world, NAMES[:3])
        node, storage = world.node("a"), world.machines["a"].storage
        layout = renewed(node.layout, [7])
        asking = asyncio.get_running_loop().create_task(node.layouts.adopt(layout), context=context_of(world.machines["a"].host))
        while not storage.databases["sys"].pending:
            await asyncio.sleep(0.0)
        asking.cancel()
        await asyncio.sleep(0.1)
        assert await node.system.layout(layout.version) == layout.data
        assert node.layout.version == layout.version

    World(0).run(scenario)


def test_a_dial_that_fails_when_the_other_side_has_long_come_up_says_nothing_of_it() -> None:
    async def scenario(world: World) -> None:
        await formed(world, NAMES[:3])
        await asyncio.sleep(2.0)
        links, other = world.node("a").links, world.node("b").node_id
        world.crash("c", silent=True)
        links.close_peers([other], CloseCode.NORMAL, "for once")
        links.learn_addresses(other, [f"c:{PORT}"])  # an old address, where nobody answers
        dialling = asyncio.get_running_loop().create_task(links.reach(other, LinkKind.CTL), context=context_of(world.machines["a"].host))
        with suppress(LinkLost):
            await dialling
        assert links.peer(other) is not None
        assert not links.recently_refused(other)

    run(World(0), scenario)
