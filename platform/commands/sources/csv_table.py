"""Tables in text (CSV and its kin) as chunks of events: understood first, then converted strictly.

A regular file is read twice: once whole, to decide the type of each column by all of its cells, and once to
send it. A pipe cannot be read twice: there its first read decides (READ_BYTES at most, and at least one row),
and a later cell that does not fit its column goes as text. Memory: READ_BYTES, a row, and a few cells of each
column, whatever the size of the file.
"""

import csv
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import msgspec

from ...errors import InputInvalid, TimeInvalid
from ...ingest.bodies.body_events import event_head
from ...records.times import NS_PER_S
from ..common.progress import plural
from .chunks import MAX_LINE_BYTES, Chunk, Clock, Lines, Losses, Read, chunks_of
from .csv_columns import Column, is_time, time_of
from .csv_dialect import SAMPLE_ROWS, Dialect, detect_dialect, title_above, without_empty_end
from .csv_numbers import BLANKS, ColumnType, Evidence, Kind, Mark, kind_of, mark_of
from .csv_text import Remembering, as_utf8, reading_of, sample_of

_SHOWN_COLUMNS = 50
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What the user specifies about a table; None and empty values are detected."""

    time_field: str | None = None
    keep_time_field: bool = False
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    delimiter: str | None = None
    mark: Mark | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    first_line: int
    last_line: int
    cells: list[str]
    fault: str = ""


class Table:
    """A table that is understood, and not sent yet; `open_table` makes it."""

    def __init__(
        self,
        read: Read,
        dialect: Dialect,
        columns: list[Column],
        options: TableOptions,
        *,
        mark: Mark,
        rows: int | None,
        first_time: str,
    ) -> None:
        self.dialect = dialect
        self.columns = columns
        self.mark = mark
        self.rows = rows
        """None for a pipe, whose size is not known."""
        self._read = read
        self._options = options
        self._first_time = first_time

    def describe(self) -> list[str]:
        """What was understood, as lines for the user."""
        mark = "decimal comma" if self.mark == "," else "decimal point"
        rows = "" if self.rows is None else f"; {plural(self.rows, 'row')}"
        lines = [f"delimiter: {self.dialect}; {mark}{rows}"]
        name = self._options.time_field
        if name is None:
            like = next((column.name for column in self.columns if column.name == self._first_time), None)
            hint = f"; {like!r} looks like a time: --time-field {like!r}" if like else ""
            lines.append(f"time: now{hint}")
        else:
            kept = "" if self._options.keep_time_field else ", not in the records"
            lines.append(f"time: {name!r}{kept}; the first is {self._first_time or 'missing'}")
        shown = [each for each in self.columns if each.name != name or self._options.keep_time_field]
        width = min(max((len(column.name) for column in shown), default=0), 30)
        for column in shown[:_SHOWN_COLUMNS]:
            reason = f"  ({column.reason})" if column.reason else ""
            lines.append(f"column: {column.name:{width}}  {column.type}{reason}")
        if len(shown) > _SHOWN_COLUMNS:
            lines.append(f"and {len(shown) - _SHOWN_COLUMNS:,} more columns")
        return lines

    def misfits(self) -> list[str]:
        """The columns of which cells went as text since they did not fit, a line each."""
        return [
            f"column {column.name!r}: {column.misfits.cells:,} of its cells "
            f"{'is' if column.misfits.cells == 1 else 'are'} not of type {column.type} and went as text; "
            f"the first is {column.misfits.first!r} in line {column.misfits.first_line:,}"
            for column in self.columns
            if column.misfits.cells
        ]

    @property
    def has_given_misfits(self) -> bool:
        """Whether cells of a column whose type the user gave went as text."""
        return any(column.is_given and column.misfits.cells for column in self.columns)

    def chunks(
        self, *, chunk_bytes: int, losses: Losses, clock_ns: Clock = time.time_ns
    ) -> Iterator[list[Chunk]]:
        """The rows, as records. Invalid rows are added to `losses` and skipped."""
        lines = Lines(self._read, self.dialect.line_end)
        rows = _rows(lines, self.dialect)
        _names_row(rows)
        time_field, keep = self._options.time_field, self._options.keep_time_field
        time_at = -1 if time_field is None else [column.name for column in self.columns].index(time_field)
        columns = [*enumerate(self.columns)]
        if time_at >= 0 and not keep:
            del columns[time_at]

        def event(row: _Row) -> bytes:
            if row.fault:
                raise _RowInvalid(row.fault)
            cells = _fitted(row.cells, len(self.columns))
            if time_at < 0:
                time_ns = clock_ns()
            else:
                try:
                    time_ns = time_of(cells[time_at], self.mark)
                except TimeInvalid as error:
                    raise _RowInvalid(str(error)) from None
            line = row.first_line
            record = {column.name: column.value(cells[at], line) for at, column in columns}
            return event_head(time_ns) + _encode(record)

        def events() -> Iterator[bytes]:
            for row in rows:
                if not row.cells and not row.fault:
                    yield b""
                    continue
                try:
                    yield event(row)
                except _RowInvalid as error:
                    losses.add(row.first_line, str(error), through=row.last_line)
                    yield b""

        return chunks_of(events(), lines, chunk_bytes)


class _RowInvalid(ValueError):
    """A row that cannot be a record of its table."""


def open_table(read: Read, options: TableOptions, *, rewind: Callable[[], None] | None) -> Table:
    """Detect the format of a table; `rewind` seeks to its beginning, and is None for a pipe.

    Raises InputInvalid if it has no names, twice the same, or not those that the user names.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    if rewind is None:
        sample_read = Remembering(read)
        text = as_utf8(sample_read.read, options.encoding)
        whole = as_utf8(sample_read.again, options.encoding)
    else:
        text = as_utf8(read, options.encoding)
    sample = sample_of(text, is_encoding_given=options.encoding is not None)
    dialect = detect_dialect(sample.lines, delimiter=options.delimiter)
    dialect = replace(dialect, line_end=sample.line_end)
    again = reading_of("".join(sample.lines).encode("utf-8", "surrogateescape"))
    sampled = [
        *islice(_rows(Lines(again, dialect.line_end), dialect), None if rewind is None else SAMPLE_ROWS)
    ]
    names = _names(sampled)
    if len(names) == 1 and options.delimiter is None and (title := title_above(sample.lines)):
        raise InputInvalid(title)
    asked = [*options.types, *([] if options.time_field is None else [options.time_field])]
    if missing := [name for name in asked if name not in names]:
        raise InputInvalid(f"there is no column {missing[0]!r}; there are {', '.join(names):.500}")
    if rewind is None:
        rows: Iterator[_Row] = iter(sampled)
    else:
        rewind()
        rows = _rows(Lines(as_utf8(read, options.encoding), dialect.line_end), dialect)
    evidence, count, first_cells = _look_through(rows, names, options)
    if rewind is not None:
        rewind()
        whole = as_utf8(read, options.encoding)
    mark: Mark = options.mark or mark_of(evidence.values())
    columns = [_column(name, evidence, options, mark) for name in names]
    first_time = _first_time(first_cells, options, mark)
    return Table(
        whole,
        dialect,
        columns,
        options,
        mark=mark,
        rows=None if rewind is None else count,
        first_time=first_time,
    )


