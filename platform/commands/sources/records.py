"""Files and pipes as chunks of events: raw bytes, lines, and JSON lines; tables are in `csv_table`.

Each function takes `read(size)`, which gives at most `size` bytes, fewer where no more are there yet, and b""
at the end; and yields, for every read, the chunks that it completed. So a file is cut into chunks of even
size, and what comes slowly through a pipe goes out when it comes. Memory is bounded by READ_BYTES, and by
MAX_LINE_BYTES for a line; a line or a table row is never cut.
"""

import time
from collections.abc import Iterator
from typing import Any

from ...errors import JsonInvalid, TimeInvalid
from ...ingest.bodies.body_events import event_head
from ...ingest.forward.client_messages import pack_event
from ...records.json_records import BYTE_ORDER_MARK, decode_object, exact_numbers, pack_json
from ...records.times import parse_time
from .chunks import READ_BYTES, Chunk, Clock, Lines, Losses, Read, chunks_of


def raw_chunks(read: Read, *, chunk_bytes: int, clock_ns: Clock = time.time_ns) -> Iterator[list[Chunk]]:
    """Pieces of at most `chunk_bytes`, each a record {"message": piece} and a chunk by itself."""
    while block := read(chunk_bytes * max(1, READ_BYTES // chunk_bytes)):
        pieces = (block[at : at + chunk_bytes] for at in range(0, len(block), chunk_bytes))
        yield [Chunk(pack_event(clock_ns(), {"message": piece}), 1, len(piece)) for piece in pieces]


def line_chunks(read: Read, *, chunk_bytes: int, clock_ns: Clock = time.time_ns) -> Iterator[list[Chunk]]:
    """Lines without their ends, each a record {"message": line}: text if it is UTF-8, else bytes."""
    lines = Lines(read)

    def events() -> Iterator[bytes]:
        for line in lines:
            bare = line.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield pack_event(clock_ns(), {"message": bare.decode()})
            except UnicodeDecodeError:
                yield pack_event(clock_ns(), {"message": bare})

    return chunks_of(events(), lines, chunk_bytes)


def jsonl_chunks(
    read: Read,
    *,
    chunk_bytes: int,
    losses: Losses,
    time_field: str | None = None,
    keep_time_field: bool = False,
    clock_ns: Clock = time.time_ns,
) -> Iterator[list[Chunk]]:
    """Lines that are each a JSON object, as `json_records` reads it; empty lines are left out.

    The time of a record is that of `time_field`, which is removed from it unless `keep_time_field`; without
    one, the time of reading. Invalid lines are added to `losses` and skipped.
    """
    lines = Lines(read)

    def event(line: bytes) -> bytes:
        record = decode_object(line)
        if time_field is None:
            return event_head(clock_ns()) + pack_json(record)
        time_ns = _time_in(record, time_field, line)
        if not keep_time_field:
            del record[time_field]
        return event_head(time_ns) + pack_json(record)

    def events() -> Iterator[bytes]:
        for line in lines:
            if not line.strip().removeprefix(BYTE_ORDER_MARK):
                yield b""
                continue
            try:
                yield event(line)
            except JsonInvalid as error:
                losses.add(lines.number, f"not a JSON object: {error}")
                yield b""
            except TimeInvalid as error:
                losses.add(lines.number, str(error))
                yield b""

    return chunks_of(events(), lines, chunk_bytes)


def _time_in(record: dict[str, Any], time_field: str, line: bytes) -> int:
    if time_field not in record:
        raise TimeInvalid(f"it has no field {time_field!r}; it has {', '.join(map(str, record)):.200}")
    value = record[time_field]
    if isinstance(value, float):
        value = exact_numbers(line)[time_field]
    return parse_time(value)
