"""Transfers during which something happens to a machine or its cable: three machines with nodes, and one that only runs commands.

The tests of this module run in order on the same hosts; each leaves all three nodes up.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hosts import BLOCK_BYTES, Command, Host, Lan, assert_reads_back, random_file, sha256, wait_until, wait_until_kept_in

PUT_BYTES = 128 * BLOCK_BYTES
READ_BYTES = 1024 * BLOCK_BYTES
CHUNK_BYTES = 4 * BLOCK_BYTES
DISTINCT_CHUNKS = 16
BEGIN_SECONDS = 20.0
HEAL_SECONDS = 40.0
PAUSE_SECONDS = 5.0


@pytest.fixture(scope="module")
def nodes(lan: Lan) -> tuple[Host, Host, Host]:
    key = lan.new_key()
    for name in "abc":
        lan.add_host(name).start("--key-file", str(key), *(["--found"] if name == "a" else []))
    a, b, c = lan.hosts.values()
    lan.wait_until_all_see(3, a, b, c)
    return a, b, c


@pytest.fixture(scope="module")
def client(lan: Lan, nodes: tuple[Host, Host, Host]) -> Host:
    """A host without a node of its own."""
    host = lan.add_host("d")
    host.take_key(nodes[0].home / "cluster.key")
    return host


def in_the_middle(command: Command, done_bytes: Callable[[], int], begin: int, end: int) -> None:
    """Wait until `command` has done between `begin` and `end`, bytes that can be looked at."""
    wait_until(lambda: done_bytes() >= begin or not command.is_running, BEGIN_SECONDS, "the transfer does not begin")
    assert command.is_running, command.result()
    assert done_bytes() < end, "the transfer was too fast for the test to mean anything"


def test_a_put_goes_on_when_a_host_is_cut_off_and_its_copies_are_made_when_it_is_back(
    lan: Lan, nodes: tuple[Host, Host, Host], client: Host, tmp_path: Path
) -> None:
    c = nodes[2]
    original = random_file(tmp_path / "film", PUT_BYTES)
    before = c.stored_bytes()
    put = client.begin("put", str(original), "/films/cut", "--json")
    in_the_middle(put, lambda: c.stored_bytes() - before, PUT_BYTES // 8, PUT_BYTES * 3 // 4)
    lan.cut(c)
    result = put.result()
    assert result.code == 0, result.err
    assert result.json()["copies"] == 2
    assert_reads_back(client, "/films/cut", original)
    assert c.stored_bytes() - before < PUT_BYTES
    lan.mend(c)
    lan.wait_until_all_see(3, *nodes)
    wait_until(lambda: c.stored_bytes() - before >= PUT_BYTES, HEAL_SECONDS, "the copies that c had missed are not made")
    assert_reads_back(c, "/films/cut", original)


def test_a_node_that_stands_still_for_five_seconds_fails_no_transfer_and_stays_a_member(
    lan: Lan, nodes: tuple[Host, Host, Host], client: Host, tmp_path: Path
) -> None:
    b = nodes[1]
    original = random_file(tmp_path / "film", PUT_BYTES)
    before = b.stored_bytes()
    put = client.begin("put", str(original), "/films/pause", "--json")
    in_the_middle(put, lambda: b.stored_bytes() - before, PUT_BYTES // 8, PUT_BYTES * 3 // 4)
    b.pause(PAUSE_SECONDS)
    result = put.result()
    assert result.code == 0, result.err
    lan.wait_until_all_see(3, *nodes)
    assert_reads_back(b, "/films/pause", original)
    b.freeze()
    assert_reads_back(client, "/films/pause", original)
    b.thaw()
    lan.wait_until_all_see(3, *nodes)
    assert not any(host.has_said("members 3->") for host in nodes)
    wait_until_kept_in(3, client, random_file(tmp_path / "small", BLOCK_BYTES), "/small")


def test_a_client_that_reads_a_gibibyte_while_its_node_is_killed_gets_every_byte_and_no_error(
    lan: Lan, nodes: tuple[Host, Host, Host], client: Host, tmp_path: Path
) -> None:
    a, b, _ = nodes
    original = tmp_path / "large"
    with original.open("wb") as file:  # few distinct chunks, so that three copies take little disk; each is read anew all the same
        chunks = [os.urandom(CHUNK_BYTES) for _ in range(DISTINCT_CHUNKS)]
        for _ in range(READ_BYTES // CHUNK_BYTES):
            file.write(random.choice(chunks))
    result = a.shoal("put", str(original), "/films/large", "--json")
    assert result.code == 0, result.err
    copy = tmp_path / "copy"

    def arrived() -> int:
        return sum(partial.stat().st_size for partial in tmp_path.glob(".copy.*.part"))

    get = client.begin("--node", f"{b.address}:7400", "get", "/films/large", str(copy))
    in_the_middle(get, arrived, READ_BYTES // 4, READ_BYTES * 3 // 4)
    b.kill()
    result = get.result()
    assert (result.code, result.err) == (0, "")
    assert copy.stat().st_size == READ_BYTES
    assert sha256(copy) == sha256(original)
    b.start()
    lan.wait_until_all_see(3, *nodes)
