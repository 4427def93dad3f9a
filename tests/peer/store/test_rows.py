"""Rows are durable when they are acknowledged, listed in order, and corrupt rather than absent."""

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_machines import Machine, on_both, row_of, run, until_crash

from peer.store.formats import unwrap
from peer.store.rows import RowCorrupt, RowStore, RowTooLarge
from protocol import limits
from protocol.paths import name_of, row_partition
from protocol.rows import range_digest, row_digest
from protocol.testing.strategies import histories, names
from protocol.versions import Row, merge

FOLDERS = ["/", "/a", "/a/b", "/music", "/music/2024", "/ü"]


async def opened(machine):
    store = RowStore(await machine.storage.open_kv("ns"))
    await store.open()
    return store


async def stored_rows(machine):
    return [(key, value) for key, value in await machine.stored("ns") if key[:1] in (b"r", b"q")]


async def reopened(machine, store):
    await store.close()
    await machine.restart()
    return await opened(machine)


async def all_pulled(store, partitions, rows_max=3, bytes_max=1 << 20):
    rows, after, more = [], None, True
    while more:
        page, more = await store.pull(partitions, after, rows_max=rows_max, bytes_max=bytes_max)
        assert len(page) <= rows_max
        assert page or not more
        rows += page
        if page:
            after = row_partition(page[-1].path), page[-1].path
    return rows


@on_both
async def test_a_change_is_read_and_survives_a_restart(machine: Machine) -> None:
    store = await opened(machine)
    assert await store.get("/file") is None
    row = await store.change("/file", lambda before: row_of("/file", before=before))
    assert row.heads
    assert await store.get("/file") == row
    assert store.count == 1
    store = await reopened(machine, store)
    assert await store.get("/file") == row
    assert store.count == 1
    await store.close()


@on_both
async def test_changes_of_one_path_see_each_other(machine: Machine) -> None:
    store = await opened(machine)
    await asyncio.gather(
        *(
            store.change("/file", lambda before, number=number: row_of("/file", "text", f"actor {number}", before=before))
            for number in range(20)
        )
    )
    row = await store.get("/file")
    assert row is not None
    assert len(row.heads) == 20
    assert store.count == 1
    await store.close()


@on_both
async def test_what_edit_raises_prevents_the_change(machine: Machine) -> None:
    store = await opened(machine)

    def refuse(before: Row) -> Row:
        raise ValueError

    with pytest.raises(ValueError):
        await store.change("/file", refuse)
    assert await store.get("/file") is None
    await store.change("/file", lambda before: row_of("/file"))  # the lock was given back
    assert store.count == 1
    await store.close()


@on_both
async def test_a_change_to_the_same_writes_nothing(machine: Machine) -> None:
    store = await opened(machine)
    await store.change("/file", lambda before: before)
    assert await store.get("/file") is None
    assert store.count == 0
    await store.close()
    assert await machine.stored("ns") == []


