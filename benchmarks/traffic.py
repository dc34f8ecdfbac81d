"""What the benchmarks send: log records of 200 bytes, and the forward messages that carry them, made before.

The records differ as those of an access log do, so that compression has something to do: gzip makes them
about 7 times smaller, not 250 times as with one record repeated.
"""

import gzip
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TAG = "bench"
RECORD_BYTES = 200
CHUNK_BYTES = 1 << 20
FORWARD_EVENTS = 1000
"""Events in one Forward message, as DESIGN's peers were sent."""
EVENTS_PER_EMIT = 22
"""Events in one gzip member where a forwarder compresses each emit by itself."""
CHUNK_ID_BYTES = 24
ACK_HEAD = b"\x81\xa3ack" + bytes([0xA0 | CHUNK_ID_BYTES])
FIRST_SECOND = 1_790_000_000

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Access",
    "fields": [
        {"name": "remote", "type": "string"},
        {"name": "method", "type": {"type": "enum", "name": "Method", "symbols": ["GET", "POST"]}},
        {"name": "path", "type": {"type": "string", "maxLength": 2000}},
        {"name": "code", "type": {"type": "int", "minimum": 100, "maximum": 599}},
        {"name": "size", "type": "long"},
        {"name": "referer", "type": ["null", "string"]},
        {"name": "agent", "type": "string"},
        {"name": "seconds", "type": {"type": "double", "minimum": 0}},
    ],
}
"""Eight fields; every record here is of it."""

_AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5",
    "windvane-lab/1.0 (python 3.13; linux; x86_64) requests for the vibration of a wind park, every ten min",
]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a connection writes over and over."""

    write: bytes
    """Whole messages; where each is to be acked, one, whose last bytes are its chunk id."""
    events: int
    """In one write."""
    payload: bytes
    """The same events, one behind the other, uncompressed."""
    acked: bool


def records(count: int) -> list[bytes]:
    """`count` different events `[EventTime, record]` of `RECORD_BYTES` each; the same at every call."""
    chance = random.Random(7)
    made: list[bytes] = []
    for i in range(count):
        record = {
            "remote": f"10.{chance.randrange(8)}.{chance.randrange(256)}.{chance.randrange(256)}",
            "method": chance.choice(["GET", "GET", "POST"]),
            "path": f"/api/v1/streams/turbine.t{chance.randrange(60):02d}/data",
            "code": chance.choice([200, 200, 200, 304, 404]),
            "size": chance.randrange(100, 60_000),
            "referer": None,
            "agent": "",
            "seconds": chance.randrange(10_000) / 10_000,
        }
        time = msgpack.ExtType(0, struct.pack(">II", FIRST_SECOND + i // 1000, chance.randrange(10**9)))
        room = RECORD_BYTES - len(msgpack.packb([time, record])) - 1
        agent = chance.choice(_AGENTS)
        record["agent"] = (agent + "; " + agent)[:room]
        made.append(msgpack.packb([time, record]))
    return made


def packed(*, acked: bool = False) -> Traffic:
    """PackedForward, 1 MiB."""
    return _packed(b"".join, {}, acked=acked)


def gzipped(*, acked: bool = False) -> Traffic:
    """CompressedPackedForward, one gzip member."""
    return _packed(lambda events: gzip.compress(b"".join(events), 6), {"compressed": "gzip"}, acked=acked)


def gzipped_by_emit(*, acked: bool = False) -> Traffic:
    """The same with a gzip member for each emit, as fluentd makes them."""
    return _packed(
        lambda events: b"".join(
            gzip.compress(b"".join(events[i : i + EVENTS_PER_EMIT]), 6)
            for i in range(0, len(events), EVENTS_PER_EMIT)
        ),
        {"compressed": "gzip"},
        acked=acked,
    )


def zstandard(*, acked: bool = False) -> Traffic:
    """CompressedPackedForward, one zstd frame."""
    return _packed(lambda events: bytes(zstd.compress(b"".join(events))), {"compressed": "zstd"}, acked=acked)


def forward(*, acked: bool = False) -> Traffic:
    """Forward mode, messages of 1,000 events, without options as Fluent Bit sends them by default."""
    events = records(FORWARD_EVENTS if acked else 5 * FORWARD_EVENTS)
    messages = [
        _message(struct.pack(">BH", 0xDC, FORWARD_EVENTS) + b"".join(events[i : i + FORWARD_EVENTS]), acked)
        for i in range(0, len(events), FORWARD_EVENTS)
    ]
    return Traffic(b"".join(messages), len(events), b"".join(events), acked)


def message(*, acked: bool = False) -> Traffic:
    """Message mode: `[tag, time, record]` one behind the other; or one with its option, where acked."""
    events = records(1 if acked else CHUNK_BYTES // RECORD_BYTES)
    write = b"".join(_message(event[1:], acked, elements=3) for event in events)
    return Traffic(write, len(events), b"".join(events), acked)


def message_with_option(*, acked: bool = False) -> Traffic:
    """Message mode with an option that asks for nothing, as some clients always send one."""
    if acked:
        return message(acked=True)
    events = records(CHUNK_BYTES // RECORD_BYTES)
    head, option = b"\x94" + bytes(msgpack.packb(TAG)), bytes(msgpack.packb({"size": 1}))
    return Traffic(
        b"".join(head + event[1:] + option for event in events), len(events), b"".join(events), acked=False
    )


def _packed(pack: Callable[[list[bytes]], bytes], option: dict[str, object], *, acked: bool) -> Traffic:
    events = records(CHUNK_BYTES // RECORD_BYTES)
    body = pack(events)
    option = {"size": len(events), **option}
    write = _message(struct.pack(">BI", 0xDB, len(body)) + body, acked, option=option)
    return Traffic(write, len(events), b"".join(events), acked)


def _message(
    body: bytes, acked: bool, *, elements: int = 2, option: dict[str, object] | None = None
) -> bytes:
    if acked:  # the id comes last, where the sender writes another over it each time
        option = {**(option or {}), "chunk": "0" * CHUNK_ID_BYTES}
    end = b"" if option is None else bytes(msgpack.packb(option))
    return bytes([0x90 | (elements + bool(option))]) + bytes(msgpack.packb(TAG)) + body + end
