"""The rows of the table of bad input that a user meets at the command line: an exit code, one line that names the part, nothing changed."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attackers import Attacker

from peer import Client, ShoalError
from peer.real.keys import parse_key
from protocol.errors import ErrorCode
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.messages import ChunkGet, ChunkPut, Credit, Failure, LinkKind

MIB = 1 << 20
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}


def command(home: Path, *arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-m", "peer.cli", "--home", str(home), *arguments]


def shoal(home: Path, *arguments: str | bytes, **pipes: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command(home, *arguments), capture_output=True, timeout=60, env=ENVIRONMENT, check=False, **pipes)


def line_of(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return the one line that was said."""
    (line,) = done.stderr.decode().splitlines()
    return line


@contextmanager
def node(home: Path, *arguments: str) -> Iterator[str]:
    """Run a node of a cluster of its own; yield its address."""
    process = subprocess.Popen(
        command(home, "up", "--listen", "127.0.0.1:0", "--no-discovery", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    try:
        ready = re.match(rb"ready \S+ \S+ (\S+) ", process.stdout.readline())
        assert ready is not None, process.stderr
        yield ready[1].decode()
        assert process.poll() is None, "the node has ended"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def up_is_refused(home: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Return how `shoal up` ended by itself."""
    return subprocess.run(
        command(home, "up", "--listen", "127.0.0.1:0", "--no-discovery", *arguments),
        capture_output=True,
        timeout=30,
        env={**ENVIRONMENT, **environment},
        check=False,
    )


# -- paths -------------------------------------------------------------------

VERBS = ["ls PATH", "cat PATH", "stat PATH", "rm PATH", "mkdir PATH", "get PATH x", "put - PATH", "mv /a PATH", "cp PATH /a"]


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a key whose node does not run: who asks the cluster anything ends with another code."""
    home = tmp_path_factory.mktemp("nobody")
    assert shoal(home, "key", "new").returncode == 0
    return home


PATHS = [(b"/a/../b", "'..'"), (b"/" + b"n" * 256, "n" * 20), (b"/" + b"/".join([b"d" * 200] * 21), "4096"), (b"/caf\xe9", "UTF-8")]


@pytest.mark.parametrize(("verb", "path", "part"), [(VERBS[0], *each) for each in PATHS] + [(verb, *PATHS[0]) for verb in VERBS[1:]])
def test_a_path_that_is_none_is_refused_before_anything_is_sent(nobody: Path, verb: str, path: bytes, part: str) -> None:
    done = shoal(nobody, "--node", "127.0.0.1:1", *(path if word == "PATH" else word for word in verb.split()))
    assert done.returncode == 2, done
    assert part in line_of(done)


# -- chunks ------------------------------------------------------------------


def test_a_chunk_that_is_not_what_its_id_says_is_neither_stored_nor_served(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with node(home) as address:
        key = parse_key((home / "cluster.key").read_text())
        chunk_id = chunk_id_of(ChunkTag.DATA, b"the right bytes")

        async def lie() -> list[ErrorCode]:
            liar = await Attacker.connect(key, address, "liar")
            await liar.say_hello(LinkKind.BULK)
            liar.ask(ChunkPut(5000, chunk_id, forward=True), 1, b"the wrong bytes")
            liar.ask(ChunkPut(5000, chunk_id, forward=False), 2, b"")
            codes = []
            while len(codes) < 2:
                message = await liar.hear()
                codes += [message.code] if isinstance(message, Failure) else []
            liar.ask(ChunkGet(5000, chunk_id), 3)
            while isinstance(message := await liar.hear(), Credit):
                pass  # for the payloads of the two before
            assert isinstance(message, Failure)
            liar.leave()
            return [*codes, message.code]

        assert set(asyncio.run(lie())) == {ErrorCode.WRONG_HASH, ErrorCode.INVALID, ErrorCode.NOT_FOUND}
        members = json.loads(shoal(home, "status", "--json").stdout)["members"]
        assert [member["chunks"] for member in members] == [0]


# -- files -------------------------------------------------------------------


async def test_a_file_that_changes_while_it_is_put_leaves_the_old_version(tmp_path: Path) -> None:
    home, local = tmp_path / "home", tmp_path / "local"
    old, new = random.Random(1).randbytes(100_000), random.Random(2).randbytes(24 * MIB)
    with node(home) as address:
        async with Client.connect(address, home=home) as client:
            await client.put_bytes("/f", old)
            local.write_bytes(new)

            def change(count: int) -> None:
                with local.open("r+b") as file:
                    file.write(os.urandom(10))

            with pytest.raises(ShoalError, match="changed"):
                await client.put_file(local, "/f", on_progress=change)
            assert await client.get_bytes("/f") == old


def test_a_put_that_is_killed_half_way_shows_nothing_and_the_same_again_is_whole(tmp_path: Path) -> None:
    home, local = tmp_path / "home", tmp_path / "local"
    data = random.Random(3).randbytes(40 * MIB)
    local.write_bytes(data)
    with node(home) as address:
        reading, writing = os.pipe()
        putting = subprocess.Popen(command(home, "--node", address, "put", "-", "/d/f"), stdin=reading, env=ENVIRONMENT)
        os.close(reading)
        os.write(writing, data[:1000])
        with os.fdopen(writing, "wb") as half:
            half.write(data[1000 : 24 * MIB])
            half.flush()
            members = [{"chunks": 0}]
            while not members[0]["chunks"]:  # until some of it has arrived
                members = json.loads(shoal(home, "status", "--json").stdout)["members"]
            putting.kill()
            putting.wait()
        assert shoal(home, "stat", "/d/f").returncode == 3
        assert shoal(home, "cat", "/d/f").returncode == 3
        again = shoal(home, "put", str(local), "/d/f", "--json")
        assert again.returncode == 0, again
        assert shoal(home, "cat", "/d/f").stdout == data


# -- data folders ------------------------------------------------------------


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A home whose node has run and stopped."""
    home = tmp_path / "home"
    with node(home):
        assert shoal(home, "put", "-", "/f", input=b"kept").returncode == 0
    return home


def test_a_data_folder_of_a_newer_format_is_refused_and_left_alone(used: Path) -> None:
    (used / "data" / "format").write_text("2\n")
    done = up_is_refused(used)
    assert done.returncode == 2
    assert "newer shoal" in line_of(done)
    (used / "data" / "format").write_text("1\n")
    with node(used):
        assert shoal(used, "cat", "/f").stdout == b"kept"


def test_a_data_folder_of_another_cluster_is_refused_and_left_alone(used: Path, tmp_path: Path) -> None:
    own = (used / "cluster.key").read_text()
    assert shoal(tmp_path / "other", "key", "new").returncode == 0
    other = (tmp_path / "other" / "cluster.key").read_text()
    for refused in (
        up_is_refused(used, "--key-file", str(tmp_path / "other" / "cluster.key")),
        up_is_refused(used, SHOAL_KEY=other.strip()),
    ):
        assert refused.returncode == 2, refused
        assert "another key" in line_of(refused)
    (used / "cluster.key").write_text(other)
    replaced = up_is_refused(used)
    assert replaced.returncode == 2, replaced
    assert "put that key back" in line_of(replaced)
    (used / "cluster.key").unlink()
    without = up_is_refused(used)
    assert without.returncode == 2, without
    assert not (used / "cluster.key").exists()
    (used / "cluster.key").write_text(own)
    with node(used):
        assert shoal(used, "cat", "/f").stdout == b"kept"
