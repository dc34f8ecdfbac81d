"""`make bench` fails if a ratio falls below its floor, or is not reported any more."""

import re
from pathlib import Path

from benchmarks.floors import Floor, compare, load_floors, proposed
from benchmarks.report import Figure

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"array": {"sum": Floor(0.8, "a run"), "view": Floor(0.3, "a run")}}


def figures(**ratios: float) -> dict[str, dict[str, Figure]]:
    return {"array": {name: Figure(1.0, "s", "a peer", ratio) for name, ratio in ratios.items()}}


def test_a_ratio_at_its_floor_holds_and_one_below_it_does_not() -> None:
    assert [each.holds for each in compare(FLOORS, figures(sum=0.8, view=0.31))] == [True, True]
    assert [each.holds for each in compare(FLOORS, figures(sum=0.79, view=0.31))] == [False, True]


def test_a_figure_that_is_not_reported_does_not_hold() -> None:
    assert [each.holds for each in compare(FLOORS, figures(sum=0.9))] == [True, False]
    assert [each.holds for each in compare(FLOORS, {})] == [False, False]


def test_proposed_floors_are_15_percent_below_the_run_and_name_it() -> None:
    found = proposed(FLOORS, figures(sum=1.0), "the run of today")
    assert found == {"array": {"sum": Floor(0.85, "the run of today"), "view": Floor(0.3, "a run")}}


def test_make_bench_runs_each_benchmark_that_has_floors() -> None:
    [bench] = re.findall(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    [names] = re.findall(r"for b in ([a-z_ ]+);", bench)
    floors = load_floors()
    assert set(names.split()) == set(floors)
    assert "benchmarks/floors.py" in bench
    for benchmark, of_benchmark in floors.items():
        assert (ROOT / "benchmarks" / f"{benchmark}.py").is_file()
        assert of_benchmark, benchmark
        assert all(floor.floor > 0 and floor.set_from for floor in of_benchmark.values())
