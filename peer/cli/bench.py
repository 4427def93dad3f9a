"""The verb `bench`: what this machine can do, what a cluster on it reaches, and the one as a share of the other.

Figures of different minutes or machines say little, so both are measured in one run: the costs of the machine before and after, and between
them five nodes as `shoal up` processes on the loopback interface, with TLS and every copy synced, as always.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Group
from rich.text import Text

from peer.cli.bench_costs import Costs, mean, measure_costs
from peer.cli.local_nodes import LocalNodes, end_with_this_task
from peer.cli.output import Output, plain_table
from peer.cli.settings import Settings, Verb, pass_settings
from peer.cli.text import size_of, size_text
from peer.client.asynchronous import Client
from peer.errors import ShoalError, WrongUsage
from peer.real.loop import run
from protocol.hashing import Buffer
from protocol.manifest import chunk_bytes_for

NAMES = ("ada", "ben", "cleo", "dora", "emil", "fay", "gus", "hana", "ivo")
NODES_MIN = 3
START_SECONDS = 60.0
SETTLE_SECONDS = 2.0
BLOCK_BYTES = 1024 * 1024
LARGE_BYTES_MIN = 16 * BLOCK_BYTES
SMALL_BYTES = 4096
SMALL_IN_FLIGHT = 64
ROUNDS = 2
BAR_CELLS = 40


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured."""

    what: str
    unit: str
    value: float
    ceiling: float
    """What the machine could do at most, by its costs."""
    p50_milliseconds: float | None = None
    p99_milliseconds: float | None = None

    @property
    def ratio(self) -> float:
        """Share of the ceiling that is reached."""
        return self.value / self.ceiling


@dataclass(frozen=True, slots=True)
class Report:
    """One run."""

    costs: Costs
    nodes: int
    copies: int
    row_replicas: int
    large_bytes: int
    small_files: int
    figures: tuple[Figure, ...]


@click.command(
    cls=Verb,
    short_help="Measure this machine, and a cluster on it.",
    examples=(
        "shoal bench",
        "shoal bench --nodes 3 --size 1G",
        "shoal bench --json > bench.json",
    ),
)
@click.option("--nodes", default=5, type=click.IntRange(NODES_MIN, len(NAMES)), show_default=True, help="How many nodes.")
@click.option("--size", default="512M", show_default=True, help="Size of the large file.")
@click.option("--files", default=4000, type=click.IntRange(min=100), show_default=True, help="How many files of 4 KiB.")
@pass_settings
def bench(settings: Settings, nodes: int, size: str, files: int) -> None:
    """Measure what this machine can do, and what a cluster of nodes on it reaches, as a share of that.

    Takes about a minute, and seven times the size and half a gigabyte on the disk of the temporary folder (TMPDIR). Best on a machine that
    does nothing else.
    """
    try:
        large_bytes = size_of(size)
    except ValueError as error:
        raise WrongUsage(f"--size: {error}") from None
    if large_bytes < LARGE_BYTES_MIN:
        raise WrongUsage(f"--size {size}: it has to be {size_text(LARGE_BYTES_MIN)} at least to say anything")
    output = Output(settings)
    report = run(measure(output, nodes, large_bytes, files))
    if output.is_json:
        output.result(report_document(report), "")
    else:
        output.print(report_view(report))


async def measure(output: Output, nodes_count: int, large_bytes: int, small_files: int) -> Report:
    """Run everything.

    Raises: ShoalError when the cluster does not come up, or what comes back is not what went in.
    """
    end_with_this_task()
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as name:
        folder = Path(name)
        output.note("measuring this machine ...")
        before = await asyncio.to_thread(measure_costs, folder)
        nodes = LocalNodes(folder / "homes", list(NAMES[:nodes_count]))
        try:
            output.note(f"starting {nodes_count} nodes ...")
            await nodes.start(START_SECONDS)
            async with Client.connect(nodes.nodes[0].address, key=nodes.key.text) as client:
                status = await client.status()
                await asyncio.sleep(SETTLE_SECONDS)
                output.note(f"putting and getting {ROUNDS} files of {size_text(large_bytes)} ...")
                large = await _large(client, folder, large_bytes)
                output.note(f"putting and getting {small_files} files of {size_text(SMALL_BYTES)} ...")
                small = await _small(client, small_files)
        finally:
            await nodes.stop()
        output.note("measuring this machine again ...")
        costs = mean([before, await asyncio.to_thread(measure_costs, folder)])
    replicas = min(nodes_count, 2 * status.copies_wanted - 1)  # rows: enough that a majority survives two losses
    figures = (
        Figure("put, large file", "MB/s", large[0] / 1e6, put_ceiling(costs, status.copies_wanted) / 1e6),
        Figure("get, large file", "MB/s", large[1] / 1e6, get_ceiling(costs) / 1e6),
        Figure("put, 4 KiB files", "/s", small[0].rate, small_put_ceiling(costs, replicas), small[0].p50, small[0].p99),
        Figure("get, 4 KiB files", "/s", small[1].rate, small_get_ceiling(costs, replicas), small[1].p50, small[1].p99),
    )
    return Report(costs, nodes_count, status.copies_wanted, replicas, large_bytes, small_files, figures)


