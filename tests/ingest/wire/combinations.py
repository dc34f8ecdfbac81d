"""Every mode × type of payload × form of time × compression × option, as bytes and what they must become.

The outer header and the type of the tag take turns, so that each of their forms meets every mode.
"""

import gzip
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import NamedTuple

from tests.ingest.wire.notation import Stored

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Encoder = Callable[[bytes], bytes]

STRINGS: dict[str, Encoder] = {
    "fixstr": lambda data: bytes([0xA0 | len(data)]) + data,
    "str8": lambda data: struct.pack(">BB", 0xD9, len(data)) + data,
    "str16": lambda data: struct.pack(">BH", 0xDA, len(data)) + data,
    "str32": lambda data: struct.pack(">BI", 0xDB, len(data)) + data,
    "bin8": lambda data: struct.pack(">BB", 0xC4, len(data)) + data,
    "bin16": lambda data: struct.pack(">BH", 0xC5, len(data)) + data,
    "bin32": lambda data: struct.pack(">BI", 0xC6, len(data)) + data,
}
ARRAYS: dict[str, Callable[[int], bytes]] = {
    "fixarray": lambda count: bytes([0x90 | count]),
    "array16": lambda count: struct.pack(">BH", 0xDC, count),
    "array32": lambda count: struct.pack(">BI", 0xDD, count),
}
MAPS: dict[str, Callable[[int], bytes]] = {
    "fixmap": lambda count: bytes([0x80 | count]),
    "map16": lambda count: struct.pack(">BH", 0xDE, count),
    "map32": lambda count: struct.pack(">BI", 0xDF, count),
}
EVENT_TIME = b"\xd7\x00" + struct.pack(">II", 1_790_000_000, 5)
TIMES = {
    "EventTime as fixext8": EVENT_TIME,
    "EventTime as ext8": b"\xc7\x08\x00" + EVENT_TIME[2:],
    "zero": b"\x00",
    "fixint": b"\x7f",
    "uint8": b"\xcc\x80",
    "uint16": b"\xcd\x01\x00",
    "uint32": struct.pack(">BI", 0xCE, 1_790_000_000),
    "uint64": struct.pack(">BQ", 0xCF, 1_790_000_000),
    "int32": struct.pack(">Bi", 0xD2, 1_790_000_000),
    "int64": struct.pack(">Bq", 0xD3, 1_790_000_000),
    "negative": b"\xff",
    "float32": struct.pack(">Bf", 0xCA, 1.5),
    "float64": struct.pack(">Bd", 0xCB, 1_790_000_000.25),
    "protocol 1.5": b"\x92" + EVENT_TIME + b"\x80",
    "protocol 1.5 with metadata": b"\x92" + EVENT_TIME + b"\x81\xa1k\x01",
}
# One record for each event; short, so that every width of a header can hold the payload.
RECORDS = [b"\x80", b"\x81\xa1m\xa2\x00\xff", b"\x81\x05\xc4\x01\xfe"]


def _chunked_frame(events: list[bytes]) -> bytes:
    stream = zstd.ZstdCompressor()
    blocks = [stream.compress(event, zstd.ZstdCompressor.FLUSH_BLOCK) for event in events]
    return b"".join(blocks) + stream.flush()


COMPRESSIONS: dict[str, tuple[str, Callable[[list[bytes]], bytes]]] = {
    "text": ("text", b"".join),
    "gzip, one member": ("gzip", lambda events: gzip.compress(b"".join(events), mtime=0)),
    "gzip, a member for each event": (
        "gzip",
        lambda events: b"".join(gzip.compress(event, mtime=0) for event in events),
    ),
    "zstd, one frame": ("zstd", lambda events: zstd.compress(b"".join(events))),
    "zstd, a frame for each event": ("zstd", lambda events: b"".join(map(zstd.compress, events))),
    "zstd, a block for each event": ("zstd", _chunked_frame),
}


def _pair(key: str, value: bytes) -> bytes:
    return STRINGS["fixstr"](key.encode()) + value


