"""Sizes, ranges and modes as people read and type them."""

from datetime import datetime

import pytest

from peer.cli.text import count_text, mode_text, moment_of, printable, range_of, size_of, size_text, time_text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (64 << 20, "64.0 MiB"), (1 << 60, "1024.0 PiB")]
)
def test_a_size_is_shown_in_its_largest_unit(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("text", "count"), [("4096", 4096), ("500G", 500 << 30), ("1.5TiB", 3 << 39), ("2 mb", 2 << 20), ("7B", 7)]
)
def test_a_size_is_read_in_powers_of_1024(text, count):
    assert size_of(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1.2.3", "1 G G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError):
        size_of(text)


@pytest.mark.parametrize("milliseconds", [253_402_300_800_000 + 86_400_000, 2**64 - 1])
def test_a_time_that_no_calendar_has_is_shown_and_spoils_no_list(milliseconds):
    assert time_text(milliseconds) == "after the year 9999"


@pytest.mark.parametrize("digits", [400, 5000])
def test_numbers_without_end_are_refused_in_our_words(digits):
    many = "9" * digits
    for read, text in ((size_of, many + "P"), (range_of, many + "-"), (range_of, "0-" + many)):
        with pytest.raises(ValueError, match=r"is not a (size|range): write it like"):
            read(text)
    with pytest.raises(ValueError, match="is no time: write it like"):
        moment_of(many + "d", datetime(2026, 3, 1))


@pytest.mark.parametrize(("text", "span"), [("0-99", (0, 100)), ("5-5", (5, 6)), ("7-", (7, None))])
def test_a_range_includes_both_ends(text, span):
    assert range_of(text) == span


def test_counts_and_modes():
    assert (count_text(1, "file"), count_text(2, "file"), count_text(0, "copy", "copies")) == ("1 file", "2 files", "0 copies")
    assert (mode_text(0o755, "dir"), mode_text(0o640, "file")) == ("drwxr-xr-x", "-rw-r-----")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain ü 日本 name", "plain ü 日本 name"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred\x9b", "\\x1b[31mred\\x9b"),
        ("right\u202eleft", "right\\u202eleft"),
        ("bad\udcff", "bad\\xff"),
        ("lone\ud800", "lone\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_escaped(name, text):
    assert printable(name) == text
