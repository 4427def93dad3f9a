"""What people meet while machines are away: who is not answered is told why, and soon."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest

from peer.errors import NoSuchPath, OutcomeUnknown, Unavailable
from peer.files.operations import Operations
from peer.files.write_path import Stored
from peer.link import Reply
from peer.session import Session
from protocol.hashing import Buffer
from protocol.identity import NodeId
from protocol.manifest import inline_content
from protocol.messages import Request, StatusGet
from protocol.versions import Kind
from sims.formed import switch_on
from sims.plan import plan_from_seed
from sims.run import run_plan
from sims.scenarios._common import NAMES, cut_off, expect, start_all, until
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


class CountingAccess:
    """The session of a client, with a count of how often each member is asked how it is."""

    def __init__(self, session: Session) -> None:
        self.looks: Counter[NodeId] = Counter()
        self._session = session

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        self.looks[node_id] += isinstance(message, StatusGet)
        return await self._session.request(node_id, message, payload, timeout_seconds=timeout_seconds)


def test_many_operations_that_are_refused_at_once_ask_the_members_once() -> None:
    async def scenario(world: World) -> None:
        access = CountingAccess((await world.client("d"))._access)
        client = Operations(access)
        await client.put_bytes("/f", b"x" * 100_000)
        cut_off(world, ["d", "e", "client1"])
        await asyncio.sleep(30.0)
        tries = [client.get_bytes("/f") for _ in range(100)]
        assert all(isinstance(error, Unavailable) for error in await asyncio.gather(*tries, return_exceptions=True))
        assert 1 <= max(access.looks.values()) <= 3

    run(NAMES, scenario)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 4.0])
def test_a_network_that_stands_still_for_a_moment_turns_no_write_of_the_smaller_side_into_a_refusal(seconds: float) -> None:
    async def scenario(world: World) -> None:
        client = await world.client("d")
        cut_off(world, ["d", "e", "client1"])
        put = asyncio.create_task(client.put_bytes("/f", b"x"))
        await asyncio.sleep(seconds)
        world.lan.heal()
        await put

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


# -- two machines --------------------------------------------------------------

PAIR = NAMES[:2]


async def reads_all_and_writes_nothing(world: World, client: Operations, files: dict[str, bytes]) -> None:
    """Make sure that everything can be read and listed, and nothing be changed."""
    folders = sorted({path.rpartition("/")[0] or "/" for path in files})
    for folder in folders:
        expected = sorted(path for path in files if (path.rpartition("/")[0] or "/") == folder)
        assert [entry.path async for entry in client.list(folder) if entry.type == "file"] == expected
    for path, content in files.items():
        assert await client.get_bytes(path) == content
        assert (await client.stat(path)).entry.size == len(content)
    with pytest.raises(NoSuchPath):
        await client.get_bytes("/d/nothing")
    path = min(files)
    for work in (lambda: client.put_bytes("/d/new", b"y"), lambda: client.remove(path), lambda: client.make_directory("/e")):
        text, _ = await refused(world, work)
        assert "this machine reaches 1 of 2 members; from here nobody can tell whether the rest is off or cut off" in text
    assert await client.get_bytes(path) == files[path]


@pytest.mark.parametrize("closed", PAIR)
@pytest.mark.parametrize("seed", range(2))
def test_of_two_machines_one_reads_everything_while_the_other_one_sleeps_and_writes_nothing(closed: str, seed: int) -> None:
    files = {"/d/small": b"s", "/d/large": Random(seed).randbytes(300_000), "/top": b"t"}

    async def scenario(world: World) -> None:
        stays = next(name for name in PAIR if name != closed)
        client = await world.client(stays)
        for path, content in files.items():
            await client.put_bytes(path, b"old")
            await client.put_bytes(path, content)
        await client.put_bytes("/d/gone", b"g")
        await client.remove("/d/gone")
        world.crash(closed, silent=seed == 1)
        await reads_all_and_writes_nothing(world, client, files)
        with pytest.raises(NoSuchPath):
            await client.get_bytes("/d/gone")
        await asyncio.sleep(20.0)
        await reads_all_and_writes_nothing(world, client, files)
        await world.restart(closed)
        await asyncio.sleep(5.0)
        await client.put_bytes("/d/new", b"y")
        await expect(world, "/d/new", b"y")

    run(PAIR, scenario, seed)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.05, 0.5, 1.2, 5.0])
def test_a_laptop_that_closes_its_lid_at_any_step_of_joining_leaves_everything_readable(delay: float) -> None:
    files = {"/d/small": b"s", "/d/large": Random(1).randbytes(300_000)}
    outcomes: list[int] = []

    async def scenario(world: World) -> None:
        client = await world.client("a")
        for path, content in files.items():
            await client.put_bytes(path, content)
        starting = asyncio.create_task(world.start("b"))
        while not world.node("a").layout.is_joint:
            await asyncio.sleep(0.01)
        await asyncio.sleep(delay)
        if starting.done() and delay:
            try:
                await client.put_bytes("/d/between", b"b")
                files["/d/between"] = b"b"
            except (Unavailable, OutcomeUnknown):
                outcomes.append(0)
                return
        world.crash("b", silent=True)
        starting.cancel()
        for path, content in files.items():
            assert await client.get_bytes(path) == content
        await until(10.0, lambda: not world.node("a").layout.is_joint, "the layout is joint")
        outcomes.append(len(world.node("a").layout.members))
        if outcomes[-1] == 2:
            await reads_all_and_writes_nothing(world, client, files)
        else:
            await client.put_bytes("/d/new", b"y")

    run(NAMES[:1], scenario)
    assert outcomes


@pytest.mark.parametrize("seed", range(6))
def test_a_put_in_flight_when_the_lid_closes_is_not_shown_before_both_have_it(seed: int) -> None:
    shown: list[bytes] = []

    async def scenario(world: World) -> None:
        client = await world.client("a")
        await client.put_bytes("/f", b"before")
        world.crash("b", silent=True)
        # What a put does that has read before the lid closed: the coordinator stores it, and nobody else.
        attempt = client._begin(await client._read_row("/f", alone=True))
        with pytest.raises(OutcomeUnknown):
            await client._publish(attempt, Kind.FILE, Stored(inline_content(b"after"), 5, frozenset(), None), 0o644, 0)
        text, _ = await refused(world, lambda: client.get_bytes("/f"))
        assert "it is not known whether the other one has what this one has" in text
        text, _ = await refused(world, lambda: listed(client, "/"))
        assert "it is not known whether the other one has what this one has" in text
        if seed % 2:
            world.crash("a")
            await world.restart("b")
            await asyncio.sleep(3.0)
            other = await world.client("b")
            text, _ = await refused(world, lambda: other.get_bytes("/f"))
            assert "this node has not met a majority since its start" in text
            await world.restart("a")
        else:
            await world.restart("b")
        await asyncio.sleep(5.0)
        await expect(world, "/f", b"after")
        world.crash("ab"[seed % 2])
        shown.append(await (await world.client("ba"[seed % 2])).get_bytes("/f"))

    run(PAIR, scenario, seed)
    assert shown == [b"after"]


@pytest.mark.parametrize("seed", [207, 210])
def test_whatever_goes_wrong_with_two_machines_nobody_sees_less_than_before(seed: int) -> None:
    assert run_plan(plan_from_seed(seed, machines=2)).violation is None


def test_a_machine_that_was_started_anew_answers_nothing_alone_before_it_has_met_the_other_one() -> None:
    async def scenario(world: World) -> None:
        client = await world.client("a")
        await client.put_bytes("/f", b"x")
        snapshot = world.snapshot("a")
        await client.put_bytes("/f", b"newer")
        for name in PAIR:
            world.crash(name)
        world.put_back("a", snapshot)
        await world.start("a")
        text, _ = await refused(world, lambda: client.get_bytes("/f"))
        assert "this node has not met a majority since its start" in text

    run(PAIR, scenario)


# -- chunks ----------------------------------------------------------------------


async def lies_only_on(world: World, content: bytes, path: str) -> tuple[str, ...]:
    """Have a file of one chunk put, and the copy of one of its three homes damaged beyond reading; return the names of the others."""
    client = await world.client("a")
    await client.put_bytes(path, content)
    (place,) = [place async for place in client.where(path)]
    *others, spoilt = place.nodes
    storage = world.machine(spoilt).storage
    (file,) = [file for file in storage.state.chunk_files() if file.endswith(place.chunk_id.hex())]
    storage.state.damage(file, Random(1), unreadable=True)
    return tuple(sorted(others))


@pytest.mark.parametrize("silent", [True, False])
def test_a_get_of_what_lies_only_on_machines_that_are_away_says_soon_which_have_to_come_back(silent: bool) -> None:
    async def scenario(world: World) -> None:
        content = Random(2).randbytes(100_000)
        holders = await lies_only_on(world, content, "/f")
        for name in holders:
            world.crash(name, silent=silent)
        client = await world.client(next(name for name in NAMES if name not in holders))
        _, seconds = await refused(world, lambda: client.get_bytes("/f"))
        assert seconds < 25.0  # until it is certain that they are dead, and not for a moment
        await asyncio.sleep(15.0)
        text, seconds = await refused(world, lambda: client.get_bytes("/f"))
        one, other = holders
        assert "cannot be read now: nobody who answers (3 of 5 members) has an intact copy" in text
        assert f"start {one} and {other}, or see to the network" in text
        assert "lost" not in text
        assert "\n" not in text
        assert seconds < 5.0
        await world.restart(one)
        assert await client.get_bytes("/f") == content

    run(NAMES, scenario)


def test_a_get_waits_for_a_holder_that_others_reach_and_for_one_that_is_started_anew() -> None:
    async def scenario(world: World) -> None:
        content = Random(2).randbytes(100_000)
        holders = await lies_only_on(world, content, "/f")
        client = await world.client(next(name for name in NAMES if name not in holders))
        host = world.clients[-1].partition("#")[0]
        for name in holders:
            world.lan.cut(host, name)
        get = asyncio.create_task(client.get_bytes("/f"))
        await asyncio.sleep(15.0)
        world.lan.heal()
        assert await get == content
        for name in holders:
            world.kill(name)
        get = asyncio.create_task(client.get_bytes("/f"))
        await asyncio.sleep(4.0)
        for name in holders:
            await world.restart(name)
        assert await get == content

    run(NAMES, scenario)
