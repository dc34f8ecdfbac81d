"""Whether a cell of a table is a number that can be given back, and which type its column has.

A cell counts as a number only if nothing of it is lost: no leading zeros, no integer beyond 64 bits, no more
digits than a double holds, no exponent that only an ID would have (`61e95`). A column has a numeric type only
if every cell that is not empty is such a number; otherwise it is text, and each cell stays as it is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Literal

ColumnType = Literal["text", "integer", "float", "bool", "time", "empty"]
Mark = Literal[".", ","]

MAX_NUMBER_CHARACTERS = 64
BLANKS = " \t"
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_EXACT_INTEGER = 1 << 53
_PLAIN_DIGITS = 15
"""A decimal number of so many digits is the same again after it was a double."""

_SHAPE = re.compile(r"([+-]?)(?:(0|[1-9][0-9]*)(?:([.,])([0-9]*))?|([.,])([0-9]+))(?:[eE]([+-]?)[0-9]{1,3})?")
_SPECIAL = re.compile(r"[Nn]a[Nn]|NAN|[+-]?(?:inf|Inf|INF|infinity|Infinity)")


# Most cells of most tables, which need no closer look.
_COMMON = re.compile(
    r"(0|-?[1-9][0-9]{0,14})|-?(?:([1-9][0-9]{0,2}\.[0-9]{3})|"
    r"((?:0|[1-9][0-9]{3,7})\.[0-9]{3}|(?:0|[1-9][0-9]{0,7})\.(?:[0-9]{1,2}|[0-9]{4,7})))"
)


class Kind(Enum):
    """What one cell looks like."""

    INTEGER = "an integer"
    LARGE_INTEGER = "an integer that a float cannot hold"
    SIGNED_INTEGER = "an integer with a plus sign"
    FLOAT = "a number"
    POINT = "a number with a point"
    COMMA = "a number with a comma"
    POINT_OR_THOUSANDS = "a number whose point may separate thousands"
    COMMA_OR_THOUSANDS = "a number whose comma may separate thousands"
    SPECIAL = "NaN or Infinity"
    OTHER = "not a number that can be given back"


_COMMON_KINDS = (Kind.OTHER, Kind.INTEGER, Kind.POINT_OR_THOUSANDS, Kind.POINT)
OF_POINT = frozenset([Kind.POINT, Kind.POINT_OR_THOUSANDS])
OF_COMMA = frozenset([Kind.COMMA, Kind.COMMA_OR_THOUSANDS])


def kind_of(cell: str) -> Kind:
    """What `cell`, without blanks around it and not empty, looks like."""
    match = _SHAPE.fullmatch(cell) if len(cell) <= MAX_NUMBER_CHARACTERS else None
    if match is None:
        return Kind.SPECIAL if _SPECIAL.fullmatch(cell) else Kind.OTHER
    sign, whole, mark, fraction, first_mark, _, exponent_sign = match.groups()
    mark = mark or first_mark
    if mark is None and exponent_sign is None:
        return _integer_kind(cell, sign)
    if mark is None:
        # 1e-05 and 1e+16 are floats as programs write them, 61e95 is an ID.
        return Kind.FLOAT if exponent_sign and is_exact(cell) else Kind.OTHER
    if (mark == "," and fraction == "") or not is_exact(cell.replace(",", ".")):
        return Kind.OTHER
    is_like_thousands = (
        exponent_sign is None
        and fraction is not None
        and len(fraction) == 3
        and whole not in (None, "0")
        and len(whole) <= 3
    )
    if mark == ".":
        return Kind.POINT_OR_THOUSANDS if is_like_thousands else Kind.POINT
    return Kind.COMMA_OR_THOUSANDS if is_like_thousands else Kind.COMMA


def _integer_kind(cell: str, sign: str) -> Kind:
    if len(cell) > 21 or not _LEAST <= (number := int(cell)) <= _MOST:
        return Kind.OTHER
    if number == 0 and sign:
        return Kind.FLOAT if sign == "-" else Kind.SIGNED_INTEGER
    if abs(number) > _EXACT_INTEGER and int(float(number)) != number:
        return Kind.LARGE_INTEGER
    return Kind.SIGNED_INTEGER if sign == "+" else Kind.INTEGER


def is_exact(number: str) -> bool:
    """Whether a decimal number, once it is a double, can be written with the same digits again."""
    mantissa = re.split("[eE]", number)[0]
    digits = mantissa.replace(".", "").lstrip("+-").lstrip("0")
    if len(digits) <= _PLAIN_DIGITS and len(mantissa) == len(number) and len(number) < 30:
        return True
    value = float(number)
    if value in (float("inf"), float("-inf")) or (value == 0 and digits):
        return False
    return Decimal(f"{value:.{max(len(digits), 1) - 1}e}") == Decimal(number)


@dataclass(slots=True)
class Evidence:
    """What the cells of one column look like, with the first of each kind. Memory: ten short cells."""

    first: dict[Kind, tuple[int, str]] = field(default_factory=dict)
    """Line and cell."""
    has_minus: bool = False

    def take(self, cell: str, line: int) -> None:
        """One more cell."""
        if (match := _COMMON.fullmatch(cell)) is not None:
            kind = _COMMON_KINDS[match.lastindex or 0]
            if kind in self.first and (cell[0] != "-" or self.has_minus):
                return
        cell = cell.strip(BLANKS)
        if cell:
            kind = kind_of(cell)
            if kind not in self.first:
                self.first[kind] = (line, cell[:MAX_NUMBER_CHARACTERS])
            if cell[0] == "-":
                self.has_minus = True

    @property
    def proves_comma(self) -> bool:
        """Whether these can only be numbers with decimal commas."""
        kinds = self.first.keys()
        return Kind.COMMA in kinds and Kind.OTHER not in kinds and not kinds & OF_POINT

    def own_mark(self, mark: Mark) -> Mark:
        """The decimal mark of this column, in a table that has `mark`."""
        if self.first.keys() & OF_COMMA:
            return ","
        return "." if self.first.keys() & OF_POINT else mark

    def decide(self, mark: Mark) -> tuple[ColumnType, str]:
        """The type, where `mark` is the decimal mark of the table; and for text, why it is not a number."""
        kinds = self.first.keys()
        if not kinds:
            return "empty", ""
        if Kind.OTHER in kinds:
            return "text", self._because(Kind.OTHER)
        wrong = OF_COMMA if mark == "." else OF_POINT
        if mark == "," and Kind.POINT in kinds and not kinds & OF_COMMA:
            wrong = frozenset()  # 1.5 separates no thousands
        for kind in wrong:
            if kind in kinds:
                return "text", self._because(kind)
        has_fraction = bool(kinds & (OF_POINT | OF_COMMA))
        if Kind.SIGNED_INTEGER in kinds and not (has_fraction or self.has_minus):
            return "text", self._because(Kind.SIGNED_INTEGER)
        if Kind.SPECIAL in kinds and not has_fraction:
            return "text", self._because(Kind.SPECIAL)
        if not (has_fraction or Kind.FLOAT in kinds):
            return "integer", ""
        if Kind.LARGE_INTEGER in kinds:
            return "text", self._because(Kind.LARGE_INTEGER)
        return "float", ""

    def _because(self, kind: Kind) -> str:
        line, cell = self.first[kind]
        return f"line {line:,}: {cell!r:.40} is {kind.value}"


def mark_of(columns: Iterable[Evidence]) -> Mark:
    """The decimal mark of a table: a comma where a column can be nothing else, then for all columns."""
    return "," if any(column.proves_comma for column in columns) else "."
