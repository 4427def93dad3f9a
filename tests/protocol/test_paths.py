"""What is a remote path, and where its row lies."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import InvalidPath
from protocol.paths import ROOT, ancestors, folder_partition, is_canonical, join, name_of, normalise, parent_of, row_partition
from protocol.testing.strategies import names, paths


@given(paths)
def test_a_canonical_path_stays_what_it_is(path):
    assert normalise(path) == path
    assert is_canonical(path)


@given(st.text(max_size=40))
def test_any_text_becomes_canonical_or_is_refused(text):
    try:
        path = normalise("/" + text)
    except InvalidPath:
        return
    assert normalise(path) == path
    assert is_canonical(path)
    assert unicodedata.is_normalized("NFC", path)


@given(paths, names)
def test_join_is_undone_by_parent_and_name(folder, name):
    for parent in (folder, ROOT):
        path = join(parent, name)
        assert (parent_of(path), name_of(path)) == (parent, name)
        assert is_canonical(path)


@given(paths)
def test_ancestors_are_the_folders_above_outermost_first(path):
    above = ancestors(path)
    assert [parent_of(folder) for folder in above] == [ROOT, *above][: len(above)]
    assert parent_of(path) == (above[-1] if above else ROOT)


@given(paths, names, names)
def test_all_rows_of_a_folder_lie_in_one_partition(folder, one, other):
    partition = folder_partition(folder)
    assert row_partition(join(folder, one)) == row_partition(join(folder, other)) == partition
    assert 0 <= partition < limits.PARTITIONS


@pytest.mark.parametrize(
    ("path", "result"),
    [("/", "/"), ("//a///b/", "/a/b"), ("/e\u0301", "/\u00e9"), ("/a b", "/a b"), ("/...", "/..."), ("/.hidden", "/.hidden")],
)
def test_spellings_of_one_path_are_one(path, result):
    assert normalise(path) == result


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("a/b", "a/b"),
        ("", ""),
        ("/a/../b", ".."),
        ("/./a", "."),
        ("/a\0b", "a\0b"),
        ("/\ud800", None),
        ("/" + "n" * (limits.COMPONENT_BYTES_MAX + 1), None),
        ("/" + "\u00e9" * (limits.COMPONENT_BYTES_MAX // 2 + 1), None),
        ("/n" * (limits.PATH_BYTES_MAX // 2 + 1), None),
    ],
)
def test_what_is_no_path_is_refused_and_the_part_is_named(path, part):
    with pytest.raises(InvalidPath) as caught:
        normalise(path)
    assert part is None or caught.value.part == part
    assert not is_canonical(path)


def test_the_limits_of_a_path_hold_on_both_sides():
    component = "n" * limits.COMPONENT_BYTES_MAX
    assert is_canonical("/" + component)
    longest = "/" + "/".join([component] * 16)
    assert len(longest) == limits.PATH_BYTES_MAX
    assert is_canonical(longest)
    assert not is_canonical(longest[:-1] + "/n")
