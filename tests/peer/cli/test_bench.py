"""What `shoal bench` computes and shows; the measuring itself is run by `make bench`."""

import json

import pytest
from rich.console import Console

from peer.cli.bench import (
    Figure,
    Report,
    bar,
    get_ceiling,
    put_ceiling,
    report_document,
    report_view,
    small_get_ceiling,
    small_put_ceiling,
)
from peer.cli.bench_costs import Costs, mean

COSTS = Costs(2, 0.88e-9, 0.14e-9, 0.48e-9, 0.1e-9, 10e-6, 40e-6, 2.5e9, 4000.0, 2e9)
FIGURES = (Figure("put, large file", "MB/s", 150.0, 430.0), Figure("get, 4 KiB files", "/s", 2000.0, 60_000.0, 30.0, 80.0))


def test_the_ceiling_of_a_put_is_what_its_hops_hashes_and_writes_cost_all_cores() -> None:
    assert put_ceiling(COSTS, 3) == pytest.approx(2 / (3 * 0.88e-9 + 4 * 0.14e-9 + 3 * 0.48e-9))
    assert get_ceiling(COSTS) == pytest.approx(2 / (0.88e-9 + 2 * 0.14e-9 + 0.1e-9))


def test_a_slow_disk_is_a_ceiling_too() -> None:
    slow = Costs(2, 0.88e-9, 0.14e-9, 0.48e-9, 0.1e-9, 10e-6, 40e-6, 90e6, 4000.0, 2e9)
    assert put_ceiling(slow, 3) == pytest.approx(30e6)


def test_the_ceilings_of_small_files_count_messages_and_rows() -> None:
    assert small_put_ceiling(COSTS, 5) == pytest.approx(2 / (8 * 10e-6 + 5 * 40e-6))
    assert small_get_ceiling(COSTS, 5) == pytest.approx(2 / (3 * 10e-6))


def test_the_costs_before_and_after_are_averaged() -> None:
    other = Costs(2, 1.12e-9, 0.16e-9, 0.52e-9, 0.1e-9, 20e-6, 60e-6, 1.5e9, 2000.0, 1e9)
    found = mean([COSTS, other])
    wanted = Costs(2, 1e-9, 0.15e-9, 0.5e-9, 0.1e-9, 15e-6, 50e-6, 2e9, 3000.0, 1.5e9)
    assert [getattr(found, name) for name in Costs.__slots__] == pytest.approx([getattr(wanted, name) for name in Costs.__slots__])


def test_a_run_says_everything_as_json() -> None:
    document = json.loads(json.dumps(report_document(Report(COSTS, 5, 3, 5, 512 << 20, 4000, FIGURES))))
    assert document["cluster"] | {"nodes": 5, "copies": 3, "row_replicas": 5, "chunk_bytes": 1 << 20} == document["cluster"]
    assert document["figures"][0] == {
        "what": "put, large file", "unit": "MB/s", "value": 150.0, "ceiling": 430.0, "ratio": 0.349, "p50_ms": None, "p99_ms": None,
    }  # fmt: skip
    assert document["figures"][1]["p99_ms"] == 80.0


def test_a_run_is_shown_with_a_bar_for_each_share() -> None:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(report_view(Report(COSTS, 5, 3, 5, 512 << 20, 4000, FIGURES)))
    shown = capture.get()
    assert "35 %" in shown
    assert bar(0.349) in shown
    assert "R=3" in shown
    assert "512.0 MiB" in shown


def test_a_bar_stays_within_its_cells() -> None:
    assert [bar(share).count("█") for share in (-1.0, 0.0, 0.5, 1.0, 7.0)] == [0, 0, 20, 40, 40]


@pytest.mark.parametrize("arguments", [["--size", "many"], ["--size", "1M"], ["--nodes", "1"], ["--files", "3"]])
def test_a_senseless_run_is_refused_before_anything_starts(shoal, arguments) -> None:
    result = shoal("bench", *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
