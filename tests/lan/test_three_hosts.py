"""Three machines on one network, real processes, real multicast: what the first page of the README promises.

The tests of this module run in order on the same three hosts; each leaves all three up.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, LanHosts

FILE_BYTES = 256 * 1024 * 1024
BLOCK_BYTES = 1024 * 1024
MEET_SECONDS = 10.0
RETURN_SECONDS = 20.0
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def hosts(lan: LanHosts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Host]:
    key = tmp_path_factory.mktemp("key") / "cluster.key"
    maker = lan.add("a")
    assert maker.shoal("key", "new").code == 0
    (maker.home / "cluster.key").rename(key)
    for name in NAMES[1:]:
        lan.add(name)
    for name in NAMES:
        lan.hosts[name].start("--key-file", str(key), *(["--found"] if name == "a" else []))
    return lan.hosts


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("files") / "original.bin"
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // BLOCK_BYTES):
            file.write(os.urandom(BLOCK_BYTES))
    yield path
    path.unlink()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def alive(host: Host) -> int:
    result = host.shoal("status", "--json")
    if result.code != 0:
        return 0
    members = result.json()["members"]
    assert isinstance(members, list)
    return sum(member["state"] == "alive" for member in members)


def wait_until_all_are_back(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        host.wait_for("ready ", RETURN_SECONDS)
    give_up_at = time.monotonic() + RETURN_SECONDS
    while any(alive(host) < len(NAMES) for host in hosts.values()):
        assert time.monotonic() < give_up_at, "not all three see all three"
        time.sleep(0.2)


def assert_reads_back(host: Host, remote: str, original: Path, copy: Path) -> None:
    result = host.shoal("get", remote, str(copy))
    assert result.code == 0, result.err
    assert sha256(copy) == sha256(original)
    copy.unlink()


def test_three_hosts_are_one_cluster_within_ten_seconds_and_no_address_was_typed(hosts: dict[str, Host]) -> None:
    give_up_at = time.monotonic() + MEET_SECONDS
    while (seen := alive(hosts["b"])) < len(NAMES):
        assert time.monotonic() < give_up_at, f"b sees {seen} members; {[host.log_end() for host in hosts.values()]}"
    wait_until_all_are_back(hosts)


def test_a_file_put_at_one_host_is_read_at_another_byte_for_byte(hosts: dict[str, Host], original: Path, tmp_path: Path) -> None:
    result = hosts["a"].shoal("put", str(original), "/films/original.bin", "--json")
    assert result.code == 0, result.err
    assert result.json()["size"] == FILE_BYTES
    assert result.json()["copies"] == 3
    assert_reads_back(hosts["c"], "/films/original.bin", original, tmp_path / "copy.bin")


@pytest.mark.parametrize("victim", NAMES)
def test_with_any_one_host_killed_all_is_read_and_written(hosts: dict[str, Host], original: Path, tmp_path: Path, victim: str) -> None:
    other = next(host for name, host in reversed(hosts.items()) if name != victim)
    hosts[victim].kill()
    assert_reads_back(other, "/films/original.bin", original, tmp_path / "copy.bin")
    note = tmp_path / "note.txt"
    note.write_text(f"written while {victim} is away\n" * 1000)
    result = other.shoal("put", str(note), f"/notes/{victim}.txt", "--json")
    assert result.code == 0, result.err
    assert result.json()["copies"] == 2
    hosts[victim].start()
    wait_until_all_are_back(hosts)
    assert_reads_back(hosts[victim], f"/notes/{victim}.txt", note, tmp_path / "note.copy")


def test_a_host_that_is_cut_off_refuses_writes_and_the_others_go_on(lan: LanHosts, hosts: dict[str, Host], tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("one side only\n" * 1000)
    lan.unplug(hosts["c"])
    refused = hosts["c"].shoal("put", str(note), "/notes/minority.txt")
    assert refused.code in (4, 6), refused.err
    accepted = hosts["a"].shoal("put", str(note), "/notes/majority.txt", "--json")
    assert accepted.code == 0, accepted.err
    lan.plug_in(hosts["c"])
    wait_until_all_are_back(hosts)
    assert_reads_back(hosts["c"], "/notes/majority.txt", note, tmp_path / "note.copy")


def test_what_was_acknowledged_is_there_after_all_hosts_lost_power_at_once(hosts: dict[str, Host], tmp_path: Path) -> None:
    last = tmp_path / "last.bin"
    last.write_bytes(os.urandom(8 * BLOCK_BYTES))
    result = hosts["b"].shoal("put", str(last), "/last/last.bin", "--json")
    acknowledged_at = time.monotonic()
    assert result.code == 0, result.err
    for host in hosts.values():
        host.kill()
    assert time.monotonic() - acknowledged_at < 1.0, "this machine was too slow for the test to mean anything"
    for host in hosts.values():
        host.start()
    wait_until_all_are_back(hosts)
    for host in hosts.values():
        assert_reads_back(host, "/last/last.bin", last, tmp_path / "last.copy")


def test_a_node_stops_cleanly_when_asked(hosts: dict[str, Host]) -> None:
    assert hosts["c"].stop() == 0
    assert not (hosts["c"].home / "node.json").exists()
    hosts["c"].start()
    wait_until_all_are_back(hosts)
