"""Networks as they are: multicast that does not pass, addresses that change, several cards in one machine, a default route or none.

The tests of this module run in order. a, b and c are one cluster of the network `lan`; the others are machines of two networks.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import BLOCK_BYTES, MEET_SECONDS, Host, Lan, assert_reads_back, random_file, wait_until, wait_until_kept_in


@pytest.fixture(scope="module")
def key(lan: Lan) -> Path:
    return lan.new_key()


@pytest.fixture(scope="module")
def trio(lan: Lan) -> tuple[Host, Host, Host]:
    return lan.add_host("a"), lan.add_host("b"), lan.add_host("c")


@pytest.fixture(scope="module")
def note(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_file(tmp_path_factory.mktemp("files") / "note", 2 * BLOCK_BYTES)


@pytest.fixture
def silence(lan: Lan) -> Iterator[None]:
    """No multicast passes."""
    lan.block_multicast()
    yield
    lan.allow_multicast()


def addresses(host: Host) -> dict[str, str]:
    """Return where each member listens, as `shoal status` says on a host."""
    return {member["name"]: member["address"] for member in host.status()["members"]}


@pytest.mark.usefixtures("silence")
def test_where_multicast_is_blocked_one_address_to_join_suffices(lan: Lan, key: Path, trio: tuple[Host, Host, Host], note: Path) -> None:
    a, b, c = trio
    a.start("--key-file", str(key), "--found")
    b.start("--key-file", str(key))
    wait_until(lambda: "no other node of this key is heard" in b.log(), MEET_SECONDS, "b does not say that it waits")
    assert b.stop() == 0
    for host in (b, c):
        host.start("--key-file", str(key), "--join", f"{a.address}:7400")
    lan.wait_until_all_see(3, a, b, c)
    result = c.shoal("put", str(note), "/note", "--json")
    assert result.json()["copies"] == 3, result
    assert_reads_back(b, "/note", note)


@pytest.mark.usefixtures("silence")
def test_where_multicast_is_blocked_remembered_peers_suffice_after_a_restart(lan: Lan, trio: tuple[Host, Host, Host], note: Path) -> None:
    for host in trio:
        host.kill()
    for host in trio:
        host.start()
    lan.wait_until_all_see(3, *trio)
    assert_reads_back(trio[1], "/note", note)


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("index", [2, 0], ids=["a member", "the founder"])
def test_a_host_whose_address_changes_is_found_at_the_new_one(lan: Lan, trio: tuple[Host, Host, Host], note: Path, index: int) -> None:
    mover, other = trio[index], trio[1]
    before = len(mover.log())
    mover.move_to(f"10.77.0.{100 + index}")
    wait_until(
        lambda: addresses(other).get(mover.name) == f"{mover.address}:7400", MEET_SECONDS, lambda: f"{addresses(other)} {mover.log()}"
    )
    lan.wait_until_all_see(3, *trio)
    for host in (mover, other):  # each way round: the mover reaches the others, and they reach it, for chunks as well
        wait_until_kept_in(3, host, note, f"/moved/{mover.name}-{host.name}")
    assert_reads_back(mover, f"/moved/{mover.name}-{other.name}", note)
    assert other.shoal("--node", f"{mover.address}:7400", "ls", "/moved").code == 0
    assert not any(host.has_said("members 3->") for host in trio)
    assert mover.log()[before:].splitlines() == [f"this node is reached at {mover.address}:7400 from now on"]


def test_two_networks_are_one_cluster_where_two_machines_are_on_both(lan: Lan, note: Path) -> None:
    """Nobody passes anything on: each machine reaches a majority itself. All have a default route, into nowhere."""
    key = lan.new_key()
    lan.add_network("lab")
    bridges = [lan.add_host("m", "lan", "lab"), lan.add_host("n", "lan", "lab")]
    upstairs, downstairs = lan.add_host("upstairs"), lan.add_host("downstairs", "lab")
    for group in (bridges, [upstairs, downstairs]):  # a newcomer syncs from those who are there: it has to reach them
        for host in group:
            host.set_default_route()
            host.start("--key-file", str(key), *(["--found"] if host.name == "m" else []))
        lan.wait_until_all_see(2 if group is bridges else 4, *group)
    for here, there in ((upstairs, downstairs), (downstairs, upstairs)):
        result = here.shoal("put", str(note), f"/from/{here.name}", "--json")
        assert result.code == 0, result.err
        assert result.json()["copies"] == 3
        assert_reads_back(there, f"/from/{here.name}", note)
    assert not any(host.log() for host in (*bridges, upstairs, downstairs))
