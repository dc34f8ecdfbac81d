"""Bodies of HTTP requests as chunks: JSON, JSON lines, msgpack and forms become `[time, record]` events.

What is understood, by Content-Type:

    application/octet-stream, or none         msgpack events, one behind the other, or these in base64
    application/json, …/x-ndjson, …/jsonl     objects, arrays of objects, one behind the other, in any layout
    application/msgpack, …/x-msgpack          records, events, or arrays of them, one behind the other
    application/x-www-form-urlencoded         a field `data_chunk`, `json`, `ndjson` or `msgpack`, and `time`

Everything here is a function of the bytes: no clock, no socket.
"""

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import msgpack
import msgspec

from ..errors import ChunkRefused
from ..events import NS_PER_S

EVENTS = "application/octet-stream"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MSGPACK = "application/msgpack"
_NAMES: Mapping[str, str] = {
    "": EVENTS,
    EVENTS: EVENTS,
    FORM: FORM,
    JSON: JSON,
    "application/x-ndjson": JSON,
    "application/ndjson": JSON,
    "application/jsonl": JSON,
    "application/x-jsonlines": JSON,
    MSGPACK: MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
}

MAX_JSON_RECORD_BYTES = 1024 * 1024
"""Decoded JSON can be 24 times as large as its text: so much of it is decoded at once, not more."""

_FORM_FIELDS = {"data_chunk": EVENTS, "json": JSON, "ndjson": JSON, "msgpack": MSGPACK}
_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"
_BLANK = re.compile(r"[ \t\r\n]*")
_DECIMAL = re.compile(r"\d{1,19}(\.\d{1,20})?")
_MAX_TIME_S = 1 << 32  # EventTime has 32 bits for them


class BodyFormat(msgspec.Struct, frozen=True):
    """How to read a body: its media type, the record's key that holds the time, and the time of all events.

    Its text form (`str`, `parse`) is what a dead letter keeps of it: `application/json?time_key=date`.
    """

    media_type: str
    time_key: str = ""
    time: str = ""

    def __str__(self) -> str:
        given = {"time_key": self.time_key, "time": self.time}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"{self.media_type}?{query}" if query else self.media_type

    @classmethod
    def parse(cls, text: str) -> "BodyFormat":
        """The inverse of `str`; members that are not known are left out."""
        media_type, _, query = text.partition("?")
        given = dict(parse_qsl(query))
        return cls(media_type, given.get("time_key", ""), given.get("time", ""))


def events_of(
    body: bytes | bytearray | memoryview, format: BodyFormat, *, arrived_ns: int, max_bytes: int
) -> bytes | bytearray | memoryview:
    """The payload that `body` says: msgpack events, one behind the other; `body` itself where it is that.

    Events without a time of their own are of `format.time`, else of `arrived_ns`. Raises ChunkRefused:
    "unsupported-type", "malformed", "bad-time", or "too-large" where the payload would be over `max_bytes`.

    Memory: the payload, and what one JSON record of MAX_JSON_RECORD_BYTES becomes when it is decoded.
    """
    kind = _NAMES.get(format.media_type)
    if kind is None:
        raise ChunkRefused(
            "unsupported-type",
            f"the content type {format.media_type!r:.80} is not known; send one of "
            f"{', '.join(name for name in _NAMES if name)}",
        )
    if kind == EVENTS:
        return _decode_base64(bytes(body)) if _is_base64(body) else body
    if kind == FORM and bytes(body[:1]) == b"\x92":
        # curl and others call any body a form unless told otherwise; an event says what it is.
        return body
    if kind == FORM:
        kind, body, time = _form_field(bytes(body))
        if kind == EVENTS:
            return body
        format = msgspec.structs.replace(format, time=time or format.time)
    stamp_ns = (format.time and parse_time(format.time)) or arrived_ns
    if kind == JSON:
        return _events_of_json(body, format, stamp_ns, max_bytes)
    return _events_of_msgpack(body, format, stamp_ns, max_bytes)


# -- times ---------------------------------------------------------------------------------------------------


