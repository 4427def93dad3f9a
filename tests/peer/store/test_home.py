"""An identity is its seed, its memory and its rows together; chunks outlive it."""

import asyncio
from random import Random

import pytest
from store_machines import Machine, chunk, on_both, row_of, run, until_crash

from peer.errors import DiskError, StorageFailed
from peer.store.chunks import ChunkStore
from peer.store.formats import unwrap
from peer.store.home import open_home
from protocol.hashing import plain_hash
from protocol.identity import ClusterId, NodeId
from protocol.layout import Layout, Member, complete, genesis, propose


async def opened(machine):
    return await open_home(machine.storage, machine.entropy)


async def closed(home, machine):
    await home.system.close()
    await home.rows.close()
    await machine.restart()


async def lived_in(machine):
    """Return the seed of a home with a counter, a row and a chunk."""
    home = await opened(machine)
    await home.system.next_counter()
    await home.rows.merge([row_of("/file")])
    chunks = ChunkStore(machine.storage, machine.compute)
    await chunks.open()
    await chunks.put(*chunk("kept"))
    await chunks.close()
    await closed(home, machine)
    return home.seed


@on_both
async def test_an_identity_is_kept_over_restarts(machine: Machine) -> None:
    seed = await lived_in(machine)
    for boot in range(2, 5):
        home = await opened(machine)
        assert home.seed == seed
        assert home.system.boot == boot
        assert await home.rows.get("/file") == row_of("/file")
        await closed(home, machine)


@on_both
async def test_two_machines_are_two_identities(machine: Machine) -> None:
    home = await opened(machine)
    assert len(home.seed) == 32
    other = await opened(Machine(99))
    assert other.seed != home.seed
    await closed(home, machine)


async def lose_system(machine):
    await machine.lose("sys")


async def damage_system(machine):
    machine.damage("sys")


async def damage_a_value_of_system(machine):
    await machine.put_raw("sys", b"boot", b"damaged")


async def damage_the_owner(machine):
    await machine.put_raw("ns", b"owner", b"damaged")


async def damage_the_count(machine):
    await machine.put_raw("ns", b"commits", b"damaged")


async def lose_rows(machine):
    await machine.lose("ns")


async def damage_rows(machine):
    machine.damage("ns")


async def lose_identity(machine):
    await machine.storage.disk.remove("identity")


async def damage_identity(machine):
    await machine.damage_file("identity", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))


async def empty_identity(machine):
    await machine.damage_file("identity", lambda raw: b"")


async def give_up(machine):
    home = await opened(machine)
    await home.system.give_up("it was seen elsewhere")
    await closed(home, machine)


