"""What was acknowledged survives: power cuts of simulated machines, killed processes of this one."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from contract_sides import run_on

from peer.errors import DiskError, StorageFailed, StoreCorrupt
from peer.real.storage import RealStorage
from peer.seams import Put
from sims.disk import DiskState, SimDisk
from sims.kv import SimStorage
from sims.loop import SimLoop, context_of

SEEDS = range(200)


async def until_power_cut(life: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Lead a life on a host that dies after so long; what it raises before, it raises."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    host = f"host{loop.steps}#1"

    async def run() -> None:
        await life()

    task = loop.create_task(run(), context=context_of(host))
    await asyncio.sleep(seconds)
    loop.kill(host)
    if task.done():
        task.result()


def over_seeds(story: Callable[[int], Awaitable[Any]], seeds: range = SEEDS) -> list[Any]:
    return [run_on("sim", lambda seed=seed: story(seed), seed=seed) for seed in seeds]


def test_content_and_name_that_were_synced_survive_a_crash() -> None:
    async def story(seed: int) -> None:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        await disk.make_directory("folder")
        await disk.write("tmp", [b"content"])
        await disk.sync("tmp")
        await disk.rename("tmp", "folder/file")
        await disk.sync_directories(["folder"])
        for _ in range(3):
            state.power_cut()
            assert await disk.read("folder/file") == b"content"

    over_seeds(story)


def test_what_was_not_synced_may_be_lost_torn_or_there() -> None:
    async def story(seed: int) -> bytes | None:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        await disk.write("file", [b"old content"])
        await disk.sync("file")
        await disk.sync_directories([""])
        await disk.write("file", [b"new content!"])
        state.power_cut()
        content = await disk.read("file")
        assert content == b"old content" or b"new content!".startswith(content) or len(content) == len(b"new content!")
        return content

    contents = over_seeds(story)
    assert {b"old content", b"new content!"} < set(contents)


def test_a_name_that_was_not_synced_may_be_lost_though_its_content_was() -> None:
    async def story(seed: int) -> list[str]:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        await disk.write("file", [b"content"])
        await disk.sync("file")
        state.power_cut()
        names = await disk.names("")
        for name in names:
            assert await disk.read(name) == b"content"
        return names

    assert {tuple(names) for names in over_seeds(story)} == {(), ("file",)}


def test_a_removal_that_was_not_synced_may_be_undone_and_one_that_was_is_not() -> None:
    async def story(seed: int, is_synced: bool) -> bool:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        await disk.write("file", [b"content"])
        await disk.sync("file")
        await disk.sync_directories([""])
        await disk.remove("file")
        if is_synced:
            await disk.sync_directories([""])
        state.power_cut()
        return "file" in await disk.names("")

    assert set(over_seeds(lambda seed: story(seed, False))) == {False, True}
    assert set(over_seeds(lambda seed: story(seed, True))) == {False}


def test_a_replaced_file_is_the_old_one_or_the_new_one_after_a_crash() -> None:
    async def story(seed: int) -> bytes:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        for name, content in (("file", b"old"), ("new", b"new")):
            await disk.write(name, [content])
            await disk.sync(name)
            if name == "file":
                await disk.sync_directories([""])
        await disk.rename("new", "file")
        state.power_cut()
        return await disk.read("file")

    assert set(over_seeds(story)) == {b"old", b"new"}


def test_a_placed_file_is_whole_or_not_there_whenever_power_fails() -> None:
    async def story(seed: int) -> bytes:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        await disk.write("file", [b"old"])
        await disk.sync("file")
        await disk.sync_directories([""])
        placing = asyncio.ensure_future(disk.place("tmp", "file", [b"new ", b"content"]))
        await asyncio.sleep(Random(seed).uniform(0, 0.008))
        placing.cancel()
        state.power_cut()
        return await disk.read("file")

    assert set(over_seeds(story)) == {b"old", b"new content"}


def test_a_failed_sync_of_a_simulated_disk_is_fatal_until_it_has_power_again() -> None:
    async def story(seed: int) -> None:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        await disk.write("file", [b"x"])
        state.sync_fails = True
        with pytest.raises(StorageFailed):
            await disk.sync("file")
        state.sync_fails = False
        for attempt in (lambda: disk.read("file"), lambda: disk.sync("file"), lambda: disk.names(""), disk.space):
            with pytest.raises(StorageFailed):
                await attempt()
        state.power_cut()
        await disk.names("")

    over_seeds(story, range(5))


def test_a_file_on_a_bad_place_is_damaged_and_nothing_else_is() -> None:
    async def story(seed: int) -> bytes:
        state = DiskState(Random(seed))
        disk = SimDisk(state)
        await disk.place("tmp", "bad", [b"bad"])
        await disk.place("tmp", "good", [b"good"])
        state.damage("bad", Random(seed), unreadable=True)
        with pytest.raises(DiskError) as error:
            await disk.read("bad")
        assert error.value.damaged
        await disk.rename("bad", "elsewhere")
        await disk.write("elsewhere", [b"new"])
        assert await disk.read("elsewhere") == b"new"
        return await disk.read("good")

    assert set(over_seeds(story)) == {b"good"}


def test_a_full_simulated_disk_refuses_a_write_and_keeps_what_it_has() -> None:
    async def story(seed: int) -> None:
        state = DiskState(Random(seed))
        state.total_bytes = 100
        disk = SimDisk(state)
        await disk.write("file", [bytes(60)])
        with pytest.raises(DiskError) as caught:
            await disk.write("more", [bytes(60)])
        assert caught.value.full
        await disk.write("file", [bytes(100)])
        assert await disk.space() == (100, 0)

    over_seeds(story, range(5))


def test_a_disk_that_others_fill_is_no_smaller() -> None:
    async def story(seed: int) -> None:
        storage = SimStorage(Random(seed))
        total, free = await storage.disk.space()
        assert total == free
        storage.fill()
        assert await storage.disk.space() == (total, 0)

    over_seeds(story)


def test_every_commit_that_resolved_survives_a_crash_and_no_commit_is_torn_or_overtaken() -> None:
    async def story(seed: int) -> bool:
        storage = SimStorage(Random(seed))
        resolved: list[int] = []

        async def life() -> None:
            kv = await storage.open_kv("test")

            async def one(number: int) -> None:
                await kv.commit([Put(b"a%03d" % number, b""), Put(b"b%03d" % number, b"")])
                resolved.append(number)

            for start in range(0, 200, 5):
                await asyncio.gather(*(one(number) for number in range(start, start + 5)))

        await until_power_cut(life, Random(seed).uniform(0, 0.05))
        storage.power_cut()
        kv = await storage.open_kv("test")
        there = [int(key[1:]) for key, _ in await kv.range(b"a", b"b", 1000)]
        assert there == [int(key[1:]) for key, _ in await kv.range(b"b", b"c", 1000)]
        assert there == list(range(len(there)))
        assert len(there) >= len(resolved)
        return len(there) > len(resolved)

    assert set(over_seeds(story)) == {False, True}


def test_a_damaged_simulated_database_is_corrupt_until_it_is_set_aside() -> None:
    async def story(seed: int) -> None:
        storage = SimStorage(Random(seed))
        storage.damage("test")
        with pytest.raises(StoreCorrupt):
            await storage.open_kv("test")
        await storage.set_aside("test")
        assert await (await storage.open_kv("test")).count(b"", None) == 0

    over_seeds(story, range(2))


WRITER = """
import asyncio, sys
from pathlib import Path
from peer.real.storage import RealStorage
from peer.seams import Put

