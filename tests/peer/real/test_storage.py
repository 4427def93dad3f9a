"""One process, one format, and databases whose damage is told from the machine's own trouble."""

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.errors import ShoalError, StorageFailed, StoreCorrupt, WrongUsage
from peer.real.sqlite_kv import SqliteKV
from peer.real.storage import FORMAT_VERSION, RealStorage
from peer.seams import Put

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys
from pathlib import Path
from peer.real.storage import RealStorage
storage = RealStorage(Path(sys.argv[1]))
print("holding", flush=True)
sys.stdin.read()
"""


async def test_a_second_process_on_the_folder_is_refused_in_one_line(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(WrongUsage) as caught:
            RealStorage(tmp_path)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "in use" in str(caught.value)
        holder.kill()
        holder.wait()
    await RealStorage(tmp_path).close()


async def test_a_folder_is_free_once_it_was_closed(tmp_path):
    storage = RealStorage(tmp_path)
    with pytest.raises(WrongUsage):
        RealStorage(tmp_path)
    await storage.close()
    await RealStorage(tmp_path).close()


async def test_a_folder_is_created_for_its_owner_alone(tmp_path):
    await RealStorage(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ShoalError) as caught:
        RealStorage(tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"2\n", b"", b"\xff\xfe", b"one"])
async def test_a_newer_format_is_refused_in_one_line_and_left_alone(tmp_path, text):
    (tmp_path / "format").write_bytes(text)
    for _ in range(2):  # the lock was given back
        with pytest.raises(WrongUsage) as caught:
            RealStorage(tmp_path)
        assert "\n" not in str(caught.value)
        assert "format" in str(caught.value)
    assert (tmp_path / "format").read_bytes() == text


async def test_the_format_is_written_whole_and_durable(tmp_path, monkeypatch):
    steps = []
    fsync = os.fsync

    def note(descriptor):
        steps.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, (tmp_path / "format").exists()))
        fsync(descriptor)

    monkeypatch.setattr("peer.real.storage.os.fsync", note)
    await RealStorage(tmp_path).close()
    assert (tmp_path / "format").read_text() == f"{FORMAT_VERSION}\n"
    assert steps == [("format.new", False), (tmp_path.name, True)]


async def test_a_format_that_cannot_be_written_is_one_line_and_frees_the_folder(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("peer.real.storage.os.fsync", fail)
        with pytest.raises(ShoalError):
            RealStorage(tmp_path)
    await RealStorage(tmp_path).close()


# -- databases ---------------------------------------------------------------


async def filled(path, count=300):
    kv = SqliteKV(path)
    await kv.open()
    await kv.commit([Put(b"key %03d" % number, bytes(100)) for number in range(count)])
    await kv.close()


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_what_is_no_database_is_corrupt(tmp_path, content):
    path = tmp_path / "test.db"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt) as caught:
        await SqliteKV(path).open()
    assert caught.value.name == "test"


async def test_a_database_with_a_page_of_garbage_is_corrupt(tmp_path):
    path = tmp_path / "test.db"
    await filled(path)
    raw = bytearray(path.read_bytes())
    for page in range(1, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 100] = b"\xa5" * 100
    path.write_bytes(raw)
    with pytest.raises(StoreCorrupt):
        await SqliteKV(path).open()


async def test_a_truncated_database_is_corrupt(tmp_path):
    path = tmp_path / "test.db"
    await filled(path)
    path.write_bytes(path.read_bytes()[: 3 * 4096])
    with pytest.raises(StoreCorrupt):
        await SqliteKV(path).open()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 200), value=st.integers(0, 255))
def test_a_damaged_header_is_corrupt_or_harmless_but_never_an_empty_database(tmp_path_factory, position, value):
    path = tmp_path_factory.mktemp("database") / "test.db"

    async def story():
        await filled(path, 20)
        raw = bytearray(path.read_bytes())
        raw[position] = value
        path.write_bytes(raw)
        kv = SqliteKV(path)
        try:
            await kv.open()
        except (StoreCorrupt, StorageFailed):
            return
        try:
            assert await kv.count(b"", None) == 20
        except StorageFailed:
            pass
        finally:
            await kv.close()

    asyncio.run(story())


async def test_a_database_that_cannot_be_opened_now_is_not_corrupt(tmp_path):
    with pytest.raises(StorageFailed):
        await SqliteKV(tmp_path / "no folder" / "test.db").open()


async def test_a_corrupt_database_is_closed_before_its_error_is_seen(tmp_path):
    path = tmp_path / "test.db"
    path.write_bytes(b"no database" * 1000)
    kv = SqliteKV(path)
    with pytest.raises(StoreCorrupt):
        await kv.open()
    with pytest.raises(sqlite3.ProgrammingError):
        kv._connection.execute("SELECT 1")


async def test_a_failed_commit_is_fatal_for_good_and_leaves_nothing_of_itself(tmp_path):
    path = tmp_path / "test.db"
    kv = SqliteKV(path)
    await kv.open()
    await kv.commit([Put(b"kept", b"")])
    pages = await kv._submit("read", lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await kv._submit("read", lambda connection: connection.execute(f"PRAGMA max_page_count={pages}").fetchall())
    attempts = [asyncio.ensure_future(kv.commit([Put(b"a", b""), Put(b"large", bytes(100_000))]))]
    attempts += [asyncio.ensure_future(kv.get(b"a")) for _ in range(3)]
    await asyncio.sleep(0)
    attempts += [asyncio.ensure_future(kv.get(b"a")) for _ in range(3)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert isinstance(results[0], StorageFailed)
    assert all(result is None or isinstance(result, StorageFailed) for result in results[1:])
    for attempt in (lambda: kv.get(b"kept"), lambda: kv.commit([]), lambda: kv.range(b"", None, 1), lambda: kv.count(b"", None)):
        with pytest.raises(StorageFailed):
            await attempt()
    await kv.close()
    again = SqliteKV(path)
    await again.open()
    assert await again.range(b"", None, 10) == [(b"kept", b"")]
    await again.close()


async def test_a_database_set_aside_is_kept_with_its_log(tmp_path):
    storage = RealStorage(tmp_path)
    for number in (1, 2):
        kv = await storage.open_kv("test")
        await kv.commit([Put(b"key", b"")])
        await kv.close()
        await storage.set_aside("test")
        assert (tmp_path / f"test.db.lost-{number}").exists()
    assert not (tmp_path / "test.db").exists()
    await storage.close()
