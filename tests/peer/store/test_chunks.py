"""Chunks are durable before they are acknowledged, prove themselves when read, and survive the loss of their index."""

import asyncio
from random import Random

import pytest
from store_machines import Machine, Watched, chunk, on_both, run, until_crash

from peer.store.chunk_digests import ChunkDigests
from peer.store.chunks import HEADER_BYTES, ChunkCorrupt, ChunkStore, StoreFull
from peer.store.formats import unwrap
from protocol import limits
from protocol.identity import ChunkId
from protocol.manifest import ChunkTag, chunk_partition


def path_of(chunk_id):
    return f"c/{chunk_id[1]:02x}/{chunk_id.hex()}"


async def opened(machine, capacity_bytes=0):
    store = ChunkStore(machine.storage, machine.compute, capacity_bytes)
    await store.open()
    return store


async def reopened(machine, store):
    await store.close()
    await machine.restart()
    return await opened(machine)


@on_both
async def test_a_chunk_comes_back_as_it_was_put(machine: Machine) -> None:
    store = await opened(machine)
    chunk_id, data = chunk("one")
    assert await store.get(chunk_id) is None
    assert await store.holds([chunk_id]) == [False]
    await store.put(chunk_id, memoryview(bytearray(data)))
    assert await store.get(chunk_id) == data
    assert await store.holds([chunk_id, chunk("two")[0]]) == [True, False]
    assert (store.count, store.bytes) == (1, len(data))
    store = await reopened(machine, store)
    assert await store.get(chunk_id) == data
    assert (store.count, store.bytes) == (1, len(data))
    await store.close()


def test_a_chunk_is_durable_step_by_step_before_put_returns() -> None:
    async def story() -> None:
        machine = Machine(1)
        watched = Watched(machine.storage)
        store = ChunkStore(watched, machine.compute)
        await store.open()
        chunk_id, data = chunk("one")
        await store.holds([chunk_id])
        watched.done.clear()
        await store.put(chunk_id, data)
        path = path_of(chunk_id)
        steps = [step for step in watched.done if step[0] != "space"]
        assert steps == [
            ("place", path),
            ("sync_directories", str([path.rpartition("/")[0]])),
            ("commit", "chunk"),
        ]

    run(story)


@on_both
async def test_putting_again_is_harmless_and_writes_nothing(machine: Machine) -> None:
    watched = Watched(machine.storage)
    store = ChunkStore(watched, machine.compute)
    await store.open()
    chunk_id, data = chunk("one")
    await asyncio.gather(*(store.put(chunk_id, data) for _ in range(5)))
    await store.put(chunk_id, data)
    assert (store.count, store.bytes) == (1, len(data))
    assert [name for name, _ in watched.done].count("place") == 1
    await store.close()


@on_both
async def test_puts_at_once_share_the_sync_of_their_folder(machine: Machine) -> None:
    watched = Watched(machine.storage)
    store = ChunkStore(watched, machine.compute)
    await store.open()
    chunks = [chunk(f"chunk {number}") for number in range(300)]
    await asyncio.gather(*(store.put(*each) for each in chunks))
    for chunk_id, _ in chunks:
        path = path_of(chunk_id)
        later = watched.done[watched.done.index(("place", path)) :]
        assert any(name == "sync_directories" and f"'{path.rpartition('/')[0]}'" in folders for name, folders in later)
    assert [name for name, _ in watched.done].count("sync_directories") < 200
    assert store.count == 300
    await store.close()


@on_both
async def test_a_put_whose_caller_goes_away_is_finished(machine: Machine) -> None:
    store = await opened(machine)
    chunk_id, data = chunk("one")
    task = asyncio.ensure_future(store.put(chunk_id, data))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store = await reopened(machine, store)
    assert await store.get(chunk_id) == data
    await store.close()


