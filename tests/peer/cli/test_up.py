"""`shoal up` as a process of its own: what it says, how it ends, and with which code."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from peer.cli.world import PORTS_TRIED_MAX, NextPortNetwork
from peer.client.home_files import KEY_FILE, parsed
from peer.client.reach import find_session
from peer.errors import ConnectFailed, Unavailable, Waiting
from peer.real.keys import ClusterKey, new_key

SECONDS = 20.0
MODULE_SECONDS = 300.0
"""For a node that serves all tests of a module."""
FAILING_DISK = """
import errno, os, sys
from pathlib import Path
from peer.cli.main import main
real = os.fdatasync
def fdatasync(descriptor):
    if Path(os.environ["FAIL_WHEN"]).exists():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    real(descriptor)
os.fdatasync = fdatasync
main(sys.argv[1:])
"""

FULL_DISK = """
import errno, os, sys
from peer.cli.main import main
def writev(descriptor, buffers):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
os.writev = writev
main(sys.argv[1:])
"""


def environment(**more: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}, **more}


def shoal(home: Path, *arguments: str, **pipes: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "peer.cli", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False, **pipes)


class Up:
    """A node's process and its first line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def ready(self) -> tuple[str, int]:
        """Return the address and the number of members that the node says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(r"ready \S+ [0-9a-f]{32} (127\.0\.0\.1:\d+) members=(\d+)\n", line)
        assert match, (line, self.process.poll())
        return match[1], int(match[2])

    def ends(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and what it wrote to stderr."""
        _, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, err