LOSSES = [
    give_up,
    lose_system,
    damage_system,
    damage_a_value_of_system,
    damage_the_owner,
    damage_the_count,
    lose_rows,
    damage_rows,
    lose_identity,
    damage_identity,
    empty_identity,
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("side", ["real", "sim"])
def test_a_lost_part_means_a_new_identity_that_keeps_the_chunks(loss, side, tmp_path) -> None:
    async def story() -> None:
        machine = Machine(0, tmp_path if side == "real" else None)
        old = await lived_in(machine)
        await loss(machine)
        home = await opened(machine)
        assert home.seed != old
        assert home.system.boot == 1
        assert not home.system.was_member
        assert home.rows.count == 0
        assert await home.rows.get("/file") is None
        chunks = ChunkStore(machine.storage, machine.compute)
        await chunks.open()
        assert await chunks.get(chunk("kept")[0]) == chunk("kept")[1]
        await chunks.close()
        await closed(home, machine)
        again = await opened(machine)
        assert again.seed == home.seed  # and that one stays
        await closed(again, machine)
        await machine.storage.close()

    if side == "real":
        asyncio.run(story())
    else:
        run(story)


def layout_of_two() -> Layout:
    both = [Member(NodeId(plain_hash(name, 16)), name.decode(), "", 1, ("192.0.2.1:7400",)) for name in (b"a", b"b")]
    joint = propose(genesis(ClusterId(b"c" * 16), both[0]), both)
    assert joint is not None
    return complete(joint)


async def put_an_older_one_back(machine):
    old = await machine.stored("ns")
    await machine.lose("ns")
    await closed(await opened(machine), machine)
    for key, value in old:
        await machine.put_raw("ns", key, value)


@pytest.mark.parametrize("loss", [lose_rows, damage_rows, damage_the_owner, damage_the_count, put_an_older_one_back])
@pytest.mark.parametrize("side", ["real", "sim"])
def test_lost_rows_are_remembered_as_lost_under_the_same_identity_until_they_are_here_again(loss, side, tmp_path) -> None:
    async def story() -> None:
        machine = Machine(0, tmp_path if side == "real" else None)
        seed = await lived_in(machine)
        home = await opened(machine)
        layout = layout_of_two()
        await home.system.save_layout(layout.version, layout.data, range(4096))
        commits = home.system.commits + home.rows.commits
        assert not home.system.is_lost(7)
        await closed(home, machine)
        await loss(machine)
        home = await opened(machine)
        assert home.seed == seed
        assert home.lost in ("ns.db was lost", "ns.db was damaged")
        assert home.rows.count == 0
        assert home.system.commits + home.rows.commits > commits
        assert home.system.lost_at == layout.version
        assert home.system.is_lost(7)
        await home.system.mark_synced([7], layout.version + 1)
        await closed(home, machine)
        home = await opened(machine)
        assert not home.lost
        assert (home.system.is_lost(7), home.system.is_lost(8)) == (False, True)
        await home.system.rows_recovered()
        await closed(home, machine)
        home = await opened(machine)
        assert not home.system.is_lost(8)
        await closed(home, machine)
        await machine.storage.close()

    if side == "real":
        asyncio.run(story())
    else:
        run(story)


def test_a_loss_is_durable_before_new_rows_take_the_place_of_the_old_whatever_crashes() -> None:
    async def story(seed: int) -> None:
        machine, random, layout = Machine(seed), Random(seed), layout_of_two()
        home = await opened(machine)
        await home.system.save_layout(layout.version, layout.data, range(4096))
        await closed(home, machine)
        machine.damage("ns")

        async def life() -> None:
            home = await opened(machine)
            assert home.system.is_lost(7)
            await home.rows.merge([row_of("/file")])

        for _ in range(4):
            await until_crash(seed, machine, life, random.uniform(0, 0.03))()

    for seed in range(30):
        run(lambda seed=seed: story(seed), seed)


def test_what_a_new_identity_sets_aside_is_still_in_the_folder(tmp_path) -> None:
    async def story() -> None:
        machine = Machine(0, tmp_path)
        await lived_in(machine)
        for number in (1, 2):
            await lose_identity(machine)
            await closed(await opened(machine), machine)
            assert (tmp_path / f"ns.db.lost-{number}").exists()
            assert (tmp_path / f"sys.db.lost-{number}").exists()
        await machine.storage.close()

    asyncio.run(story())


def test_an_identity_is_not_given_up_because_its_file_cannot_be_opened_now() -> None:
    async def story() -> None:
        machine = Machine(0)
        seed = await lived_in(machine)
        read = machine.storage.disk.read

        async def refused(path: str, *arguments: object) -> bytes:
            raise DiskError(path, "too many open files")

        machine.storage.disk.read = refused
        with pytest.raises(StorageFailed):
            await opened(machine)
        machine.storage.disk.read = read
        assert (await opened(machine)).seed == seed

    run(story)


def test_every_stored_value_of_an_identity_is_wrapped() -> None:
    async def story() -> None:
        machine = Machine(0)
        await lived_in(machine)
        unwrap(b"identity", await machine.storage.disk.read("identity"))
        for name in ("sys", "ns"):
            for key, value in await machine.stored(name):
                unwrap(key, value)

    run(story)


def test_an_identity_that_was_used_survives_any_crash() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        used: list[bytes] = []

        async def life() -> None:
            used.append((await opened(machine)).seed)

        random = Random(seed)
        for _ in range(6):
            await until_crash(seed, machine, life, random.uniform(0, 0.03))()
        assert len(set(used)) <= 1

    for seed in range(30):
        run(lambda seed=seed: story(seed), seed)
