"""Shows rejected bytes as lines of text: decoded events, as far as the bytes are events.

The lines are few, short and printable for any bytes: rejected input is not trusted.
"""

import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgpack
import msgspec

from ...errors import ChunkRejected
from ...records.events import NS_PER_S, iterate_events

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_LINES = 20
MAX_LINE_CHARACTERS = 1000
READ_BYTES = 64 * 1024
_MAX_MEMBERS = 500  # an empty frame of zstd takes as long as a full one
"""Of the payload, unpacked, this much is looked at."""

_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_MAX_DEPTH = 6
_MAX_ITEMS = 32
_MAX_TEXT_CHARACTERS = 200
_SHOWN_BYTES = 32
_DUMPED_BYTES = 256
_DUMP_ROW_BYTES = 16
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def excerpt_of(payload: bytes, *, compression: str = "text", format: str = "") -> list[str]:
    """At most MAX_LINES lines of at most MAX_LINE_CHARACTERS, each without control characters.

    Events are a line of JSON each, `{"time": …, "record": …}`, with long values cut and binary ones in
    hexadecimal, up to the first that is none; bytes without any are text, or a dump. `format` other than ""
    is a body as it was posted. Memory: READ_BYTES unpacked, and a few times that while they are decoded.
    """
    if not payload:
        return ["(no bytes)"]
    lines: list[str] = []
    data, more = payload[:READ_BYTES], len(payload) > READ_BYTES
    if compression != "text":
        unpacked = _unpack(payload, compression)
        if unpacked is None:
            lines.append(f"(cannot be unpacked as {compression!r:.40}; these are the compressed bytes)")
        else:
            data, more = unpacked[:READ_BYTES], more or len(unpacked) > READ_BYTES
    if not format or format.startswith("application/octet-stream"):
        decoded = _event_lines(data, more)
    elif "msgpack" in format:
        decoded = _value_lines(data, more)
    else:
        decoded = _other_lines(data, more)
    body = list(islice(decoded, MAX_LINES + 1))
    lines += body[:MAX_LINES]
    if len(body) > MAX_LINES or more:
        lines.append("\u2026")
    return [_printable(line) for line in lines]


def _unpack(payload: bytes, compression: str) -> bytes | None:
    """The unpacked first READ_BYTES, at most one byte more than that; None if they cannot be unpacked."""
    pieces: list[bytes] = []
    rest, room = payload[:READ_BYTES], READ_BYTES + 1
    with suppress(zlib.error, zstd.ZstdError):
        for _ in range(_MAX_MEMBERS):
            if not rest or room <= 0:
                break
            member: Any
            if compression == "gzip":
                member = zlib.decompressobj(wbits=31)
            elif compression == "zstd":
                member = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
            else:
                return None
            pieces.append(member.decompress(rest, room))
            room -= len(pieces[-1])
            rest = member.unused_data
    return b"".join(pieces) or None


def _event_lines(data: bytes, more: bool) -> Iterator[str]:
    """A line an event; what follows the last that is one, as a dump with the reason."""
    events = iterate_events(data)
    count = 0
    while True:
        try:
            time_ns, record = next(events)
        except StopIteration:
            return
        except (ChunkRejected, RecursionError, ValueError) as error:
            if count == 0:
                yield from _other_lines(data, more)
            elif not (more and "ends inside" in str(error)):
                yield f"(from here on: {error})"
            return
        count += 1
        yield f'{{"time": "{_time(time_ns)}", "record": {msgspec.json.encode(_plain(record, 0)).decode()}}}'


def _value_lines(data: bytes, more: bool) -> Iterator[str]:
    """A line a msgpack value: records, events or lists of them, as they were posted."""
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=len(data))
    unpacker.feed(data)
    count = 0
    while True:
        try:
            value = unpacker.unpack()
        except msgpack.OutOfData:
            return
        except (ValueError, TypeError, RecursionError) as error:
            yield from _other_lines(data, more) if count == 0 else (f"(from here on: no msgpack; {error!r})",)
            return
        count += 1
        yield msgspec.json.encode(_plain(value, 0)).decode()


def _other_lines(data: bytes, more: bool) -> Iterator[str]:
    """The lines of a text, else a hexadecimal dump."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # The end of what is looked at may lie within a character.
        text = data[: error.start].decode() if more and error.start > len(data) - 4 else ""
    if text and not _NOT_TEXT.search(data):
        yield from (line[: MAX_LINE_CHARACTERS + 1] for line in text.splitlines())
        return
    for start in range(0, min(len(data), _DUMPED_BYTES), _DUMP_ROW_BYTES):
        row = data[start : start + _DUMP_ROW_BYTES]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):{3 * _DUMP_ROW_BYTES - 1}}  {shown}"
    if len(data) > _DUMPED_BYTES:
        yield f"({len(data) - _DUMPED_BYTES} bytes more)" if not more else "\u2026"


def _time(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, NS_PER_S)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"
    except (ValueError, OverflowError):
        return f"{seconds}.{ns:09d} s"


def _plain(value: Any, depth: int) -> Any:
    """A decoded value as JSON can represent it, cut to a readable size."""
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, dict | list) and depth == _MAX_DEPTH:
        return "\u2026"
    if isinstance(value, dict):
        pairs = islice(value.items(), _MAX_ITEMS)
        shown = {str(_plain(key, _MAX_DEPTH)): _plain(inner, depth + 1) for key, inner in pairs}
        return shown if len(value) <= _MAX_ITEMS else {**shown, "\u2026": f"{len(value) - _MAX_ITEMS} more"}
    if isinstance(value, list):
        items = [_plain(inner, depth + 1) for inner in value[:_MAX_ITEMS]]
        return items if len(value) <= _MAX_ITEMS else [*items, f"\u2026 {len(value) - _MAX_ITEMS} more"]
    if isinstance(value, msgpack.ExtType):
        return f"<extension type {value.code}, {_hexadecimal(value.data)}>"
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


def _text(value: bytes) -> str:
    if not _NOT_TEXT.search(value):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return f"<{_hexadecimal(value)}>"
        rest = len(text) - _MAX_TEXT_CHARACTERS
        return text if rest <= 0 else f"{text[:_MAX_TEXT_CHARACTERS]}\u2026 ({rest} characters more)"
    return f"<{_hexadecimal(value)}>"


def _hexadecimal(value: bytes) -> str:
    tail = "\u2026" if len(value) > _SHOWN_BYTES else ""
    return f"{len(value)} bytes {value[:_SHOWN_BYTES].hex()}{tail}"


def _printable(line: str) -> str:
    """Nothing that a terminal could take for a command, or that turns the direction of writing."""
    line = line.replace("\t", "    ")
    cut = line if len(line) <= MAX_LINE_CHARACTERS else f"{line[: MAX_LINE_CHARACTERS - 1]}\u2026"
    return "".join(each if each.isprintable() else "\ufffd" for each in cut)
