"""The verb `demo`: five nodes on this machine, one file, one kill, every byte back. For somebody who has never heard of shoal.

It uses nothing that a user could not use: nodes are `shoal up` processes, the file goes through the client. It exits
with 0 only if every step held.
"""

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
from blake3 import blake3
from rich.table import Table
from rich.text import Text

from peer.cli.local_nodes import LocalNode, LocalNodes, end_with_this_task
from peer.cli.output import Output
from peer.cli.settings import Settings, Verb, pass_settings
from peer.cli.text import size_text
from peer.client.asynchronous import Client
from peer.errors import ShoalError, WrongUsage
from peer.files.entries import ChunkPlace
from peer.real.keys import ClusterKey
from peer.real.loop import run

NAMES = ("ada", "ben", "cleo", "dora", "emil", "fay", "gus", "hana", "ivo")
NODES_MIN = 3
"""With fewer, nothing may be lost without writes being refused."""
MADE_BYTES = 64 * 1024 * 1024
BLOCK_BYTES = 1024 * 1024
START_SECONDS = 60.0
RETURN_SECONDS = 60.0
CHUNKS_SHOWN = 8


@click.command(
    cls=Verb,
    short_help="Show it: a cluster, a kill, every byte back.",
    examples=(
        "shoal demo",
        "shoal demo --nodes 7 --file film.mp4",
    ),
)
@click.option("--nodes", default=5, type=click.IntRange(NODES_MIN, len(NAMES)), show_default=True, help="How many nodes.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="The file to keep (default: 64 MiB that it makes).")
@pass_settings
def demo(settings: Settings, nodes: int, file: Path | None) -> None:
    """Show it: nodes that find each other, a file kept in copies, a machine killed, every byte read back."""
    if file is not None and not file.is_file():
        raise WrongUsage(f"--file {file}: no such file")
    run(Demo(Output(settings), nodes, file).run())


class Demo:
    """One run of the show."""

    def __init__(self, output: Output, count: int, file: Path | None) -> None:
        self._output = output
        self._count = count
        self._file = file
        self._step = 0
        self._began_at = time.monotonic()

    async def run(self) -> None:
        """Run the whole show.

        Raises: ShoalError as soon as something did not hold.
        """
        end_with_this_task()
        with tempfile.TemporaryDirectory(prefix="shoal-demo-") as name:
            folder = Path(name)
            nodes = LocalNodes(folder / "homes", list(NAMES[: self._count]))
            try:
                await self._show(folder, nodes)
            finally:
                await nodes.stop()
        seconds = time.monotonic() - self._began_at
        self._output.done(
            {"ok": True, "seconds": round(seconds, 1)},
            f"\nAll of it held, in {seconds:.0f} s. The nodes are stopped and their folders removed.",
        )

    async def _show(self, folder: Path, nodes: LocalNodes) -> None:
        self._say(f"Start {self._count} nodes on this machine: one process and one folder each. All they share is a secret key.")
        began_at = time.monotonic()
        await nodes.start(START_SECONDS)
        self._tell(f"They found each other by multicast DNS in {time.monotonic() - began_at:.1f} s; no address was typed:")
        for node in nodes.nodes:
            self._tell(f"  {node.name:<5} {node.address:<16} id {node.node_id[:8]}")

        source = self._file if self._file is not None else await asyncio.to_thread(make_file, folder / "original.bin")
        digest = await asyncio.to_thread(digest_of, source)
        size = source.stat().st_size
        remote = f"/demo/{source.name}"
        self._say(f"Put {'your' if self._file else 'a made-up'} file of {size_text(size)} into the cluster, as {remote}.")
        places = await self._put(nodes, source, remote, size)

        victim = most_burdened(nodes, places)
        survivor = next(node for node in reversed(nodes.nodes) if node is not victim)
        held = sum(victim.name in place.nodes for place in places)
        pid = await victim.kill()
        what = f"It holds {held} of the {len(places)} chunks." if places else ""
        self._say(f"Kill {victim.name} with SIGKILL (process {pid}), as if its power was cut. {what}")

        self._say(f"Read every byte back through {survivor.name}, as a client that has never heard of {victim.name}'s end.")
        began_at = time.monotonic()
        copy = folder / "copy.bin"
        async with Client.connect(survivor.address, key=nodes.key.text) as client:
            await client.get_file(remote, copy)
        seconds = time.monotonic() - began_at
        if copy.stat().st_size != size or await asyncio.to_thread(digest_of, copy) != digest:
            raise ShoalError(f"what came back is not what went in: see {copy}")
        self._tell(f"{size_text(size)} in {seconds:.1f} s ({size_text(size / seconds)}/s). BLAKE3 of the original and of what came back:")
        self._tell(f"  {digest}\n  {digest}  the same")

        self._say(f"Start {victim.name} again, with the folder that it left behind.")
        began_at = time.monotonic()
        await victim.start(found=False)
        await victim.wait_for_members(self._count, RETURN_SECONDS)
        await self._wait_until_alive(nodes.key, survivor, victim)
        seconds = time.monotonic() - began_at
        self._tell(f"{victim.name} is back after {seconds:.1f} s: {survivor.name} sees {self._count} of {self._count} members alive.")

    async def _put(self, nodes: LocalNodes, source: Path, remote: str, size: int) -> list[ChunkPlace]:
        began_at = time.monotonic()
        async with Client.connect(nodes.nodes[0].address, key=nodes.key.text) as client:
            with self._output.transfer("put") as transfer, transfer.only_file(size) as progress:
                result = await client.put_file(source, remote, on_progress=progress)
            seconds = time.monotonic() - began_at
            self._tell(
                f"Done in {seconds:.1f} s ({size_text(size / seconds)}/s): version {result.version}, "
                f"{result.copies} copies, each synced to the disk of another node."
            )
            places = [place async for place in client.where(remote)]
        if result.copies < NODES_MIN:
            raise ShoalError(f"the file has {result.copies} copies and {NODES_MIN} were wanted, with all nodes up")
        if places:
            self._tell("Where its chunks lie:")
            self._output.show(chunk_table(nodes.nodes, places))
        return places

    async def _wait_until_alive(self, key: ClusterKey, asked: LocalNode, returned: LocalNode) -> None:
        async with Client.connect(asked.address, key=key.text) as client, asyncio.timeout(RETURN_SECONDS):
            while True:
                status = await client.status()
                alive = [member.node_id.hex() for member in status.members if member.state == "alive"]
                if len(alive) == self._count and returned.node_id in alive:
                    return
                await asyncio.sleep(0.2)

    def _say(self, text: str) -> None:
        self._step += 1
        self._output.show(Text(f"\n{self._step}. {text}", style="bold"))

    def _tell(self, text: str) -> None:
        self._output.show(Text(text))


def make_file(path: Path) -> Path:
    """Write a file that nothing can compress or share."""
    noise = random.Random(os.urandom(16))
    with path.open("wb") as file:
        for _ in range(MADE_BYTES // BLOCK_BYTES):
            file.write(noise.randbytes(BLOCK_BYTES))
    return path


def digest_of(path: Path) -> str:
    """Return the BLAKE3 of a file."""
    hasher = blake3()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def most_burdened(nodes: LocalNodes, places: list[ChunkPlace]) -> LocalNode:
    """Return the node with the most chunks."""
    held = Counter(name for place in places for name in place.nodes)
    return max(nodes.nodes, key=lambda node: held[node.name])


def chunk_table(nodes: list[LocalNode], places: list[ChunkPlace]) -> Table:
    """Return a table of chunks and nodes: the first few chunks, and how many each node holds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("chunk", justify="right")
    table.add_column("BLAKE3")
    table.add_column("size", justify="right")
    for node in nodes:
        table.add_column(node.name, justify="center")
    for place in places[:CHUNKS_SHOWN]:
        marks = ["●" if node.name in place.nodes else "·" for node in nodes]
        table.add_row(str(place.index), f"{place.chunk_id.hex()[2:14]}…", size_text(place.size), *marks)
    if len(places) > CHUNKS_SHOWN:
        table.add_row("…", "", "", *("" for _ in nodes))
    held = [str(sum(node.name in place.nodes for place in places)) for node in nodes]
    table.add_row(str(len(places)), "all chunks", size_text(sum(place.size for place in places)), *held, style="bold")
    return table
