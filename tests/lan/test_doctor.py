"""`shoal doctor` on real hosts: whatever keeps them apart is one failed rung, which says what to do.

a and b are a cluster. On the other hosts nothing runs, and on most of them something is wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import Command, Host, Lan

RUNGS = ["interfaces", "multicast out", "multicast in", "port", "TLS", "key", "versions", "cluster", "clock"]


@dataclass
class Diagnosis:
    """What a doctor has said; each rung is its state, what was found, and what to do."""

    code: int
    rungs: dict[str, tuple[str, str, str]]

    @property
    def failed(self) -> list[str]:
        return [name for name, (state, _, _) in self.rungs.items() if state == "failed"]


def diagnosis(command: Command) -> Diagnosis:
    """Wait for what `shoal doctor --json` says."""
    result = command.result()
    assert not result.err
    rungs = {rung["rung"]: (rung["state"], rung["found"], rung["advice"]) for rung in result.json()["rungs"]}
    assert list(rungs) == RUNGS
    return Diagnosis(result.code, rungs)


@pytest.fixture(scope="module")
def cluster(lan: Lan) -> Path:
    """Two nodes, and a third machine with their key; returns the key."""
    key = lan.new_key()
    for name in "abc":
        lan.add_host(name)
    lan.hosts["a"].start("--key-file", str(key), "--found")
    lan.hosts["b"].start("--key-file", str(key))
    lan.hosts["c"].take_key(key)
    lan.wait_until_all_see(2, lan.hosts["a"], lan.hosts["b"])
    return key


@pytest.fixture(scope="module")
def said(lan: Lan, cluster: Path) -> dict[str, Diagnosis]:
    """What doctors say on hosts of which each has a fault of its own, all at once: to listen is what takes the time."""
    b = lan.hosts["b"]
    for name in ("wrong", "keyless", "mute", "deaf", "barred", "unplugged"):
        lan.add_host(name)
    neighbour = Host("neighbour", b.namespace, b.home.parent / "neighbour", b.addresses)  # another home on the machine of b
    neighbour.home.mkdir()
    for host in (*(lan.hosts[name] for name in ("mute", "deaf", "barred", "unplugged")), neighbour):
        host.take_key(cluster)
    lan.hosts["wrong"].take_key(lan.new_key())
    lan.hosts["mute"].set_firewall("output udp dport 5353 drop")
    lan.hosts["deaf"].set_firewall("input udp dport 5353 drop")
    lan.cut(lan.hosts["unplugged"])
    b.set_firewall(f"input ip saddr {lan.hosts['barred'].address} tcp dport 7400 drop")
    commands = {name: host.begin("doctor", "--json") for name, host in {**lan.hosts, "neighbour": neighbour}.items()}
    commands["neighbour, at 7400"] = neighbour.begin("doctor", "--json", "--listen", "0.0.0.0:7400")
    return {name: diagnosis(command) for name, command in commands.items()}


@pytest.fixture
def silence(lan: Lan) -> Iterator[None]:
    """No multicast passes."""
    lan.block_multicast()
    yield
    lan.allow_multicast()


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_where_all_is_well_every_rung_is_ok_with_a_node_and_without(said: dict[str, Diagnosis], name: str) -> None:
    rungs = said[name].rungs
    assert {state for state, _, _ in rungs.values()} == {"ok"}, rungs
    assert said[name].code == 0
    others = 2 if name == "c" else 1
    assert f"{others} of this key, 0 of another" in rungs["multicast in"][1]
    for member in ("a (10.77.0.1:7400)", "b (10.77.0.2:7400)"):
        assert member in rungs["cluster"][1]


@pytest.mark.parametrize(
    ("name", "rung", "found", "advice"),
    [
        ("unplugged", "interfaces", "(not connected)", "plug in the cable"),
        ("mute", "multicast out", "eth0: Operation not permitted", "out of this machine's firewall"),
        ("deaf", "multicast in", "does not hear itself on eth0", "into this machine through its firewall"),
        ("barred", "port", "10.77.0.2:7400: no answer within 2.0 s", "let its TCP port into that machine through its firewall"),
        ("neighbour, at 7400", "port", "0.0.0.0:7400: already in use", "shoal up --listen HOST:PORT"),
        ("wrong", "key", "10.77.0.1:7400, 10.77.0.2:7400 has another", "copy cluster.key"),
        ("keyless", "key", "there is no key in", "copy cluster.key"),
    ],
)
def test_one_fault_is_one_failed_rung_that_says_what_to_do(
    said: dict[str, Diagnosis], name: str, rung: str, found: str, advice: str
) -> None:
    assert said[name].failed == [rung]
    assert found in said[name].rungs[rung][1]
    assert advice in said[name].rungs[rung][2]
    assert said[name].code == (8 if rung == "key" else 1)


def test_a_port_that_is_taken_is_a_warning_where_the_next_one_will_do(said: dict[str, Diagnosis]) -> None:
    assert said["neighbour"].code == 0
    state, found, _ = said["neighbour"].rungs["port"]
    assert state == "warning"
    assert "port 7400 is taken, it would listen at 7401" in found


@pytest.mark.usefixtures("said")
def test_doctors_without_the_key_do_not_knock_at_the_doors_of_a_cluster(lan: Lan) -> None:
    assert not lan.hosts["a"].log() + lan.hosts["b"].log()


@pytest.mark.usefixtures("cluster", "silence")
def test_where_multicast_is_kept_back_an_address_is_to_be_named(lan: Lan) -> None:
    a, b, c = (lan.hosts[name] for name in "abc")
    alone = c.begin("doctor", "--json")
    told = c.begin("doctor", "--json", "--join", f"{a.address}:7400")
    linked = b.begin("doctor", "--json")
    for command, is_alone in ((alone, True), (told, False), (linked, False)):
        found = diagnosis(command)
        assert (found.code, found.failed) == (1, ["multicast in"])
        assert "shoal up --join" in found.rungs["multicast in"][2]
        assert found.rungs["key"][0] == ("skipped" if is_alone else "ok")
        assert ("a (10.77.0.1:7400) can be reached" in found.rungs["multicast in"][1]) is not is_alone
