"""The contract of `peer.seams.Disk`, on both sides of the seam."""

import asyncio

import pytest
from contract_sides import SIDES, disk_bench, on_every_side, run_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.errors import DiskError
from peer.seams import Disk


@on_every_side(disk_bench)
async def test_what_was_written_is_read_whole_and_in_parts(disk: Disk) -> None:
    await disk.write("file", [b"one", bytearray(b"two"), memoryview(b"three"), b""])
    assert await disk.read("file") == b"onetwothree"
    assert await disk.read("file", 3) == b"twothree"
    assert await disk.read("file", 3, 3) == b"two"
    assert await disk.read("file", 0, 0) == b""


@on_every_side(disk_bench)
async def test_a_read_ends_at_the_end_of_the_file(disk: Disk) -> None:
    await disk.write("file", [b"12345"])
    assert await disk.read("file", 3, 100) == b"45"
    assert await disk.read("file", 5) == b""
    assert await disk.read("file", 100, 100) == b""


@on_every_side(disk_bench)
async def test_a_file_of_no_parts_is_empty(disk: Disk) -> None:
    await disk.write("file", [])
    assert await disk.read("file") == b""
    assert await disk.names("") == ["file"]


@on_every_side(disk_bench, seeds=1)
async def test_a_file_of_many_and_large_parts_is_written_in_order(disk: Disk) -> None:
    parts = [bytes([index % 256]) * 3 for index in range(3000)] + [b"x" * 3_000_000, b"end"]
    await disk.write("file", parts)
    assert await disk.read("file") == b"".join(parts)


@on_every_side(disk_bench)
async def test_a_write_replaces_a_longer_file(disk: Disk) -> None:
    await disk.write("file", [b"a long content"])
    await disk.write("file", [b"short"])
    assert await disk.read("file") == b"short"


@on_every_side(disk_bench)
async def test_a_buffer_may_be_changed_once_the_write_has_returned(disk: Disk) -> None:
    buffer = bytearray(b"before")
    await disk.write("file", [buffer])
    buffer[:] = b"after!"
    assert await disk.read("file") == b"before"


@on_every_side(disk_bench)
async def test_what_is_not_there_is_missing_and_harmless(disk: Disk) -> None:
    for attempt in (
        lambda: disk.read("none"),
        lambda: disk.read("no/folder"),
        lambda: disk.sync("none"),
        lambda: disk.rename("none", "other"),
        lambda: disk.sync_directories(["none"]),
        lambda: disk.write("no/folder", [b"x"]),
    ):
        with pytest.raises(DiskError) as caught:
            await attempt()
        assert caught.value.missing
        assert not caught.value.full
    await disk.write("file", [b"still works"])
    await disk.sync("file")
    await disk.sync_directories([""])


@on_every_side(disk_bench)
async def test_a_rename_replaces_its_target(disk: Disk) -> None:
    await disk.make_directory("folder")
    await disk.write("new", [b"new"])
    await disk.write("folder/file", [b"old"])
    await disk.rename("new", "folder/file")
    assert await disk.read("folder/file") == b"new"
    assert await disk.names("") == ["folder"]
    with pytest.raises(DiskError):
        await disk.read("new")


@on_every_side(disk_bench)
async def test_a_placed_file_is_there_under_its_name_alone(disk: Disk) -> None:
    await disk.make_directory("folder")
    await disk.write("folder/file", [b"old"])
    await disk.place("new", "folder/file", [b"head", b"", memoryview(b"body")])
    assert await disk.read("folder/file") == b"headbody"
    assert await disk.names("") == ["folder"]


@on_every_side(disk_bench)
async def test_a_place_in_a_folder_that_is_not_there_is_harmless(disk: Disk) -> None:
    with pytest.raises(DiskError) as caught:
        await disk.place("new", "none/file", [b"x"])
    assert caught.value.missing


@on_every_side(disk_bench)
async def test_a_reader_beside_a_rename_sees_the_old_file_or_the_new_one(disk: Disk) -> None:
    await disk.write("file", [b"old"])
    await disk.write("new", [b"new"])
    reads = [asyncio.ensure_future(disk.read("file")) for _ in range(8)]
    await disk.rename("new", "file")
    reads += [asyncio.ensure_future(disk.read("file")) for _ in range(8)]
    contents = await asyncio.gather(*reads)
    assert set(contents) <= {b"old", b"new"}
    assert contents[8:] == [b"new"] * 8