def parse_time(value: Any) -> int:
    """A point in time in ns since the epoch. Raises ChunkRefused("bad-time").

    Numbers, or decimal numbers as text, are seconds; from 10^11 on (the year 5138) milliseconds, from 10^14
    on microseconds, from 10^17 on nanoseconds. Other text is RFC 3339, or the same with a blank for the T;
    without an offset it is UTC. A float is taken to the microsecond: it holds no more.
    """
    ns: int | None = None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip()
        ns = _scaled(Decimal(text)) if _DECIMAL.fullmatch(text) else _date(text)
    elif isinstance(value, float) and 0 <= value < 1e20:
        ns = round(value * 1e6) * 1000 if value < 1e11 else _scaled(Decimal(value))
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1e20:
        ns = _scaled(Decimal(value))
    return _in_range(ns, value)


def _in_range(ns: int | None, value: object) -> int:
    if ns is None or not 0 <= ns < _MAX_TIME_S * NS_PER_S:
        raise ChunkRefused(
            "bad-time",
            f"the time {value!r:.80} is none between 1970 and 2106; send seconds since 1970, or RFC 3339",
        )
    return ns


def _scaled(number: Decimal) -> int:
    for unit_ns, end in ((NS_PER_S, 10**11), (1_000_000, 10**14), (1_000, 10**17)):
        if number < end:
            return int(number * unit_ns)
    return int(number)


def _date(text: str) -> int | None:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|z|[+-]\d\d:?\d\d)?", text)
    if match is None:
        return None
    whole, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(whole + (offset or "Z").upper())
    except ValueError:
        return None
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return seconds * NS_PER_S + int((fraction or "0").ljust(9, "0")[:9])


def _event_head(time_ns: int) -> bytes:
    """The array of two and the EventTime; the record goes behind it."""
    return struct.pack(">BBBII", 0x92, 0xD7, 0, *divmod(time_ns, NS_PER_S))


# -- JSON ----------------------------------------------------------------------------------------------------


def _events_of_json(
    body: bytes | bytearray | memoryview, format: BodyFormat, stamp_ns: int, max_bytes: int
) -> bytearray:
    payload = bytearray()
    encoder = msgspec.msgpack.Encoder()
    stamp, key = _event_head(stamp_ns), format.time_key
    for index, record in enumerate(_json_records(memoryview(body))):
        head = stamp
        if key and key in record:
            head = _event_head(parse_time(record.pop(key)))
        payload += head
        try:
            encoder.encode_into(record, payload, -1)
        except (OverflowError, UnicodeEncodeError, RecursionError, ValueError) as error:
            raise ChunkRefused(
                "malformed", f"record {index} cannot be kept ({error}); check the sender"
            ) from error
        if len(payload) > max_bytes:
            raise _too_large(max_bytes)
    return payload


def _json_records(body: memoryview) -> Iterator[dict[str, Any]]:
    """The objects, whatever stands between them; a window of MAX_JSON_RECORD_BYTES of text at a time."""
    decode = json.JSONDecoder(strict=False).raw_decode
    position, count = 0, 0
    in_array = after_value = False
    while position < len(body):
        window = bytes(body[position : position + MAX_JSON_RECORD_BYTES])
        is_last = position + len(window) == len(body)
        text = _as_text(window, position, is_last=is_last)
        at = 0
        is_bulk_tried = False
        while (at := _next_mark(text, at)) < len(text):
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
                    records, end = _in_bulk(text, at, in_array=in_array, is_last=is_last)
                    if records:
                        yield from records
                        count += len(records)
                        at, after_value = end, in_array
                        continue
                try:
                    record, end = decode(text, at)
                except (ValueError, RecursionError) as error:
                    if is_last:
                        raise _no_json(count, str(error)) from error
                    if at == 0:
                        cause = f"{error} within its first {len(window)} bytes, and longer ones are not taken"
                        raise _no_json(count, cause) from error
                    break  # it may go on behind the window: the next one begins with it
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