def _column(name: str, evidence: Mapping[str, Evidence], options: TableOptions, mark: Mark) -> Column:
    if name in options.types:
        return Column(name, options.types[name], is_given=True, mark=mark)
    if name not in evidence:
        return Column(name, "text", mark=mark)
    found = evidence[name]
    kind, reason = found.decide(mark)
    is_close = len(found.first) > 1 or any(cell[0].isdecimal() for _, cell in found.first.values())
    return Column(name, kind, mark=found.own_mark(mark), reason=reason if is_close else "")


def _look_through(
    rows: Iterator[_Row], names: list[str], options: TableOptions
) -> tuple[dict[str, Evidence], int, dict[str, str]]:
    """What the cells of each column look like, how many rows there are, and the cells of the first."""
    is_time_dropped = not options.keep_time_field
    wanted = [
        (at, Evidence())
        for at, name in enumerate(names)
        if name not in options.types and not (is_time_dropped and name == options.time_field)
    ]
    evidence = {names[at]: found for at, found in wanted}
    count = 0
    first_cells: dict[str, str] = {}
    _names_row(rows)
    for row in rows:
        if row.fault or not row.cells:
            continue
        try:
            cells = _fitted(row.cells, len(names))
        except _RowInvalid:
            continue
        count += 1
        if count == 1:
            first_cells = dict(zip(names, cells, strict=True))
        is_text_found = False
        for at, found in wanted:
            if cells[at]:
                found.take(cells[at], row.first_line)
                is_text_found = is_text_found or Kind.OTHER in found.first
        if is_text_found:
            wanted = [(at, found) for at, found in wanted if Kind.OTHER not in found.first]
    return evidence, count, first_cells


