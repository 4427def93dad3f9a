"""What the operating system says of files becomes one of two errors: harmless, or fatal for good."""

import asyncio
import errno
import io
import os
import threading
from pathlib import Path

import pytest

from peer.errors import DiskError, StorageFailed
from peer.real.disk import RealDisk


@pytest.fixture
def disk(tmp_path):
    made = RealDisk(tmp_path)
    yield made
    made.close()


def failing(monkeypatch, name, number):
    """Let a call of the operating system fail until it is undone."""

    def fail(*arguments, **named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"peer.real.disk.os.{name}", fail)


async def refuses_everything(disk):
    for attempt in (
        lambda: disk.read("file"),
        lambda: disk.write("other", [b""]),
        lambda: disk.sync("file"),
        lambda: disk.place("tmp", "other", [b""]),
        lambda: disk.rename("file", "other"),
        lambda: disk.sync_directories([""]),
        lambda: disk.remove("file"),
        lambda: disk.make_directory("folder"),
        lambda: disk.names(""),
        disk.space,
    ):
        with pytest.raises(StorageFailed):
            await attempt()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINVAL])
async def test_a_failed_sync_of_a_file_is_fatal_for_good_whatever_the_reason(disk, monkeypatch, number):
    await disk.write("file", [b"x"])
    with monkeypatch.context() as broken:
        failing(broken, "fdatasync", number)
        with pytest.raises(StorageFailed) as caught:
            await disk.sync("file")
    assert "\n" not in str(caught.value)
    assert "file" in str(caught.value)
    await refuses_everything(disk)


async def test_a_file_whose_sync_fails_is_not_placed_and_that_is_fatal(disk, monkeypatch):
    await disk.write("file", [b"old"])
    with monkeypatch.context() as broken:
        failing(broken, "fdatasync", errno.EIO)
        with pytest.raises(StorageFailed):
            await disk.place("tmp", "file", [b"new"])
    assert (disk._root / "file").read_bytes() == b"old"
    await refuses_everything(disk)


async def test_a_failed_sync_of_a_folder_is_fatal_for_good(disk, monkeypatch):
    with monkeypatch.context() as broken:
        failing(broken, "fsync", errno.EIO)
        with pytest.raises(StorageFailed):
            await disk.sync_directories([""])
    await refuses_everything(disk)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
async def test_an_input_or_output_error_of_a_write_is_fatal_for_good(disk, monkeypatch, number):
    await disk.write("file", [b"x"])
    with monkeypatch.context() as broken:
        failing(broken, "writev", number)
        with pytest.raises(StorageFailed):
            await disk.write("file", [b"y"])
    await refuses_everything(disk)


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
async def test_a_file_that_lies_on_a_bad_place_is_damaged_and_the_disk_goes_on(disk, monkeypatch, number):
    await disk.write("bad", [b"x"])
    await disk.write("good", [b"y"])

    class Bad(io.BytesIO):
        def read(self, *_):
            raise OSError(number, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", lambda *_, **__: Bad())
        with pytest.raises(DiskError) as caught:
            await disk.read("bad")
    assert caught.value.damaged
    assert not caught.value.missing
    assert await disk.read("good") == b"y"


async def test_a_failed_sync_is_fatal_even_if_nobody_waits_for_it_any_more(disk, monkeypatch):
    await disk.write("file", [b"x"])
    begun, go_on = threading.Event(), threading.Event()

    def fail(descriptor):
        begun.set()
        go_on.wait(5)
        raise OSError(errno.EIO, "failed")

    with monkeypatch.context() as broken:
        broken.setattr("peer.real.disk.os.fdatasync", fail)
        task = asyncio.ensure_future(disk.sync("file"))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go_on.set()
        while True:
            try:
                await disk.names("")
            except StorageFailed:
                break
    await refuses_everything(disk)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_no_space_is_harmless_and_says_so(disk, monkeypatch, number):
    with monkeypatch.context() as broken:
        failing(broken, "writev", number)
        with pytest.raises(DiskError) as caught:
            await disk.write("file", [b"x"])
    assert caught.value.full
    assert not caught.value.missing
    assert caught.value.path == "file"
    await disk.write("file", [b"x"])
    await disk.sync("file")


async def test_other_errors_are_harmless_and_neither_full_nor_missing(disk, monkeypatch):
    with monkeypatch.context() as broken:
        failing(broken, "open", errno.EMFILE)
        for attempt in (lambda: disk.write("file", [b"x"]), lambda: disk.sync("file"), lambda: disk.sync_directories([""])):
            with pytest.raises(DiskError) as caught:
                await attempt()
            assert not caught.value.full
            assert not caught.value.missing
    assert await disk.names("") == []


async def test_a_write_that_the_kernel_takes_in_pieces_is_whole(disk, monkeypatch):
    writev = os.writev
    monkeypatch.setattr("peer.real.disk.os.writev", lambda descriptor, parts: writev(descriptor, [parts[0][:7]]))
    await disk.write("file", [b"0123456789" * 3, b"", memoryview(b"abc"), bytearray(b"0123456")])
    assert await disk.read("file") == b"0123456789" * 3 + b"abc0123456"


async def test_files_are_for_their_owner_alone(disk, tmp_path):
    await disk.write("file", [b"x"])
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0