@on_both
async def test_a_change_whose_caller_goes_away_is_finished(machine: Machine) -> None:
    store = await opened(machine)
    task = asyncio.ensure_future(store.change("/file", lambda before: row_of("/file")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.drain()
    assert await store.get("/file") == row_of("/file")
    await store.close()


@on_both
async def test_a_change_goes_on_when_somebody_who_waits_for_it_goes_away(machine: Machine) -> None:
    store = await opened(machine)
    change = asyncio.create_task(store.change("/file", lambda before: row_of("/file", before=before)))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(store.drain())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await change == await store.get("/file")
    await store.drain()


@pytest.mark.parametrize("steps", range(1, 6))
def test_rows_that_are_set_aside_are_counted_although_whoever_asked_goes_away(steps: int) -> None:
    async def story() -> None:
        machine = Machine(steps)
        store = await opened(machine)
        await store.merge([row_of("/old"), row_of("/file")])
        asking = asyncio.create_task(store.quarantine([row_partition("/file")]))
        for _ in range(steps):
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        fresh = row_of("/file", actor="another")
        await asyncio.sleep(0.01)
        await store.quarantine([row_partition("/file")])
        await store.merge([fresh])
        assert await store.get("/file") == fresh
        assert store.count == 1
        await store.close()
        assert [key[:1] for key, _ in await stored_rows(machine)] == [b"q", b"q", b"r"]

    run(story)


@on_both
async def test_a_row_with_too_many_heads_is_refused_and_nothing_changes(machine: Machine) -> None:
    store = await opened(machine)
    row = row_of("/file", actor="first")
    for number in range(limits.HEADS_MAX - 1):
        row = row_of("/file", "text", f"actor {number}", before=row)
    await store.merge([row])
    with pytest.raises(RowTooLarge):
        await store.change("/file", lambda before: row_of("/file", "text", "one too many", before=before))
    with pytest.raises(RowTooLarge):
        await store.merge([row_of("/other"), row_of("/file", "text", "one too many")])
    assert await store.get("/file") == row
    assert await store.get("/other") is None
    assert store.count == 1
    await store.close()


@on_both
async def test_a_guard_that_raises_prevents_the_merge(machine: Machine) -> None:
    store = await opened(machine)

    def refuse() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await store.merge([row_of("/a"), row_of("/b")], refuse)
    assert store.count == 0
    assert await store.get("/a") is None
    await store.merge([row_of("/a"), row_of("/b")])
    assert store.count == 2
    await store.close()


@on_both
async def test_rows_of_one_path_in_one_merge_are_merged_with_each_other(machine: Machine) -> None:
    store = await opened(machine)
    rows = [row_of("/file", actor="ada"), row_of("/other"), row_of("/file", actor="bob")]
    await store.merge(rows)
    assert await store.get("/file") == merge(rows[0], rows[2])
    assert store.count == 2
    await store.close()


@settings(max_examples=20, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_merging_in_any_order_gives_what_merging_rows_gives(history, random):
    async def story() -> None:
        store = await opened(Machine(0))
        arriving = history.rows() * 2
        random.shuffle(arriving)
        await asyncio.gather(*(store.merge([row]) for row in arriving))
        expected = arriving[0]
        for row in arriving[1:]:
            expected = merge(expected, row)
        assert await store.get(history.path) == (expected if expected.operations else None)

    run(story)


@pytest.mark.parametrize("damage", [b"", b"\x01", b"x" * 200, None])
def test_a_corrupt_row_is_never_absent(damage) -> None:
    async def story() -> None:
        machine = Machine(0)
        store = await opened(machine)
        rows = [row_of(f"/file{number}") for number in range(3)]
        await store.merge(rows)
        await store.close()
        key, value = (await stored_rows(machine))[1]
        changed = damage if damage is not None else value[:-1] + bytes([value[-1] ^ 1])
        await machine.put_raw("ns", key, changed)
        store = await opened(machine)
        path = rows[1].path
        for attempt in (
            lambda: store.get(path),
            lambda: store.change(path, lambda before: row_of(path, "new")),
            lambda: store.merge([row_of(path, "new")]),
            lambda: store.page("/", "", "", rows_max=10, bytes_max=1 << 20),
            lambda: store.digest("/", "", ""),
            lambda: store.pull([row_partition(path)], None, rows_max=10, bytes_max=1 << 20),
        ):
            with pytest.raises(RowCorrupt):
                await attempt()
        assert await store.get(rows[0].path) == rows[0]
        await store.close()
        assert (await stored_rows(machine))[1] == (key, changed)

    run(story)


def test_a_row_under_the_key_of_another_is_corrupt() -> None:
    async def story() -> None:
        machine = Machine(0)
        store = await opened(machine)
        await store.merge([row_of("/a"), row_of("/b")])
        await store.close()
        (key_a, _), (_, value_b) = await stored_rows(machine)
        await machine.put_raw("ns", key_a, value_b)
        store = await opened(machine)
        with pytest.raises(RowCorrupt):
            await store.get("/a")

    run(story)


@on_both
async def test_every_stored_row_is_wrapped(machine: Machine) -> None:
    store = await opened(machine)
    await store.merge([row_of(f"{folder.rstrip('/')}/file") for folder in FOLDERS])
    await store.close()
    stored = await machine.stored("ns")
    assert len(stored) == 2 * len(FOLDERS) + 1  # each with a partition of its own, whose digests lie beside it; and the count of commits
    for key, value in stored:
        unwrap(key, value)


@settings(max_examples=25, deadline=None)
@given(st.sets(names, max_size=12), names, names, st.integers(1, 5))
def test_a_folder_is_paged_in_order_between_its_bounds(entries, after, until, rows_max):
    async def story() -> None:
        store = await opened(Machine(0))
        rows = [row_of(f"/folder/{name}") for name in entries]
        strangers = [row_of("/folder"), row_of("/folder/a/b"), row_of("/folderx/a"), row_of("/folder\x01/a"), row_of("/a")]
        await store.merge([*rows, *strangers])
        in_order = sorted(rows, key=lambda row: name_of(row.path).encode())
        seen, name, more = [], "", True
        while more:
            page, more = await store.page("/folder", name, "", rows_max=rows_max, bytes_max=1 << 20)
            assert len(page) <= rows_max
            seen += page
            name = name_of(seen[-1].path) if seen else ""
        assert seen == in_order
        between = [row for row in in_order if after.encode() < name_of(row.path).encode() <= until.encode()]
        assert (await store.page("/folder", after, until, rows_max=100, bytes_max=1 << 20))[0] == between
        assert await store.digest("/folder", after, until) == range_digest(row_digest(row) for row in between)
        assert await store.digest("/folder", "", "") == range_digest(row_digest(row) for row in in_order)

    run(story)


@on_both
async def test_a_page_holds_what_fits_and_at_least_one_row(machine: Machine) -> None:
    store = await opened(machine)
    await store.merge([row_of(f"/f/{number}", "x" * 1000) for number in range(5)])
    for bytes_max, count in ((0, 1), (1000, 1), (2600, 2), (1 << 20, 5)):
        page, more = await store.page("/f", "", "", rows_max=100, bytes_max=bytes_max)
        assert (len(page), more) == (count, count < 5)
    assert await store.page("/none", "", "", rows_max=1, bytes_max=1) == ([], False)
    await store.close()


@on_both
async def test_a_folder_larger_than_a_batch_is_read_whole(machine: Machine) -> None:
    store = await opened(machine)
    rows = [row_of(f"/f/{number:04}") for number in range(600)]
    await store.merge(rows)
    page, more = await store.page("/f", "", "", rows_max=1000, bytes_max=1 << 30)
    assert (page, more) == (rows, False)
    assert await store.digest("/f", "", "") == range_digest(row_digest(row) for row in rows)
    assert await all_pulled(store, [row_partition("/f/0")], rows_max=512, bytes_max=1 << 30) == rows
    await store.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(FOLDERS), min_size=1), st.sets(st.sampled_from(FOLDERS)), st.integers(1, 4), st.integers(0, 2000))
def test_pull_jumps_over_the_partitions_of_others(filled, wanted, rows_max, bytes_max):
    async def story() -> None:
        store = await opened(Machine(0))
        rows = [row_of(f"{folder.rstrip('/')}/{index}") for index, folder in enumerate(filled)]
        await store.merge(rows)
        partitions = sorted({row_partition(f"{folder.rstrip('/')}/x") for folder in wanted} | {0, limits.PARTITIONS - 1})
        pulled = await all_pulled(store, partitions, rows_max, bytes_max)
        expected = [row for row in rows if row_partition(row.path) in partitions]
        assert sorted(pulled, key=lambda row: row.path) == sorted(expected, key=lambda row: row.path)
        assert [row_partition(row.path) for row in pulled] == sorted(row_partition(row.path) for row in pulled)

    run(story)


@on_both
async def test_pull_jumps_over_a_large_foreign_partition(machine: Machine) -> None:
    store = await opened(machine)
    by_partition = sorted((row_partition(f"/folder{number}/x"), f"/folder{number}") for number in range(30))
    (low, low_folder), (_, foreign), (high, high_folder) = by_partition[0], by_partition[10], by_partition[-1]
    await store.merge([row_of(f"{foreign}/{number}") for number in range(600)])
    await store.merge([row_of(f"{low_folder}/x"), row_of(f"{high_folder}/x")])
    pulled = await all_pulled(store, [low, high])
    assert [row.path for row in pulled] == [f"{low_folder}/x", f"{high_folder}/x"]
    assert await store.pull([], None, rows_max=1, bytes_max=1) == ([], False)
    await store.close()


@on_both
async def test_dropped_and_quarantined_partitions_are_empty_and_others_are_not(machine: Machine) -> None:
    store = await opened(machine)
    rows = [row_of(f"/{folder}/{number}") for folder in ("dropped", "quarantined", "kept") for number in range(300)]
    await store.merge(rows)
    await store.drop([row_partition("/dropped/x")])
    await store.quarantine([row_partition("/quarantined/x")])
    assert store.count == 300
    assert await store.get("/dropped/1") is None
    assert await store.get("/quarantined/1") is None
    assert await store.get("/kept/1") == row_of("/kept/1")
    store = await reopened(machine, store)
    assert store.count == 300
    await store.close()
    assert len(await stored_rows(machine)) == 600  # what is set aside is kept, where nothing reads it


def test_an_acknowledged_row_survives_a_crash() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        acknowledged: dict[str, Row] = {}

        async def life() -> None:
            store = await opened(machine)

            async def writer(name: str) -> None:
                for number in range(1000):
                    path = f"/f/{number % 7}"
                    row = await store.change(path, lambda before, number=number: row_of(before.path, "text", name, number + 1, before))
                    acknowledged[path] = merge(acknowledged[path], row) if path in acknowledged else row

            await asyncio.gather(writer("ada"), writer("bob"), writer("eve"))

        await until_crash(seed, machine, life, Random(seed).uniform(0.01, 0.08))()
        store = await opened(machine)
        for path, row in acknowledged.items():
            stored = await store.get(path)
            assert stored is not None
            assert merge(stored, row) == stored

    for seed in range(20):
        run(lambda seed=seed: story(seed), seed)
