"""Files and pipes as chunks of events: raw bytes, lines, CSV and JSON lines.

Each function takes `read(size)`, which gives at most `size` bytes, fewer where no more are there yet, and b""
at the end; and yields, for every read, the chunks that it completed. So a file is cut into chunks of even
size, and what comes slowly through a pipe goes out when it comes. Memory is bounded by READ_BYTES, and by
MAX_LINE_BYTES for a line; a line or a table row is never cut.
"""

import csv
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InputInvalid, JsonInvalid, TimeInvalid
from ..ingest.body_events import event_head
from ..ingest.client import pack_event
from ..json_records import BYTE_ORDER_MARK, decode_object, exact_numbers, pack_json
from ..times import parse_time

READ_BYTES = 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024

Read = Callable[[int], bytes]
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The payload of one forward message, and how many bytes of the source it covers."""

    payload: bytes
    events: int
    source_bytes: int


def raw_chunks(read: Read, *, chunk_bytes: int, clock_ns: Clock = time.time_ns) -> Iterator[list[Chunk]]:
    """Pieces of at most `chunk_bytes`, each a record {"message": piece} and a chunk by itself."""
    while block := read(chunk_bytes * max(1, READ_BYTES // chunk_bytes)):
        pieces = (block[at : at + chunk_bytes] for at in range(0, len(block), chunk_bytes))
        yield [Chunk(pack_event(clock_ns(), {"message": piece}), 1, len(piece)) for piece in pieces]


def line_chunks(read: Read, *, chunk_bytes: int, clock_ns: Clock = time.time_ns) -> Iterator[list[Chunk]]:
    """Lines without their ends, each a record {"message": line}: text where it is UTF-8, else bytes."""
    lines = _Lines(read)

    def events() -> Iterator[bytes]:
        for line in lines:
            bare = line.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield pack_event(clock_ns(), {"message": bare.decode()})
            except UnicodeDecodeError:
                yield pack_event(clock_ns(), {"message": bare})

    return _chunks(events(), lines, chunk_bytes)


def jsonl_chunks(
    read: Read, *, chunk_bytes: int, time_field: str | None = None, clock_ns: Clock = time.time_ns
) -> Iterator[list[Chunk]]:
    """Lines that are each a JSON object, as `json_records` reads it; empty lines are left out.

    Raises `InputInvalid` with the line.
    """
    lines = _Lines(read)

    def events() -> Iterator[bytes]:
        for line in lines:
            if not line.strip().removeprefix(BYTE_ORDER_MARK):
                yield b""
                continue
            try:
                record = decode_object(line)
                time_ns = clock_ns()
                if time_field is not None:
                    time_ns = _time_in(record, time_field, line, lines.number)
                yield event_head(time_ns) + pack_json(record)
            except JsonInvalid as error:
                raise InputInvalid(f"line {lines.number} is not a JSON object: {error}") from None

    return _chunks(events(), lines, chunk_bytes)


def csv_chunks(
    read: Read, *, chunk_bytes: int, time_field: str | None = None, clock_ns: Clock = time.time_ns
) -> Iterator[list[Chunk]]:
    """RFC 4180 rows below a line of names; what looks like a number is one, an empty cell is nil.

    Raises `InputInvalid` with the line.
    """
    lines = _Lines(read)

    def text_lines() -> Iterator[str]:
        for line in lines:
            try:
                yield line.decode("utf-8-sig" if lines.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputInvalid(f"line {lines.number} is no text in UTF-8: {error}") from None

    def events() -> Iterator[bytes]:
        rows = csv.reader(text_lines())
        try:
            names = next(rows, [])
            if len(set(names)) < len(names) or "" in names:
                raise InputInvalid(f"line 1 must name each column once, but reads {','.join(names)}")
            if names and time_field is not None and time_field not in names:
                raise InputInvalid(f"there is no column {time_field!r}; there are {', '.join(names)}")
            for row in rows:
                if not row:
                    yield b""
                    continue
                if len(row) != len(names):
                    raise InputInvalid(
                        f"line {lines.number} has {len(row)} cells, line 1 names {len(names)} columns"
                    )
                cells = dict(zip(names, row, strict=True))
                time_ns = clock_ns() if time_field is None else _time_ns(cells[time_field], lines.number)
                yield _pack_at(
                    time_ns, {name: _number_or_text(cell) for name, cell in cells.items()}, lines.number
                )
        except csv.Error as error:
            raise InputInvalid(f"line {lines.number} is no CSV: {error}") from None

    return _chunks(events(), lines, chunk_bytes)


class _Lines:
    """Lines of bytes with their ends; knows which was given last, and whether the next is here already."""

    def __init__(self, read: Read) -> None:
        self.number = 0
        self.given_bytes = 0
        self._read = read
        self._lines: list[bytes] = []
        self._next = 0
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        self._ended = False

    @property
    def at_hand(self) -> bool:
        return self._next < len(self._lines)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self.at_hand:
            if self._ended:
                raise StopIteration
            self._refill()
        line = self._lines[self._next]
        self._next += 1
        self.number += 1
        self.given_bytes += len(line)
        return line

    def _refill(self) -> None:
        self._lines, self._next = [], 0
        block = self._read(READ_BYTES)
        if not block:
            self._ended = True
            if self._begun:
                self._lines = [b"".join(self._begun)]
            return
        lines = block.split(b"\n")
        rest = lines.pop()
        if lines:
            self._lines = [line + b"\n" for line in lines]
            self._lines[0] = b"".join(self._begun) + self._lines[0]
            self._begun, self._begun_bytes = [], 0
        if rest:
            self._begun.append(rest)
            self._begun_bytes += len(rest)
            if self._begun_bytes > MAX_LINE_BYTES:
                number = self.number + len(self._lines) + 1
                raise InputInvalid(
                    f"line {number} is longer than {MAX_LINE_BYTES:,} bytes; send such data as raw"
                )


def _chunks(events: Iterable[bytes], lines: _Lines, chunk_bytes: int) -> Iterator[list[Chunk]]:
    batch: list[Chunk] = []
    packed: list[bytes] = []
    size = covered = through = 0
    try:
        for event in events:  # b"" for a line that holds none
            if event:
                packed.append(event)
                size += len(event)
            through = lines.given_bytes
            if packed and (size >= chunk_bytes or not lines.at_hand):
                batch.append(Chunk(b"".join(packed), len(packed), lines.given_bytes - covered))
                packed, size, covered = [], 0, lines.given_bytes
            if not lines.at_hand:
                yield batch
                batch = []
    except InputInvalid:
        # What stands before the offending line is sent: whoever mends the file can go on from there.
        if packed:
            batch.append(Chunk(b"".join(packed), len(packed), through - covered))
        yield batch
        raise
    if packed:
        batch.append(Chunk(b"".join(packed), len(packed), lines.given_bytes - covered))
    if batch:
        yield batch


def _time_in(record: dict[str, Any], time_field: str, line: bytes, number: int) -> int:
    if time_field not in record:
        raise InputInvalid(f"line {number} has no {time_field!r}; it has {', '.join(record)}")
    value = record[time_field]
    if isinstance(value, float):
        value = exact_numbers(line)[time_field]
    return _time_ns(value, number)


def _pack_at(time_ns: int, record: dict[str, Any], line: int) -> bytes:
    try:
        return pack_event(time_ns, record)
    except (ValueError, OverflowError) as error:
        raise InputInvalid(f"line {line} cannot be sent: {error}") from None


_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _number_or_text(cell: str) -> int | float | str | None:
    if not cell:
        return None
    if _INTEGER.fullmatch(cell):
        number = int(cell)
        return number if -(2**63) <= number < 2**64 else cell
    return float(cell) if _NUMBER.fullmatch(cell) else cell


def _time_ns(value: Any, line: int) -> int:
    try:
        return parse_time(value)
    except TimeInvalid as error:
        raise InputInvalid(f"line {line}: {error}") from None