DAMAGES = {
    "a changed byte": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "a changed header": lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
    "a header of another length": lambda raw: raw[:20] + b"\xff" + raw[21:],
    "a missing end": lambda raw: raw[:-1],
    "a missing payload": lambda raw: raw[:HEADER_BYTES],
    "half a header": lambda raw: raw[:30],
    "nothing": lambda raw: b"",
    "a tail": lambda raw: raw + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("is_index_lost", [False, True])
def test_a_damaged_copy_is_set_aside_and_never_returned(damage: str, is_index_lost: bool) -> None:
    async def story() -> None:
        machine = Machine(1)
        store = await opened(machine)
        (chunk_id, data), (other_id, other) = chunk("one"), chunk("other")
        await store.put(chunk_id, data)
        await store.put(other_id, other)
        await machine.damage_file(path_of(chunk_id), DAMAGES[damage])
        if is_index_lost:
            await store.close()
            await machine.lose("chunk")
            store = await opened(machine)
            try:
                assert await store.get(chunk_id) is None
            except ChunkCorrupt:
                pass
        else:
            with pytest.raises(ChunkCorrupt):
                await store.get(chunk_id)
        assert store.corrupt == 1
        assert await machine.storage.disk.names("quarantine") == [chunk_id.hex()]
        assert (store.count, store.bytes) == (1, len(other))
        assert await store.holds([chunk_id, other_id]) == [False, True]
        assert await store.get(chunk_id) is None
        await store.put(chunk_id, data)
        assert await store.get(chunk_id) == data

    run(story)


@on_both
async def test_a_copy_whose_file_vanished_is_corrupt_not_absent(machine: Machine) -> None:
    store = await opened(machine)
    chunk_id, data = chunk("one")
    await store.put(chunk_id, data)
    await machine.storage.disk.remove(path_of(chunk_id))
    with pytest.raises(ChunkCorrupt):
        await store.get(chunk_id)
    assert store.count == 0
    await store.close()


@on_both
async def test_a_lost_index_is_rebuilt_from_the_files(machine: Machine) -> None:
    store = await opened(machine)
    chunks = [chunk(f"chunk {number}", 100 + number) for number in range(20)]
    for each in chunks:
        await store.put(*each)
    await store.close()
    await machine.lose("chunk")
    store = await opened(machine)
    assert store.count == 20
    assert store.bytes == sum(len(data) for _, data in chunks)
    for chunk_id, data in chunks:
        assert await store.get(chunk_id) == data
    await store.close()


@on_both
async def test_a_damaged_index_is_rebuilt_from_the_files(machine: Machine) -> None:
    store = await opened(machine)
    chunk_id, data = chunk("one")
    await store.put(chunk_id, data)
    await store.close()
    machine.damage("chunk")
    store = await opened(machine)
    assert await store.get(chunk_id) == data
    store = await reopened(machine, store)
    assert await store.get(chunk_id) == data
    await store.close()


@on_both
async def test_an_index_with_a_damaged_value_is_rebuilt_from_the_files(machine: Machine) -> None:
    store = await opened(machine)
    chunks = [chunk("one"), chunk("two")]
    for each in chunks:
        await store.put(*each)
    await store.close()
    await machine.put_raw("chunk", chunks[0][0], b"damaged")
    store = await opened(machine)
    assert store.count == 2
    store = await reopened(machine, store)  # the damaged index was closed and put away, and does not get in the way of the new one
    assert store.count == 2
    for chunk_id, data in chunks:
        assert await store.get(chunk_id) == data
    await store.close()


def test_a_chunk_on_a_bad_place_of_the_disk_is_a_damaged_copy_and_the_store_goes_on() -> None:
    async def story() -> None:
        machine = Machine(1)
        store = await opened(machine)
        bad, good = chunk("bad"), chunk("good")
        await store.put(*bad)
        await store.put(*good)
        machine.storage.state.damage(path_of(bad[0]), Random(1), unreadable=True)
        with pytest.raises(ChunkCorrupt):
            await store.get(bad[0])
        assert await store.get(bad[0]) is None
        assert store.corrupt == 1
        assert await store.get(good[0]) == good[1]
        await store.put(*bad)
        assert await store.get(bad[0]) == bad[1]
        machine.storage.state.damage(path_of(good[0]), Random(1), unreadable=True)
        await store.close()
        machine.damage("chunk")
        store = await opened(machine)  # it is rebuilt from files of which one cannot be read
        assert await store.holds([bad[0], good[0]]) == [True, False]
        await store.close()

    run(story)


def test_a_rebuild_that_was_cut_short_is_done_again() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        store = await opened(machine)
        chunks = [chunk(f"chunk {number}") for number in range(30)]
        await asyncio.gather(*(store.put(*each) for each in chunks))
        await store.close()
        await machine.lose("chunk")
        await until_crash(seed, machine, lambda: opened(machine), seed * 0.03)()
        store = await opened(machine)
        assert store.count == 30
        assert all(await store.holds([chunk_id for chunk_id, _ in chunks]))

    for seed in range(12):
        run(lambda seed=seed: story(seed), seed)


@on_both
async def test_files_that_were_being_written_are_removed_at_the_start(machine: Machine) -> None:
    store = await opened(machine)
    await machine.storage.disk.write("tmp/7", [b"half a chunk"])
    store = await reopened(machine, store)
    assert await machine.storage.disk.names("tmp") == []
    await store.close()


@on_both
async def test_a_removed_chunk_is_absent(machine: Machine) -> None:
    store = await opened(machine)
    chunk_id, data = chunk("one")
    await store.put(chunk_id, data)
    await store.remove(chunk_id)
    await store.remove(chunk_id)
    assert await store.get(chunk_id) is None
    assert (store.count, store.bytes) == (0, 0)
    assert await machine.storage.disk.names(path_of(chunk_id).rpartition("/")[0]) == []
    await store.close()


def test_a_put_beside_a_remove_leaves_what_it_acknowledged() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        store = await opened(machine)
        chunk_id, data = chunk("one")
        await store.put(chunk_id, data)
        removing = asyncio.ensure_future(store.remove(chunk_id))
        await asyncio.sleep(0.0002 * seed)
        await store.put(chunk_id, data)
        await removing
        if await store.holds([chunk_id]) == [True]:
            assert await store.get(chunk_id) == data

    for seed in range(60):
        run(lambda seed=seed: story(seed), seed)


def test_a_chunk_that_is_being_removed_is_not_said_to_be_here() -> None:
    """Who holds another copy to spare would drop that one as well: by the time it asks this node may be a home of the chunk."""

    async def story(seed: int) -> None:
        store = await opened(Machine(seed))
        chunk_id, data = chunk("one")
        await store.put(chunk_id, data)
        removing = asyncio.ensure_future(store.remove(chunk_id))
        await asyncio.sleep(0.0002 * seed)
        assert await store.holds([chunk_id]) == [False]
        await removing
        await store.put(chunk_id, data)
        assert await store.holds([chunk_id]) == [True]

    for seed in range(30):
        run(lambda seed=seed: story(seed), seed)


def test_a_read_beside_a_remove_finds_the_chunk_or_its_absence() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        store = await opened(machine)
        chunk_id, data = chunk("one")
        await store.put(chunk_id, data)
        reads = [asyncio.ensure_future(store.get(chunk_id)) for _ in range(10)]
        await asyncio.sleep(0.0002 * (seed % 5))
        await store.remove(chunk_id)
        for read in reads:
            assert await read in (data, None)
        assert store.corrupt == 0

    for seed in range(30):
        run(lambda seed=seed: story(seed), seed)


def test_reads_of_a_damaged_copy_never_set_its_replacement_aside() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        store = await opened(machine)
        chunk_id, data = chunk("one")
        await store.put(chunk_id, data)
        await machine.damage_file(path_of(chunk_id), lambda raw: raw[:-1])

        async def reader() -> None:
            await asyncio.sleep(Random(seed).uniform(0, 0.01))
            try:
                assert await store.get(chunk_id) in (data, None)
            except ChunkCorrupt:
                pass

        async def healer() -> None:
            try:
                await store.get(chunk_id)
            except ChunkCorrupt:
                await store.put(chunk_id, data)

        await asyncio.gather(healer(), *(reader() for _ in range(6)))
        if await store.get(chunk_id) is None:
            await store.put(chunk_id, data)
        assert await store.get(chunk_id) == data
        assert store.corrupt == 1

    for seed in range(40):
        run(lambda seed=seed: story(seed), seed)


@on_both
async def test_pages_go_through_all_chunks_in_order(machine: Machine) -> None:
    store = await opened(machine)
    chunks = dict(chunk(f"chunk {number}", 50 + number) for number in range(25))
    await asyncio.gather(*(store.put(*each) for each in chunks.items()))
    seen, after = [], None
    while page := await store.page(after, 7):
        assert len(page) <= 7
        seen += page
        after = page[-1][0]
    assert seen == sorted((chunk_id, len(data)) for chunk_id, data in chunks.items())
    await store.close()


@on_both
async def test_every_value_of_the_index_is_wrapped(machine: Machine) -> None:
    store = await opened(machine)
    await store.put(*chunk("one"))
    await store.close()
    for key, value in await machine.stored("chunk"):
        unwrap(key, value)


def test_a_full_disk_refuses_a_chunk_and_leaves_nothing_of_it() -> None:
    async def story() -> None:
        machine = Machine(1)
        watched = Watched(machine.storage)
        store = ChunkStore(watched, machine.compute)
        await store.open()
        chunk_id, data = chunk("one")
        watched.disk.full_at = "place"
        with pytest.raises(StoreFull):
            await store.put(chunk_id, data)
        assert (store.count, store.bytes) == (0, 0)
        assert await machine.storage.disk.names("tmp") == []
        watched.disk.full_at = ""
        await store.put(chunk_id, data)
        assert await store.get(chunk_id) == data

    run(story)


def test_a_disk_that_is_nearly_full_takes_no_more_chunks() -> None:
    async def story() -> None:
        machine = Machine(1)
        machine.storage.state.total_bytes = 100_000
        store = await opened(machine)
        chunks = [chunk(f"chunk {number}", 1000) for number in range(100)]
        taken = 0
        for each in chunks:
            await asyncio.sleep(1.0)
            try:
                await store.put(*each)
            except StoreFull:
                break
            taken += 1
        assert 85 <= taken <= 95
        await store.remove(chunks[0][0])
        await asyncio.sleep(1.0)
        await store.put(*chunks[0])

    run(story)


@on_both
async def test_no_more_is_taken_than_the_node_offers(machine: Machine) -> None:
    store = await opened(machine, capacity_bytes=350)
    chunks = [chunk(f"chunk {number}", 100) for number in range(10)]
    results = await asyncio.gather(*(store.put(*each) for each in chunks), return_exceptions=True)
    assert [result for result in results if result is not None and not isinstance(result, StoreFull)] == []
    assert store.count == 3
    with pytest.raises(StoreFull):
        await store.put(*chunk("one more"))
    held = (await store.page(None, 1))[0][0]
    await store.remove(held)
    await store.put(*next(each for each in chunks if each[0] == held))
    assert store.bytes == 300
    await store.close()


def test_an_acknowledged_chunk_survives_a_crash_whole() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        acknowledged: list[tuple[bytes, bytes]] = []

        async def life() -> None:
            store = await opened(machine)

            async def one(number: int) -> None:
                each = chunk(f"chunk {number}", 200)
                await store.put(*each)
                acknowledged.append(each)

            for start in range(0, 200, 10):
                await asyncio.gather(*(one(number) for number in range(start, start + 10)))

        for _ in range(2):
            await until_crash(seed, machine, life, Random(seed).uniform(0.3, 0.45))()
            is_index_lost = seed % 3 == 0
            if is_index_lost:
                await machine.lose("chunk")
            store = await opened(machine)
            for chunk_id, data in acknowledged:
                assert await store.get(chunk_id) == data
            await store.close()

    for seed in range(12):
        run(lambda seed=seed: story(seed), seed)


def test_digests_are_those_of_the_index_whatever_happens_and_whoever_goes_away() -> None:
    async def story(seed: int) -> None:
        machine, choice = Machine(seed), Random(seed)
        store = await opened(machine)
        chunks = dict(chunk(f"chunk {number}", 60) for number in range(12))

        async def one() -> None:
            chunk_id = choice.choice(list(chunks))
            match choice.randrange(4):
                case 0 | 1:
                    await store.put(chunk_id, chunks[chunk_id])
                case 2:
                    await store.remove(chunk_id)
                case 3:
                    if path_of(chunk_id) in machine.storage.state.chunk_files():
                        machine.storage.state.damage(path_of(chunk_id), choice)
                    await store.get(chunk_id)

        for _ in range(6):
            tasks = [asyncio.ensure_future(one()) for _ in range(10)]
            await asyncio.sleep(choice.uniform(0.0, 0.01))
            for task in choice.sample(tasks, 4):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result is None or isinstance(result, ChunkCorrupt | asyncio.CancelledError) for result in results)
            await asyncio.sleep(1.0)  # what went on without its caller is done
            await same_as_index(store)
            if choice.random() < 0.5:
                store = await reopened(machine, store)
                await same_as_index(store)

    async def same_as_index(store: ChunkStore) -> None:
        made = ChunkDigests()
        listed = []
        for chunk_id, _ in await store.page(None, 1000):
            made.add(chunk_id)
        for partition in store.digests.partitions():
            assert store.digests.of(partition) == made.of(partition)
            listed += await store.of_partition(partition, b"", 1000)
        assert store.digests.partitions() == made.partitions()
        assert sorted(listed) == await store.page(None, 1000)
        assert store.count == len(listed)

    for seed in range(15):
        run(lambda seed=seed: story(seed), seed)


@on_both
async def test_a_partition_is_listed_page_by_page_data_and_manifests_alike(machine: Machine) -> None:
    store = await opened(machine)
    everywhere = [
        (ChunkId(bytes([tag]) + (partition << 4 | low).to_bytes(2, "big") + bytes(30)), b"x")
        for tag in ChunkTag
        for partition in (0, 6, 7, 8, limits.PARTITIONS - 1)
        for low in (0, 1, 15)
    ]
    await asyncio.gather(*(store.put(*each) for each in everywhere))
    for partition in (0, 5, 7, limits.PARTITIONS - 1):
        seen, after = [], b""
        while page := await store.of_partition(partition, after, 2):
            assert len(page) <= 2
            seen += page
            after = page[-1][0]
        assert seen == sorted((chunk_id, 1) for chunk_id, _ in everywhere if chunk_partition(chunk_id) == partition)
    await store.close()
