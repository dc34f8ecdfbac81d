"""How a table in text is written: what separates its cells, and whether blanks follow that."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from .csv_numbers import Kind, kind_of

DELIMITERS = {"tab": "\t", "semicolon": ";", "pipe": "|", "comma": ","}
"""By name, in the order in which they win where a sample fits several."""
SAMPLE_ROWS = 200
_TITLE_ROWS = 50


@dataclass(frozen=True, slots=True)
class Dialect:
    """How cells are separated. Quotes are `"`, doubled within quotes (RFC 4180)."""

    delimiter: str
    skips_blanks: bool = False
    """Blanks follow the delimiter, and belong to no cell."""
    cuts_blanks: bool = False
    """Blanks precede the delimiter, too."""
    preamble_lines: int = 0
    """Lines before that of the names: Excel's `sep=;`."""
    line_end: bytes = b"\n"
    """LF, also of CRLF; or CR."""

    @property
    def name(self) -> str:
        """`comma`, `semicolon`, `tab` or `pipe`."""
        return next(name for name, mark in DELIMITERS.items() if mark == self.delimiter)

    def __str__(self) -> str:
        if self.cuts_blanks:
            return f"{self.name} between blanks"
        return f"{self.name} and blanks" if self.skips_blanks else self.name


def detect_dialect(lines: Sequence[str], *, delimiter: str | None = None) -> Dialect:
    """The dialect of a table's first lines, of which the first has the names.

    A delimiter fits if it separates names, and most rows have as many cells as there are names. Of several
    that fit equally well, the one that makes more columns wins. `delimiter` is what the user says it is.
    """
    preamble_lines = 0
    first = lines[0].strip().lower() if lines else ""
    if first.startswith("sep=") and len(first) == 5 and first[4] in DELIMITERS.values():
        delimiter, preamble_lines = delimiter or first[4], 1
    elif first == "sep=":  # a tab, which strip has taken
        delimiter, preamble_lines = delimiter or "\t", 1
    lines = lines[preamble_lines:]
    if delimiter is None:
        # The last of the best: max gives the first.
        delimiter = max(DELIMITERS.values(), key=lambda mark: _fit(lines, mark))
        if _fit(lines, delimiter)[0] == 0:
            delimiter = ","
    rows = _rows(lines, delimiter, skips_blanks=False, strict=False)
    later = [cell for row in rows for cell in row[1:]]
    names = rows[0][1:] if rows else []
    skips = (
        _all_begin_with_blank(names)
        or _all_begin_with_blank(later[len(names) :])
        or any(cell.startswith(" ") and cell.lstrip(" ").startswith('"') for cell in later)
    )
    earlier = [cell for row in rows for cell in row[:-1] if cell]
    cuts = skips and bool(earlier) and all(cell.endswith(" ") for cell in earlier)
    return Dialect(delimiter, skips, cuts, preamble_lines)


def title_above(lines: Sequence[str]) -> str:
    """Why the first line is a title above a table rather than the name of a column; "" if it is not.

    Below a title are names, which are not numbers, and rows of as many cells, of which some are numbers.
    """
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()][:_TITLE_ROWS]
    for delimiter in DELIMITERS.values():
        rows = [_cells(line, delimiter) for _, line in filled]
        at = len(rows) - 1
        while at > 0 and len(rows[at - 1]) == len(rows[-1]):
            at -= 1
        if not 0 < at < len(rows) - 1 or len(rows[at]) < 2 or len(rows[0]) > 1:
            continue
        below = [cell for row in rows[at + 1 :] for cell in row]
        if any(map(_is_number, rows[at])) or not any(map(_is_number, below)):
            continue
        number = filled[at][0]
        first, title = filled[0]
        return (
            f"line {first} ({title.strip()!r:.60}) looks like a title above the table: from line {number} on "
            f"there are {len(rows[at])} cells in a line. Remove the lines above, as "
            f"`tail -n +{number} FILE | windvane send TAG - --format csv` does. If that line is the name of "
            "the only column, give --delimiter"
        )
    return ""


def _cells(line: str, delimiter: str) -> list[str]:
    rows = _rows([line], delimiter, skips_blanks=True, strict=True)
    return rows[0] if rows else []


def _is_number(cell: str) -> bool:
    return kind_of(cell.strip()) is not Kind.OTHER


def _fit(lines: Sequence[str], delimiter: str) -> tuple[int, float, int]:
    """(1 if it separates the names, the share of rows that have as many cells, columns)."""
    rows = _rows(lines, delimiter, skips_blanks=True, strict=True)
    if not rows:
        return 0, 0.0, 0
    names, *others = ([*row] for row in rows)
    columns = len(without_empty_end(names))
    fitting = sum(len(row) == len(names) or len(without_empty_end(row)) == columns for row in others)
    return int(columns > 1), round(fitting / max(len(others), 1), 1), columns


def _rows(lines: Sequence[str], delimiter: str, *, skips_blanks: bool, strict: bool) -> list[list[str]]:
    """The first rows; of those that break the rules, no cells."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=skips_blanks, strict=strict)
    rows: list[list[str]] = []
    while len(rows) < SAMPLE_ROWS:
        try:
            row = list(islice(reader, 1))
        except csv.Error:
            rows.append([])
            continue
        if not row:
            break
        if row[0]:
            rows.append(row[0])
    return rows


def _all_begin_with_blank(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(cell.startswith(" ") for cell in filled)


def without_empty_end(row: list[str]) -> list[str]:
    """`row` without the empty cells at its end, which a delimiter at the end of a line makes."""
    end = len(row)
    while end > 1 and not row[end - 1].strip():
        end -= 1
    return row[:end]
