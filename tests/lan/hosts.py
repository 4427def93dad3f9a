"""Hosts of a LAN on this machine: network namespaces on a bridge, each with an address of its own and no default route.

The bridge lies in a namespace as well, so nothing of the machine's own network is touched. Needs root and `ip`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

COMMAND_SECONDS = 120.0
STOP_SECONDS = 10.0


def missing() -> str:
    """Return what keeps this machine from having such hosts; empty if nothing does."""
    if not sys.platform.startswith("linux"):
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command `ip` (iproute2) is not installed"
    return ""


def ip(*arguments: str) -> None:
    """Run `ip`."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


@dataclass
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        """Return the one JSON document on stdout."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


@dataclass
class Host:
    """One machine of the LAN."""

    name: str
    namespace: str
    address: str
    home: Path
    node: "subprocess.Popen[str] | None" = None
    said: list[str] = field(default_factory=list)

    @property
    def link(self) -> str:
        """The bridge's end of this host's cable."""
        return f"port-{self.name}"

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `shoal` on this host."""
        return ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "peer.cli", "--home", str(self.home), *arguments]

    def shoal(self, *arguments: str, timeout_seconds: float = COMMAND_SECONDS) -> Result:
        """Run a command on this host."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout_seconds, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> None:
        """Start this host's node."""
        assert self.node is None
        with (self.home / "log").open("a") as log:
            self.node = subprocess.Popen(self.command("up", "--name", self.name, *arguments), stdout=subprocess.PIPE, stderr=log, text=True)
        threading.Thread(target=self._listen, args=(self.node,), daemon=True).start()

    def wait_for(self, pattern: str, timeout_seconds: float) -> None:
        """Wait until the node has said a line that begins with `pattern`."""
        give_up_at = time.monotonic() + timeout_seconds
        while not any(re.match(pattern, line) for line in self.said):
            assert time.monotonic() < give_up_at, f"{self.name} has not said {pattern!r} but {self.said}; {self.log_end()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """End the node as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the node in an orderly way and return its exit code."""
        return self._end(signal.SIGTERM)

    def log_end(self) -> str:
        """Return the end of what the node wrote to stderr."""
        log = self.home / "log"
        return log.read_text()[-2000:] if log.exists() else ""

    def _end(self, number: signal.Signals) -> int:
        # `ip netns exec` replaces itself by the command, so this process id is the node's.
        assert self.node is not None
        self.node.send_signal(number)
        code = self.node.wait(STOP_SECONDS)
        self.node = None
        self.said.clear()
        return code

    def _listen(self, node: "subprocess.Popen[str]") -> None:
        assert node.stdout is not None
        for line in node.stdout:
            if node is self.node:
                self.said.append(line.rstrip("\n"))


class LanHosts:
    """Some hosts on one bridge. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"shoal-{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> "LanHosts":
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._switch, "link", "set", "bridge", "up")
        return self

    def __exit__(self, *exception: object) -> None:
        for host in self.hosts.values():
            if host.node is not None:
                host.kill()
            ip("netns", "del", host.namespace)
        ip("netns", "del", self._switch)

    def add(self, name: str) -> Host:
        """Add a host, plugged in."""
        number = len(self.hosts) + 1
        home = self._folder / name
        home.mkdir()
        host = Host(name, f"{self._prefix}-{name}", f"10.77.0.{number}", home)
        ip("netns", "add", host.namespace)
        self.hosts[name] = host
        ip("-n", host.namespace, "link", "set", "lo", "up")
        ip("-n", host.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", host.link, "netns", self._switch)
        ip("-n", self._switch, "link", "set", host.link, "master", "bridge", "up")
        ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.namespace, "link", "set", "eth0", "up")
        return host

    def unplug(self, host: Host) -> None:
        """Cut a host off."""
        ip("-n", self._switch, "link", "set", host.link, "down")

    def plug_in(self, host: Host) -> None:
        """Connect a host again."""
        ip("-n", self._switch, "link", "set", host.link, "up")
