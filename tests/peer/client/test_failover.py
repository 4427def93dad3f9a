"""A client whose node is killed while it reads and writes, with real processes: the simulated world has many more of these."""

import asyncio
import hashlib
import os
from pathlib import Path

from peer import Client
from peer.real.loop import run

MIB = 1024 * 1024
CHUNKS = [os.urandom(4 * MIB) for _ in range(4)]


def test_a_kill_of_its_node_interrupts_no_transfer_of_a_client(cluster, tmp_path: Path) -> None:
    try:
        run(kill_in_the_middle(cluster, tmp_path))
    finally:
        cluster.restart(1)


async def kill_in_the_middle(cluster, tmp_path: Path) -> None:
    data = b"".join(CHUNKS[index * 7 % 4] for index in range(16))  # 64 MiB
    async with Client.connect([cluster.addresses[1], cluster.addresses[0]], key=cluster.key) as client:
        await client.put_bytes("/large", data)
        async with await client.open("/large") as reader, client.create("/written") as writer:
            read = hashlib.sha256()
            progress: list[int] = []
            getting = asyncio.create_task(client.get_file("/large", tmp_path / "copy", on_progress=progress.append))
            async for block in reader:
                read.update(block)
                await writer.write(block)
                if reader.tell() == 16 * MIB:
                    cluster.kill(1)
                    assert sum(progress) < len(data), "the get was too fast for the test to mean anything"
            await getting
        assert read.digest() == hashlib.sha256(data).digest()
        assert (tmp_path / "copy").read_bytes() == data
        assert await client.get_bytes("/written") == data
    async with Client.connect([cluster.addresses[1], cluster.addresses[0]], key=cluster.key) as client:
        assert await client.get_bytes("/large", 5 * MIB, 5 * MIB + 1000) == data[5 * MIB : 5 * MIB + 1000]
