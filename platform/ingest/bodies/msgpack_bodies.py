"""Msgpack bodies as events: records, events, or arrays of them, one behind the other."""

from collections.abc import Generator

import msgpack

from ...errors import ChunkRejected
from ...records.decoded_size import ending
from ...records.events import from_ext
from ...records.times import EventTime
from .body_events import RECORDS_A_STEP, BodyBounds, event_head, head_of

MAX_FIELDS = 10_000
"""Of a record whose time is in one of them: they are looked at one by one."""
_MAX_TIME_BYTES = 300

Payload = bytes | bytearray | memoryview


def events_of_msgpack(
    body: Payload, time_key: str, stamp_ns: int, bounds: BodyBounds
) -> Generator[None, None, Payload]:
    """Fluent Bit's events pass as they are; records get a time put before them, their bytes stay the same.

    Yields every few milliseconds. Raises ChunkRejected as `formats.making_events`.
    """
    events = _Events(body, time_key, stamp_ns, bounds)
    try:
        try:
            if (yield from events.read()):
                return body
        except msgpack.StackError:
            yield from events.read_deep()
    except (msgpack.OutOfData, IndexError) as error:
        raise ChunkRejected(
            "malformed",
            f"the body of {len(body)} bytes ends inside the value at byte {events.start}; check the sender",
        ) from error
    except ChunkRejected:
        raise  # it is a ValueError too
    except (ValueError, TypeError) as error:
        raise ChunkRejected(
            "malformed",
            f"the value at byte {events.start} is not well-formed ({error!r}); check the sender",
        ) from error
    return events.payload


class _Events:
    """The events that are made of a body, and how far it is read."""

    def __init__(self, body: Payload, time_key: str, stamp_ns: int, bounds: BodyBounds) -> None:
        self.payload = bytearray()
        self.start = 0
        """Of the value that is read."""
        self._left = 0  # elements of an array that are still to be read
        self._count = 0
        self._body = body
        self._bounds = bounds
        self._stamp = event_head(stamp_ns)
        self._key = time_key.encode()

    def read(self) -> Generator[None, None, bool]:
        """Reads the body; True if it begins with an event: then it is judged as events anywhere are.

        Raises StackError at the first value that is too deep for msgpack's stack.
        """
        body, walker = self._body, _walker_over(self._body)
        while self._left or walker.tell() < len(body):
            self.start = start = walker.tell()
            if not self._left and _is_array(body[start]):
                if not _starts_event(body, start):
                    self._left = walker.read_array_header()
                    continue
                if not self.payload:
                    return True
            self._add(body, start, walker)
            self._left = max(0, self._left - 1)
            if self._count % RECORDS_A_STEP == 0:
                yield
        return False

    def read_deep(self) -> Generator[None, None, None]:
        """Reads the rest, each value by itself."""
        body = self._body
        while self.start < len(body):
            start = self.start
            if not self._left and _is_array(body[start]) and not _starts_event(body, start):
                self._left, self.start = _length(body, start), _inside(body, start)
                continue
            self.start = yield from self._add_deep(start)
            self._left = max(0, self._left - 1)
        if self._left or self.start > len(body):
            raise msgpack.OutOfData

    def _add(self, body: Payload, start: int, walker: msgpack.Unpacker) -> None:
        """Adds the record or event that begins at `start`; the walker goes to its end."""
        if _is_map(body[start]):
            if self._key:
                time, pieces = _without(walker, body, self._key)
                self.payload += self._stamp if time is None else _head_of(time)
                self.payload += pieces
            else:
                walker.skip()
                self.payload += self._stamp
                self.payload += body[start : walker.tell()]
        elif _is_pair(body, start):
            walker.skip()
            self.payload += body[start : walker.tell()]
        else:
            raise ChunkRejected(
                "malformed",
                f"byte {start} of the body begins neither a map nor [time, record]; check the sender",
            )
        self._added()

    def _add_deep(self, start: int) -> Generator[None, None, int]:
        """As `_add`, if msgpack's stack may be too small; gives where it ends. The gateway rejects it."""
        stop = yield from ending(self._body, start)
        if stop is None:
            raise msgpack.OutOfData
        one = self._body[start:stop]
        try:
            self._add(one, 0, _walker_over(one))
        except msgpack.StackError:
            self.payload += self._stamp if _is_map(one[0]) else b""
            self.payload += one
            self._added()
        return stop

    def _added(self) -> None:
        self._count += 1
        self._bounds.check(self._count, len(self.payload))


def _without(
    walker: msgpack.Unpacker, body: bytes | bytearray | memoryview, key: bytes
) -> tuple[bytes | None, bytes]:
    """The value of `key` (None if the map lacks it), and the map without this key, byte for byte.

    If a key is repeated, the last value counts, as in JSON.
    """
    time: bytes | None = None
    pieces = bytearray()
    count = kept = walker.read_map_header()
    if count > MAX_FIELDS:
        raise ChunkRejected(
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


def _starts_event(body: Payload, start: int) -> bool:
    """Whether an event begins at `start`, and no list of records or events."""
    return _is_pair(body, start) and _is_event(body, start)


def _is_event(body: bytes | bytearray | memoryview, start: int) -> bool:
    """Whether the array of two at `start` is `[time, record]`, and no list of two records or two events."""
    first = _inside(body, start)
    if _is_map(body[first]):
        return False
    if not _is_pair(body, first):
        return True
    # Distinguishes [[time, metadata], record] from [[time, record], [time, record]]: a record is a map.
    walker = msgpack.Unpacker(read_size=len(body), max_buffer_size=len(body))
    walker.feed(body[first:])
    walker.skip()
    return not _is_array(body[first + walker.tell()])
