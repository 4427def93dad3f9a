"""The life of a member: gone for good, back again, leaving, and who is not to be taken for gone."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import pytest

from peer.config import ADMIT_SECONDS, SWEEP_SECONDS
from peer.errors import Refused, RequestFailed, WrongUsage
from peer.files.operations import Operations
from peer.link import Link
from peer.links import Links
from peer.node import Left
from protocol import limits
from protocol.flapping import CALM_SECONDS
from protocol.identity import NodeId
from protocol.layout import pack_partitions
from protocol.manifest import KIB
from protocol.messages import Leave, Leaving, ListFetch, PartitionPull
from protocol.paths import folder_partition
from protocol.paxos import turn_seconds
from sims.formed import switch_on
from sims.loop import context_of
from sims.scenarios._common import NAMES, chain_judged, durable_copies, expect, start_all, until
from sims.world import World

SEEDS = range(max(1, int(os.environ.get("SHOAL_SEEDS", "3")) // 3))
EVICT_SECONDS = 40.0
SIX = (*NAMES, "f")


def run(seed: int, names: Sequence[str], scenario: Callable[[World], Awaitable[None]], seconds: float = 600.0) -> None:
    """Run a scenario in a cluster of `names` that has formed before, under the eyes of the judge of the chain."""

    async def judged(world: World) -> None:
        world.evict_seconds = EVICT_SECONDS
        switch_on(world, names)
        with chain_judged(world):
            await start_all(world, names)
            await scenario(world)

    World(seed).run(judged, seconds_max=seconds)


def members_of(world: World, name: str) -> set[str]:
    """Return the names of the members in the layout that a node has in force."""
    return {member.name for member in world.node(name).layout.record.members}


@pytest.mark.parametrize(("names", "victim"), [(NAMES, "a"), (SIX, "d")])
@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_dead_for_long_is_left_out_and_its_copies_are_made_elsewhere(seed: int, names: Sequence[str], victim: str) -> None:
    content = Random(seed).randbytes(900 * KIB)

    async def scenario(world: World) -> None:
        client = await world.client("b")
        await client.put_bytes("/f", content)
        world.crash(victim, silent=seed % 2 == 1)
        world.machines.pop(victim)  # its disk counts for nothing
        await asyncio.sleep(EVICT_SECONDS - 1.0)
        assert victim in members_of(world, "b")
        await until(60.0, lambda: all(victim not in members_of(world, name) for name in world.machines), f"{victim} is a member")
        await world.members(len(names) - 1)
        await until(30.0, lambda: durable_copies(world, content) >= 3, "copies are missing")
        assert await client.get_bytes("/f") == content
        assert (await client.put_bytes("/g", content[::-1])).copies == 3
        assert len((await client.status()).members) == len(names) - 1

    run(seed, names, scenario)


@pytest.mark.parametrize(("count", "remain"), [(2, 3), (3, 5)])
def test_two_of_five_are_left_out_when_they_are_gone_and_three_are_not(count: int, remain: int) -> None:
    victims = Random(count).sample(NAMES, count)

    async def scenario(world: World) -> None:
        for name in victims:
            world.crash(name)
        await asyncio.sleep(3 * EVICT_SECONDS)
        staying = next(name for name in NAMES if name not in victims)
        assert len(members_of(world, staying)) == remain

    run(1, NAMES, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_was_left_out_comes_back_as_a_newcomer_and_what_was_removed_meanwhile_stays_removed(seed: int) -> None:
    choice = Random(seed)
    victim = choice.choice(NAMES)
    other = next(name for name in NAMES if name != victim)
    old, new = choice.randbytes(300 * KIB), choice.randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        client = await world.client(other)
        for number in range(6):
            await client.put_bytes(f"/d{number}/removed", old)
            await client.put_bytes(f"/d{number}/changed", old)
        world.crash(victim)
        await until(EVICT_SECONDS + 60.0, lambda: victim not in members_of(world, other), f"{victim} is a member")
        await world.members(4)
        for number in range(6):
            await client.remove(f"/d{number}/removed")
            await client.put_bytes(f"/d{number}/changed", new)
        back = await world.restart(victim)
        await until(ADMIT_SECONDS + 60.0, lambda: victim in members_of(world, other), f"{victim} is not admitted")
        await world.members(5)
        assert back.layout.members[back.node_id].name == victim
        for number in range(6):
            await expect(world, f"/d{number}/removed")
            await expect(world, f"/d{number}/changed", new)

    run(seed, NAMES, scenario)


def test_a_restart_of_fifteen_seconds_changes_no_layout_and_moves_no_chunk() -> None:
    content = Random(1).randbytes(900 * KIB)

    async def scenario(world: World) -> None:
        await asyncio.sleep(5.0)  # all are linked: no home is missed
        client = await world.client("a")
        await client.put_bytes("/f", content)
        await asyncio.sleep(SWEEP_SECONDS + 10.0)
        version = world.node("a").layout.version

        def chunks() -> dict[str, list[str]]:
            machines = world.machines.items()
            return {name: sorted(path for path in machine.storage.state.names if path.startswith("c/")) for name, machine in machines}

        before = chunks()
        world.crash("c", silent=True)
        await asyncio.sleep(15.0)
        await world.restart("c")
        await asyncio.sleep(EVICT_SECONDS + 30.0)
        assert chunks() == before
        assert {world.node(name).layout.version for name in NAMES} == {version}

    run(3, NAMES, scenario)


@pytest.mark.parametrize("victim", ["b", "c"])
def test_who_is_back_for_long_is_not_left_out_by_a_voter_that_stood_still_meanwhile(victim: str) -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(3.0)
        layout = world.node(victim).layout
        live = {world.node(name).node_id: name for name in NAMES if name != victim}
        first = live[min(live, key=lambda node_id: turn_seconds(node_id, layout, live))]
        world.crash(victim)
        await asyncio.sleep(15.0)
        world.loop.pause(world.machines[first].host)
        await world.start(victim)
        await asyncio.sleep(EVICT_SECONDS - 10.0)
        world.loop.resume(world.machines[first].host)
        await asyncio.sleep(10.0)
        assert world.node(victim).layout.version == layout.version

    run(NAMES.index(victim), NAMES, scenario)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_newcomer_that_has_gone_is_not_admitted_by_a_voter_that_stood_still_meanwhile(seed: int) -> None:
    async def scenario(world: World) -> None:
        await (await world.client("a")).put_bytes("/f", b"x")
        layout = world.node("a").layout
        live = {world.node(name).node_id: name for name in NAMES}
        first = live[min(live, key=lambda node_id: turn_seconds(node_id, layout, live))]
        await world.start("f")
        await asyncio.sleep(5.0)
        world.loop.pause(world.machines[first].host)
        world.crash("f", silent=True)
        await asyncio.sleep(ADMIT_SECONDS)
        world.loop.resume(world.machines[first].host)
        await asyncio.sleep(10.0)
        assert world.node("a").layout.version == layout.version

    run(seed, NAMES, scenario)


def test_a_newcomer_that_comes_and_goes_is_admitted_once_it_stays() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(5.0)
        await (await world.client("a")).put_bytes("/f", b"something that is stored")
        await world.start("d")
        for _ in range(2):
            await asyncio.sleep(10.0)
            world.kill("d")
            await asyncio.sleep(10.0)
            await world.restart("d")
        await asyncio.sleep(CALM_SECONDS - 5.0)
        assert "d" not in members_of(world, "a")
        await asyncio.sleep(30.0)
        await world.members(4)

    run(2, NAMES[:3], scenario)


# -- leaving -----------------------------------------------------------------


async def leave(world: World, name: str) -> Leaving:
    """Ask the node of a machine to leave, as `shoal leave` does."""
    session = await world.session(f"owner{len(world.clients)}#1", name)
    world.clients.append(f"owner{len(world.clients)}#1")
    reply = await session.request(world.node(name).node_id, Leave(5000), timeout_seconds=5.0)
    assert isinstance(reply.message, Leaving)
    await session.close()
    return reply.message


async def gone(world: World, name: str, seconds: float = 120.0) -> None:
    """Wait until a node has left, and end its process as `shoal up` does: what is on its disk then is nothing."""
    machine = world.machines[name]
    await until(seconds, lambda: Left() in machine.events, f"{name} has not left")
    await world.stop(name)
    assert not [path for path in machine.storage.state.names if path.startswith("c/") and len(path) > 5]
    assert not [key for key in machine.storage.databases["ns"].values if key.startswith(b"r")]
    del world.machines[name]


@pytest.mark.parametrize("seed", SEEDS)
def test_one_of_five_leaves_under_load_and_every_file_is_whole_all_the_time(seed: int) -> None:
    choice = Random(seed)
    leaver = choice.choice(NAMES)
    others = [name for name in NAMES if name != leaver]
    written: dict[str, bytes] = {}
    is_over = asyncio.Event()

    async def load(world: World, name: str) -> None:
        client = await world.client(name)
        number = 0
        while not is_over.is_set():
            number += 1
            path = f"/{name}/{number % 7}"
            content = choice.randbytes(choice.choice((100, 100_000, 300_000)))
            assert (await client.put_bytes(path, content)).copies >= 3
            written[path] = content
            own = choice.choice([path for path in written if path.startswith(f"/{name}/")])
            assert await client.get_bytes(own) == written[own]
            await asyncio.sleep(choice.uniform(0.1, 1.0))

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        loads = [asyncio.create_task(load(world, name)) for name in (leaver, others[0])]
        await asyncio.sleep(3.0)
        begun = await leave(world, leaver)
        assert begun.chunks > 0
        assert begun.partitions == limits.PARTITIONS
        await gone(world, leaver)
        await asyncio.sleep(2.0)
        is_over.set()
        await asyncio.gather(*loads)
        await world.members(4)
        client = await world.client(others[0])
        for path, content in written.items():
            assert (await client.stat(path)).copies in (None, 3)
            assert await client.get_bytes(path) == content
        assert {member.state for member in (await client.status()).members} == {"alive"}

    run(seed, NAMES, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_of_two_leaves_and_the_other_goes_on_alone_and_is_not_let_go(seed: int) -> None:
    leaver, other = Random(seed).sample(NAMES[:2], 2)
    content = Random(seed).randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client(other)
        await client.put_bytes("/f", content)
        await leave(world, leaver)
        await gone(world, leaver)
        assert await client.get_bytes("/f") == content
        await client.put_bytes("/g", content)
        assert members_of(world, other) == {other}
        with pytest.raises(RequestFailed, match="only member"):
            await leave(world, other)

    run(seed, NAMES[:2], scenario)


@pytest.mark.parametrize("seed", range(3))
def test_a_leaver_that_dies_at_any_time_is_a_crash_and_it_goes_on_leaving_when_it_is_back(seed: int) -> None:
    content = Random(seed).randbytes(900 * KIB)

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client("b")
        await client.put_bytes("/f", content)
        await leave(world, "e")
        await asyncio.sleep(world.random.uniform(0.0, 2.0) * seed)
        world.crash("e", silent=seed == 1)
        await asyncio.sleep(world.random.uniform(1.0, EVICT_SECONDS + 20.0))
        assert await client.get_bytes("/f") == content
        await world.restart("e")
        await gone(world, "e")
        await world.members(4)
        assert durable_copies(world, content) >= 3
        assert await client.get_bytes("/f") == content

    run(seed, NAMES, scenario)


def test_nobody_leaves_while_the_others_need_him_and_who_has_left_comes_back_as_somebody_else() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client("a")
        await client.put_bytes("/f", b"x" * 100_000)
        world.kill("c")
        await asyncio.sleep(5.0)
        with pytest.raises(RequestFailed, match="with c away the others cannot go on without b"):
            await leave(world, "b")
        await world.restart("c")
        await asyncio.sleep(5.0)
        before = world.node("b").node_id
        machine = world.machines["b"]
        await leave(world, "b")
        await gone(world, "b")
        world.machines["b"] = machine
        await world.restart("b")
        await until(ADMIT_SECONDS + 30.0, lambda: members_of(world, "a") == {"a", "b", "c"}, "b is not let in again")
        await world.members(3)
        assert world.node("b").node_id != before
        assert await (await world.client("b")).get_bytes("/f") == b"x" * 100_000

    run(1, NAMES[:3], scenario)


@pytest.mark.parametrize("what", ["list", "pull"])
def test_what_a_replica_reads_while_it_drops_its_rows_is_no_vote(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.store.rows._BATCH", 1)

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client("a")
        for number in range(3):
            await client.put_bytes(f"/f/{number}", b"x")
        node, partition = world.node("b"), folder_partition("/f")
        await until(10.0, lambda: node.rows.count == 4, "a replica has not all rows")
        stamp, ask = node.layout.cfg(partition), node.rows._kv.range

        async def range_late(*where: Any) -> Any:
            found = await ask(*where)
            if asyncio.current_task() is reading:
                await until(60.0, lambda: node.rows.count == 0, "the leaver drops nothing")
            return found

        node.rows._kv.range = range_late  # type: ignore[method-assign]  # a disk may take its time
        listed = node.row_service.list(ListFetch(2000, partition, stamp, "/f", "", "", full=True))
        pulled = node.row_service.pull(PartitionPull(2000, stamp, pack_partitions([partition]), 0, ""))
        reading, other = (listed, pulled) if what == "list" else (pulled, listed)
        other.close()
        reading = asyncio.get_running_loop().create_task(reading, context=context_of(world.machines["b"].host))
        await leave(world, "b")
        with pytest.raises(Refused):
            await reading

    run(1, NAMES, scenario)


def test_a_pause_of_rebalancing_keeps_nobody_from_leaving() -> None:
    content = Random(1).randbytes(2400 * KIB)

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client("a")
        await client.put_bytes("/f", content)
        assert await client.set_rebalance(paused=True) == ()
        await world.start("f")  # a part of what the others hold belongs to it from now on, and does not move
        await world.members(6)
        await leave(world, "e")
        await gone(world, "e")
        assert durable_copies(world, content) >= 3
        assert await client.get_bytes("/f") == content
        assert sum(member.status.surplus_chunks for member in (await client.status()).members if member.status is not None) > 0

    run(1, NAMES, scenario)


def test_a_put_that_began_before_a_machine_left_and_ends_after_it_is_whole() -> None:
    content = Random(1).randbytes(1200 * KIB)

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client("a")
        position = 0

        async def read(count: int) -> bytes:
            nonlocal position
            if position >= 900 * KIB and "e" in world.machines:
                await leave(world, "e")
                await gone(world, "e")
            piece = content[position : position + count]
            position += len(piece)
            return piece

        assert (await client.put("/f", read, size=len(content), mode=0o644)).copies >= 3
        assert durable_copies(world, content) >= 3
        await expect(world, "/f", content)

    run(1, NAMES, scenario)


def test_where_another_node_answers_in_the_place_of_a_dead_one_nobody_dials_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: Counter[str] = Counter()
    connect = Links._connect

    async def counted(self: Links, address: str, *arguments: Any) -> Link:
        dialled[address] += 1
        return await connect(self, address, *arguments)

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        world.kill("c")
        world.wipe("c")
        world.kill("e")
        await asyncio.sleep(2.0)
        await world.start("c")  # it is somebody else now, at the same address
        await leave(world, "d")
        await until(10.0, lambda: world.node("a").layout.is_joint, "d is not about to leave")
        monkeypatch.setattr(Links, "_connect", counted)
        await asyncio.sleep(20.0)
        assert world.node("a").layout.is_joint
        assert dialled["c:7400"] < 20 * 5 * 2  # each of five, for each report

    run(1, SIX, scenario)


# -- being forgotten ---------------------------------------------------------


async def forgotten(world: World, client: Operations, victim: NodeId, via: str) -> None:
    """Have a member forgotten, as `shoal forget` does."""
    give_up_at = world.loop.time() + 30.0
    while victim in world.node(via).layout.members:
        assert world.loop.time() < give_up_at
        await client.forget(victim)
        await asyncio.sleep(0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_stored_for_a_partition_that_a_member_has_just_entered_again_is_not_dropped_with_what_it_left(seed: int) -> None:
    async def scenario(world: World) -> None:
        node = world.node("f")
        await asyncio.sleep(5.0)
        owned = {is_owned: [] for is_owned in (True, False)}
        for folder in (f"/{number}" for number in range(100)):
            owned[node.layout.is_replica(node.node_id, folder_partition(folder))].append(folder)
        client = await world.client("a")
        await client.put_bytes(f"{owned[True][0]}/kept", b"something")
        path = f"{owned[False][0]}/fresh"
        drop, is_there = node.rows.drop, asyncio.get_running_loop().create_future()

        async def drop_late(*what: Any) -> None:
            while await node.rows.get(path) is None:
                await asyncio.sleep(0.01)
            await drop(*what)
            is_there.set_result(await node.rows.get(path) is not None)

        node.rows.drop = drop_late  # type: ignore[method-assign]  # a disk may take its time
        version = node.layout.version
        await world.node("a").layouts.renew(version, [folder_partition(owned[False][1])])
        await until(10.0, lambda: node.layout.version > version, "no stamp is new")
        await world.on(world.machines["b"].host, world.node("b").leaver.ask)
        await until(10.0, lambda: node.layout.is_joint, "nothing moves")
        await client.put_bytes(path, b"fresh")
        async with asyncio.timeout(60.0):
            assert await is_there, "a row that was acknowledged is gone"
        await expect(world, path, b"fresh")

    run(seed, SIX, scenario)


@pytest.mark.parametrize("names", [NAMES[:3], SIX])
def test_a_dead_member_is_forgotten_at_once_and_one_that_is_there_is_not(names: Sequence[str]) -> None:
    content = Random(1).randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client("a")
        await client.put_bytes("/f", content)
        victim = world.node("b").node_id
        with pytest.raises(WrongUsage, match="b is there"):
            await client.forget(victim)
        world.crash("b", silent=True)
        await asyncio.sleep(10.0)
        dead = next(member for member in (await client.status()).members if member.name == "b")
        assert (dead.state, 3 <= dead.away_seconds <= 10) == ("dead", True)
        await forgotten(world, client, victim, "a")
        assert world.loop.time() < EVICT_SECONDS
        del world.machines["b"]
        await world.members(len(names) - 1)
        await until(20.0, lambda: durable_copies(world, content) == min(3, len(names) - 1), "copies are missing")
        assert await client.get_bytes("/f") == content
        await client.put_bytes("/g", content)

    run(2, names, scenario)


def test_what_changes_and_until_when_is_seen_in_the_status() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(2.0)
        client = await world.client("a")
        await client.put_bytes("/f", b"x" * 100_000)
        world.kill("e")
        await asyncio.sleep(5.0)
        found = await client.status()
        assert (found.evict_seconds, found.eviction_hold) == (EVICT_SECONDS, "")
        for name in ("b", "c"):
            world.kill(name)
        await asyncio.sleep(5.0)
        assert (await client.status()).eviction_hold == "more than 2 members are away"
        for name in ("b", "c"):
            await world.restart(name)
        await asyncio.sleep(5.0)
        await leave(world, "d")
        seen: set[tuple[str, ...]] = set()
        while "d" in members_of(world, "a"):
            found = await client.status()
            states = {member.name: member.state for member in found.members}
            assert states["d"] in ("alive", "leaving")
            seen.add((states["d"], *found.departing))
            await asyncio.sleep(0.5)
        assert ("leaving", "d") in seen

    run(4, NAMES, scenario)
