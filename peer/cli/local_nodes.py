"""Nodes as processes of this machine, each with a home of its own under one folder and one key for all.

Owns their processes: starting, waiting for what they say, killing, and that none outlives the command. Used by the demo and the bench.
"""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from peer.client.home_files import KEY_FILE, write_key
from peer.errors import ShoalError
from peer.real.keys import ClusterKey, new_key

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 10.0
_READY = re.compile(r"ready (\S+) ([0-9a-f]+) (\S+:\d+) members=(\d+)")
_MEMBERS = re.compile(r"members (\d+)->(\d+)")


def end_with_this_task() -> None:
    """Let the end of the terminal and SIGTERM cancel the calling task, as Ctrl-C does, so that it stops its nodes."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup it stays ignored
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


class LocalNode:
    """One `shoal up`, and what it has said so far."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        self.node_id = ""
        self.address = ""
        self.members = 0
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process. Only while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """Where its stderr goes."""
        return self.home / "log"

    async def start(self, *, found: bool) -> None:
        """Start the process; it finds the others by multicast DNS on the loopback interface."""
        command = [sys.executable, "-m", "peer.cli", "up", "--home", str(self.home), "--name", self.name]
        command += ["--listen", f"{LOOPBACK}:0", "--discover-on", LOOPBACK, *(["--found"] if found else [])]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
        self.members = 0
        with self.log.open("ab") as log:
            # A session of its own: a Ctrl-C at the terminal is for the command, which then stops its nodes.
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=PIPE, stderr=log, env=environment, start_new_session=True
            )
        self._reader = asyncio.create_task(self._read(self._process))

    async def wait_for_members(self, count: int, timeout_seconds: float) -> None:
        """Wait until the node says that it serves in a cluster of at least `count` members.

        Raises: ShoalError when it ends first or time is up.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.members < count:
                    self._changed.clear()
                    if self._process is None or self._process.returncode is not None:
                        raise ShoalError(f"node {self.name} has ended: {self.last_words()}")
                    await self._changed.wait()
        except TimeoutError:
            raise ShoalError(
                f"node {self.name} sees {self.members} of {count} members after {timeout_seconds:.0f} s: {self.last_words()}"
            ) from None

    async def kill(self) -> int:
        """End the process with SIGKILL, as a power cut would; return its process id."""
        assert self._process is not None
        self._process.kill()
        await self._ended()
        return self._process.pid

    async def stop(self) -> None:
        """End the process in an orderly way, by force if it does not."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended()
        except TimeoutError:
            self._process.kill()
            await self._ended()

    def last_words(self) -> str:
        """Return the end of what it wrote to stderr."""
        text = self.log.read_text(errors="replace").strip() if self.log.exists() else ""
        return text.splitlines()[-1] if text else "it said nothing"

    async def _ended(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        await self._process.wait()
        await self._reader

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode(errors="replace")
            if match := _READY.match(text):
                self.node_id, self.address, self.members = match[2], match[3], int(match[4])
            elif match := _MEMBERS.match(text):
                self.members = int(match[2])
            self._changed.set()
        await process.wait()
        self._changed.set()


class LocalNodes:
    """Several nodes with one key, in one folder."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.key: ClusterKey = new_key()
        self.nodes = [LocalNode(name, folder / name) for name in names]
        for node in self.nodes:
            write_key(node.home / KEY_FILE, self.key.text)

    async def start(self, timeout_seconds: float) -> None:
        """Start all, the first as the founder, and wait until each sees all.

        Raises: ShoalError.
        """
        for index, node in enumerate(self.nodes):
            await node.start(found=index == 0)
        async with asyncio.timeout(timeout_seconds + STOP_SECONDS):
            for node in self.nodes:
                await node.wait_for_members(len(self.nodes), timeout_seconds)

    async def stop(self) -> None:
        """End all that still run."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