_SIZE, _WRONG_SIZE = _pair("size", b"\x03"), _pair("size", b"\xce\xff\xff\xff\xff")
# name → type of map, entries besides `chunk` and `compressed`, and what is put around the chunk id
OPTIONS: dict[str, tuple[str, list[bytes], Callable[[str], bytes] | None]] = {
    "size and chunk": ("fixmap", [_SIZE], str.encode),
    "no size": ("fixmap", [], str.encode),
    "no chunk": ("fixmap", [_SIZE], None),
    "size too large": ("fixmap", [_WRONG_SIZE], str.encode),
    "size zero": ("fixmap", [_pair("size", b"\x00")], str.encode),
    "size negative": ("fixmap", [_pair("size", b"\xff")], str.encode),
    "size as text": ("fixmap", [_pair("size", b"\xa13")], str.encode),
    "chunk of fluentd": ("fixmap", [_SIZE], lambda number: number.zfill(24).encode() + b"\n"),
    "chunk of 24 characters": ("fixmap", [_SIZE], lambda number: number.zfill(24).encode()),
    "chunk of 300 bytes": ("fixmap", [_SIZE], lambda number: number.zfill(300).encode()),
    "chunk that is not UTF-8": ("fixmap", [_SIZE], lambda number: b"\xff\x00" + number.encode()),
    "unknown keys": ("fixmap", [_pair("x", b"\x92\x01\xc0"), _SIZE], str.encode),
    "integer keys": ("fixmap", [b"\x05\x06", _SIZE], str.encode),
    "map16": ("map16", [_SIZE], str.encode),
    "map32 and fluent_signal 0": ("map32", [_pair("fluent_signal", b"\x00"), _SIZE], str.encode),
}
NO_OPTION = ("absent", "nil", "empty map")


class Combination(NamedTuple):
    """A message, what must be stored, and the ack (empty if the message requests none)."""

    name: str
    message: bytes
    stored: Stored
    ack: bytes


def _ack(chunk_id: bytes) -> bytes:
    kind = "fixstr" if len(chunk_id) < 32 else "str8" if len(chunk_id) < 256 else "str16"
    return b"\x81\xa3ack" + STRINGS[kind](chunk_id)


_tags, _headers = cycle(STRINGS.items()), cycle(ARRAYS.items())


def _compose(
    number: int, option: str, compressed: str, middle: bytes, parts: int, what: str, events: list[bytes]
) -> Combination:
    """The message around `middle`, which has `parts` elements between the tag and the option."""
    (tag_type, encode_tag), (header_type, header) = next(_tags), next(_headers)
    tag, chunk_id = f"w{number}", None
    encoded, has_option = b"", option != "absent"
    if option in OPTIONS:
        kind, entries, identify = OPTIONS[option]
        chunk_id = None if identify is None else identify(str(number))
        entries = [*entries, _pair("compressed", STRINGS["fixstr"](compressed.encode()))]
        if chunk_id is not None:
            encode = STRINGS["fixstr" if len(chunk_id) < 32 else "str16"]
            entries.append(_pair("chunk", encode(chunk_id)))
        encoded = MAPS[kind](len(entries)) + b"".join(entries)
    elif has_option:
        encoded = {"nil": b"\xc0", "empty map": b"\x80"}[option]
    message = header(1 + parts + has_option) + encode_tag(tag.encode()) + middle + encoded
    return Combination(
        f"{what}; option {option}; tag {tag_type} in {header_type}",
        message,
        Stored(tag, b"".join(events), len(events), chunk_id),
        b"" if chunk_id is None else _ack(chunk_id),
    )


def packed(compression: str) -> Iterator[Combination]:
    """PackedForward and CompressedPackedForward."""
    how, compress = COMPRESSIONS[compression]
    options = [*OPTIONS, *(NO_OPTION if how == "text" else ())]
    number = 0
    for time_form, time in TIMES.items():
        events = [b"\x92" + time + record for record in RECORDS]
        payload = compress(events)
        for payload_type, encode in STRINGS.items():
            if payload_type == "fixstr" and len(payload) > 31:
                continue
            for option in options:
                number += 1
                what = f"{compression} as {payload_type}; time {time_form}"
                yield _compose(number, option, how, encode(payload), 1, what, events)


def forward() -> Iterator[Combination]:
    """Forward mode."""
    number = 0
    for time_form, time in TIMES.items():
        for outer in ARRAYS:
            for pair in ARRAYS.values():
                events = [pair(2) + time + record for record in RECORDS]
                for option in [*OPTIONS, *NO_OPTION]:
                    number += 1
                    what = f"Forward mode, {outer}; time {time_form}"
                    entries = ARRAYS[outer](len(events)) + b"".join(events)
                    yield _compose(number, option, "text", entries, 1, what, events)


def single() -> Iterator[Combination]:
    """Message mode."""
    number = 0
    for time_form, time in TIMES.items():
        if time[0] == 0x92:
            continue  # an array there is Forward mode
        for record in RECORDS:
            for option in [*OPTIONS, *NO_OPTION]:
                number += 1
                what = f"Message mode; time {time_form}"
                yield _compose(number, option, "text", time + record, 2, what, [b"\x92" + time + record])
