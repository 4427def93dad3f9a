"""Hosts of a LAN on this machine: real processes, each in a network namespace with addresses of its own and no default route.

Owns what can happen to such hosts and to the networks between them; knows nothing of what a test wants to show. Needs root, `ip`
and `nft`. The networks are bridges in one more namespace, the switch, so nothing of the machine's own network is touched. There is
no `tc netem` to rely on: a cut takes a port of the switch down, a split and blocked multicast are rules of the switch.

A scenario starts from the fixture `lan`, an empty LAN for the tests of one module, in order:

    def test_a_file_outlives_the_host_it_was_put_at(lan, tmp_path):
        key = lan.new_key()
        for name in "abc":
            lan.add_host(name).start("--key-file", str(key), *["--found"] * (name == "a"))
        a, b, c = lan.hosts.values()
        lan.wait_until_all_see(3, a, b, c)
        assert a.shoal("put", str(random_file(tmp_path / "x", 1024 * 1024)), "/x").code == 0
        a.kill()
        assert_reads_back(b, "/x", tmp_path / "x")

| what | how |
|---|---|
| networks, hosts | `lan.add_network("lab")`, `lan.add_host("a")`, `lan.add_host("b", "lan", "lab")` |
| addresses | `host.addresses`, one per network; `host.move_to(address)`, `host.set_default_route()` |
| firewalls | `host.set_firewall("input udp dport 5353 drop")`, and `host.set_firewall()` for none |
| keys | `lan.new_key()`, `host.take_key(key)` for a host that runs commands and no node |
| commands | `host.shoal(...)` to its end; `host.begin(...)` beside the test, then `.result()` |
| nodes | `host.start(...)`, `kill()` (kill -9), `stop()` (SIGTERM), `freeze()`, `thaw()`, `pause(seconds)` |
| machines | `lan.power_off(host)`, then `lan.power_on(host)`; `lan.close_lid(host)`, then `lan.open_lid(host)` |
| the wire | `lan.cut(host)`, `lan.mend(host)`, `lan.split([a], [b, c])`, `lan.join()`, `lan.block_multicast()`, `lan.allow_multicast()` |
| looking | `host.status()`, `host.alive()`, `host.stored_bytes()`, `host.chunks()`, `host.log()`, `host.seconds_until(line)` |
| waiting | `host.wait_for(line)`, `lan.wait_until_all_see(3, a, b, c)`, `wait_until(...)`, `wait_until_kept_in(3, host, ...)` |
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

COMMAND_SECONDS = 120.0
STOP_SECONDS = 10.0
MEET_SECONDS = 20.0
LOOK_SECONDS = 0.1
BLOCK_BYTES = 1024 * 1024
NOBODY = 254
"""The last number of an address at which no host is: a default route that leads nowhere."""


def missing() -> str:
    """Return what keeps this machine from having such hosts; empty if nothing does."""
    if not sys.platform.startswith("linux"):
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for command, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(command) is None:
            return f"the command `{command}` ({package}) is not installed"
    return ""


def run(*command: str, given: str | None = None) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"


def wait_until(holds: Callable[[], object], timeout_seconds: float, otherwise: Callable[[], str] | str) -> None:
    """Wait until `holds()` is true; fail with `otherwise` when it does not become so in time."""
    give_up_at = time.monotonic() + timeout_seconds
    while not holds():
        if time.monotonic() >= give_up_at:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(LOOK_SECONDS)


def random_file(path: Path, size: int) -> Path:
    """Make a file of `size` bytes that compress to nothing less, and return its path."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, BLOCK_BYTES)))
    return path


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_reads_back(host: "Host", remote: str, original: Path) -> None:
    """Make sure that `host` reads `remote` as what `original` is, byte for byte."""
    copy = host.home / "copy"
    result = host.shoal("get", remote, str(copy))
    assert result.code == 0, result.err
    assert sha256(copy) == sha256(original)
    copy.unlink()