# -- ceilings ------------------------------------------------------------------


def put_ceiling(costs: Costs, copies: int) -> float:
    """Return bytes per second: every copy is sent over one hop, hashed and written, and hashed once by the sender."""
    processor = costs.cores / (copies * costs.tls + (copies + 1) * costs.blake3 + copies * costs.write)
    return min(processor, costs.disk_rate / copies)


def get_ceiling(costs: Costs) -> float:
    """Return bytes per second: read, hashed by the holder and by the reader, sent over one hop."""
    return costs.cores / (costs.tls + 2 * costs.blake3 + costs.read)


def small_put_ceiling(costs: Costs, replicas: int) -> float:
    """Return files per second: a majority says what is there, one coordinates, the others confirm; each replica commits the row."""
    messages = replicas // 2 + 1 + replicas
    return costs.cores / (messages * costs.message + replicas * costs.row)


def small_get_ceiling(costs: Costs, replicas: int) -> float:
    """Return files per second: a majority says what is there."""
    return costs.cores / ((replicas // 2 + 1) * costs.message)


# -- the load --------------------------------------------------------------------


async def _large(client: Client, folder: Path, size: int) -> tuple[float, float]:
    """Return bytes per second put and got."""
    put_seconds = get_seconds = 0.0
    for index in range(ROUNDS):
        source = await asyncio.to_thread(_noise, folder / "large", size)
        began_at = time.monotonic()
        await client.put_file(source, f"/bench/large-{index}")
        put_seconds += time.monotonic() - began_at
        count = 0

        async def take(data: Buffer) -> None:
            nonlocal count
            count += len(data)

        began_at = time.monotonic()
        await client.get(f"/bench/large-{index}", take)
        get_seconds += time.monotonic() - began_at
        if count != size:
            raise ShoalError(f"{size} bytes went in and {count} came back")
    return ROUNDS * size / put_seconds, ROUNDS * size / get_seconds


@dataclass(frozen=True, slots=True)
class _Rate:
    rate: float
    p50: float
    p99: float


async def _small(client: Client, count: int) -> tuple[_Rate, _Rate]:
    contents = [os.urandom(SMALL_BYTES) for _ in range(count)]

    async def put(index: int) -> None:
        await client.put_bytes(f"/bench/small/{index}", contents[index])

    async def get(index: int) -> None:
        if await client.get_bytes(f"/bench/small/{index}") != contents[index]:
            raise ShoalError(f"/bench/small/{index}: what came back is not what went in")

    return await _many(count, put), await _many(count, get)


async def _many(count: int, do: Callable[[int], Awaitable[None]]) -> _Rate:
    """Do `count` things, SMALL_IN_FLIGHT at a time."""
    seconds: list[float] = []
    indices = iter(range(count))

    async def work() -> None:
        for index in indices:
            began_at = time.monotonic()
            await do(index)
            seconds.append(time.monotonic() - began_at)

    began_at = time.monotonic()
    await asyncio.gather(*(work() for _ in range(SMALL_IN_FLIGHT)))
    rate = count / (time.monotonic() - began_at)
    seconds.sort()
    return _Rate(rate, 1000 * seconds[count // 2], 1000 * seconds[count * 99 // 100])


def _noise(path: Path, size: int) -> Path:
    """Write a file that nothing can compress or share."""
    with path.open("wb") as file:
        while size:
            file.write(os.urandom(min(size, BLOCK_BYTES)))
            size -= min(size, BLOCK_BYTES)
    return path


# -- rendering -------------------------------------------------------------------


def report_document(report: Report) -> dict[str, object]:
    """Return the JSON shape of a run."""
    costs = report.costs
    return {
        "machine": {
            "cores": costs.cores,
            "tls_core_seconds_per_gb": round(costs.tls * 1e9, 3),
            "blake3_core_seconds_per_gb": round(costs.blake3 * 1e9, 3),
            "write_core_seconds_per_gb": round(costs.write * 1e9, 3),
            "read_core_seconds_per_gb": round(costs.read * 1e9, 3),
            "message_core_microseconds": round(costs.message * 1e6, 1),
            "row_core_microseconds": round(costs.row * 1e6, 1),
            "disk_mb_per_second": round(costs.disk_rate / 1e6),
            "rows_per_second": round(costs.row_rate),
            "loopback_mb_per_second": round(costs.loopback_rate / 1e6),
        },
        "cluster": {
            "nodes": report.nodes,
            "copies": report.copies,
            "row_replicas": report.row_replicas,
            "chunk_bytes": chunk_bytes_for(report.large_bytes),
            "large_bytes": report.large_bytes,
            "small_files": report.small_files,
            "tls": "1.3",
            "sync": "every copy",
        },
        "figures": [
            {
                "what": figure.what,
                "unit": figure.unit,
                "value": round(figure.value, 1),
                "ceiling": round(figure.ceiling, 1),
                "ratio": round(figure.ratio, 3),
                "p50_ms": None if figure.p50_milliseconds is None else round(figure.p50_milliseconds, 1),
                "p99_ms": None if figure.p99_milliseconds is None else round(figure.p99_milliseconds, 1),
            }
            for figure in report.figures
        ],
    }


def report_view(report: Report) -> Group:
    """Return a run as people read it."""
    costs = report.costs
    machine = plain_table("this machine", ">cost (both ends)", ">rate")
    machine.add_row("TLS 1.3 over loopback, per hop", f"{costs.tls * 1e9:.2f} core-s/GB", f"{costs.cores / costs.tls / 1e6:.0f} MB/s")
    machine.add_row("BLAKE3", f"{costs.blake3 * 1e9:.2f} core-s/GB", f"{costs.cores / costs.blake3 / 1e6:.0f} MB/s")
    machine.add_row("write and fdatasync, 1 MiB files", f"{costs.write * 1e9:.2f} core-s/GB", f"{costs.disk_rate / 1e6:.0f} MB/s")
    machine.add_row("read from the page cache", f"{costs.read * 1e9:.2f} core-s/GB", f"{costs.cores / costs.read / 1e6:.0f} MB/s")
    machine.add_row("loopback without TLS, one stream", "", f"{costs.loopback_rate / 1e6:.0f} MB/s")
    machine.add_row("message of 4 KiB and answer, TLS", f"{costs.message * 1e6:.1f} core-µs", f"{costs.cores / costs.message:.0f} /s")
    machine.add_row("row of 4 KiB, synced in groups", f"{costs.row * 1e6:.1f} core-µs", f"{costs.row_rate:.0f} /s per node")
    figures = plain_table("the cluster", ">reached", ">ceiling", ">share", "", ">p50", ">p99")
    for figure in report.figures:
        figures.add_row(
            figure.what,
            f"{figure.value:.0f} {figure.unit}",
            f"{figure.ceiling:.0f} {figure.unit}",
            f"{100 * figure.ratio:.0f} %",
            bar(figure.ratio),
            "" if figure.p50_milliseconds is None else f"{figure.p50_milliseconds:.0f} ms",
            "" if figure.p99_milliseconds is None else f"{figure.p99_milliseconds:.0f} ms",
        )
    facts = (
        f"{report.nodes} nodes on {costs.cores} cores, R={report.copies}, rows on {report.row_replicas}, "
        "TLS 1.3 on every hop, every copy synced; "
        f"large: {size_text(report.large_bytes)} in chunks of {size_text(chunk_bytes_for(report.large_bytes))}, "
        f"small: {report.small_files} files, {SMALL_IN_FLIGHT} in flight; one client"
    )
    return Group(machine, Text(), figures, Text(), Text(facts))


def bar(ratio: float) -> str:
    """Return a share as a bar."""
    filled = round(max(0.0, min(1.0, ratio)) * BAR_CELLS)
    return "█" * filled + "░" * (BAR_CELLS - filled)
