"""A small cluster of real processes on the loopback interface, for clients to talk to."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import peer

NAMES = ("ada", "ben", "cleo")
START_SECONDS = 60.0


class Cluster:
    """Three nodes with one key. The first one's home is what a client without arguments uses."""

    def __init__(self, folder: Path) -> None:
        self.homes = [folder / name for name in NAMES]
        self.addresses: list[str] = []
        self.processes: list[subprocess.Popen[str]] = []
        self._key = folder / "cluster.key"

    @property
    def key(self) -> str:
        return self._key.read_text().strip()

    def start(self) -> None:
        """Start all three and wait until they are one cluster."""
        for home in self.homes:
            home.mkdir()
            if not self.addresses:
                self._run(home, "127.0.0.1:0", "--found")
                self.addresses.append(self._ready(self.processes[0]))
                self._key.write_bytes((home / "cluster.key").read_bytes())
            else:
                self._run(home, "127.0.0.1:0", "--key-file", str(self._key), "--join", self.addresses[0])
        self.addresses += [self._ready(process) for process in self.processes[1:]]
        self.wait()

    def kill(self, index: int) -> None:
        """Let a node end as by a power cut."""
        self.processes[index].kill()
        self.processes[index].communicate(timeout=START_SECONDS)

    def restart(self, index: int) -> None:
        """Start a killed node again."""
        process = self._run(self.homes[index], self.addresses[index])
        self.processes[index] = self.processes.pop()
        self._ready(process)
        self.wait()

    def wait(self) -> None:
        """Wait until all three are there and none is about to change."""
        give_up_at = time.monotonic() + START_SECONDS
        with peer.connect(self.addresses, key=self.key) as client:
            while True:
                status = client.status()
                if [member.state for member in status.members] == ["alive"] * len(NAMES) and not status.moving_partitions:
                    return
                assert time.monotonic() < give_up_at, status
                time.sleep(0.1)

    def _run(self, home: Path, listen: str, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "peer.cli", "up", "--home", str(home), "--name", home.name, "--no-discovery", "--listen", listen]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
        self.processes.append(subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment))
        return self.processes[-1]

    def _ready(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.match(r"ready \S+ [0-9a-f]+ (\S+)", line)
        assert match, line
        return match[1]

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.communicate(timeout=START_SECONDS)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that are one cluster."""
    nodes = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture
def home(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home that a client without arguments uses; an empty folder is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOAL_HOME", str(cluster.homes[0]))
    monkeypatch.delenv("SHOAL_KEY", raising=False)
    return cluster.homes[0]