async def main():
    kv = await RealStorage(Path(sys.argv[1])).open_kv("test")
    begun = await kv.count(b"a", b"b")

    async def one(number):
        await kv.commit([Put(b"a%06d" % number, bytes(500)), Put(b"b%06d" % number, bytes(500))])
        print(number, flush=True)

    while True:
        await asyncio.gather(*(one(number) for number in range(begun, begun + 7)))
        begun += 7

asyncio.run(main())
"""


def test_every_commit_that_resolved_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    expected = 0
    for wanted in (1, 50, 200):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(wanted):
            assert writer.stdout.readline(), "the writer ended by itself"
        writer.kill()
        rest = writer.stdout.read()
        writer.stdout.close()
        assert writer.wait() == -9
        expected += wanted + rest.count("\n")

        async def check(expected: int) -> int:
            storage = RealStorage(tmp_path)  # the lock went with the process
            kv = await storage.open_kv("test")
            pairs = await kv.range(b"", None, 1_000_000)
            await kv.close()
            await storage.close()
            there = [int(key[1:]) for key, _ in pairs if key.startswith(b"a")]
            assert there == [int(key[1:]) for key, _ in pairs if key.startswith(b"b")]
            assert there == list(range(len(there)))
            assert len(there) >= expected
            return len(there)

        expected = asyncio.run(check(expected))
