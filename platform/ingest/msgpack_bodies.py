"""Msgpack bodies as events: records, events, or arrays of them, one behind the other."""

from collections.abc import Generator

import msgpack

from ..errors import ChunkRefused
from ..events import from_ext
from ..times import EventTime
from .body_events import RECORDS_A_STEP, BodyBounds, event_head, head_of

MAX_FIELDS = 10_000
"""Of a record whose time is in one of them: they are looked at one by one."""
_MAX_TIME_BYTES = 300


def events_of_msgpack(
    body: bytes | bytearray | memoryview, time_key: str, stamp_ns: int, bounds: BodyBounds
) -> Generator[None, None, bytes | bytearray | memoryview]:
    """Fluent Bit's events pass as they are; records get a time put before them, their bytes stay the same.

    Yields every few milliseconds. Raises ChunkRefused as `http_formats.making_events`.
    """
    walker = msgpack.Unpacker(read_size=len(body) or 1, max_buffer_size=len(body) or 1)
    walker.feed(body)
    payload = bytearray()
    events = 0
    stamp, key = event_head(stamp_ns), time_key.encode()

    def add(start: int) -> None:
        """One record or event, which begins at `start` and ends where the walker goes."""
        nonlocal payload, events
        if _is_map(body[start]):
            if key:
                time, pieces = _without(walker, body, key)
                payload += stamp if time is None else _head_of(time)
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
        events += 1
        bounds.check(events, len(payload))

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
                    if events % RECORDS_A_STEP == 0:
                        yield
            else:
                add(start)
            if events % RECORDS_A_STEP == 0:
                yield
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
) -> tuple[bytes | None, bytes]:
    """The value that `key` has (None where there is no such key), and the map without it, byte for byte.

    Of a key that comes twice the last value counts, as in JSON.
    """
    time: bytes | None = None
    pieces = bytearray()
    count = kept = walker.read_map_header()
    if count > MAX_FIELDS:
        raise ChunkRefused(
            "malformed",
            f"a record has {count} fields, of which one may be its time; at most {MAX_FIELDS} are looked at. "
            "Send [time, record]",
        )
    for _ in range(count):
        begin = walker.tell()
        walker.skip()
        middle = walker.tell()
        walker.skip()
        end = walker.tell()
        if _is_text(body[begin:middle], key):
            time = bytes(body[middle:end])
            kept -= 1
        else:
            pieces += body[begin:end]
    return time, bytes(msgpack.Packer().pack_map_header(kept)) + pieces


def _is_text(piece: bytes | bytearray | memoryview, text: bytes) -> bool:
    """Whether a msgpack value is `text`, typed str or bin."""
    if len(piece) > len(text) + 5 or piece[-len(text) :] != text:
        return False
    return bool(msgpack.unpackb(piece, raw=True, strict_map_key=False) == text)


def _head_of(piece: bytes) -> bytes:
    """The head of an event whose time is the value `piece`, as `body_events.head_of`."""
    if len(piece) > _MAX_TIME_BYTES:
        return head_of(f"a value of {len(piece)} bytes")
    value = msgpack.unpackb(piece, raw=True, strict_map_key=False, ext_hook=from_ext)
    if isinstance(value, msgpack.Timestamp):
        value = EventTime(value.to_unix_nano())
    return head_of(value.decode(errors="replace") if isinstance(value, bytes) else value)


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