@contextmanager
def up(
    home: Path, *arguments: str, program: tuple[str, ...] = ("-m", "peer.cli"), seconds: float = 3 * SECONDS, **more: str
) -> Iterator[Up]:
    """Run a node, for `seconds` at most: so waiting for a line that never comes ends."""
    command = [sys.executable, *program, "up", "--home", str(home), "--listen", "127.0.0.1:0", "--no-discovery", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more))
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    try:
        yield Up(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def test_a_first_node_makes_a_key_founds_serves_and_stops_on_a_signal(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as node:
        address, members = node.ready()
        assert members == 1
        assert (home / "cluster.key").stat().st_mode & 0o777 == 0o600
        assert json.loads((home / "node.json").read_text())["address"] == address
        (tmp_path / "f").write_bytes(b"hello")
        put = shoal(home, "put", str(tmp_path / "f"), "/f", "--json")
        assert json.loads(put.stdout)["copies"] == 1
        assert shoal(home, "cat", "/f").stdout == "hello"
        node.process.send_signal(signal.SIGTERM)
        code, err = node.ends()
        assert code == 0, err
    assert not (home / "node.json").exists()


def test_what_was_put_is_there_after_a_kill_and_a_second_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as node:
        node.ready()
        assert shoal(home, "put", "-", "/a/f", input="x" * 100_000).returncode == 0
        node.process.kill()
        node.process.wait()
    with up(home) as node:
        assert node.ready()[1] == 1
        assert shoal(home, "cat", "/a/f").stdout == "x" * 100_000


def test_a_failed_sync_stops_the_node_with_75_and_nothing_was_acknowledged(tmp_path: Path) -> None:
    home, flag = tmp_path / "home", tmp_path / "fail"
    with up(home, program=("-c", FAILING_DISK), FAIL_WHEN=str(flag)) as node:
        node.ready()
        assert shoal(home, "put", "-", "/before", input="b" * 50_000).returncode == 0
        flag.touch()
        refused = shoal(home, "--node", json.loads((home / "node.json").read_text())["address"], "put", "-", "/after", input="a" * 50_000)
        assert refused.returncode in (1, 4, 6), refused
        code, err = node.ends()
        assert code == 75, err
        assert "Input/output error" in err.splitlines()[-1]
    flag.unlink()
    with up(home) as node:
        node.ready()
        assert shoal(home, "cat", "/before").stdout == "b" * 50_000
        assert shoal(home, "cat", "/after").returncode == 3


def test_a_node_that_begins_on_a_full_disk_says_so_in_one_line_and_begins_once_there_is_room(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home, program=("-c", FULL_DISK)) as node:
        code, err = node.ends()
    assert code == 1
    assert err == f"shoal: {home}: the node cannot start: identity.new: No space left on device: make room, then try again\n"
    with up(home) as node:
        assert node.ready()[1] == 1


def test_a_second_node_on_one_home_is_refused_in_one_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as node:
        node.ready()
        with up(home) as second:
            code, err = second.ends()
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "in use" in err


def test_a_node_whose_key_every_typed_address_refuses_ends_with_8(tmp_path: Path) -> None:
    with up(tmp_path / "one") as node:
        address, _ = node.ready()
        assert shoal(tmp_path / "other", "key", "new").returncode == 0
        with up(tmp_path / "other", "--join", address) as stranger:
            code, err = stranger.ends()
        assert code == 8
        assert "refuses this key" in err.splitlines()[-1]
        node.process.send_signal(signal.SIGTERM)
        assert node.ends()[0] == 0


def test_a_first_start_that_fails_leaves_no_key_that_would_look_like_a_given_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(tmp_path / "other") as other:
        busy, _ = other.ready()
        with up(home, "--listen", busy) as node:
            code, err = node.ends()
        assert code == 1
        assert "in use" in err
        assert "a new cluster" not in err
    with up(home) as node:
        assert node.ready()[1] == 1


async def test_a_node_that_was_given_no_port_takes_the_next_one_that_is_free() -> None:
    network = NextPortNetwork(new_key(), bytes(32))
    first = await network.listen("127.0.0.1:0", lambda: None)
    second = await network.listen(first.addresses[0], lambda: None)
    port, next_port = (int(address.rpartition(":")[2]) for address in (first.addresses[0], second.addresses[0]))
    assert port < next_port < port + PORTS_TRIED_MAX
    for listener in (first, second):
        await listener.close()
    with pytest.raises(ConnectFailed, match=r"192\.0\.2\.1:7400"):  # for another reason than that it is taken
        await network.listen("192.0.2.1:7400", lambda: None)


@pytest.mark.parametrize("address", ["foo", "127.0.0.1:99999", "127.0.0.1:22x", ":7400"])
def test_a_node_that_cannot_be_an_address_is_wrong_usage(tmp_path: Path, address: str) -> None:
    assert shoal(tmp_path / "home", "key", "new").returncode == 0
    done = shoal(tmp_path / "home", "--node", address, "ls", "/")
    assert done.returncode == 2
    assert address in done.stderr


def test_a_home_that_is_a_file_is_refused_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = shoal(tmp_path / "home", "key", "new")
    assert done.returncode == 2
    assert "no folder" in done.stderr


@pytest.mark.parametrize("name", ["sys.db", "ns.db", "identity"])
def test_a_node_that_lost_what_it_promised_says_so(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    with up(home) as node:
        node.ready()
        node.process.send_signal(signal.SIGTERM)
        node.ends()
    for path in (home / "data").glob(f"{name}*"):
        path.unlink()
    with up(home, "--found") as node:
        node.ready()
        assert node.process.stderr is not None
        line = node.process.stderr.readline()
    assert name.removesuffix(".db") in line
    assert "begins as a new member" in line


def test_two_nodes_that_were_given_one_key_found_one_cluster_that_works(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert shoal(one, "key", "new").returncode == 0
    with up(one) as first:
        give_up_at = time.monotonic() + SECONDS
        while not (one / "node.json").exists():
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        address = json.loads((one / "node.json").read_text())["address"]
        with up(two, "--key-file", str(one / "cluster.key"), "--join", address) as second:
            assert {first.ready()[1], second.ready()[1]} <= {1, 2}
            put = shoal(two, "put", "-", "/f", "--json", input="x" * 10_000)
            assert put.returncode == 0, put.stderr
            assert shoal(one, "cat", "/f").stdout == "x" * 10_000


def test_a_node_that_lost_its_rows_stays_who_it_is_and_fetches_them(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with up(one) as first:
        address, _ = first.ready()
        with up(two, "--key-file", str(one / "cluster.key"), "--join", address) as second:
            second.ready()
            put = shoal(one, "put", "-", "/f", "--json", input="x" * 10_000)
            assert put.returncode == 0, put.stderr
            second.process.send_signal(signal.SIGTERM)
            second.ends()
        for path in (two / "data").glob("ns.db*"):
            path.unlink()
        with up(two) as second:
            second.ready()
            assert second.process.stderr is not None
            assert "ns.db was lost: this node stays who it is" in second.process.stderr.readline()
            read = shoal(two, "cat", "/f")
            assert read.stdout == "x" * 10_000, read.stderr
            states = [member["state"] for member in json.loads(shoal(two, "status", "--json").stdout)["members"]]
            assert states == ["alive", "alive"]


def test_a_node_says_why_nobody_who_was_named_lets_it_in(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert shoal(home, "key", "new").returncode == 0
    with up(tmp_path / "other") as other:
        address, _ = other.ready()
        with up(home, "--join", address, "--join", "127.0.0.1:1") as node:
            assert node.process.stderr is not None
            line = node.process.stderr.readline()
    assert f"{address}: it has another key" in line
    assert "127.0.0.1:1: nobody listens there" in line
    assert "--found" not in line


def test_a_lone_node_that_was_given_a_key_waits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hear_nobody(key: ClusterKey) -> list[str]:
        raise Unavailable("no node is heard")

    monkeypatch.setattr("peer.client.reach.discover", hear_nobody)
    home = tmp_path / "home"
    assert shoal(home, "key", "new").returncode == 0
    with up(home, "--name", "ada") as node:
        time.sleep(0.5)
        assert node.process.stderr is not None
        said = node.process.stderr.readline()
        assert "--found" in said
        with pytest.raises(Waiting, match=r"node ada .* is running and belongs to no cluster yet") as caught:
            asyncio.run(find_session(parsed((home / KEY_FILE).read_text(), ""), [], home))
        assert said.strip().endswith(str(caught.value).partition("yet: ")[2])
        assert node.process.poll() is None


def test_a_node_joins_by_a_typed_address_and_is_found_again_without_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with up(one) as node:
        address, _ = node.ready()
        with up(two, "--key-file", str(one / "cluster.key"), "--join", address) as joiner:
            assert joiner.ready()[1] == 2
            assert shoal(two, "put", "-", "/f", input="both").returncode == 0
            joiner.process.kill()
            joiner.process.wait()
        refused = shoal(one, "put", "-", "/g", input="alone")
        assert refused.returncode == 4, refused
        *waits, error = refused.stderr.splitlines()
        assert error.startswith("shoal: /g: too few of its replicas answer"), refused
        assert [wait.startswith("waiting for ") for wait in waits] in ([], [True]), refused
        with up(two) as joiner:
            assert joiner.ready()[1] == 2
            assert shoal(two, "cat", "/f").stdout == "both"


def test_a_node_whose_folder_was_put_back_ends_with_75_in_one_line_and_is_another_one_then(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with up(one) as node:
        address, _ = node.ready()
        ids = []
        for number in range(2):
            with up(two, "--key-file", str(one / "cluster.key"), "--join", address) as joiner:
                joiner.ready()
                ids.append(json.loads((two / "node.json").read_text())["id"])
                assert shoal(two, "put", "-", f"/{number}", input="promised").returncode == 0
                joiner.process.send_signal(signal.SIGTERM)
                assert joiner.ends()[0] == 0
            if number == 0:
                shutil.copytree(two / "data", tmp_path / "saved")
        assert ids[0] == ids[1]
        shutil.rmtree(two / "data")
        shutil.copytree(tmp_path / "saved", two / "data")
        with up(two) as joiner:
            code, err = joiner.ends()
        assert code == 75
        assert len(err.splitlines()) == 1
        assert "put back to an earlier state" in err
        with up(two) as joiner:
            assert joiner.process.stderr is not None
            assert "begins as a new member" in joiner.process.stderr.readline()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listen", "nowhere"),
        ("--join", "x"),
        ("--capacity", "many"),
        ("--capacity", "0"),
        ("--capacity", "99999999P"),
        ("--capacity", ""),
        ("--background-rate", "fast"),
        ("--background-rate", "10K"),
        ("--name", "a b"),
        ("--key-file", "/none"),
        ("--discover-on", "nonsense"),
    ],
)
def test_wrong_usage_is_one_line_and_no_node(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = shoal(tmp_path / "home", "up", *arguments)
    assert done.returncode in (2, 3)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "home" / "data").exists()
