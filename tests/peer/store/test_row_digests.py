"""What a store says of its rows in sums is true of them at any moment, after any crash, and whatever was damaged."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_machines import Machine, on_both, row_of, run, until_crash

from peer.store.row_digests import RowDigests
from peer.store.rows import RowStore
from protocol.digest import PartitionDigest
from protocol.paths import row_partition
from protocol.rows import row_digest
from protocol.versions import Row, empty_row

FOLDERS = ("/a", "/b", "/music/2024")
PARTITIONS = [row_partition(f"{folder}/x") for folder in FOLDERS]


async def opened(machine: Machine) -> RowStore:
    store = RowStore(await machine.storage.open_kv("ns"))
    await store.open()
    return store


async def of_rows(store: RowStore, partition: int) -> bytes:
    """Return the digests of a partition as its rows say, read one by one."""
    digest = PartitionDigest()
    rows, _ = await store.pull([partition], None, rows_max=10_000, bytes_max=1 << 30)
    for row in rows:
        digest.replace(row.path, b"", row_digest(row))
    return digest.pack()


async def expect_truth(store: RowStore) -> None:
    for partition in PARTITIONS:
        digest = store.digests.of(partition)
        assert digest is not None
        assert digest.pack() == await of_rows(store, partition)


def over_seeds(story: Callable[[int], Coroutine[Any, Any, None]], count: int) -> None:
    for seed in range(count):
        run(lambda seed=seed: story(seed), seed)


def put(store: RowStore, path: str, actor: str = "ada", counter: int = 1):
    return store.change(path, lambda before: row_of(path, "text", actor, counter, before))


@on_both
async def test_digests_are_those_of_the_rows_under_changes_of_all_kinds(machine: Machine) -> None:
    store = await opened(machine)
    await asyncio.gather(
        *(put(store, f"{folder}/{number % 5}", f"actor {number}") for folder in FOLDERS for number in range(12)),
        *(store.merge([row_of(f"{folder}/{number}", "text", "eve") for number in range(8)]) for folder in FOLDERS),
    )
    await expect_truth(store)
    assert any(digest.total for partition in PARTITIONS if (digest := store.digests.of(partition)) is not None)
    await store.drop(PARTITIONS[:1])
    await store.quarantine(PARTITIONS[1:2])
    assert await store.rebuild_digests() == []
    await expect_truth(store)
    await store.close()
    await machine.restart()
    store = await opened(machine)
    assert store.digests.unknown() == []
    await expect_truth(store)
    await store.close()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FOLDERS), st.integers(0, 3), st.integers(0, 6)), max_size=20), st.integers(0, 99))
def test_digests_that_were_kept_up_are_those_that_are_rebuilt(changes, seed):
    async def story() -> None:
        machine = Machine(seed)
        store = await opened(machine)
        for folder, name, actor in changes:
            await put(store, f"{folder}/{name}", f"actor {actor}")
        kept = {partition: store.digests.of(partition).pack() for partition in PARTITIONS}
        for partition in {row_partition(f"{folder}/{name}") for folder, name, _ in changes}:
            store.digests.forgotten(partition)
        assert await store.rebuild_digests() == []
        assert {partition: store.digests.of(partition).pack() for partition in PARTITIONS} == kept

    run(story, seed)


async def crash_while_writing(seed: int) -> None:
    machine = Machine(seed)

    async def life() -> None:
        store = await opened(machine)

        async def writer(name: str) -> None:
            for number in range(1000):
                await put(store, f"{FOLDERS[number % 3]}/{number % 7}", name, number + 1)

        await asyncio.gather(writer("ada"), writer("bob"), writer("eve"))

    await until_crash(seed, machine, life, Random(seed).uniform(0.01, 0.08))()
    store = await opened(machine)
    assert store.digests.unknown() == []
    await expect_truth(store)


def test_after_a_crash_at_any_moment_digests_are_those_of_the_rows_that_survived() -> None:
    over_seeds(crash_while_writing, 20)


def test_digests_that_travel_in_a_commit_of_their_own_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def commit(self: RowStore, changes) -> None:
        await self._kv.commit([each for each, _, _ in changes])
        for each, path, before in changes:
            after = row_digest((await self._get(each.key))[0])
            await self._kv.commit(self.digests.replaced(row_partition(path), [(path, before, after)]))

    monkeypatch.setattr(RowStore, "_commit", commit)
    with pytest.raises(AssertionError):
        over_seeds(crash_while_writing, 20)


@on_both
async def test_a_store_from_before_there_were_digests_makes_them(machine: Machine) -> None:
    store = await opened(machine)
    await store.merge([row_of(f"{folder}/{number}") for folder in FOLDERS for number in range(300)])
    for partition in PARTITIONS[:2]:
        await store._kv.commit(store.digests.forgotten(partition))
    await store.close()
    await machine.restart()
    store = await opened(machine)
    assert store.digests.unknown() == sorted(PARTITIONS[:2])
    assert store.digests.of(PARTITIONS[0]) is None
    await put(store, f"{FOLDERS[0]}/meanwhile")  # an unknown sum stays unknown, whatever is added
    assert await store.rebuild_digests() == []
    await expect_truth(store)
    await store.close()
    await machine.restart()
    store = await opened(machine)
    assert store.digests.unknown() == []
    await expect_truth(store)
    await store.close()


def test_a_record_of_digests_that_rotted_is_made_anew() -> None:
    async def story() -> None:
        machine = Machine(0)
        store = await opened(machine)
        await store.merge([row_of("/a/1"), row_of("/b/1")])
        machine.storage.databases["ns"].rot(b"d" + PARTITIONS[0].to_bytes(2, "big"), Random(1))
        store = await opened(machine)
        assert store.digests.unknown() == [PARTITIONS[0]]
        await store.rebuild_digests()
        await expect_truth(store)

    run(story)


async def rebuild_while_writing(seed: int) -> None:
    machine = Machine(seed)
    store = await opened(machine)
    await store.merge([row_of(f"/a/{number}") for number in range(600)])
    store.digests.forgotten(PARTITIONS[0])

    async def writer(name: str) -> None:
        for number in range(30):
            await put(store, f"/a/{number * 17 % 600}", name, number + 1)

    await asyncio.gather(writer("bob"), store.rebuild_digests(), writer("eve"))
    await expect_truth(store)


def test_digests_are_made_anew_while_rows_change() -> None:
    over_seeds(rebuild_while_writing, 5)


def test_a_rebuild_that_does_not_hold_changes_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(self: RowStore, partition: int, work):
        return await work(partition)

    monkeypatch.setattr(RowStore, "_exclusively", at_once)
    with pytest.raises(AssertionError):
        over_seeds(rebuild_while_writing, 5)


@pytest.mark.parametrize("known_before", [True, False])
def test_a_damaged_row_counts_for_nothing_until_it_is_replaced(known_before: bool) -> None:
    async def story() -> None:
        machine = Machine(0)
        store = await opened(machine)
        rows = [row_of(f"/a/{number}") for number in range(40)]
        await store.merge(rows)
        whole = store.digests.of(PARTITIONS[0])
        assert whole is not None
        before = whole.pack()
        machine.storage.rot_row("/a/7", Random(1))
        if not known_before:  # it is met when the digests are made anew: then its bucket differs
            store.digests.forgotten(PARTITIONS[0])
            assert await store.rebuild_digests() == ["/a/7"]
            without = store.digests.of(PARTITIONS[0])
            assert without is not None
            assert without.pack() != before
        found, more = await store.row_digests(PARTITIONS[0], "", "", 100)
        assert not more
        assert [path for path, digest in found if not digest] == ["/a/7"]
        await store.replace_damaged(rows[7], lambda: None)
        assert await store.rebuild_digests() == []
        healed = store.digests.of(PARTITIONS[0])
        assert healed is not None
        assert healed.pack() == before

    run(story)


def test_a_digest_that_is_not_that_of_the_rows_is_noticed_and_made_anew() -> None:
    async def story() -> None:
        machine = Machine(0)
        store = await opened(machine)
        await store.merge([row_of(f"/a/{number}") for number in range(40)])
        assert await store.verify_digest(PARTITIONS[0]) == []
        assert store.digests.unknown() == []
        machine.storage.rot_row("/a/7", Random(1))
        assert await store.verify_digest(PARTITIONS[0]) == ["/a/7"]
        assert store.digests.unknown() == [PARTITIONS[0]]
        assert await store.rebuild_digests() == ["/a/7"]
        store.digests.replaced(PARTITIONS[0], [("/a/1", b"", bytes(15) + b"1")])  # a bug, or an older version that knows no digests
        await store.verify_digest(PARTITIONS[0])
        assert store.digests.unknown() == [PARTITIONS[0]]

    run(story)


@pytest.mark.parametrize("seed", range(3))
def test_a_digest_is_verified_while_rows_change_and_is_not_suspected(seed: int) -> None:
    async def story() -> None:
        store = await opened(Machine(seed))
        await store.merge([row_of(f"/a/{number}") for number in range(600)])

        async def writer() -> None:
            for number in range(60):
                await put(store, f"/a/{number * 17 % 600}", "bob", number + 1)

        async def verifier() -> None:
            for _ in range(5):
                assert await store.verify_digest(PARTITIONS[0]) == []
                assert store.digests.unknown() == []

        await asyncio.gather(writer(), verifier())
        await expect_truth(store)

    run(story, seed)


def test_partitions_take_turns_to_be_verified() -> None:
    digests = RowDigests()
    assert digests.after(-1) is None
    for partition in (9, 3):
        digests.replaced(partition, [("/x", b"", bytes(16))])
    assert [digests.after(each) for each in (-1, 3, 9)] == [3, 9, 3]


@on_both
async def test_row_digests_are_read_range_by_range_in_order(machine: Machine) -> None:
    store = await opened(machine)
    rows = [row_of(f"/a/{number:03}") for number in range(300)]
    await store.merge([*rows, row_of("/b/1")])
    expected = [(row.path, row_digest(row)) for row in rows]
    assert await store.row_digests(PARTITIONS[0], "", "", 4096) == (expected, False)
    assert await store.row_digests(PARTITIONS[0], "", "", 300) == (expected, False)
    assert await store.row_digests(PARTITIONS[0], "", "", 299) == (expected[:299], True)
    assert await store.row_digests(PARTITIONS[0], "/a/100", "/a/103", 9) == (expected[101:104], False)
    assert await store.row_digests(PARTITIONS[0], "/a/103", "/a/100", 9) == ([], False)
    assert await store.row_digests(PARTITIONS[0], "/a/299", "", 9) == ([], False)
    await store.close()


def test_a_change_that_is_refused_leaves_the_digests_as_they_were() -> None:
    async def story() -> None:
        store = await opened(Machine(0))
        await put(store, "/a/1")

        def refuse(before: Row) -> Row:
            raise ValueError

        with pytest.raises(ValueError):
            await store.change("/a/1", refuse)
        await store.change("/a/2", lambda before: empty_row("/a/2"))
        await expect_truth(store)

    run(story)


def test_the_total_is_over_the_partitions_that_are_asked_for() -> None:
    digests = RowDigests()
    digests.replaced(3, [("/x", b"", bytes(15) + b"\x05")])
    digests.replaced(9, [("/y", b"", bytes(15) + b"\x07")])
    assert digests.total(bytes([1 << 3, 1 << 1]) + bytes(510)) == 12
    assert digests.total(bytes([1 << 3]) + bytes(511)) == 5
