"""What a progress line says is true."""

from contextlib import suppress
from io import StringIO

import pytest
from rich.console import Console

from peer.cli.progress import RATE_SECONDS, Transfer

MIB = 1024 * 1024


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def line_of(transfer: Transfer, width: int = 100) -> str:
    text = StringIO()
    Console(file=text, width=width).print(transfer)
    return text.getvalue().strip()


def test_bytes_that_were_there_are_done_and_make_no_rate(clock: Clock) -> None:
    transfer = Transfer("get", clock)
    with transfer.only_file(100 * MIB) as progress:
        progress.found(90 * MIB)
        clock.seconds += 1
        assert transfer.done_bytes == 90 * MIB
        assert transfer.rate.bytes_per_second == 0
        assert transfer.seconds_left is None
        progress(5 * MIB)
        assert transfer.rate.bytes_per_second == 5 * MIB
        assert transfer.seconds_left == 1


def test_a_transfer_that_stalls_becomes_slow(clock: Clock) -> None:
    transfer = Transfer("get", clock)
    with transfer.only_file(100 * MIB) as progress:
        for _ in range(10):
            clock.seconds += 1
            progress(MIB)
        assert transfer.rate.bytes_per_second == MIB
        clock.seconds += RATE_SECONDS / 2
        assert 0 < transfer.rate.bytes_per_second < MIB
        clock.seconds += RATE_SECONDS
        assert transfer.rate.bytes_per_second == 0


def test_a_file_that_failed_is_neither_done_nor_to_come(clock: Clock) -> None:
    transfer = Transfer("put", clock)
    transfer.expect(10)
    transfer.expect(20)
    with suppress(ValueError), transfer.file(10) as progress:
        progress(7)
        raise ValueError
    assert (transfer.done_files, transfer.done_bytes, transfer.expected_files, transfer.expected_bytes) == (0, 0, 1, 20)
    with transfer.file(20) as progress:
        progress(20)
    assert (transfer.done_files, transfer.done_bytes, transfer.expected_files, transfer.expected_bytes) == (1, 20, 1, 20)


def test_a_file_that_is_fetched_twice_because_it_was_replaced_counts_once(clock: Clock) -> None:
    transfer = Transfer("get", clock)
    with transfer.only_file(10) as progress:
        progress(8)
        progress(8)
        assert transfer.done_bytes == 10


def test_nothing_is_said_of_an_end_that_is_not_known(clock: Clock) -> None:
    transfer = Transfer("get", clock)
    for _ in range(3):
        transfer.expect(MIB)
    with transfer.file(MIB) as progress:
        clock.seconds += 2
        progress(MIB)
    assert line_of(transfer) == "get  1/3+ files  1.0 MiB  512.0 KiB/s"
    transfer.all_is_expected = True
    line = line_of(transfer)
    assert line.startswith("get  ━")
    assert line.endswith("1/3 files  1.0 MiB of 3.0 MiB  512.0 KiB/s  0:00:04 left")


def test_a_pipe_has_no_end_that_is_known(clock: Clock) -> None:
    transfer = Transfer("put", clock)
    with transfer.only_file(None) as progress:
        clock.seconds += 1
        progress(MIB)
        assert line_of(transfer) == "put  1.0 MiB  1.0 MiB/s"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_line_is_one_line_in_a_narrow_terminal(clock: Clock, width: int) -> None:
    transfer = Transfer("/" + "long/" * 50, clock)
    for _ in range(10_000):
        transfer.expect(MIB)
    transfer.all_is_expected = True
    assert line_of(transfer, width).count("\n") == 0