def wait_until_kept_in(copies: int, host: "Host", local: Path, remote: str) -> None:
    """Wait until what `host` puts gets so many copies: links that a fault has broken are found out and made anew in some seconds."""

    def put() -> bool:
        result = host.shoal("put", str(local), remote, "--json")
        assert result.code == 0, result.err
        return result.json()["copies"] == copies

    wait_until(put, MEET_SECONDS, f"what {host.name} puts does not get {copies} copies")


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


def alive_members(status: Result) -> int:
    """Return how many members are alive, by what `shoal status --json` came to; 0 when it failed."""
    if status.code != 0:
        return 0
    members = status.json()["members"]
    assert isinstance(members, list)
    return sum(member["state"] == "alive" for member in members)


class Command:
    """A command that runs beside the test."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def result(self, timeout_seconds: float = COMMAND_SECONDS) -> Result:
        """Wait for its end."""
        out, err = self._process.communicate(timeout=timeout_seconds)
        return Result(self._process.returncode, out, err)

    def abandon(self) -> None:
        """Kill it, if it has not ended: for the end of a test that failed in between."""
        if self.is_running:
            self._process.kill()
            self._process.communicate()


@dataclass(eq=False)
class Host:
    """One machine of the LAN."""

    name: str
    namespace: str
    home: Path
    addresses: list[str]
    """One in each of its networks."""
    node: "subprocess.Popen[str] | None" = None
    said: list[str] = field(default_factory=list)
    """The lines that its node has printed since it was started."""
    said_after_seconds: list[float] = field(default_factory=list)
    """How long after its start the node printed each of them."""
    commands: list[Command] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its address in the first of its networks."""
        return self.addresses[0]

    def port(self, network: int = 0) -> str:
        """Return the switch's end of its cable to one of its networks."""
        return f"{self.name}-{network}"

    # -- commands --------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `shoal` on this host."""
        return ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "peer.cli", "--home", str(self.home), *arguments]

    def begin(self, *arguments: str) -> Command:
        """Begin a command on this host, and go on."""
        process = subprocess.Popen(self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.commands.append(Command(process))
        return self.commands[-1]

    def shoal(self, *arguments: str, timeout_seconds: float = COMMAND_SECONDS) -> Result:
        """Run a command on this host to its end."""
        return self.begin(*arguments).result(timeout_seconds)

    def take_key(self, key: Path) -> None:
        """Keep a key in the home, as a node would that was started with it."""
        shutil.copy(key, self.home / "cluster.key")

    # -- the node --------------------------------------------------------------

    def start(self, *arguments: str) -> None:
        """Start this host's node."""
        assert self.node is None
        with (self.home / "log").open("a") as log:
            self.node = subprocess.Popen(self.command("up", "--name", self.name, *arguments), stdout=subprocess.PIPE, stderr=log, text=True)
        threading.Thread(target=self._listen, args=(self.node, time.monotonic()), daemon=True).start()

    def kill(self) -> None:
        """End the node as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the node in an orderly way and return its exit code."""
        return self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let the node stand still: its connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the node go on."""
        self._signal(signal.SIGCONT)

    def pause(self, seconds: float) -> None:
        """Let the node stand still for so long."""
        self.freeze()
        time.sleep(seconds)
        self.thaw()

    # -- the network -----------------------------------------------------------

    def move_to(self, address: str) -> None:
        """Give this host another address in the first of its networks, as a router may do at any time."""
        run("ip", "-n", self.namespace, "address", "del", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.namespace, "address", "add", f"{address}/24", "dev", "eth0")
        self.addresses[0] = address

    def set_default_route(self) -> None:
        """Send what is for no network of this host to a router that passes nothing on."""
        router = self.address.rpartition(".")[0] + f".{NOBODY}"
        run("ip", "-n", self.namespace, "route", "add", "default", "via", router)

    def set_firewall(self, *rules: str) -> None:
        """Let the machine's own firewall have these rules and no others, each behind the name of its hook: `input` or `output`."""
        chains = "".join(
            f"chain {hook} {{\ntype filter hook {hook} priority 0;\n"
            + "".join(f"{rule.removeprefix(hook)}\n" for rule in rules if rule.startswith(f"{hook} "))
            + "}\n"
            for hook in ("input", "output")
        )
        table = f"table ip host\ndelete table ip host\ntable ip host {{\n{chains}}}\n"
        run("ip", "netns", "exec", self.namespace, "nft", "-f", "-", given=table)

    # -- looking ---------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """Return what `shoal status` says on this host."""
        result = self.shoal("status", "--json")
        assert result.code == 0, result.err
        return result.json()

    def alive(self) -> int:
        """Return how many members seem to be there; 0 while `shoal status` says nothing."""
        return alive_members(self.shoal("status", "--json"))

    def stored_bytes(self) -> int:
        """Return how much lies in the folder of this host's node."""
        return sum(file.stat().st_size for file in (self.home / "data").rglob("*") if file.is_file())

    def chunks(self) -> list[str]:
        """Return the names of the chunk files of this host's node, in order."""
        return sorted(file.name for file in (self.home / "data" / "c").rglob("*") if file.is_file())

    def log(self) -> str:
        """Return what the node has written to stderr."""
        log = self.home / "log"
        return log.read_text() if log.exists() else ""

    def has_said(self, pattern: str) -> bool:
        """Return whether the node has printed a line that begins with `pattern`."""
        return any(re.match(pattern, line) for line in self.said)

    def seconds_until(self, pattern: str) -> float:
        """Return how long after its start the node printed a line that begins with `pattern`, which it has."""
        return next(seconds for line, seconds in zip(self.said, self.said_after_seconds, strict=False) if re.match(pattern, line))

    def wait_for(self, pattern: str, timeout_seconds: float) -> None:
        """Wait until the node has printed a line that begins with `pattern`."""
        wait_until(
            lambda: self.has_said(pattern),
            timeout_seconds,
            lambda: f"{self.name} has not said {pattern!r} but {self.said}; {self.log()[-2000:]}",
        )

    # -- inside ----------------------------------------------------------------

    def _signal(self, number: signal.Signals) -> None:
        # `ip netns exec` replaces itself by the command, so this process id is the node's.
        assert self.node is not None
        self.node.send_signal(number)

    def _end(self, number: signal.Signals) -> int:
        self._signal(number)
        assert self.node is not None
        code = self.node.wait(STOP_SECONDS)
        self.node = None
        self.said.clear()
        self.said_after_seconds.clear()
        return code

    def _listen(self, node: "subprocess.Popen[str]", started_at: float) -> None:
        assert node.stdout is not None
        for line in node.stdout:
            if node is self.node:
                self.said_after_seconds.append(time.monotonic() - started_at)
                self.said.append(line.rstrip("\n"))


class Lan:
    """Some hosts on one network or several. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.hosts: dict[str, Host] = {}
        self._folder = folder
        self._prefix = f"shoal-{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._networks: list[str] = []
        self._groups: list[list[Host]] = []
        self._multicast_blocked = False
        self._keys = 0

    def __enter__(self) -> "Lan":
        run("ip", "netns", "add", self._switch)
        self.add_network("lan")
        return self

    def __exit__(self, *exception: object) -> None:
        for host in self.hosts.values():
            for command in host.commands:
                command.abandon()
            if host.node is not None:
                host.kill()
            run("ip", "netns", "del", host.namespace)
            shutil.rmtree(host.home / "data", ignore_errors=True)  # pytest keeps folders of several runs, and these are large
        run("ip", "netns", "del", self._switch)

    # -- what there is -----------------------------------------------------------

    def add_network(self, name: str) -> None:
        """Add a network that is connected to no other. There is one from the start, named `lan`."""
        self._networks.append(name)
        run("ip", "-n", self._switch, "link", "add", name, "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", name, "up")

    def add_host(self, name: str, *networks: str) -> Host:
        """Add a host to `networks` (default: `lan`): eth0 is in the first of them, eth1 in the second."""
        number = len(self.hosts) + 1
        home = self._folder / name
        home.mkdir()
        host = Host(name, f"{self._prefix}-{name}", home, [])
        run("ip", "netns", "add", host.namespace)
        self.hosts[name] = host
        run("ip", "-n", host.namespace, "link", "set", "lo", "up")
        for index, network in enumerate(networks or ("lan",)):
            card, port = f"eth{index}", host.port(index)
            run("ip", "-n", host.namespace, "link", "add", card, "type", "veth", "peer", "name", port, "netns", self._switch)
            run("ip", "-n", self._switch, "link", "set", port, "master", network, "up")
            host.addresses.append(f"10.77.{self._networks.index(network)}.{number}")
            run("ip", "-n", host.namespace, "address", "add", f"{host.addresses[-1]}/24", "dev", card)
            run("ip", "-n", host.namespace, "link", "set", card, "up")
        return host

    def new_key(self) -> Path:
        """Return the file of a cluster key that no host has yet."""
        self._keys += 1
        home = self._folder / f"key-{self._keys}"
        run(sys.executable, "-m", "peer.cli", "--home", str(home), "key", "new")
        return home / "cluster.key"

    # -- what happens to machines ------------------------------------------------

    def power_off(self, host: Host) -> None:
        """Take the power from a host that has a node: nobody says goodbye, and nothing answers for it."""
        self.cut(host)
        host.kill()

    def power_on(self, host: Host, *arguments: str) -> None:
        """Give a host its power again and start its node."""
        self.mend(host)
        host.start(*arguments)

    def close_lid(self, host: Host) -> None:
        """Send a host that has a node to sleep: all of it stands still, and its network is gone."""
        self.cut(host)
        host.freeze()

    def open_lid(self, host: Host) -> None:
        """Wake a host: its node goes on where it stood still."""
        self.mend(host)
        host.thaw()

    # -- what happens to the wire ------------------------------------------------

    def cut(self, host: Host) -> None:
        """Cut a host off from all its networks."""
        self._set_ports(host, "down")

    def mend(self, host: Host) -> None:
        """Connect a host again."""
        self._set_ports(host, "up")

    def split(self, *groups: Sequence[Host]) -> None:
        """Let nothing pass between these groups of hosts; each hears its own. It takes the place of a split before."""
        self._groups = [list(group) for group in groups]
        self._set_rules()

    def join(self) -> None:
        """End a split."""
        self.split()

    def block_multicast(self) -> None:
        """Let no multicast pass, as many a wireless network does."""
        self._multicast_blocked = True
        self._set_rules()

    def allow_multicast(self) -> None:
        """Let multicast pass again."""
        self._multicast_blocked = False
        self._set_rules()

    # -- looking -----------------------------------------------------------------

    def wait_until_all_see(self, count: int, *hosts: Host, timeout_seconds: float = MEET_SECONDS) -> None:
        """Wait until each of `hosts` serves in a cluster and sees `count` members there."""
        for host in hosts:
            host.wait_for("ready ", timeout_seconds)

        def all_see() -> bool:
            looking = [host.begin("status", "--json") for host in hosts]  # at once: to start a command is what takes the time
            seen = [alive_members(command.result()) for command in looking]
            return seen == [count] * len(hosts)

        wait_until(all_see, timeout_seconds, lambda: f"{count} members are not seen: {[(host.alive(), host.log()) for host in hosts]}")

    # -- inside ------------------------------------------------------------------

    def _set_ports(self, host: Host, state: str) -> None:
        for index in range(len(host.addresses)):
            run("ip", "-n", self._switch, "link", "set", host.port(index), state)

    def _set_rules(self) -> None:
        rules = ["ip daddr 224.0.0.0/4 drop"] if self._multicast_blocked else []
        for group in self._groups:
            ports = ", ".join(f'"{host.port(index)}"' for host in group for index in range(len(host.addresses)))
            rules.append(f"iifname {{ {ports} }} oifname != {{ {ports} }} drop")
        chain = "\n".join(["type filter hook forward priority 0;", *rules])
        table = f"table bridge lan\ndelete table bridge lan\ntable bridge lan {{\nchain forward {{\n{chain}\n}}\n}}\n"
        run("ip", "netns", "exec", self._switch, "nft", "-f", "-", given=table)
