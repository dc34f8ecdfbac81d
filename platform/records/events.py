"""fluentd events as bytes and as Python objects.

A payload is the entries of PackedForward: msgpack events `[time, record]`, one after another, with
nothing around them (forward protocol v1, "PackedForward Mode"). Since v1.5 an event may be
`[[time, metadata], record]`; Fluent Bit sends that by default.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgpack
import msgspec

from ..errors import ChunkRejected
from .nesting import TOO_DEEP
from .times import NS_PER_S as NS_PER_S
from .times import EventTime as EventTime
from .times import seconds_to_ns

EVENT_TIME_TYPE = 0  # msgpack ext type of EventTime: seconds and nanoseconds as two big-endian u32


def from_ext(code: int, data: bytes) -> Any:
    """Decodes an extension value of msgpack: EventTime, else msgpack's own ExtType."""
    if code == EVENT_TIME_TYPE and len(data) == 8:
        seconds = int.from_bytes(data[:4], "big")
        return EventTime(seconds * NS_PER_S + int.from_bytes(data[4:], "big"))
    return msgpack.ExtType(code, data)


def encode_event_time(time: EventTime) -> msgpack.ExtType:
    """The inverse of what decoding gives, to the nanosecond."""
    return msgpack.ExtType(EVENT_TIME_TYPE, struct.pack(">II", *divmod(time, NS_PER_S)))


def decode_record(encoded: bytes | memoryview) -> Any:
    """One value of msgpack as `iterate_events` gives records. Raises ValueError, TypeError, or what msgpack
    raises."""
    return msgpack.unpackb(encoded, raw=True, strict_map_key=False, ext_hook=from_ext)


def time_ns(time: Any) -> int:
    """The time element of a decoded event in nanoseconds. Raises ChunkRejected if it is not a time.

    Accepts EventTime, integer and float seconds, msgpack's own timestamp, and `[time, metadata]`.
    """
    ns: int | None = None
    if isinstance(time, EventTime):
        ns = int(time)
    elif isinstance(time, int) and not isinstance(time, bool):
        ns = time * NS_PER_S
    elif isinstance(time, float) and math.isfinite(time * NS_PER_S):
        ns = seconds_to_ns(time)
    elif isinstance(time, msgpack.Timestamp):
        ns = int(time.to_unix_nano())
    elif isinstance(time, list) and len(time) == 2 and not isinstance(time[0], list):
        ns = time_ns(time[0])
    if ns is None or not -(1 << 63) <= ns < 1 << 63:
        raise ChunkRejected(
            "bad-time", f"an event's time is {time!r:.80}; send EventTime or seconds since the epoch"
        )
    return ns


def decode_time(time: bytes) -> int:
    """The encoded time element of an event in nanoseconds. Raises ChunkRejected if it is not a time."""
    try:
        decoded = decode_record(time)
    except (ValueError, TypeError, RecursionError) as error:
        raise ChunkRejected("bad-time", f"an event's time cannot be decoded: {error}") from error
    return time_ns(decoded)


def decode_event(encoded: bytes | memoryview) -> tuple[int, Any]:
    """(time in ns, record) of one event, decoded as `iterate_events` does. Raises ChunkRejected."""
    try:
        event = decode_record(encoded)
    except msgpack.StackError as error:
        raise ChunkRejected("malformed", TOO_DEEP) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ChunkRejected("malformed", f"cannot be decoded ({error or type(error).__name__})") from error
    if not (isinstance(event, list) and len(event) == 2):
        raise ChunkRejected("malformed", "is no [time, record]")
    return time_ns(event[0]), event[1]


def iterate_events(payload: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """Yields (time in ns, record) per event; msgpack str and bin are both decoded to bytes.

    fluentd sends binary values typed str, so nothing here may assume UTF-8.
    Raises ChunkRejected at the first invalid event.
    """
    unpacker = msgpack.Unpacker(
        raw=True, strict_map_key=False, ext_hook=from_ext, max_buffer_size=max(len(payload), 1)
    )
    unpacker.feed(payload)
    index = 0
    while True:
        try:
            event = unpacker.unpack()
        except msgpack.OutOfData:
            break
        except (ValueError, TypeError, RecursionError) as error:
            raise ChunkRejected(
                "malformed", f"event {index} of the chunk cannot be decoded: {error}; check the sender"
            ) from error
        if not (isinstance(event, list) and len(event) == 2):
            raise ChunkRejected(
                "malformed", f"event {index} of the chunk is no [time, record]; check the sender"
            )
        yield time_ns(event[0]), event[1]
        index += 1
    if unpacker.tell() != len(payload):
        raise ChunkRejected("malformed", f"the chunk ends inside event {index}; check the sender")


class _Pair(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    time: msgspec.Raw
    record: msgspec.Raw


_pairs = msgspec.msgpack.Decoder(list[_Pair])
_PAIRS_AT_ONCE = 65_536


def check_pairs(payload: bytes, count: int) -> None:
    """Raise ChunkRejected unless the payload is `count` arrays of two; checks no deeper.

    One call into C at the speed of a walk, for events that are stored without being decoded; for more than
    65,536 events one call for that many. About 200 bytes of memory for each of these while it runs.
    """
    try:
        if count <= _PAIRS_AT_ONCE:
            _pairs.decode(struct.pack(">BI", 0xDD, count) + payload)
            return
        walker = msgpack.Unpacker(read_size=len(payload) or 1, max_buffer_size=len(payload) or 1)
        walker.feed(payload)
        skip, end = walker.skip, 0
        for first in range(0, count, _PAIRS_AT_ONCE):
            some = min(_PAIRS_AT_ONCE, count - first)
            for _ in range(some):
                skip()
            begin, end = end, walker.tell()
            _pairs.decode(struct.pack(">BI", 0xDD, some) + payload[begin:end])
        if end != len(payload):
            raise ValueError(f"{len(payload) - end} bytes behind the last")
    except (msgspec.DecodeError, RecursionError, ValueError, msgpack.OutOfData) as error:
        raise ChunkRejected(
            "malformed", f"an event is no [time, record] ({error!r}); check the sender"
        ) from error


def chunk_key(sender: str, tag: str, chunk_id: bytes) -> bytes:
    """A key of 16 bytes for (sender, tag, chunk ID), which identifies a retransmission."""
    return _key(sender, tag, chunk_id, kind=b"")


def content_key(sender: str, tag: str, payload: bytes | bytearray | memoryview) -> bytes:
    """A key of 16 bytes for (sender, tag, payload), which identifies a repetition with another ID."""
    return _key(sender, tag, payload, kind=b"content")


def _key(sender: str, tag: str, last: bytes | bytearray | memoryview, *, kind: bytes) -> bytes:
    key = _begun_key(sender, tag, kind).copy()
    key.update(len(last).to_bytes(4, "big"))
    key.update(last)
    return key.digest()


@lru_cache(maxsize=4096)
def _begun_key(sender: str, tag: str, kind: bytes) -> "hashlib.blake2b":
    """What the keys of a tag and sender have in common; only for copies."""
    key = hashlib.blake2b(digest_size=16, person=kind)
    for part in (sender.encode(), tag.encode()):
        key.update(len(part).to_bytes(4, "big"))
        key.update(part)
    return key


ID_ONLY_PREFIX = b"stored-anew:"
"""Prefix of the ID of a chunk that was published, could not be archived, and is replayed."""


def is_identified_by_id(chunk_id: bytes | None) -> bool:
    """Whether only the chunk's ID, and not its content, identifies a repetition."""
    return chunk_id is not None and chunk_id.startswith(ID_ONLY_PREFIX)
