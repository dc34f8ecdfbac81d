"""The columns of a table: the type of each, and its cells as values."""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ...errors import TimeInvalid
from ...records.events import EVENT_TIME_TYPE
from ...records.times import NS_PER_S, parse_time
from .csv_numbers import BLANKS, OF_COMMA, OF_POINT, ColumnType, Evidence, Kind, Mark, kind_of, mark_of

_BOOLS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
_FEW_DIGITS = re.compile(r"-?[1-9][0-9]{0,14}|0")
_FEW_DECIMALS: Mapping[Mark, re.Pattern[str]] = {
    ".": re.compile(r"-?(?:0|[1-9][0-9]{0,7})\.[0-9]{1,7}"),
    ",": re.compile(r"-?(?:0|[1-9][0-9]{0,7}),[0-9]{1,7}"),
}
_DIGITS = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


@dataclass(slots=True)
class Misfits:
    """Cells that did not fit the type of their column, and went as text."""

    cells: int = 0
    first_line: int = 0
    first: str = ""

    def add(self, cell: str, line: int) -> None:
        """One more."""
        if not self.cells:
            self.first_line, self.first = line, cell[:40]
        self.cells += 1


@dataclass(slots=True)
class Column:
    """One column."""

    name: str
    type: ColumnType
    is_given: bool = False
    """By the user: values may lose their form (`00042` is 42), not their meaning."""
    mark: Mark = "."
    """Its decimal mark."""
    reason: str = ""
    """Why a column of text, in which something looks like a number, is not numeric."""
    misfits: Misfits = field(default_factory=Misfits)

    def value(self, cell: str, line: int) -> Any:
        """The value of a cell, for a msgpack encoder: None if it is empty, text if it does not fit."""
        if self.type == "text":
            return cell
        bare = cell.strip(BLANKS)
        if not bare:
            return None
        if self.type == "empty":
            self._begin_with(bare, line)
            return self.value(cell, line)
        try:
            return _GIVEN[self.type](bare, self.mark) if self.is_given else self._number(bare)
        except ValueError:
            self.misfits.add(cell, line)
            return cell

    def _begin_with(self, bare: str, line: int) -> None:
        evidence = Evidence()
        evidence.take(bare, line)
        if self.mark == ".":
            self.mark = mark_of([evidence])
        self.type, self.reason = evidence.decide(self.mark)

    def _number(self, bare: str) -> int | float:
        if self.type == "integer" and _FEW_DIGITS.fullmatch(bare):
            return int(bare)
        if self.type == "float" and _FEW_DECIMALS[self.mark].fullmatch(bare):
            return float(bare.replace(",", "."))
        kind = kind_of(bare)
        if kind in (Kind.INTEGER, Kind.SIGNED_INTEGER):
            return float(bare) if self.type == "float" else int(bare)
        if kind is Kind.LARGE_INTEGER and self.type == "integer":
            return int(bare)
        if kind is Kind.SPECIAL and self.type == "integer":
            raise ValueError(bare)
        wrong = OF_COMMA if self.mark == "." else OF_POINT
        if kind in (Kind.OTHER, Kind.LARGE_INTEGER) or kind in wrong:
            raise ValueError(bare)
        return float(bare.replace(",", "."))


def _given_integer(bare: str, _: Mark) -> int:
    if not _DIGITS.fullmatch(bare) or not -(1 << 63) <= (number := int(bare)) < 1 << 64:
        raise ValueError(bare)
    return number


def _given_float(bare: str, mark: Mark) -> float:
    if _NOT_FINITE.fullmatch(bare):
        return float(bare)
    plain = bare.replace(",", ".") if mark == "," else bare
    if not _NUMBER.fullmatch(plain) or (number := float(plain)) in (float("inf"), float("-inf")):
        raise ValueError(bare)
    return number


def _given_bool(bare: str, _: Mark) -> bool:
    if (known := _BOOLS.get(bare.lower())) is None:
        raise ValueError(bare)
    return known


def _given_time(bare: str, mark: Mark) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(EVENT_TIME_TYPE, struct.pack(">II", *divmod(time_of(bare, mark), NS_PER_S)))


def time_of(cell: str, mark: Mark) -> int:
    """The time that a cell holds, in ns. Raises TimeInvalid, which is a ValueError."""
    return parse_time(cell.replace(",", ".") if mark == "," else cell)


def is_time(cell: str) -> bool:
    """Whether a cell that is not a number alone, or one of seconds of this century, may be a time."""
    try:
        ns = parse_time(cell)
    except TimeInvalid:
        return False
    return ns >= 946_684_800 * NS_PER_S


_GIVEN: Mapping[str, Callable[[str, Mark], Any]] = {
    "integer": _given_integer,
    "float": _given_float,
    "bool": _given_bool,
    "time": _given_time,
}