@on_every_side(disk_bench)
async def test_a_rename_into_a_folder_that_is_not_there_leaves_the_file(disk: Disk) -> None:
    await disk.write("file", [b"x"])
    with pytest.raises(DiskError) as caught:
        await disk.rename("file", "none/file")
    assert caught.value.missing
    assert await disk.read("file") == b"x"


@on_every_side(disk_bench)
async def test_a_removed_file_is_gone_and_removing_it_again_is_no_error(disk: Disk) -> None:
    await disk.write("file", [b"x"])
    await disk.remove("file")
    assert await disk.names("") == []
    await disk.remove("file")
    await disk.remove("no/folder")


@on_every_side(disk_bench)
async def test_folders_are_made_with_those_above_them_and_again_without_error(disk: Disk) -> None:
    await disk.make_directory("a/b/c")
    await disk.make_directory("a/b/c")
    await disk.make_directory("a")
    await disk.write("a/b/c/file", [b"deep"])
    await disk.write("a/file", [b"shallow"])
    assert await disk.read("a/b/c/file") == b"deep"
    assert await disk.names("a/b/c") == ["file"]
    await disk.sync_directories(["a/b"])


@on_every_side(disk_bench)
async def test_names_are_sorted_and_those_of_the_folder_alone(disk: Disk) -> None:
    await disk.make_directory("folder/sub")
    for name in ("b", "a", "c", "folder/d", "folder/sub/e", "folder/Z"):
        await disk.write(name, [b""])
    assert await disk.names("") == ["a", "b", "c", "folder"]
    assert await disk.names("folder") == ["Z", "d", "sub"]


@on_every_side(disk_bench)
async def test_a_folder_that_is_not_there_has_no_names(disk: Disk) -> None:
    await disk.write("file", [b""])
    assert await disk.names("none") == []
    assert await disk.names("none/below") == []
    assert await disk.names("file") == []


@on_every_side(disk_bench)
async def test_syncing_changes_nothing_that_is_read(disk: Disk) -> None:
    await disk.make_directory("folder")
    await disk.write("folder/file", [b"x" * 100])
    await disk.sync("folder/file")
    await disk.sync_directories(["folder"])
    await disk.sync_directories([""])
    assert await disk.read("folder/file") == b"x" * 100


@on_every_side(disk_bench)
async def test_free_space_is_part_of_the_whole(disk: Disk) -> None:
    total, free = await disk.space()
    assert 0 < free <= total


@on_every_side(disk_bench)
async def test_many_operations_at_once_do_not_mix(disk: Disk) -> None:
    async def one(index: int) -> None:
        await disk.write(f"tmp{index}", [b"%d" % index * 50])
        await disk.sync(f"tmp{index}")
        await disk.rename(f"tmp{index}", f"file{index}")

    await asyncio.gather(*(one(index) for index in range(30)))
    assert await disk.names("") == sorted(f"file{index}" for index in range(30))
    for index in range(30):
        assert await disk.read(f"file{index}") == b"%d" % index * 50


names = st.sampled_from(["a", "b", "folder/a", "folder/b"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), names, st.binary(max_size=20)),
        st.tuples(st.just("rename"), names, names),
        st.tuples(st.just("remove"), names),
        st.tuples(st.just("sync"), names),
    ),
    max_size=15,
)


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_steps_leave_what_a_table_of_files_says(side, tmp_path_factory, steps):
    async def story() -> None:
        async with disk_bench(side, tmp_path_factory.mktemp("disk"), 0) as disk:
            await disk.make_directory("folder")
            files: dict[str, bytes] = {}
            for action, name, *more in steps:
                if action == "write":
                    await disk.write(name, more)
                    files[name] = more[0]
                elif action == "remove":
                    await disk.remove(name)
                    files.pop(name, None)
                elif name not in files:
                    with pytest.raises(DiskError):
                        await (disk.rename(name, *more) if action == "rename" else disk.sync(name))
                elif action == "rename":
                    await disk.rename(name, *more)
                    files[more[0]] = files.pop(name)
                else:
                    await disk.sync(name)
            assert await disk.names("folder") == sorted(name[7:] for name in files if "/" in name)
            for name, content in files.items():
                assert await disk.read(name) == content

    run_on(side, story)
