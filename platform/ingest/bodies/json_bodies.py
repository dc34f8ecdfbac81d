"""JSON bodies as events: objects, arrays of objects, one behind the other, in any layout."""

from collections.abc import Generator, Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from ...errors import ChunkRejected, JsonInvalid
from ...records.json_records import (
    decode_at,
    exact_numbers,
    has_unlike_zeros,
    not_utf8,
    pack_json_into,
    skip_blanks,
)
from .body_events import RECORDS_A_STEP, BodyBounds, event_head, head_of

MAX_JSON_RECORD_BYTES = 1024 * 1024
"""Decoded JSON can be 24 times as large as its text: so much of it is decoded at once, not more."""


def events_of_json(
    body: bytes | bytearray | memoryview, time_key: str, stamp_ns: int, bounds: BodyBounds
) -> Generator[None, None, bytearray]:
    """The payload. Events are of the time under `time_key` in their records, else of `stamp_ns`.

    Yields every few milliseconds. Raises ChunkRejected as `formats.making_events`.
    """
    payload = bytearray()
    stamp, key = event_head(stamp_ns), time_key
    for index, record in enumerate(_json_records(memoryview(body), key)):
        head = stamp
        if key and key in record:
            head = head_of(record.pop(key))
        payload += head
        try:
            pack_json_into(record, payload)
        except JsonInvalid as error:
            raise _no_json(index, str(error)) from error
        bounds.check(index + 1, len(payload))
        if index % RECORDS_A_STEP == 0:
            yield
    return payload


def _json_records(body: memoryview, time_key: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of the body, with any separator; decodes MAX_JSON_RECORD_BYTES of text at a time.

    A number with a decimal point under `time_key` is a Decimal: a float would lose its nanoseconds.
    """
    position, count = 0, 0
    in_array = after_value = False
    while position < len(body):
        window = bytes(body[position : position + MAX_JSON_RECORD_BYTES])
        is_last = position + len(window) == len(body)
        text = _as_text(window, position, is_last=is_last)
        at = 0
        is_bulk_tried = has_unlike_zeros(window)
        while (at := skip_blanks(text, at)) < len(text):
            mark = text[at]
            if in_array and mark == "]":
                in_array = after_value = False
            elif after_value:
                if mark != ",":
                    raise _no_json(count, f"{mark!r} stands where a comma must be")
                after_value = False
            elif mark == "[" and not in_array:
                in_array = True
            else:
                if mark != "{":
                    raise _no_json(count, f"{mark!r} does not begin an object")
                if not is_bulk_tried:
                    is_bulk_tried = True
                    records, end = _in_bulk(text, at, time_key, in_array=in_array, is_last=is_last)
                    if records:
                        yield from records
                        count += len(records)
                        at, after_value = end, in_array
                        continue
                try:
                    record, end = decode_at(text, at)
                except JsonInvalid as error:
                    if is_last:
                        raise _no_json(count, str(error)) from error
                    if at == 0:
                        cause = f"{error} within its first {len(window)} bytes, and longer ones are not taken"
                        raise _no_json(count, cause) from error
                    break  # it may continue after the window: the next window begins with it
                if isinstance(record.get(time_key), float):
                    record[time_key] = exact_numbers(text[at:end])[time_key]
                yield record
                count += 1
                at, after_value = end, in_array
                continue
            at += 1
        position += len(window) if is_last and at == len(text) else len(text[:at].encode())
    if in_array:
        raise _no_json(count, "the array has no end: the body is cut off")


_ARRAY = msgspec.json.Decoder(list[dict[str, Any]])
_LINE = msgspec.json.Decoder(dict[str, Any])


def _in_bulk(
    text: str, at: int, time_key: str, *, in_array: bool, is_last: bool
) -> tuple[list[dict[str, Any]], int]:
    """Decodes many objects in one call if they are separated as usual; returns them (or none) and their end.

    The end of the last complete object is a guess. If it is wrong, decoding fails, and the caller reads the
    objects one by one.
    """
    try:
        if not in_array:
            end = len(text) if is_last else text.rfind("\n", at)
            if end <= at:
                return [], at
            records = _LINE.decode_lines(text[at:end])
        else:
            gaps = ("}",) if is_last else ("},{", "}, {", "},\n{")
            end = max(text.rfind(gap, at) for gap in gaps) + 1
            if end <= at:
                return [], at
            records = _ARRAY.decode(f"[{text[at:end]}]")
    except (msgspec.DecodeError, RecursionError):
        return [], at
    if not time_key or not any(isinstance(record.get(time_key), float) for record in records):
        return records, end
    try:
        line, array = _time_decoders(time_key)
    except ValueError:  # msgspec takes no quotes in names
        return [], at
    times = array.decode(f"[{text[at:end]}]") if in_array else line.decode_lines(text[at:end])
    for record, timed in zip(records, times, strict=True):
        if isinstance(record.get(time_key), float):
            record[time_key] = Decimal(bytes(timed.time).decode())
    return records, end


class _Timed(msgspec.Struct):
    time: msgspec.Raw


@lru_cache(maxsize=64)
def _time_decoders(
    time_key: str,
) -> tuple[msgspec.json.Decoder[_Timed], msgspec.json.Decoder[list[_Timed]]]:
    """Decoders of an object and of an array of objects, of which they read `time_key` alone.

    Raises ValueError for a key that msgspec cannot have as a name.
    """
    time = msgspec.field(default=msgspec.Raw(b"null"), name=time_key)
    timed: Any = msgspec.defstruct("_TimedRecord", [("time", msgspec.Raw, time)])
    return msgspec.json.Decoder(timed), msgspec.json.Decoder(list[timed])


def _as_text(window: bytes, position: int, *, is_last: bool) -> str:
    try:
        return window.decode()
    except UnicodeDecodeError as error:
        if not is_last and error.start > 0 and error.start >= len(window) - 3:
            return window[: error.start].decode()
        cause = not_utf8(window, position + error.start)
        raise ChunkRejected("malformed", f"the body is not JSON: {cause}; check the sender") from error


def _no_json(count: int, cause: str) -> ChunkRejected:
    return ChunkRejected(
        "malformed",
        f"record {count} cannot be read: {cause}; send JSON objects, arrays of them, or one a line",
    )