def _in_bulk(text: str, at: int, *, in_array: bool, is_last: bool) -> tuple[list[dict[str, Any]], int]:
    """Many objects in one call where they stand as most senders write them, and where they end; or none.

    The end of the last whole one is guessed: where that is wrong it is no JSON, and they are read one by one.
    """
    try:
        if not in_array:
            end = len(text) if is_last else text.rfind("\n", at)
            return (_LINE.decode_lines(text[at:end]), end) if end > at else ([], at)
        gaps = ("}",) if is_last else ("},{", "}, {", "},\n{")
        end = max(text.rfind(gap, at) for gap in gaps) + 1
        return (_ARRAY.decode(f"[{text[at:end]}]"), end) if end > at else ([], at)
    except (msgspec.DecodeError, RecursionError):
        return [], at


def _next_mark(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return at if match is None else match.end()


def _as_text(window: bytes, position: int, *, is_last: bool) -> str:
    try:
        return window.decode()
    except UnicodeDecodeError as error:
        if not is_last and error.start > 0 and error.start >= len(window) - 3:
            return window[: error.start].decode()
        raise ChunkRefused(
            "malformed",
            f"byte {position + error.start} of the body is no UTF-8; JSON must be, check the sender",
        ) from error


def _no_json(count: int, cause: str) -> ChunkRefused:
    return ChunkRefused(
        "malformed",
        f"record {count} cannot be read: {cause}; send JSON objects, arrays of them, or one a line",
    )


# -- msgpack -------------------------------------------------------------------------------------------------


def _events_of_msgpack(
    body: bytes | bytearray | memoryview, format: BodyFormat, stamp_ns: int, max_bytes: int
) -> bytes | bytearray | memoryview:
    """Fluent Bit's events pass as they are; records get a time put before them, their bytes stay the same."""
    walker = msgpack.Unpacker(read_size=len(body) or 1, max_buffer_size=len(body) or 1)
    walker.feed(body)
    payload = bytearray()
    stamp, key = _event_head(stamp_ns), format.time_key.encode()

    def add(start: int) -> None:
        """One record or event, which begins at `start` and ends where the walker goes."""
        nonlocal payload
        if _is_map(body[start]):
            if key:
                time_ns, pieces = _without(walker, body, key)
                payload += stamp if time_ns is None else _event_head(time_ns)
                payload += pieces
            else:
                walker.skip()
                payload += stamp
                payload += body[start : walker.tell()]
        elif _is_pair(body, start):
            walker.skip()
            payload += body[start : walker.tell()]
        else:
            raise ChunkRefused(
                "malformed",
                f"byte {start} of the body begins neither a map nor [time, record]; check the sender",
            )
        if len(payload) > max_bytes:
            raise _too_large(max_bytes)

    start = 0
    try:
        while (start := walker.tell()) < len(body):
            if _is_pair(body, start) and _is_event(body, start):
                if not payload:
                    return body  # what follows is judged as events anywhere are
                add(start)
            elif _is_array(body[start]):
                for _ in range(walker.read_array_header()):
                    start = walker.tell()
                    add(start)
            else:
                add(start)
    except (msgpack.OutOfData, IndexError) as error:
        raise ChunkRefused(
            "malformed",
            f"the body of {len(body)} bytes ends inside the value at byte {start}; check the sender",
        ) from error
    except ChunkRefused:
        raise  # it is a ValueError too
    except (ValueError, TypeError) as error:
        raise ChunkRefused(
            "malformed", f"the value at byte {start} is not well-formed ({error!r}); check the sender"
        ) from error
    return payload


def _without(
    walker: msgpack.Unpacker, body: bytes | bytearray | memoryview, key: bytes
) -> tuple[int | None, bytes]:
    """The time that `key` holds (None where there is no such key), and the map without it, byte for byte."""
    time_ns: int | None = None
    pieces = bytearray()
    count = kept = walker.read_map_header()
    for _ in range(count):
        begin = walker.tell()
        walker.skip()
        middle = walker.tell()
        walker.skip()
        end = walker.tell()
        if time_ns is None and _is_text(body[begin:middle], key):
            time_ns = _time_of(bytes(body[middle:end]))
            kept -= 1
        else:
            pieces += body[begin:end]
    return time_ns, bytes(msgpack.Packer().pack_map_header(kept)) + pieces


def _is_text(piece: bytes | bytearray | memoryview, text: bytes) -> bool:
    """Whether a msgpack value is `text`, typed str or bin."""
    return len(piece) <= len(text) + 5 and msgpack.unpackb(piece, raw=True, strict_map_key=False) == text


def _time_of(piece: bytes) -> int:
    if piece[:2] == b"\xd7\0" and len(piece) == 10:
        seconds, ns = struct.unpack(">II", piece[2:])
        return int(seconds * NS_PER_S + ns)
    value = msgpack.unpackb(piece[:300], raw=True) if len(piece) <= 300 else piece
    return (
        _in_range(value.to_unix_nano(), value) if isinstance(value, msgpack.Timestamp) else parse_time(value)
    )


def _is_map(head: int) -> bool:
    return 0x80 <= head <= 0x8F or head in (0xDE, 0xDF)


def _is_array(head: int) -> bool:
    return 0x90 <= head <= 0x9F or head in (0xDC, 0xDD)


def _inside(body: bytes | bytearray | memoryview, start: int) -> int:
    """Where the first element of the array at `start` is."""
    return start + {0xDC: 3, 0xDD: 5}.get(body[start], 1)


def _is_pair(body: bytes | bytearray | memoryview, start: int) -> bool:
    head = body[start]
    if head == 0x92:
        return True
    if head == 0xDC:
        return bytes(body[start + 1 : start + 3]) == b"\0\2"
    return head == 0xDD and bytes(body[start + 1 : start + 5]) == b"\0\0\0\2"


def _is_event(body: bytes | bytearray | memoryview, start: int) -> bool:
    """Whether the array of two at `start` is `[time, record]`, and no list of two records or two events."""
    first = _inside(body, start)
    if _is_map(body[first]):
        return False
    if not _is_pair(body, first):
        return True
    # [[time, metadata], record] against [[time, record], [time, record]]: a record is no array.
    walker = msgpack.Unpacker(read_size=len(body), max_buffer_size=len(body))
    walker.feed(body[first:])
    walker.skip()
    return not _is_array(body[first + walker.tell()])


# -- forms and base64 ----------------------------------------------------------------------------------------


def _form_field(body: bytes) -> tuple[str, bytes, str]:
    """The kind of the one field that counts, its bytes, and the field `time`."""
    try:
        # Latin-1 is bytes as text: percent-decoding must not assume UTF-8.
        form = parse_qs(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=16)
    except ValueError as error:
        raise ChunkRefused(
            "malformed", "the form cannot be read; send events as Content-Type: application/octet-stream"
        ) from error
    values = [
        (kind, value.encode("latin-1")) for name, kind in _FORM_FIELDS.items() for value in form.get(name, [])
    ]
    if not values and _is_base64(body):
        return EVENTS, _decode_base64(body), ""
    if len(values) != 1:
        looks = " (it looks like JSON: say Content-Type: application/json)" if body[:1] in b"{[" else ""
        raise ChunkRefused(
            "malformed",
            f"the form has {len(values)} of the fields {', '.join(_FORM_FIELDS)}{looks}; send one of them",
        )
    [(kind, value)] = values
    if kind == EVENTS and _is_base64(value):
        value = _decode_base64(value)
    return kind, value, form.get("time", [""])[0]


def _is_base64(body: bytes | bytearray | memoryview) -> bool:
    """An event begins with the array of two, 0x92: no letter of base64. So the two cannot be mistaken."""
    return bool(body) and not bytes(body[:1024]).translate(None, _BASE64_ALPHABET)


def _decode_base64(body: bytes) -> bytes:
    try:
        return base64.b64decode(body.translate(None, b"\r\n"), validate=True)
    except binascii.Error as error:
        raise ChunkRefused("malformed", f"the body is no base64 ({error}); check the sender") from error


def _too_large(max_bytes: int) -> ChunkRefused:
    return ChunkRefused(
        "too-large", f"the body becomes more than {max_bytes} bytes of events; send smaller chunks"
    )
