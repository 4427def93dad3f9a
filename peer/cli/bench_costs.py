"""What this machine itself costs and can do: TLS, BLAKE3, the disk, small messages, rows. What `shoal bench` holds the cluster against.

Every cost is measured with all cores busy, one worker process on each, because that is how they are spent: two threads of one core, or a
machine that others use as well, do not give twice what one gives. Costs are seconds of a core, user and system, for both ends together.
"""

import asyncio
import multiprocessing
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import msgpack  # type: ignore[import-untyped]
from blake3 import blake3

from peer.real.certificates import Credentials
from peer.real.keys import new_key
from peer.real.loop import run

LOOPBACK = "127.0.0.1"
SECONDS = 1.0
"""So long each cost is measured."""
BLOCK_BYTES = 1024 * 1024
BLOCKS = 32
"""Different ones, so that no cache makes them cheap."""
DISK_THREADS = 4
MESSAGE_BYTES = 4096
MESSAGES_IN_FLIGHT = 64
ROWS_PER_COMMIT = 128
SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one machine, in seconds of a core. Rates are those of all cores together."""

    cores: int
    tls: float
    """Per byte and hop, both ends, through sockets of the loopback interface."""
    blake3: float
    """Per byte."""
    write: float
    """Per byte: written and fdatasynced in files of 1 MiB."""
    read: float
    """Per byte, from the page cache."""
    message: float
    """Per small request and answer over TLS, both ends, many in flight."""
    row: float
    """Per row of 4 KiB, in commits of 128 rows that are synced."""
    disk_rate: float
    """Bytes per second that the disk takes, written and fdatasynced."""
    row_rate: float
    """Rows per second and process, committed and synced."""
    loopback_rate: float
    """Bytes per second of one stream without TLS."""


def measure_costs(folder: Path) -> Costs:
    """Measure, on the disk that `folder` is on. Takes some seconds and blocks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with (
        TemporaryDirectory(dir=folder, prefix="costs-") as place,
        ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as workers,
    ):

        def on_all_cores(work: Callable[[str], tuple[float, float, float]]) -> tuple[float, float]:
            """Return (core seconds per unit, units per second of all) of `work`, which returns (units, core seconds, seconds)."""
            results = list(workers.map(work, [f"{place}/{index}" for index in range(cores)]))
            units = sum(result[0] for result in results)
            return sum(result[1] for result in results) / units, sum(result[0] / result[2] for result in results)

        on_all_cores(_blake3)  # the workers start
        tls, _ = on_all_cores(_tls)
        hashed, _ = on_all_cores(_blake3)
        write, disk_rate = on_all_cores(_write)
        read, _ = on_all_cores(_read)
        message, _ = on_all_cores(_message)
        row, row_rate = on_all_cores(_row)
        loopback = next(iter(workers.map(_loopback, [place])))
    return Costs(cores, tls, hashed, write, read, message, row, disk_rate, row_rate / cores, loopback[0] / loopback[2])


def mean(several: Sequence[Costs]) -> Costs:
    """Return the mean of measurements of one machine."""
    names = Costs.__slots__
    return Costs(**{name: sum(getattr(each, name) for each in several) / len(several) for name in names} | {"cores": several[0].cores})


# -- in the workers; each returns (units, core seconds, seconds) ----------------


