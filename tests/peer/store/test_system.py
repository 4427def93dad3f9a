"""What a node must not forget is remembered, over restarts and crashes."""

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_machines import Machine, node_id, on_both, run, until_crash

from peer.errors import StoreCorrupt
from peer.store.formats import unwrap
from peer.store.system import COUNTER_BLOCK, PEERS_MAX, SystemStore
from protocol import limits
from protocol.identity import NodeId


async def opened(machine):
    store = SystemStore(await machine.storage.open_kv("sys"))
    await store.open()
    return store


async def reopened(machine, store):
    await store.close()
    await machine.restart()
    return await opened(machine)


@on_both
async def test_boots_count_up_from_one(machine: Machine) -> None:
    store = await opened(machine)
    for boot in range(1, 5):
        assert store.boot == boot
        store = await reopened(machine, store)
    await store.close()


def test_a_boot_is_never_used_twice_whatever_crashes() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        boots: list[int] = []

        async def life() -> None:
            boots.append((await opened(machine)).boot)

        random = Random(seed)
        for _ in range(15):
            await until_crash(seed, machine, life, random.uniform(0, 0.01))()
        assert boots == sorted(set(boots))

    for seed in range(20):
        run(lambda seed=seed: story(seed), seed)


@on_both
async def test_counters_count_up_from_one_and_not_again_after_a_restart(machine: Machine) -> None:
    store = await opened(machine)
    assert await asyncio.gather(*(store.next_counter() for _ in range(100))) == list(range(1, 101))
    store = await reopened(machine, store)
    assert await store.next_counter() > 100
    await store.close()


@on_both
async def test_counters_go_on_over_the_end_of_a_block(machine: Machine) -> None:
    store = await opened(machine)
    store._next_counter = store._reserved = 0
    await store.next_counter()
    store._next_counter = COUNTER_BLOCK - 3
    counters = await asyncio.gather(*(store.next_counter() for _ in range(10)))
    assert counters == list(range(COUNTER_BLOCK - 2, COUNTER_BLOCK + 8))
    await store.close()


def test_a_counter_is_never_used_twice_whatever_crashes() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        used: list[int] = []

        async def life() -> None:
            store = await opened(machine)
            for _ in range(3):
                store._next_counter = max(store._next_counter, store._reserved - 2)  # blocks are long: go to the end of this one

                async def one() -> None:
                    used.append(await store.next_counter())

                await asyncio.gather(*(one() for _ in range(5)))

        random = Random(seed)
        for _ in range(8):
            await until_crash(seed, machine, life, random.uniform(0, 0.03))()
        assert len(used) == len(set(used))
        assert used == sorted(used)

    for seed in range(20):
        run(lambda seed=seed: story(seed), seed)


@on_both
async def test_layouts_are_kept_and_the_latest_is_known(machine: Machine) -> None:
    store = await opened(machine)
    assert not store.was_member
    assert await store.latest_layout() is None
    await store.save_layout(1, b"first")
    await store.save_layout(2, b"second")
    store = await reopened(machine, store)
    assert store.was_member
    assert await store.latest_layout() == b"second"
    assert await store.layout(1) == b"first"
    assert await store.layout(3) is None
    await store.close()


@on_both
async def test_synced_partitions_are_remembered(machine: Machine) -> None:
    store = await opened(machine)
    assert store.synced(0) == 0
    await asyncio.gather(store.mark_synced([0, 7], 3), store.mark_synced([7, limits.PARTITIONS - 1], 4))
    for _ in range(2):
        assert [store.synced(partition) for partition in (0, 1, 7, limits.PARTITIONS - 1)] == [3, 0, 4, 4]
        store = await reopened(machine, store)
    await store.close()


def test_a_partition_is_not_synced_before_that_is_durable() -> None:
    async def story(seed: int) -> None:
        machine = Machine(seed)
        seen: list[int] = []

        async def life() -> None:
            store = await opened(machine)

            async def marker() -> None:
                for stamp in range(1, 100):
                    await store.mark_synced([5], stamp)

            marking = asyncio.ensure_future(marker())
            while not marking.done():
                seen.append(store.synced(5))
                await asyncio.sleep(0.0003)

        await until_crash(seed, machine, life, Random(seed).uniform(0, 0.05))()
        assert (await opened(machine)).synced(5) >= max(seen, default=0)

    for seed in range(20):
        run(lambda seed=seed: story(seed), seed)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16).map(NodeId), st.text("ab", max_size=3)), max_size=8))
def test_peers_are_remembered_with_what_was_heard_last(heard):
    async def story() -> None:
        machine = Machine(0)
        store = await opened(machine)
        for identity, name in [*heard, (NodeId(b"\xff" * 16), "last"), (NodeId(bytes(16)), "first")]:
            await store.remember_peer(identity, name, [f"{name}:7400"])
        known = {info.node_id: info for info in store.peers()}
        assert len(known) == len({identity for identity, _ in heard} | {b"\xff" * 16, bytes(16)})
        store = await reopened(machine, store)
        assert {info.node_id: info for info in store.peers()} == known

    run(story)


def test_no_more_peers_are_remembered_than_are_read_back() -> None:
    async def story() -> None:
        machine = Machine(0)
        store = await opened(machine)
        await asyncio.gather(*(store.remember_peer(node_id(f"{number}"), "", []) for number in range(PEERS_MAX + 5)))
        assert len(store.peers()) == PEERS_MAX
        known = store.peers()[0]
        await store.remember_peer(known.node_id, "renamed", [])
        store = await reopened(machine, store)
        assert len(store.peers()) == PEERS_MAX
        assert "renamed" in [info.name for info in store.peers()]

    run(story)


async def filled(machine):
    store = await opened(machine)
    await store.next_counter()
    await store.save_layout(1, b"first")
    await store.save_layout(2, b"second")
    await store.mark_synced([1], 1)
    await store.remember_peer(node_id("ada"), "ada", ["127.0.0.1:1"])
    await store.close()


def test_every_stored_value_is_wrapped() -> None:
    async def story() -> None:
        machine = Machine(0)
        await filled(machine)
        stored = await machine.stored("sys")
        assert len(stored) == 8
        for key, value in stored:
            unwrap(key, value)

    run(story)


@pytest.mark.parametrize("which", range(7))
def test_a_corrupt_value_is_never_taken_for_a_missing_one(which: int) -> None:
    async def story() -> None:
        machine = Machine(0)
        await filled(machine)
        key, value = (await machine.stored("sys"))[which]
        await machine.put_raw("sys", key, value[:-1] + bytes([value[-1] ^ 1]))
        with pytest.raises(StoreCorrupt):
            await (await opened(machine)).layout(1)

    run(story)


def test_a_latest_layout_that_is_not_there_is_corrupt() -> None:
    async def story() -> None:
        machine = Machine(0)
        await filled(machine)
        kept = dict(await machine.stored("sys"))
        await machine.lose("sys")
        for key, value in kept.items():
            if key != b"layout/" + (2).to_bytes(4, "big"):
                await machine.put_raw("sys", key, value)
        with pytest.raises(StoreCorrupt):
            await opened(machine)

    run(story)
