"""Three machines on one network, real processes, real multicast: what the first page of the README promises.

The tests of this module run in order on the same three hosts; each leaves all three up.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import BLOCK_BYTES, Host, Lan, assert_reads_back, random_file

FILE_BYTES = 128 * 1024 * 1024
MEET_SECONDS = 10.0
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def hosts(lan: Lan) -> dict[str, Host]:
    key = lan.new_key()
    for name in NAMES:
        lan.add_host(name)
    for name in NAMES:
        lan.hosts[name].start("--key-file", str(key), *(["--found"] if name == "a" else []))
    return lan.hosts


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = random_file(tmp_path_factory.mktemp("files") / "original.bin", FILE_BYTES)
    yield path
    path.unlink()


def test_three_hosts_are_one_cluster_within_ten_seconds_and_no_address_was_typed(lan: Lan, hosts: dict[str, Host]) -> None:
    give_up_at = time.monotonic() + MEET_SECONDS
    while (seen := hosts["b"].alive()) < len(NAMES):
        assert time.monotonic() < give_up_at, f"b sees {seen} members; {[host.log() for host in hosts.values()]}"
    lan.wait_until_all_see(3, *hosts.values())


def test_a_file_put_at_one_host_is_read_at_another_byte_for_byte(hosts: dict[str, Host], original: Path) -> None:
    result = hosts["a"].shoal("put", str(original), "/films/original.bin", "--json")
    assert result.code == 0, result.err
    assert result.json()["size"] == FILE_BYTES
    assert result.json()["copies"] == 3
    assert_reads_back(hosts["c"], "/films/original.bin", original)


@pytest.mark.parametrize("victim", NAMES)
def test_with_any_one_host_killed_all_is_read_and_written(
    lan: Lan, hosts: dict[str, Host], original: Path, tmp_path: Path, victim: str
) -> None:
    other = next(host for name, host in reversed(hosts.items()) if name != victim)
    hosts[victim].kill()
    assert_reads_back(other, "/films/original.bin", original)
    note = tmp_path / "note.txt"
    note.write_text(f"written while {victim} is away\n" * 1000)
    result = other.shoal("put", str(note), f"/notes/{victim}.txt", "--json")
    assert result.code == 0, result.err
    assert result.json()["copies"] == 2
    hosts[victim].start()
    lan.wait_until_all_see(3, *hosts.values())
    assert_reads_back(hosts[victim], f"/notes/{victim}.txt", note)


def test_a_host_that_is_cut_off_refuses_writes_and_the_others_go_on(lan: Lan, hosts: dict[str, Host], tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("one side only\n" * 1000)
    lan.cut(hosts["c"])
    refused = hosts["c"].shoal("put", str(note), "/notes/minority.txt")
    assert refused.code in (4, 6), refused.err
    accepted = hosts["a"].shoal("put", str(note), "/notes/majority.txt", "--json")
    assert accepted.code == 0, accepted.err
    lan.mend(hosts["c"])
    lan.wait_until_all_see(3, *hosts.values())
    assert_reads_back(hosts["c"], "/notes/majority.txt", note)


def test_what_was_acknowledged_is_there_after_all_hosts_lost_power_at_once(lan: Lan, hosts: dict[str, Host], tmp_path: Path) -> None:
    last = random_file(tmp_path / "last.bin", 8 * BLOCK_BYTES)
    result = hosts["b"].shoal("put", str(last), "/last/last.bin", "--json")
    acknowledged_at = time.monotonic()
    assert result.code == 0, result.err
    for host in hosts.values():
        host.kill()
    assert time.monotonic() - acknowledged_at < 1.0, "this machine was too slow for the test to mean anything"
    for host in hosts.values():
        host.start()
    lan.wait_until_all_see(3, *hosts.values())
    for host in hosts.values():
        assert_reads_back(host, "/last/last.bin", last)


def test_a_node_stops_cleanly_when_asked(lan: Lan, hosts: dict[str, Host]) -> None:
    assert hosts["c"].stop() == 0
    assert not (hosts["c"].home / "node.json").exists()
    hosts["c"].start()
    lan.wait_until_all_see(3, *hosts.values())
