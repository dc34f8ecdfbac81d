"""The table that a benchmark prints, and the JSON for comparisons between runs.

A benchmark begins like this, so that it can be started as a file and as a module; the folder itself must not
stay on the path, where `array.py` would shadow the standard library's module of that name:

    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from benchmarks.report import Report, arguments
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_WIDTH_OF_FILES = 240


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `value` in `unit`, and its `ratio` to that of the peer or limit that `against` names."""

    value: float
    unit: str
    against: str | None
    ratio: float | None


class Report:
    """Collects figures, prints them as one table, writes them as `{name: {value, unit, against, ratio}}`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.figures: dict[str, Figure] = {}

    def add(
        self, name: str, value: float, unit: str, against: str | None = None, ratio: float | None = None
    ) -> None:
        """Take one figure; `against` names the peer or limit of the same run, with its own figure in it.

        Raises ValueError if the name is taken: the JSON has one entry a name.
        """
        if name in self.figures:
            raise ValueError(f"the figure {name!r} was already given; every figure needs a name of its own")
        self.figures[name] = Figure(float(value), unit, against, None if ratio is None else float(ratio))

    def finish(self, json_path: Path | None = None, *, table: Table | None = None) -> None:
        """Print the figures, and write the JSON where a path is given.

        They are printed one a row, or as `table` where a benchmark has so many that it lays them out itself.
        """
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        if table is None:
            table = self._one_a_row()
        table.title, table.title_justify = f"{self.title} ({machine})", "left"
        # Into a file or a pipe a table has the width that it needs.
        console = Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_FILES)
        console.print(table)
        if json_path is not None:
            figures = {name: asdict(figure) for name, figure in self.figures.items()}
            json_path.parent.mkdir(parents=True, exist_ok=True)
            json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    def _one_a_row(self) -> Table:
        table = Table()
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_column("unit")
        table.add_column("against")
        table.add_column("ratio", justify="right")
        for name, figure in self.figures.items():
            ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
            table.add_row(name, f"{figure.value:,.4g}", figure.unit, figure.against or "", ratio)
        return table


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Give the parser of a benchmark's command line, which always takes `--json FILE`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write {name: {value, unit, against, ratio}}"
    )
    return parser
