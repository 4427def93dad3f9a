"""What a node takes of its machine: memory while a large file streams through it, memory and processor while nothing happens.

Run by `make bench`; prints what it measured. Three nodes on the loopback interface, every byte on every node.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peer.cli.local_nodes import LocalNode, LocalNodes

MIB = 1024 * 1024
FILE_BYTES = 2048 * MIB
STREAMING_BYTES_MAX = 200 * MIB
IDLE_BYTES_MAX = 80 * MIB
IDLE_SHARE_MAX = 0.02
IDLE_SECONDS = 20.0
START_SECONDS = 60.0

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has"),
    pytest.mark.timeout(1200),
]


def memory_bytes(node: LocalNode, field: str) -> int:
    """Return `VmRSS` (now) or `VmHWM` (the most so far) of a node's process."""
    for line in Path(f"/proc/{node.pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def processor_seconds(node: LocalNode) -> float:
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shoal(node: LocalNode, *arguments: str, **pipes: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "peer.cli", "--home", str(node.home), "--quiet", *arguments]
    return subprocess.Popen(command, **pipes)


def stream_in(node: LocalNode, remote: str) -> str:
    """Put FILE_BYTES that nothing can compress or share, from a pipe; return their SHA-256."""
    digest = hashlib.sha256()
    putting = shoal(node, "put", "-", remote, stdin=subprocess.PIPE)
    assert putting.stdin is not None
    for _ in range(FILE_BYTES // MIB):
        block = os.urandom(MIB)
        digest.update(block)
        putting.stdin.write(block)
    putting.stdin.close()
    assert putting.wait() == 0
    return digest.hexdigest()


def stream_out(node: LocalNode, remote: str) -> str:
    """Read a file into a pipe; return its SHA-256."""
    digest = hashlib.sha256()
    getting = shoal(node, "cat", remote, stdout=subprocess.PIPE)
    assert getting.stdout is not None
    while block := getting.stdout.read(MIB):
        digest.update(block)
    assert getting.wait() == 0
    return digest.hexdigest()


def test_a_large_file_streams_through_small_nodes_and_an_idle_node_rests(tmp_path: Path) -> None:
    asyncio.run(measure(tmp_path))


async def measure(tmp_path: Path) -> None:
    nodes = LocalNodes(tmp_path, ["ada", "ben", "cleo"])
    try:
        await nodes.start(START_SECONDS)
        await asyncio.sleep(5.0)
        await rest(nodes, "idle")
        put_digest = await asyncio.to_thread(stream_in, nodes.nodes[0], "/large")
        assert await asyncio.to_thread(stream_out, nodes.nodes[1], "/large") == put_digest
        for node in nodes.nodes:
            most = memory_bytes(node, "VmHWM")
            print(f"\n{node.name} after {FILE_BYTES / MIB:.0f} MiB in and out: {most / MIB:.0f} MiB resident at the most", end="")
            assert most < STREAMING_BYTES_MAX
        await rest(nodes, "idle again")
    finally:
        await nodes.stop()


async def rest(nodes: LocalNodes, when: str) -> None:
    """Let the nodes be, and hold them to what an idle node may take."""
    before = [processor_seconds(node) for node in nodes.nodes]
    began_at = time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - began_at
    for node, spent in zip(nodes.nodes, before, strict=True):
        share = (processor_seconds(node) - spent) / seconds
        resident = memory_bytes(node, "VmRSS")
        print(f"\n{node.name} {when}: {resident / MIB:.0f} MiB resident, {100 * share:.2f} % of a core", end="")
        assert resident < IDLE_BYTES_MAX
        assert share < IDLE_SHARE_MAX
