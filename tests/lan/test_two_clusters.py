"""Two clusters on one network: with different keys they do not notice each other, with one key they meet and refuse each other.

The tests of this module run in order on the same hosts: a and b are one cluster, c another of the same key, founded while the
network was split; x and y have another key.
"""

from pathlib import Path

import pytest
from hosts import MEET_SECONDS, Host, Lan, assert_reads_back, random_file, wait_until


@pytest.fixture(scope="module")
def hosts(lan: Lan) -> dict[str, Host]:
    key, other_key = lan.new_key(), lan.new_key()
    for name in "abcxy":
        lan.add_host(name)
    a, b, c, x, y = lan.hosts.values()
    lan.split([a, b, x, y], [c])
    for host, its_key, founds in ((a, key, True), (b, key, False), (c, key, True), (x, other_key, True), (y, other_key, False)):
        host.start("--key-file", str(its_key), *(["--found"] if founds else []))
    lan.wait_until_all_see(2, a, b, x, y)
    lan.wait_until_all_see(1, c)
    return lan.hosts


def cluster(host: Host) -> tuple[list[str], list[str]]:
    """Return who is in the cluster of a host, and what its nodes want people to know."""
    status = host.status()
    return [member["name"] for member in status["members"]], status["health"]["notices"]


def test_clusters_with_different_keys_do_not_notice_each_other(hosts: dict[str, Host], tmp_path: Path) -> None:
    a, x, y = hosts["a"], hosts["x"], hosts["y"]
    assert cluster(a) == (["a", "b"], [])
    assert cluster(x) == (["x", "y"], [])
    note = random_file(tmp_path / "note", 100_000)
    assert x.shoal("put", str(note), "/note").code == 0
    assert_reads_back(y, "/note", note)
    assert a.shoal("stat", "/note").code == 3
    assert not any(host.log() for host in hosts.values())


def test_clusters_of_one_key_that_meet_say_so_in_one_line_and_each_keeps_what_it_has(
    lan: Lan, hosts: dict[str, Host], tmp_path: Path
) -> None:
    a, b, c, x, y = hosts.values()
    here, there = random_file(tmp_path / "here", 100_000), random_file(tmp_path / "there", 100_000)
    assert a.shoal("put", str(here), "/same/name").code == 0
    assert c.shoal("put", str(there), "/same/name").code == 0
    lan.join()
    for host in (a, b, c):
        wait_until(host.log, MEET_SECONDS, f"{host.name} does not notice the other cluster")
    assert a.shoal("put", str(here), "/after").code == 0
    assert c.shoal("stat", "/after").code == 3
    for host, members in ((a, ["a", "b"]), (c, ["c"])):
        found, notices = cluster(host)
        assert found == members
        assert len(notices) == 1
        assert "has the same key but belongs to another cluster" in notices[0]
    for host in (a, b, c):
        assert len(host.log().splitlines()) == 1, host.log()
        assert "has the same key but belongs to another cluster" in host.log()
    assert_reads_back(b, "/same/name", here)
    assert_reads_back(c, "/same/name", there)
    assert not x.log() + y.log()


def test_a_restart_merges_nothing_either(lan: Lan, hosts: dict[str, Host], tmp_path: Path) -> None:
    a, b, c = hosts["a"], hosts["b"], hosts["c"]
    for host in (a, b, c):
        assert host.stop() == 0
    for host in (a, b, c):
        host.start()
    lan.wait_until_all_see(2, a, b)
    lan.wait_until_all_see(1, c)
    wait_until(lambda: len(c.log().splitlines()) == 2, MEET_SECONDS, "c does not notice the other cluster after its restart")
    assert cluster(a)[0] == ["a", "b"]
    assert cluster(c)[0] == ["c"]
    assert c.shoal("stat", "/after").code == 3