def _blake3(place: str) -> tuple[float, float, float]:
    blocks = _blocks()
    return _timed(lambda index: len(blake3(blocks[index % BLOCKS]).digest()) // 32 * BLOCK_BYTES)


def _write(place: str) -> tuple[float, float, float]:
    blocks = _blocks()
    Path(place).mkdir(exist_ok=True)

    def write_one(index: int) -> int:
        descriptor = os.open(f"{place}/{index % 128}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(descriptor, blocks[index % BLOCKS])
        os.fdatasync(descriptor)
        os.close(descriptor)
        return BLOCK_BYTES

    with ThreadPoolExecutor(DISK_THREADS) as threads:
        return _timed(lambda index: sum(threads.map(write_one, range(index * 8, index * 8 + 8))))


def _read(place: str) -> tuple[float, float, float]:
    paths = list(Path(place).iterdir())
    return _timed(lambda index: len(paths[index % len(paths)].read_bytes()))


def _row(place: str) -> tuple[float, float, float]:
    connection = sqlite3.connect(f"{place}.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("CREATE TABLE IF NOT EXISTS pairs (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    value = secrets.token_bytes(MESSAGE_BYTES)

    def commit(index: int) -> int:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(ROWS_PER_COMMIT):
            connection.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", (secrets.token_bytes(16), value))
        connection.execute("COMMIT")
        return ROWS_PER_COMMIT

    try:
        return _timed(commit)
    finally:
        connection.close()


def _tls(place: str) -> tuple[float, float, float]:
    return run(_stream(encrypted=True))


def _loopback(place: str) -> tuple[float, float, float]:
    return run(_stream(encrypted=False))


def _message(place: str) -> tuple[float, float, float]:
    return run(_messages())


def _timed(do: Callable[[int], int]) -> tuple[float, float, float]:
    units = index = 0
    began, cpu = time.monotonic(), time.process_time()
    while (seconds := time.monotonic() - began) < SECONDS:
        units += do(index)
        index += 1
    return units, time.process_time() - cpu, seconds


def _blocks() -> list[bytes]:
    return [os.urandom(BLOCK_BYTES) for _ in range(BLOCKS)]


class _Sink(asyncio.BufferedProtocol):
    """Counts what arrives."""

    def __init__(self) -> None:
        self.count = 0
        self._buffer = memoryview(bytearray(BLOCK_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.count += nbytes


class _Source(asyncio.Protocol):
    """Writes blocks as fast as they are taken."""

    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks
        self._next = 0
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=BLOCK_BYTES)
        self._go_on()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.write(self._blocks[self._next % len(self._blocks)])
            self._next += 1
            asyncio.get_running_loop().call_soon(self._go_on)


async def _stream(*, encrypted: bool) -> tuple[float, float, float]:
    loop = asyncio.get_running_loop()
    credentials = Credentials(new_key(), secrets.token_bytes(SEED_BYTES)) if encrypted else None
    sinks: list[_Sink] = []

    def sink() -> _Sink:
        sinks.append(_Sink())
        return sinks[-1]

    server = await loop.create_server(sink, LOOPBACK, 0, ssl=credentials.server_context if credentials else None)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_connection(
        lambda: _Source(_blocks()),
        LOOPBACK,
        port,
        ssl=credentials.client_context if credentials else None,
        server_hostname="shoal" if credentials else None,
    )
    while not sinks or not sinks[0].count:  # noqa: ASYNC110  # once, before anything is measured
        await asyncio.sleep(0.01)
    began, cpu, count = time.monotonic(), time.process_time(), sinks[0].count
    await asyncio.sleep(SECONDS)
    result = sinks[0].count - count, time.process_time() - cpu, time.monotonic() - began
    transport.abort()
    server.close()
    return result


class _Messenger(asyncio.Protocol):
    """One end of a conversation of length-prefixed msgpack: the asking end sends a 4 KiB body and counts answers."""

    def __init__(self, body: bytes) -> None:
        self.count = 0
        self._body = body
        self._unpacker = msgpack.Unpacker(max_buffer_size=0)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._body:
            self._transport.write(b"".join(msgpack.packb([index, self._body]) for index in range(MESSAGES_IN_FLIGHT)))

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        answers = []
        for number, *_ in self._unpacker:
            self.count += 1
            answers.append(msgpack.packb([number, self._body] if self._body else [number]))
        if answers and not self._transport.is_closing():
            self._transport.write(b"".join(answers))


async def _messages() -> tuple[float, float, float]:
    loop = asyncio.get_running_loop()
    credentials = Credentials(new_key(), secrets.token_bytes(SEED_BYTES))
    server = await loop.create_server(lambda: _Messenger(b""), LOOPBACK, 0, ssl=credentials.server_context)
    transport, asking = await loop.create_connection(
        lambda: _Messenger(secrets.token_bytes(MESSAGE_BYTES)),
        LOOPBACK,
        server.sockets[0].getsockname()[1],
        ssl=credentials.client_context,
        server_hostname="shoal",
    )
    while not asking.count:  # noqa: ASYNC110  # once, before anything is measured
        await asyncio.sleep(0.01)
    began, cpu, count = time.monotonic(), time.process_time(), asking.count
    await asyncio.sleep(SECONDS)
    result = asking.count - count, time.process_time() - cpu, time.monotonic() - began
    transport.abort()
    server.close()
    return result
