"""Most machines are gone for good, and the others go on by force as another cluster."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from operator import eq
from random import Random

import pytest

from peer.care.reconcile import Reconcile
from peer.cluster.sync import Sync
from peer.errors import DataLost, NoSuchPath, OutcomeUnknown, RequestFailed, Unavailable, WrongUsage
from peer.files.quorum import fetch_row
from peer.node import Notice
from peer.session import Session
from protocol import limits
from protocol.identity import NodeId
from protocol.manifest import KIB
from protocol.messages import Forced, Status, StatusGet
from protocol.versions import Row, empty_row
from sims.formed import switch_on
from sims.scenarios._common import NAMES, chain_judged, cut_off, durable_copies, expect, pairs_between, put_for_certain, start_all, until
from sims.world import World

DEAD_SECONDS = 60.0


def run(seed: int, names: Sequence[str], scenario: Callable[[World], Awaitable[None]], seconds: float = 600.0) -> None:
    """Run a scenario in a cluster of `names` that has formed before, under the eyes of the judge of the chain."""

    async def judged(world: World) -> None:
        switch_on(world, names)
        with chain_judged(world):
            await start_all(world, names)
            await asyncio.sleep(2.0)
            await scenario(world)

    World(seed).run(judged, seconds_max=seconds)


async def lose(world: World, *names: str) -> None:
    """Let machines be gone for good, and wait until the others know."""
    lost = ids(world, *names)
    for name in names:
        world.crash(name, silent=True)
    left = [machine.node for machine in world.machines.values() if machine.node is not None]
    await until(DEAD_SECONDS, lambda: not any(node.detector.is_alive(node_id) for node in left for node_id in lost), f"{names} are there")


async def force(world: World, via: str, gone: Sequence[NodeId], *, begin: bool = True) -> Forced:
    """Have the node of a machine go on without others, as `shoal forget --force` does once."""
    client = await world.client(via)
    return await client.force(gone, begin=begin)


def ids(world: World, *names: str) -> list[NodeId]:
    return [world.node(name).node_id for name in names]


async def notices(world: World, name: str) -> tuple[str, ...]:
    """Return what the status of the node of a machine says that people should know."""
    node = world.node(name)
    reply = await node.request(node.node_id, StatusGet(1000), timeout_seconds=1.0)
    assert isinstance(reply.message, Status)
    return reply.message.notices


def cluster_of(world: World, name: str) -> bytes:
    return world.node(name).layout.cluster_id


def told(world: World, name: str) -> list[str]:
    return [event.text for event in world.machines[name].events if isinstance(event, Notice)]


async def settled(world: World, *names: str) -> None:
    """Wait until the machines `names` are a cluster of their own that has gathered what they have."""

    def is_settled() -> bool:
        layouts = [world.node(name).layout for name in names]
        is_one = len({layout.digest for layout in layouts}) == 1 and len(layouts[0].members) == len(names)
        return is_one and not layouts[0].unsettled_partitions

    await until(90.0, is_settled, f"{names} are no cluster")


async def vote(world: World, session: Session, name: str, path: str) -> Row:
    """Return the row of a path at the node of a machine, as soon as it gives one."""
    while True:
        try:
            answer = await fetch_row(session, world.node(name).layout, world.node(name).node_id, path, full=True)
        except RequestFailed:
            await asyncio.sleep(0.05)
            continue
        return answer.rows[0] if answer.rows else empty_row(path)


@pytest.mark.parametrize("seed", [1, 2])
def test_two_of_five_go_on_with_all_that_they_have(seed: int) -> None:
    choice = Random(seed)
    contents = {f"/d{number}/f": choice.randbytes(choice.choice((100, 300 * KIB))) for number in range(8)}
    left = choice.sample(NAMES, 2)
    gone = [name for name in NAMES if name not in left]

    async def scenario(world: World) -> None:
        client = await world.client(left[0])
        for path, content in contents.items():
            await client.put_bytes(path, content)
        before, names = cluster_of(world, left[0]), ids(world, *gone)
        with pytest.raises(WrongUsage, match=f"^{', '.join(gone)} are there"):
            await force(world, left[0], names)
        with pytest.raises(WrongUsage, match=f"^{gone[0]} is there"):
            await force(world, left[0], names[:1])
        await lose(world, *gone)
        with pytest.raises(Unavailable):
            await client.put_bytes("/new", b"x")
        layout = world.node(left[0]).layout
        homeless = sum(set(layout.homes(partition)) <= set(names) for partition in range(limits.PARTITIONS))
        assert homeless
        assert await force(world, left[0], names, begin=False) == Forced(4096, 0, homeless)
        assert cluster_of(world, left[0]) == before
        with pytest.raises(Unavailable, match=f"^with {', '.join(gone[1:])} away the others cannot go on either"):
            await force(world, left[0], names[:1])
        await force(world, left[0], names)
        await settled(world, *left)
        assert cluster_of(world, left[0]) != before
        for name in gone:
            del world.machines[name]
        for path, content in contents.items():
            if len(content) < 4 * KIB or durable_copies(world, content):
                await expect(world, path, content)
            else:
                with pytest.raises(DataLost):
                    await (await world.client(left[1])).get_bytes(path)
        client = await world.client(left[1])
        assert (await client.put_bytes("/new", b"n" * 100_000)).copies == 2
        assert (await force(world, left[1], names)) == Forced(0, 0, 0)  # once more does nothing
        await world.start("f")
        await world.members(3)
        await until(60.0, lambda: durable_copies(world, b"n" * 100_000) == 3, "copies are missing")
        assert [former.cluster_id for former in (await client.status()).former] == [before]

    run(seed, NAMES, scenario)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_single_one_of_them_has_all_have_before_they_answer(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def compare_nothing(self: Reconcile, node: NodeId, *, at_once: bool) -> None:
        """Have rows travel by the gathering alone."""

    monkeypatch.setattr(Reconcile, "_exchange", compare_nothing)
    lone, *others = Random(seed).sample(NAMES[:4], 3)

    async def scenario(world: World) -> None:
        gone = [name for name in world.machines if name not in (lone, *others)]
        client = await world.client(gone[0])
        await client.put_bytes("/old", b"old")
        cut_off(world, [*others])
        await put_for_certain(client, "/new", b"new")  # of those who will be left one has it
        await put_for_certain(client, "/old", b"changed")
        names = ids(world, *gone)
        await lose(world, *gone)
        world.lan.heal()
        await asyncio.sleep(10.0)
        before = cluster_of(world, lone)
        await force(world, others[0], names)
        await until(10.0, lambda: all(cluster_of(world, name) != before for name in (lone, *others)), "somebody does not follow")
        for name in others:
            session = await world.session(f"reader-{name}#1", name)
            assert [head.size for head in (await vote(world, session, name, "/new")).heads] == [3]
        await until(10.0, lambda: not any(world.node(name).sync.unsynced() for name in others), "the rows are not gathered")
        world.crash(lone)
        await expect(world, "/new", b"new")
        await expect(world, "/old", b"changed")

    run(seed, (*NAMES, "f"), scenario)


def test_one_of_two_goes_on_alone_and_the_other_is_foreign_and_destroys_nothing() -> None:
    content = Random(1).randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        client = await world.client("a")
        await client.put_bytes("/f", content)
        names = ids(world, "b")
        await lose(world, "b")
        with pytest.raises(Unavailable, match=r"forget --force"):
            await client.forget(names[0])
        await force(world, "a", names)
        await settled(world, "a")
        client = await world.client("a")
        await client.put_bytes("/g", content)
        before = dict(world.machines["b"].storage.databases["ns"].values)
        back = await world.restart("b")
        await asyncio.sleep(30.0)
        assert len(world.node("a").layout.members) == 1
        assert back.layout.cluster_id != cluster_of(world, "a")
        assert sum("without it: nothing crosses" in text for text in told(world, "a")) == 1
        assert sum("without this machine: nothing crosses" in text for text in told(world, "b")) == 1
        assert any("data folder" in notice for notice in await notices(world, "a"))
        assert dict(world.machines["b"].storage.databases["ns"].values) == before
        assert await client.get_bytes("/g") == content
        await world.stop("b")
        world.wipe("b")
        await world.start("b")
        await until(60.0, lambda: len(world.node("a").layout.members) == 2, "b is not let in anew")
        await world.members(2)
        assert await notices(world, "a") == ()
        await expect(world, "/f", content)

    run(1, NAMES[:2], scenario)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_row_that_has_rotten_at_one_of_them_keeps_no_other_from_being_read(seed: int) -> None:
    async def scenario(world: World) -> None:
        client = await world.client("a")
        for number in range(8):
            await client.put_bytes(f"/d{number}/f{number}", b"x")
        await asyncio.sleep(10.0)  # what can be read lies with all
        names = ids(world, *NAMES[2:])
        await lose(world, *NAMES[2:])
        for name, paths in (("a", ("/d1/f1", "/d2")), ("b", ("/d3/f3",))):
            for path in paths:
                world.machines[name].storage.rot_row(path, world.random)
        await force(world, "ab"[seed - 1], names)
        await settled(world, "a", "b")
        for number in range(8):
            await expect(world, f"/d{number}/f{number}", b"x")

    run(seed, NAMES, scenario)


@pytest.mark.parametrize("left", ["ab", "abc"])
def test_rows_that_are_lost_while_all_gather_keep_nobody_from_going_on(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = NAMES if left == "ab" else (*NAMES, "f")
    original = Sync._pull_from

    async def nothing(self: Sync, source: NodeId, stamp: int, partitions: list[int], *, gathers: bool) -> bool:
        return False

    async def scenario(world: World) -> None:
        client = await world.client("a")
        for number in range(8):
            await client.put_bytes(f"/d{number}/f", b"x")
        await asyncio.sleep(10.0)  # what can be read lies with all
        lost = [name for name in names if name not in left]
        gone = ids(world, *lost)
        await lose(world, *lost)
        before = cluster_of(world, "a")
        monkeypatch.setattr(Sync, "_pull_from", nothing)
        forcing = asyncio.ensure_future(force(world, "a", gone))
        await until(30.0, lambda: cluster_of(world, "b") != before, "b does not follow")
        await asyncio.sleep(0.5)
        world.crash("b")
        monkeypatch.setattr(Sync, "_pull_from", original)
        world.machines["b"].storage.damage("ns")
        node = await world.start("b")
        await settled(world, *left)
        await until(30.0, lambda: not node.system.lost_at, "its rows are not here again")
        await forcing
        for number in range(8):
            await expect(world, f"/d{number}/f", b"x")

    run(1, names, scenario)


@pytest.mark.parametrize("moment", [0.0, 0.004, 0.03, 0.5])
@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_crash_at_any_step_leaves_one_cluster_or_one_that_can_be_forced_again(victim: str, moment: float) -> None:
    contents = {f"/d{number}/f": bytes([number]) * 1000 for number in range(8)}

    async def scenario(world: World) -> None:
        client = await world.client("a")
        for path, content in contents.items():
            await client.put_bytes(path, content)
        before, names = cluster_of(world, "a"), ids(world, *NAMES[2:])
        await lose(world, *NAMES[2:])
        person = await world.client("a")
        await person.force(names, begin=False)
        forcing = asyncio.create_task(person.force(names, begin=True))
        await asyncio.sleep(moment)
        world.crash(victim, silent=False)
        forcing.cancel()
        await asyncio.gather(forcing, return_exceptions=True)
        await asyncio.sleep(1.0)
        await world.restart(victim)
        await asyncio.sleep(10.0)
        if cluster_of(world, "a") == before:
            assert cluster_of(world, "b") == before
            await force(world, "b", names)
        await settled(world, "a", "b")
        for path, content in contents.items():
            await expect(world, path, content)
        await (await world.client("b")).put_bytes("/new", b"x")

    run(3, NAMES, scenario)


def test_who_slept_meanwhile_follows_even_if_it_slept_through_earlier_layouts() -> None:
    contents = {f"/d{number}/f": bytes([number]) * 1000 for number in range(8)}

    async def scenario(world: World) -> None:
        client = await world.client("a")
        for path, content in contents.items():
            await client.put_bytes(path, content)
        asleep = world.node("e")
        world.crash("e")
        await asyncio.sleep(10.0)
        await world.start("f")
        await until(120.0, lambda: len(world.node("a").layout.members) == 6 and not world.node("a").layout.is_joint, "f is not admitted")
        assert asleep.layout.version < world.node("a").layout.version
        names = ids(world, "c", "d", "f")
        await lose(world, "c", "d", "f")
        await force(world, "a", names)
        await until(60.0, lambda: not world.node("b").layout.unsettled_partitions and len(members(world, "b")) == 3, "b waits")
        client = await world.client("b")
        await client.put_bytes("/new", b"x")
        await world.restart("e")
        await settled(world, "a", "b", "e")
        for path, content in contents.items():
            await expect(world, path, content)
        await expect(world, "/new", b"x")
        assert not world.node("e").sync.unsynced()

    run(2, NAMES, scenario)


def test_two_that_are_forced_apart_are_two_clusters_that_refuse_each_other() -> None:
    async def scenario(world: World) -> None:
        a, b, others = ids(world, "a"), ids(world, "b"), ids(world, *NAMES[2:])
        await lose(world, *NAMES[2:])
        cut_off(world, ["a"])
        detectors = world.node("a").detector, world.node("b").detector
        await until(DEAD_SECONDS, lambda: not (detectors[0].is_alive(b[0]) or detectors[1].is_alive(a[0])), "they are linked")
        await force(world, "a", [*others, *b])
        await force(world, "b", [*others, *a])
        await settled(world, "a")
        await settled(world, "b")
        await (await world.client("a")).put_bytes("/f", b"a")
        world.lan.heal()
        await asyncio.sleep(30.0)
        for name in ("a", "b"):
            assert members(world, name) == {name}
            assert sum("both went on by force from the same cluster" in text for text in told(world, name)) == 1
        with pytest.raises(NoSuchPath):
            await (await world.client("b")).get_bytes("/f")

    run(1, NAMES, scenario)


def test_a_machine_that_was_given_up_and_goes_on_by_force_itself_is_told_of_as_what_it_is_now() -> None:
    async def scenario(world: World) -> None:
        a, b = ids(world, "a", "b")
        await lose(world, "b")
        await force(world, "a", [b])
        await world.restart("b")
        await asyncio.sleep(30.0)
        await force(world, "b", [a])
        await asyncio.sleep(30.0)
        for name in ("a", "b"):
            (notice,) = await notices(world, name)
            assert "both went on by force from the same cluster" in notice

    run(1, NAMES[:2], scenario)


def test_of_two_that_are_forced_at_once_one_goes_on_as_the_notice_says_and_the_other_joins_it() -> None:
    content = Random(1).randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        await (await world.client("a")).put_bytes("/f", content)
        b, gone = ids(world, "b"), ids(world, *NAMES[2:])
        await lose(world, *NAMES[2:])
        people = [await world.client(name) for name in ("a", "b")]
        await asyncio.gather(*(person.force(gone, begin=True) for person in people))
        await asyncio.sleep(20.0)
        assert cluster_of(world, "a") != cluster_of(world, "b")
        for name in ("a", "b"):
            (notice,) = await notices(world, name)
            assert "`shoal forget --force` there" in notice
        await force(world, "a", b)
        await settled(world, "a")
        await world.stop("b")
        world.wipe("b")  # more than `identity`, so that all comes from a
        await world.start("b")
        await until(60.0, lambda: members(world, "a") == {"a", "b"} and not world.node("a").layout.is_joint, "b is not let in anew")
        assert await notices(world, "a") == await notices(world, "b") == ()
        assert (await (await world.client("b")).put_bytes("/g", content)).copies == 2

    run(1, NAMES, scenario)


def test_a_client_that_stays_open_while_its_cluster_goes_on_by_force_is_told_to_connect_anew() -> None:
    async def scenario(world: World) -> None:
        client = await world.client("a")
        await client.put_bytes("/f", b"x")
        gone = ids(world, *NAMES[2:])
        await lose(world, *NAMES[2:])
        await force(world, "a", gone)
        await settled(world, "a", "b")
        for work in (client.put_bytes("/g", b"y"), client.get_bytes("/f"), client.stat("/f")):
            with pytest.raises(Unavailable, match="reaches 0 of 5 members; a and b went on by force as another cluster: connect anew"):
                await work
        await (await world.client("a")).put_bytes("/g", b"y")

    run(1, NAMES, scenario)


def test_a_client_of_a_machine_that_was_given_up_is_told_who_went_on() -> None:
    async def scenario(world: World) -> None:
        await (await world.client("a")).put_bytes("/f", b"x")
        gone = ids(world, *NAMES[2:])
        await lose(world, *NAMES[2:])
        await force(world, "a", gone)
        await settled(world, "a", "b")
        await world.restart("c")
        await asyncio.sleep(30.0)
        with pytest.raises(Unavailable, match="this machine reaches 1 of 5 members; a and b went on by force as another cluster"):
            await (await world.client("c")).get_bytes("/f")

    run(1, NAMES, scenario)


def members(world: World, name: str) -> set[str]:
    return {member.name for member in world.node(name).layout.record.members}


async def fork(world: World) -> bytes:
    """Have a and b go on without c and d, which are well, and e with them: only cut off. Return which cluster they leave."""
    await (await world.client("a")).put_bytes("/f", b"before")
    old, names = cluster_of(world, "a"), ids(world, "c", "d")
    cut_off(world, ["a", "b"])
    node = world.node("a")
    others = ids(world, "c", "d", "e")
    await until(DEAD_SECONDS, lambda: not any(map(node.detector.is_alive, others)), "c, d and e are there")
    await force(world, "a", names)
    await until(90.0, lambda: members(world, "b") == {"a", "b", "e"} and not world.node("b").layout.unsettled_partitions, "b waits")
    await put_for_certain(await world.client("a"), "/f", b"here")
    return old


def test_nobody_leaves_a_cluster_that_goes_on_and_everybody_follows_when_it_does_not() -> None:
    async def scenario(world: World) -> None:
        old = await fork(world)
        there = await world.client("c")
        await put_for_certain(there, "/f", b"there")
        world.lan.heal()
        await asyncio.sleep(20.0)
        assert cluster_of(world, "e") == old
        assert sum("it stays for as long" in text for text in told(world, "e")) == 1
        assert await there.get_bytes("/f") == b"there"
        assert (await (await world.client("e")).put_bytes("/g", b"g" * 300 * KIB)).copies == 3
        for name in ("a", "b"):
            assert not [path for path in world.machines[name].storage.state.names if path.startswith("c/") and len(path) > 5]
        assert await (await world.client("b")).get_bytes("/f") == b"here"
        await lose(world, "c", "d")
        await settled(world, "a", "b", "e")
        await asyncio.sleep(20.0)  # the rows of e are compared
        await expect(world, "/f", b"here", b"there")

    run(5, NAMES, scenario)


def test_nothing_crosses_between_two_that_go_on_though_their_stamps_are_equal_numbers() -> None:
    async def scenario(world: World) -> None:
        await fork(world)
        for one, other in (("a", "f"), ("b", "f"), ("d", "f"), ("e", "f")):
            world.lan.cut(one, other)
            world.lan.cut(other, one)
        here, there = await world.client("a"), await world.client("c")
        await world.start("f")  # it can be admitted, and sync nothing
        await until(90.0, lambda: world.node("c").layout.is_joint, "f is not admitted")
        assert sum(map(eq, world.node("c").layout.stamps, world.node("a").layout.stamps)) > limits.PARTITIONS // 2
        for one, other in pairs_between(world, ["a", "b"]):
            world.lan.mend(one, other)
            world.lan.mend(other, one)
        written: dict[str, int] = Counter()
        for number in range(6):
            for client, where in ((here, "here"), (there, "there")):
                with suppress(Unavailable, OutcomeUnknown):
                    await client.put_bytes(f"/{where}{number}/f", where.encode())
                    written[where] += 1
        assert world.node("c").layout.is_joint
        assert min(written["here"], written["there"]) > 1
        world.lan.heal()
        await asyncio.sleep(10.0)
        for names, other in (("ab", b"/there"), ("cdef", b"/here")):
            for name in names:
                assert any("nothing crosses" in text for text in told(world, name))
                assert not [key for key in world.machines[name].storage.databases["ns"].keys if key.startswith(b"r") and other in key]

    run(6, NAMES, scenario)