def _first_time(cells: Mapping[str, str], options: TableOptions, mark: Mark) -> str:
    """The first row's time; without a time field, the name of a column that looks like one."""
    if options.time_field is None:
        return next((name for name, cell in cells.items() if _looks_like_time(name, cell)), "")
    try:
        seconds, ns = divmod(time_of(cells.get(options.time_field, ""), mark), NS_PER_S)
    except TimeInvalid as error:
        return str(error)
    fraction = f".{ns:09d}" if ns else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}{fraction}Z"


def _looks_like_time(name: str, cell: str) -> bool:
    bare = cell.strip(BLANKS)
    is_named = any(word in name.lower() for word in ("time", "date", "stamp")) or name.lower() in ("t", "ts")
    return is_time(bare) and (is_named or kind_of(bare) is Kind.OTHER)


def _names_row(rows: Iterator[_Row]) -> _Row | None:
    """The first row that is not blank; `rows` continues after it."""
    return next((row for row in rows if row.cells or row.fault), None)


def _names(rows: list[_Row]) -> list[str]:
    """The names of the columns; one without a name is called by its number."""
    head = _names_row(iter(rows))
    if head is None:
        return []
    if head.fault:
        raise InputInvalid(f"line {head.first_line} must name the columns: {head.fault}")
    cells = [cell.strip() for cell in head.cells]
    named = len(without_empty_end(cells))
    whole = [row.cells for row in rows if len(row.cells) == len(cells)]
    filled = max((len(without_empty_end(row)) for row in whole), default=0)
    names = [cell or f"column{at}" for at, cell in enumerate(cells[: max(named, filled)], 1)]
    for at, cell in enumerate(cells[: len(names)], 1):
        if not cell and (name := f"column{at}") in cells:
            raise InputInvalid(
                f"line {head.first_line}: column {at} has no name and would be called {name}, which is the "
                f"name of column {cells.index(name) + 1}; rename that"
            )
    if len(set(names)) < len(names):
        raise InputInvalid(
            f"line {head.first_line} must name each column once, but reads {','.join(cells):.500}"
        )
    if all(kind_of(name) is not Kind.OTHER for name in names):
        raise InputInvalid(
            f"line {head.first_line} must name the columns, but holds only numbers: {', '.join(cells):.200}; "
            "put a line of names before it"
        )
    return names


def _fitted(cells: list[str], columns: int) -> list[str]:
    """The cells of a row, one a column."""
    if len(cells) == columns:
        return cells
    if len(cells) > columns and len(without_empty_end(cells)) <= columns:
        return cells[:columns]
    raise _RowInvalid(f"it has {plural(len(cells), 'cell')}, line 1 names {plural(columns, 'column')}")


def _in_our_words(error: csv.Error) -> str:
    if "new-line character" in str(error):
        return "a CR is in a cell without quotes, but lines end in LF; put quotes around it, or remove it"
    return str(error)


def _rows(lines: Lines, dialect: Dialect) -> Iterator[_Row]:
    """All rows, of which the first has the names; what is not a row has a fault."""
    not_utf8 = 0

    def text() -> Iterator[str]:
        nonlocal not_utf8
        for line in lines:
            try:
                yield line.decode("utf-8-sig" if lines.number == 1 else "utf-8")
            except UnicodeDecodeError:
                not_utf8 = lines.number
                yield line.decode("utf-8-sig" if lines.number == 1 else "utf-8", "surrogateescape")

    source = text()
    for _ in range(dialect.preamble_lines):
        next(source, None)
    reader = csv.reader(
        source, delimiter=dialect.delimiter, skipinitialspace=dialect.skips_blanks, strict=True
    )
    while True:
        first_line = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Row(first_line, lines.number, [], f"not valid CSV: {_in_our_words(error)}")
            continue
        if dialect.cuts_blanks:
            cells = [cell.rstrip(" ") for cell in cells]
        is_blank = not cells or (len(cells) == 1 and not cells[0].strip())
        fault = ""
        if not_utf8 >= first_line:
            fault = "not UTF-8; give --encoding, for example cp1252"
        yield _Row(first_line, lines.number, [] if is_blank else cells, fault)
