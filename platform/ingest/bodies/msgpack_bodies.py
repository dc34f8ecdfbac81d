"""Msgpack bodies as events: records, events, or arrays of them, one behind the other."""

from collections.abc import Generator

import msgpack

from ...errors import ChunkRefused
from ...records.decoded_size import ending
from ...records.events import from_ext
from ...records.times import EventTime
from .body_events import RECORDS_A_STEP, BodyBounds, event_head, head_of

MAX_FIELDS = 10_000
"""Of a record whose time is in one of them: they are looked at one by one."""
_MAX_TIME_BYTES = 300

Payload = bytes | bytearray | memoryview


def events_of_msgpack(
    body: bytes | bytearray | memoryview, time_key: str, stamp_ns: int, bounds: BodyBounds
) -> Generator[None, None, bytes | bytearray | memoryview]:
    """Fluent Bit's events pass as they are; records get a time put before them, their bytes stay the same.

    Yields every few milliseconds. Raises ChunkRefused as `http_formats.making_events`.
    """
    walker = _walker_over(body)
    payload = bytearray()
    events = 0
    stamp, key = event_head(stamp_ns), time_key.encode()

    def add(start: int, body: Payload = body, walker: msgpack.Unpacker = walker) -> None:
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

    def add_deep(start: int) -> Generator[None, None, int]:
        """As `add`, where msgpack's stack may be too small; gives where it ends. The gateway rejects it."""
        nonlocal payload, events
        stop = yield from ending(body, start)
        if stop is None:
            raise msgpack.OutOfData
        one = body[start:stop]
        try:
            add(0, one, _walker_over(one))
        except msgpack.StackError:
            payload += stamp if _is_map(one[0]) else b""
            payload += one
            events += 1
            bounds.check(events, len(payload))
        return stop

    start = left = 0  # of an array's elements
    try:
        try:
            while (start := walker.tell()) < len(body):
                if _is_pair(body, start) and _is_event(body, start):
                    if not payload:
                        return body  # what follows is judged as events anywhere are
                    add(start)
                elif _is_array(body[start]):
                    left = walker.read_array_header()
                    while left:
                        start = walker.tell()
                        add(start)
                        left -= 1
                        if events % RECORDS_A_STEP == 0:
                            yield
                else:
                    add(start)
                if events % RECORDS_A_STEP == 0:
                    yield
        except msgpack.StackError:
            while start < len(body):  # each by itself, from the first on that is too deep for the walker
                if (
                    not left
                    and _is_array(body[start])
                    and not (_is_pair(body, start) and _is_event(body, start))
                ):
                    left, start = _length(body, start), _inside(body, start)
                    continue
                start = yield from add_deep(start)
                left = max(0, left - 1)
            if left or start > len(body):
                raise msgpack.OutOfData from None
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


def _length(body: Payload, start: int) -> int:
    """How many elements the array at `start` has."""
    head = body[start]
    return head & 0x0F if head <= 0x9F else int.from_bytes(body[start + 1 : _inside(body, start)], "big")


def _walker_over(data: Payload) -> msgpack.Unpacker:
    walker = msgpack.Unpacker(read_size=len(data) or 1, max_buffer_size=len(data) or 1)
    walker.feed(data)
    return walker


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
