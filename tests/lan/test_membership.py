"""Who belongs to a cluster, whatever happens to its machines: switched on at once, restarted, split, killed for good, put to sleep.

The tests of this module run in order. a to e are one cluster; v, w and x are another one, whose founder is dead before the first is
tried, because it takes half a minute until a newcomer is let in without it; a desk and a laptop are a third.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hosts import BLOCK_BYTES, Command, Host, Lan, assert_reads_back, random_file, sha256, wait_until, wait_until_kept_in

FIVE = "(ready .* members=5|members .*->5)"
FORM_SECONDS = 15.0
REBOOT_SECONDS = 15.0
SETTLE_SECONDS = 2.0
"""After a machine is back: whoever would bring chunks somewhere has begun to by then."""
HEAL_SECONDS = 20.0
ADMIT_SECONDS = 45.0
"""A cluster that holds data lets a newcomer in after half a minute."""
TAKE_BACK_SECONDS = 15.0
"""Until a newcomer that fell silent is held dead, and what moves to it is taken back: reads wait for so long."""
FILM_BYTES = 8 * BLOCK_BYTES
LID_SECONDS = (1.5, 2.0, 1.0, 1.75, 0.6, 1.25, 2.25, 0.3, 3.0, 5.0)
"""So long after the laptop's node was started its lid is closed, in each round at another step: before anybody has heard of it, while
it waits to be let in, while the data moves, when it is a member."""


@pytest.fixture(scope="module")
def five(lan: Lan) -> list[Host]:
    """Five machines with one key, switched on together; none is told to found."""
    key = lan.new_key()
    hosts = [lan.add_host(name) for name in "abcde"]
    for host in hosts:
        host.start("--key-file", str(key))
    return hosts


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = random_file(tmp_path_factory.mktemp("files") / "film", FILM_BYTES)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def bereaved(lan: Lan, film: Path) -> list[Host]:
    """Three machines, of which the founder was killed a moment ago, and a fourth that has just been switched on."""
    options = ("--key-file", str(lan.new_key()), "--evict-after", "10")
    hosts = [lan.add_host(name) for name in "vwxy"]
    founder, *others, newcomer = hosts
    founder.start(*options, "--found")
    for host in others:
        host.start(*options)
    lan.wait_until_all_see(3, founder, *others)
    assert founder.shoal("put", str(film), "/film").code == 0
    founder.kill()
    newcomer.start(*options)
    return hosts


def settled(host: Host) -> dict[str, object]:
    """Return a status in which no chunk lacks a copy, once there is one."""
    status: dict[str, object] = {}

    def is_settled() -> bool:
        status.update(host.status())
        health = status["health"]
        assert isinstance(health, dict)
        return not (health["owed_chunks"] or health["missing_chunks"] or health["moving_partitions"] or health["unsynced_partitions"])

    wait_until(is_settled, HEAL_SECONDS, lambda: f"{host.name} does not settle: {status}")
    return status


def names(host: Host) -> list[str]:
    """Return who belongs to the cluster of a host or is about to."""
    members = host.status()["members"]
    assert isinstance(members, list)
    return [member["name"] for member in members]


def assert_all_read(hosts: Sequence[Host], remote: str, expected: dict[str, str]) -> None:
    """Make sure that each of `hosts` reads files of these names and hashes in a folder, and no others."""
    gets = {host: host.begin("get", "-r", remote, str(host.home / "copy")) for host in hosts}
    for host, get in gets.items():
        result = get.result()
        assert result.code == 0, f"{host.name}: {result.err}"
        assert {path.name: sha256(path) for path in (host.home / "copy").iterdir()} == expected, f"as {host.name} reads it"
        shutil.rmtree(host.home / "copy")


def test_five_machines_that_are_switched_on_together_are_one_cluster_within_fifteen_seconds(
    lan: Lan, five: list[Host], record_property: Callable[[str, object], None]
) -> None:
    for host in five:
        host.wait_for(FIVE, FORM_SECONDS)
    seconds = max(host.seconds_until(FIVE) for host in five)
    record_property("seconds", seconds)
    assert seconds < FORM_SECONDS
    lan.wait_until_all_see(5, *five)
    clusters = {str(host.status()["cluster"]) for host in five}
    assert len(clusters) == 1, clusters
    assert sum(host.has_said("ready .* members=1$") for host in five) == 1, [host.said for host in five]


@pytest.mark.usefixtures("bereaved")
def test_a_machine_that_is_rebooted_costs_no_copy(lan: Lan, five: list[Host], film: Path, turn: int) -> None:
    victim, other = five[turn % 5], five[(turn + 1) % 5]
    assert other.shoal("put", str(film), "/films/film").code == 0
    layout = settled(other)["layout"]
    before = {host.name: host.chunks() for host in five}
    assert before[victim.name]
    lan.power_off(victim)
    time.sleep(REBOOT_SECONDS)
    assert_reads_back(other, "/films/film", film)
    assert {host.name: host.chunks() for host in five} == before, "chunks moved while the machine was away"
    lan.power_on(victim)
    lan.wait_until_all_see(5, *five)
    time.sleep(SETTLE_SECONDS)
    assert {host.name: host.chunks() for host in five} == before, "chunks moved when the machine had come back"
    assert settled(victim)["layout"] == layout
    assert_reads_back(victim, "/films/film", film)


def test_of_a_network_that_is_split_the_majority_goes_on_and_the_minority_says_why_it_does_not(
    lan: Lan, five: list[Host], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    majority, minority = five[:3], five[3:]
    notes = {host.name: random_file(tmp_path / host.name, 2 * BLOCK_BYTES) for host in five}
    hashes = {name: sha256(note) for name, note in notes.items()}
    acked = {"d, before": hashes["d"]}
    assert minority[0].shoal("put", str(notes["d"]), "/split/d, before").code == 0
    layout = settled(five[0])["layout"]
    lan.split(majority, minority)
    refused: list[Command] = []
    for moment in ("at first", "later"):  # before they have noticed, and when they have
        began_at = time.monotonic()
        puts = {host: host.begin("put", str(notes[host.name]), f"/split/{host.name}, {moment}") for host in five}
        refused += [puts[host] for host in minority]
        for host in majority:
            result = puts[host].result()
            assert result.code == 0, f"{host.name}, {moment}: {result.err}"
            acked[f"{host.name}, {moment}"] = hashes[host.name]
        record_property(f"{moment}, written", time.monotonic() - began_at)
    began_at = time.monotonic()
    assert_all_read(majority, "/split", acked)
    record_property("read", time.monotonic() - began_at)
    for put in refused:
        result = put.result()
        assert result.code == 4, result
        assert "this machine reaches 2 of 5 members; if the network is split this is its smaller side" in result.err
    lan.join()
    began_at = time.monotonic()
    lan.wait_until_all_see(5, *five)
    record_property("healed", time.monotonic() - began_at)
    assert_all_read(five, "/split", acked)
    assert settled(five[0])["layout"] == layout
    wait_until_kept_in(3, minority[0], notes["d"], "/split/d, again")


def test_a_cluster_whose_founder_was_killed_for_good_admits_another_machine_and_drops_the_dead_one(
    lan: Lan, bereaved: list[Host], film: Path, record_property: Callable[[str, object], None]
) -> None:
    founder, *others, newcomer = bereaved
    newcomer.wait_for("ready .* members=3", ADMIT_SECONDS)
    seconds = newcomer.seconds_until("ready ")
    record_property("admitted", seconds)
    assert seconds < ADMIT_SECONDS
    lan.wait_until_all_see(3, *others, newcomer)
    assert names(newcomer) == ["w", "x", "y"]
    settled(newcomer)
    wait_until(lambda: newcomer.chunks() == founder.chunks(), HEAL_SECONDS, "the newcomer does not get what the founder held")
    assert_reads_back(newcomer, "/film", film)
    result = newcomer.shoal("put", str(film), "/again", "--json")
    assert result.code == 0, result.err
    assert result.json()["copies"] == 3


def test_a_laptop_that_closes_its_lid_while_it_joins_leaves_the_first_machine_readable_and_then_writable(
    lan: Lan, film: Path, turn: int, record_property: Callable[[str, object], None]
) -> None:
    key = lan.new_key()
    desk, laptop = lan.add_host("desk"), lan.add_host("laptop")
    desk.start("--key-file", str(key), "--found")
    desk.wait_for("ready ", FORM_SECONDS)
    assert desk.shoal("put", str(film), "/film").code == 0
    laptop.start("--key-file", str(key))
    time.sleep(LID_SECONDS[turn % len(LID_SECONDS)])
    lan.close_lid(laptop)
    began_at = time.monotonic()
    get, put = desk.begin("get", "/film", str(desk.home / "film")), desk.begin("put", str(film), "/put")
    read, written = get.result(), put.result()
    seconds = time.monotonic() - began_at
    has_joined = desk.has_said("members 1->2")
    record_property("has joined" if has_joined else "joins", seconds)
    assert read.code == 0, f"after {seconds:.1f} s: {read.err}; {desk.said}"
    assert sha256(desk.home / "film") == sha256(film)
    if has_joined:  # two are a majority of two: one alone is read, and not written
        assert written.code == 4, written
        assert "this machine reaches 1 of 2 members" in written.err
    else:
        assert written.code == 0, f"after {seconds:.1f} s: {written.err}; {desk.said}"
        assert seconds < TAKE_BACK_SECONDS
        wait_until(lambda: names(desk) == ["desk"], TAKE_BACK_SECONDS, lambda: f"the laptop is not given up: {desk.status()}")
        assert desk.shoal("put", str(film), "/put").code == 0
    lan.open_lid(laptop)
    began_at = time.monotonic()
    lan.wait_until_all_see(2, desk, laptop)
    record_property("together", time.monotonic() - began_at)
    assert_reads_back(laptop, "/film", film)
    assert desk.shoal("put", str(film), "/put").code == 0
