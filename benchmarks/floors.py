"""Compares the ratios of benchmark runs with the floors in `floors.json`; `make bench` runs it last.

`floors.json` maps a benchmark to its figures, and a figure to `{"floor": RATIO, "set_from": "its source"}`.
Only ratios have floors: they compare with a peer or a limit of the same run, so they carry over to other
machines. All of them are better if higher.

    python benchmarks/floors.py build              # compares build/array.json, build/ingest.json, ...
    python benchmarks/floors.py build --propose    # prints floors of 0.85 of these ratios
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Mapping

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.report import Figure

FLOORS = Path(__file__).with_name("floors.json")
NOISE = 0.85
"""A proposed floor is this part of the measured ratio."""


class Floor(msgspec.Struct, frozen=True):
    """The ratio that a figure must reach, and the run or record that it was set from."""

    floor: float
    set_from: str


class Comparison(msgspec.Struct, frozen=True):
    """One figure of one benchmark next to its floor; `ratio` is None if the run did not report the figure."""

    benchmark: str
    figure: str
    floor: float
    ratio: float | None

    @property
    def holds(self) -> bool:
        """Whether the figure was reported and its ratio is not below the floor."""
        return self.ratio is not None and self.ratio >= self.floor


Floors = dict[str, dict[str, Floor]]
Figures = Mapping[str, Mapping[str, Figure]]


def compare(floors: Floors, figures: Figures) -> list[Comparison]:
    """Compares every floor; figures without a floor are not listed."""
    found = []
    for benchmark, of_benchmark in floors.items():
        for name, floor in of_benchmark.items():
            figure = figures.get(benchmark, {}).get(name)
            found.append(Comparison(benchmark, name, floor.floor, figure.ratio if figure else None))
    return found


def proposed(floors: Floors, figures: Figures, set_from: str) -> Floors:
    """Gives floors for the same figures, set from this run; unreported figures keep theirs."""
    found: Floors = {}
    for each in compare(floors, figures):
        floor = floors[each.benchmark][each.figure]
        if each.ratio is not None:
            floor = Floor(float(f"{NOISE * each.ratio:.2g}"), set_from)
        found.setdefault(each.benchmark, {})[each.figure] = floor
    return found


def load_floors() -> Floors:
    """Reads `floors.json`. Raises msgspec.ValidationError if an entry lacks its floor or its source."""
    return msgspec.json.decode(FLOORS.read_bytes(), type=Floors)


def load_figures(folder: Path, benchmarks: Floors) -> dict[str, dict[str, Figure]]:
    """Reads the `--json` output of each benchmark in the folder; a missing file has no figures."""
    files = {name: folder / f"{name}.json" for name in benchmarks}
    return {
        name: msgspec.json.decode(file.read_bytes(), type=dict[str, Figure])
        for name, file in files.items()
        if file.is_file()
    }


def main() -> int:
    """Prints the table; 1 if a figure is below its floor or was not reported."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="holds BENCHMARK.json of each benchmark")
    parser.add_argument(
        "--propose", metavar="SOURCE", nargs="?", const="a run", help="print new floors instead"
    )
    given = parser.parse_args()
    floors = load_floors()
    figures = load_figures(given.folder, floors)
    if given.propose:
        encoded = msgspec.json.encode(proposed(floors, figures, given.propose))
        print(msgspec.json.format(encoded, indent=2).decode())
        return 0
    comparisons = compare(floors, figures)
    table = Table(
        "benchmark", "figure", "ratio", "floor", "", title="Ratios and their floors", title_justify="left"
    )
    for each in comparisons:
        ratio = "not reported" if each.ratio is None else f"{each.ratio:.3g}"
        table.add_row(each.benchmark, each.figure, ratio, f"{each.floor:.3g}", "" if each.holds else "below")
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0 if all(each.holds for each in comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())
