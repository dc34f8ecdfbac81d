"""The bytes that a policy's format appends to the data stream, and the same bytes as rows for the decoders.

raw      the record's bytes: of a bare string or binary, or of the map's `field`
msgpack  the events, unchanged
json     one line for each event, see `json_lines`
"""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ....errors import OperationFailed
from ....records.decoded_size import DEFAULT_LIMIT_BYTES
from ....records.event_separation import raw_field_fault
from ....records.events import NS_PER_S
from ...operations.base.block import Block, Events, EventTimes
from .chunk_events import ChunkEvents, events_of_payload
from .plain_records import exact_record, is_plain, made_plain, original_record, plain_copy, record_of_exact

_LINES_BYTES = 2 * 1024 * 1024
"""Text that is decoded at once: JSON takes up to 24 times its size."""
_json_encoder = msgspec.json.Encoder()
_json_decoder = msgspec.json.Decoder()


def decode_events(payload: bytes, *, max_event_bytes: int = DEFAULT_LIMIT_BYTES) -> ChunkEvents:
    """Returns all events of a chunk; str and bin as bytes. Raises ChunkRejected if one is not valid.

    An event that would take more than `max_event_bytes` of memory when decoded is not valid either.
    """
    return events_of_payload(payload, max_event_bytes=max_event_bytes)


def raw_pieces(events: ChunkEvents, field: str) -> list[bytes]:
    """Returns the bytes of each record. Raises OperationFailed if a record has none."""
    pieces: list[bytes] = []
    key = field.encode()
    records = (record for each in events.slices() for record in each.records)
    for index, record in enumerate(records):
        if (fault := raw_field_fault(record, field)) is not None:
            raise OperationFailed(f"record {index} of the chunk {fault}")
        pieces.append(record[key] if isinstance(record, dict) else record)
    return pieces


def bytes_block(pieces: list[bytes], times_ns: NDArray[np.int64] | list[int], first: int) -> Block:
    """The pieces as one block of uint8 rows, (bytes,), of which the first is byte `first` of the stream."""
    ends = first + np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
    return Block(
        rows=np.frombuffer(b"".join(pieces), np.uint8),
        first=first,
        times=EventTimes(ends, np.asarray(times_ns, np.int64)),
        rate_hz=0.0,
        columns=(),
        attrs={},
    )


def json_lines(events: ChunkEvents) -> bytes:
    """One line for each event: {"time": "2026-11-22T10:36:56.123456789Z", "record": {…}}.

    A record that JSON cannot represent exactly is stored twice: in the closest JSON form, and exactly, as a
    third member `"msgpack"`, the record in msgpack and base64. Lines of older versions lack that member.
    """
    lines = bytearray()
    plain = plain_copy if events.are_kept else made_plain
    for each in events.slices():
        for time_ns, record in zip(each.times_ns, each.records, strict=True):
            line = {"time": rfc3339(time_ns), "record": None}
            if not is_plain(record):
                line["msgpack"] = exact_record(record)
            line["record"] = plain(record)
            lines += _json_encoder.encode(line)
            lines += b"\n"
    return bytes(lines)


def parse_json_lines(lines: bytes) -> ChunkEvents:
    """The inverse of `json_lines`: text as bytes in UTF-8, as from msgpack."""

    def decode(begin: int, end: int) -> Events:
        decoded = [_json_decoder.decode(line) for line in lines[begin:end].splitlines()]
        times = np.array([each["time"].removesuffix("Z") for each in decoded], "datetime64[ns]")
        return Events(times.astype(np.int64).tolist(), [_record_of(each) for each in decoded])

    return ChunkEvents(list(_line_cuts(lines)), decode, keep=len(lines) <= _LINES_BYTES)


def _record_of(line: dict[str, Any]) -> Any:
    exact = line.get("msgpack")
    return original_record(line["record"]) if exact is None else record_of_exact(exact)


def _line_cuts(lines: bytes) -> Iterator[tuple[int, int, int]]:
    """Whole lines, about `_LINES_BYTES` at a time, or one that is longer."""
    begin = 0
    while begin < len(lines):
        end = lines.rfind(b"\n", begin, begin + _LINES_BYTES) + 1
        end = end or lines.find(b"\n", begin) + 1 or len(lines)
        yield begin, end, 0
        begin = end


def rfc3339(time_ns: int) -> str:
    """UTC with nanoseconds: 2026-11-22T10:36:56.123456789Z."""
    seconds, ns = divmod(time_ns, NS_PER_S)
    try:
        moment = time.gmtime(seconds)
    except (OverflowError, ValueError, OSError) as error:  # a timestamp of msgpack has 64 bits of seconds
        raise OperationFailed(
            f"a record holds a time that no calendar has: {seconds} s since 1970"
        ) from error
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{ns:09d}Z"
