"""Values as people read and type them: sizes, times, rates, ranges."""

import re
from datetime import datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
# So many digits as mean something: a number without end is more than Python likes to read.
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([KMGTP]?)(i?B?)", re.IGNORECASE)
_AGE = re.compile(r"(\d{1,9})\s*([smhdw])")
_AGE_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_RANGE = re.compile(r"(\d{1,20})-(\d{0,20})")


def size_text(count: float) -> str:
    """Return a number of bytes in the largest unit that leaves at least 1."""
    for unit in _UNITS:
        if abs(count) < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def size_of(text: str) -> int:
    """Return the number of bytes that a text like `500G`, `1.5 TiB` or `4096` means; units are powers of 1024.

    Raises: ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write it like 500G or 1.5TiB")
    power = " KMGTP".index(match[2].upper() or " ")
    return int(float(match[1]) * 1024**power)


def range_of(text: str) -> tuple[int, int | None]:
    """Return (begin, end) for `A-B`, both inclusive as in HTTP, or `A-`; end is exclusive or None for the end of the file.

    Raises: ValueError.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a range: write it like 0-99 or 100-")
    begin = int(match[1])
    if not match[2]:
        return begin, None
    if int(match[2]) < begin:
        raise ValueError(f"{text!r} ends before it begins")
    return begin, int(match[2]) + 1


def moment_of(text: str, now: datetime) -> int:
    """Return the time since 1970 in milliseconds that `2d` (so long ago) or `2026-01-31 14:00` (local time) means.

    Raises: ValueError.
    """
    age = _AGE.fullmatch(text.strip())
    if age is not None:
        return int((now.timestamp() - int(age[1]) * _AGE_SECONDS[age[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time: write it like 2d (s, m, h, d, w ago) or 2026-01-31 14:00") from None


def time_text(milliseconds: int) -> str:
    """Return a time since 1970 as local date and time; a clock, or a file's time, may be wrong by any number of years."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "after the year 9999"


def printable(text: str) -> str:
    """Return `text` with what does not print escaped: a name may hold anything, also what a terminal obeys or a line's end."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte of a local name that is not UTF-8 (PEP 383)
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def count_text(count: int, noun: str, plural: str = "") -> str:
    """Return `1 file`, `2 files`, or with the plural that is given."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def mode_text(mode: int, kind: str) -> str:
    """Return permissions as `ls` shows them."""
    bits = "".join(letter if mode >> (8 - index) & 1 else "-" for index, letter in enumerate("rwxrwxrwx"))
    return ("d" if kind == "dir" else "-") + bits
