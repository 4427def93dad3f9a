"""What the background work of readers and writers says when nobody waits for it; the rest of them is in tests/sims/test_operations.py."""

import asyncio
import gc

from peer.client.streams import PIPE_BYTES, RemoteReader, RemoteWriter
from peer.errors import Unavailable
from peer.files.entries import Entry


class Failing:
    """Operations and content of a cluster of which nobody answers."""

    chunk_bytes = 10
    entry = Entry("/f", "f", "file", 1000, 0, 0o644, "v", "ada", False)

    async def put(self, path, read, **options):
        raise Unavailable("nobody answers")

    async def read(self, begin, end, write):
        if begin:
            raise Unavailable("nobody answers")
        await write(bytes(end - begin))


async def test_an_error_that_nobody_waits_for_any_more_is_not_told_as_a_bug() -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    RemoteWriter(Failing(), "/f", None)
    reader = RemoteReader(Failing())
    assert await reader.read(10) == bytes(10)
    reading = asyncio.create_task(reader.read(10))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    del reader, reading
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert not told


class Endless(Failing):
    """Operations that wait for more than they get, and content of which nobody takes all."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def put(self, path, read, **options):
        try:
            while await read(10):
                pass
        finally:
            self.ended.append("put")

    async def read(self, begin, end, write):
        try:
            for _ in range(begin and 10):
                await write(bytes(PIPE_BYTES))
            await write(bytes(end - begin))
        finally:
            self.ended.append(f"read from {begin}")


async def test_what_is_never_closed_stops_without_a_sound_when_it_is_forgotten() -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    cluster = Endless()
    reader = RemoteReader(cluster)
    await reader.read(10)
    await reader.read(10)
    writer = RemoteWriter(cluster, "/f", None)
    await writer.write(b"x")
    await asyncio.sleep(0)
    del reader, writer
    for _ in range(3):
        await asyncio.sleep(0)
    assert sorted(cluster.ended) == ["put", "read from 0", "read from 10"]
    gc.collect()
    assert not told
