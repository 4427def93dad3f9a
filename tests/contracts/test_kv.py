"""The contract of `peer.seams.KV`, on both sides of the seam."""

import asyncio

import pytest
from contract_sides import SIDES, KVBench, kv_bench, on_every_side, run_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.seams import Delete, Put


@on_every_side(kv_bench)
async def test_a_key_has_the_value_that_was_put_last(bench: KVBench) -> None:
    await bench.kv.commit([Put(b"key", b"one")])
    assert await bench.kv.get(b"key") == b"one"
    await bench.kv.commit([Put(b"key", b"two"), Put(b"other", b"")])
    assert await bench.kv.get(b"key") == b"two"
    assert await bench.kv.get(b"other") == b""
    assert await bench.kv.get(b"none") is None


@on_every_side(kv_bench)
async def test_changes_of_one_commit_take_effect_in_their_order(bench: KVBench) -> None:
    await bench.kv.commit([Put(b"a", b"1"), Delete(b"a"), Put(b"b", b"1"), Put(b"b", b"2"), Delete(b"c"), Put(b"c", b"3")])
    assert await bench.kv.range(b"", None, 10) == [(b"b", b"2"), (b"c", b"3")]


@on_every_side(kv_bench)
async def test_deleting_what_is_not_there_is_no_error(bench: KVBench) -> None:
    await bench.kv.commit([Delete(b"none")])
    await bench.kv.commit([])
    assert await bench.kv.count(b"", None) == 0


@on_every_side(kv_bench)
async def test_a_range_is_half_open_ascending_and_limited(bench: KVBench) -> None:
    keys = [b"", b"\0", b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff"]
    await bench.kv.commit([Put(key, b"v" + key) for key in reversed(keys)])
    pairs = [(key, b"v" + key) for key in keys]
    assert await bench.kv.range(b"", None, 100) == pairs
    assert await bench.kv.range(b"a", b"b", 100) == pairs[2:5]
    assert await bench.kv.range(b"a\0", b"a\0\0", 100) == pairs[3:4]
    assert await bench.kv.range(b"", None, 3) == pairs[:3]
    assert await bench.kv.range(b"b", None, 0) == []
    assert await bench.kv.range(b"b", b"a", 100) == []
    assert await bench.kv.range(b"b", b"b", 100) == []


@on_every_side(kv_bench)
async def test_a_count_is_of_the_keys_in_the_range(bench: KVBench) -> None:
    await bench.kv.commit([Put(bytes([value]), b"") for value in range(10)])
    assert await bench.kv.count(b"", None) == 10
    assert await bench.kv.count(b"\x02", b"\x05") == 3
    assert await bench.kv.count(b"\x05", None) == 5
    assert await bench.kv.count(b"\x05", b"\x02") == 0
    assert await bench.kv.count(b"\x0a", None) == 0


@on_every_side(kv_bench)
async def test_commits_take_effect_in_the_order_of_their_calls(bench: KVBench) -> None:
    commits = [asyncio.ensure_future(bench.kv.commit([Put(b"key", b"%d" % index)])) for index in range(600)]
    await asyncio.gather(*commits)
    assert await bench.kv.get(b"key") == b"599"


@on_every_side(kv_bench)
async def test_commits_resolve_in_the_order_of_their_calls(bench: KVBench) -> None:
    resolved: list[int] = []

    async def one(index: int) -> None:
        await bench.kv.commit([Put(b"%d" % index, b"")])
        resolved.append(index)

    await asyncio.gather(*(one(index) for index in range(50)))
    assert resolved == list(range(50))


@on_every_side(kv_bench)
async def test_a_read_sees_every_commit_that_has_resolved(bench: KVBench) -> None:
    async def writer(name: int) -> None:
        for number in range(10):
            await bench.kv.commit([Put(b"%d" % name, b"%d" % number)])
            value = await bench.kv.get(b"%d" % name)
            assert value is not None
            assert int(value) == number

    await asyncio.gather(*(writer(name) for name in range(10)))


@on_every_side(kv_bench)
async def test_a_read_sees_all_of_a_commit_or_nothing(bench: KVBench) -> None:
    async def writer() -> None:
        for number in range(20):
            await bench.kv.commit([Put(b"%d" % name, b"%d" % number) for name in range(5)])

    async def reader() -> None:
        for _ in range(20):
            pairs = await bench.kv.range(b"", None, 10)
            assert len(pairs) in (0, 5)
            assert len({value for _, value in pairs}) <= 1

    await asyncio.gather(writer(), *(reader() for _ in range(4)))


@on_every_side(kv_bench)
async def test_a_commit_whose_caller_went_away_is_whole_or_absent(bench: KVBench) -> None:
    commit = asyncio.ensure_future(bench.kv.commit([Put(b"a", b""), Put(b"b", b"")]))
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await bench.kv.commit([Put(b"c", b"")])
    assert await bench.kv.count(b"", b"c") in (0, 2)


@on_every_side(kv_bench)
async def test_what_was_committed_is_there_after_reopening(bench: KVBench) -> None:
    await bench.kv.commit([Put(b"kept", b"1"), Put(b"deleted", b"1")])
    await bench.kv.commit([Delete(b"deleted")])
    await bench.reopen()
    assert await bench.kv.range(b"", None, 10) == [(b"kept", b"1")]


@on_every_side(kv_bench)
async def test_closing_finishes_what_is_under_way(bench: KVBench) -> None:
    commits = [asyncio.ensure_future(bench.kv.commit([Put(b"%d" % index, b"")])) for index in range(300)]
    await asyncio.sleep(0)
    await bench.reopen()
    await asyncio.gather(*commits)
    assert await bench.kv.count(b"", None) == 300


@on_every_side(kv_bench)
async def test_a_database_set_aside_leaves_an_empty_one(bench: KVBench) -> None:
    for _ in range(3):
        await bench.kv.commit([Put(b"key", b"value")])
        await bench.set_aside()
        assert await bench.kv.count(b"", None) == 0


@on_every_side(kv_bench)
async def test_a_large_value_comes_back(bench: KVBench) -> None:
    value = bytes(range(256)) * 4096
    await bench.kv.commit([Put(b"large", value)])
    await bench.reopen()
    assert await bench.kv.get(b"large") == value


keys = st.binary(max_size=3)
commits = st.lists(
    st.lists(st.one_of(st.builds(Put, keys, st.binary(max_size=5)), st.builds(Delete, keys)), max_size=6), max_size=8
)


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=commits, first=keys, end=st.none() | keys, limit=st.integers(0, 10))
def test_any_commits_leave_what_a_dictionary_says(side, tmp_path_factory, commits, first, end, limit):
    async def story() -> None:
        async with kv_bench(side, tmp_path_factory.mktemp("kv"), 0) as bench:
            values: dict[bytes, bytes] = {}
            await asyncio.gather(*(bench.kv.commit(changes) for changes in commits))
            for change in (change for changes in commits for change in changes):
                if isinstance(change, Put):
                    values[change.key] = change.value
                else:
                    values.pop(change.key, None)
            wanted = [(key, values[key]) for key in sorted(values) if first <= key and (end is None or key < end)]
            assert await bench.kv.range(first, end, limit) == wanted[:limit]
            assert await bench.kv.count(first, end) == len(wanted)
            await bench.reopen()
            assert await bench.kv.range(b"", None, 100) == sorted(values.items())

    run_on(side, story)
