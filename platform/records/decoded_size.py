"""How much memory msgpack takes once it is decoded to Python objects, from its bytes alone.

An empty array is one byte of msgpack and 72 bytes of Python. 18 KB of gzip hold 8 MiB of empty arrays, and
these become 600 MB. So check the decoded size before you decode events. There are three estimates, each
closer than the last, and slower:

    most_bytes      from the length alone; no time
    bound_bytes     from how many bytes of a kind there are, at any position; 0.4 ms a MiB
    measuring       value by value; up to 30 ms a MiB, little for long strings

Sizes are those of CPython 3.11 on 64 bits, with the allocator's rounding: 72 bytes an empty list or dict,
232 a dict of one to five, 48 and its content a string. They are estimates: within a few per cent where memory
counts, and never a promise for another Python.
"""

from collections.abc import Generator, Iterator

import msgpack
import numpy as np
from numpy.typing import NDArray

from .msgpack_heads import DISTANCE, EACH, LENGTH_BYTES, SIZE, Payload, heads_of
from .sliced_work import run_to_end

DEFAULT_LIMIT_BYTES = 256 * 1024 * 1024
"""Limit for a chunk. A full chunk of 8 MiB whose events are as small as 18 bytes decodes to 224 MiB."""

_MOST_BYTES_A_BYTE = 80
_EVENT_BYTES = 64
"""Its places in two lists, and its time in nanoseconds."""

# Bounds by the first byte of a value. A byte inside a string counts as if it began a value.
_ANY_BYTE_BYTES = 8  # the place of a value in its list or dict
_HIGH_BYTE_BYTES = 112  # 0x80 to 0xff: a list, a string, a number or an extension
_MAP_BYTES = 400  # 0x80 to 0x8f
_LARGE_MAP_BYTES = 8192  # 0xde and 0xdf
_SLICE_BYTES = 128 * 1024  # stays in the cache


def most_bytes(size: int, events: int) -> int:
    """What `size` bytes of msgpack can decode to at most."""
    return _MOST_BYTES_A_BYTE * size + _EVENT_BYTES * events


def bound_bytes(payload: Payload, events: int) -> int:
    """What the payload decodes to at most. Close for text; up to 20 times too much for binary strings."""
    high = maps = large_maps = 0
    data = np.frombuffer(payload, np.uint8)
    for start in range(0, len(data), _SLICE_BYTES):
        piece = data[start : start + _SLICE_BYTES]
        high += int(np.count_nonzero(piece.view(np.int8) < 0))
        maps += int(np.count_nonzero((piece & 0xF0) == 0x80))
        large_maps += int(np.count_nonzero((piece | 1) == 0xDF))
    return (
        _ANY_BYTE_BYTES * len(data)
        + _HIGH_BYTE_BYTES * high
        + _MAP_BYTES * maps
        + _LARGE_MAP_BYTES * large_maps
        + _EVENT_BYTES * events
    )


def is_surely_within(payload: Payload, events: int, *, limit_bytes: int) -> bool:
    """Whether one of the two bounds already says that the payload is within the limit."""
    return most_bytes(len(payload), events) <= limit_bytes or bound_bytes(payload, events) <= limit_bytes


def measuring(payload: Payload, events: int, *, limit_bytes: int) -> Generator[None, None, int]:
    """The decoded size of well-formed events; any figure above `limit_bytes` if it is more than that.

    Yields every millisecond. Memory: 1 MiB.

    Walking msgpack needs no stack: the head of an array is followed by the head of its first element. So a
    payload is a chain of heads, each of which gives the distance to the next. Distant heads are followed one
    by one. For close heads, the distance is computed for every byte of a window as if a head were there, then
    for 2, 4, … 64 heads at once ("pointer jumping"), and 64 are followed in a step.
    """
    data = np.frombuffer(payload, np.uint8)
    used_bytes, position, end = _EVENT_BYTES * events, 0, len(data)
    while position < end and used_bytes <= limit_bytes:
        began = position
        for _ in range(_HEADS_A_LOOK):
            distance, size = _value_at(payload, position)
            position += distance
            used_bytes += size
            if position >= end:
                return used_bytes
        if position - began < _FAR_APART_BYTES:
            distance, size = _window_at(data[position : position + _WINDOW_BYTES + _LONGEST_HEAD_BYTES])
            position += distance
            used_bytes += size
        yield
    return used_bytes


_HEADS_A_LOOK = 64
_FAR_APART_BYTES = 64 * _HEADS_A_LOOK
_WINDOW_BYTES = 16 * 1024
_LONGEST_HEAD_BYTES = 6
_JUMPS = 6  # 2^6 heads in a step


_DISTANCES, _SIZES = np.array(DISTANCE, np.int64), np.array(SIZE, np.int64)
_HAS_LENGTH = np.array(LENGTH_BYTES) > 0
_EACHES = np.array(EACH, np.int64)
# The length of arrays and maps is the number of values that follow, not of bytes.
_IN_BYTES = np.array([1 if n and not 0xDC <= head <= 0xDF else 0 for head, n in enumerate(LENGTH_BYTES)])
_LENGTHS_OF_BYTES = np.array(LENGTH_BYTES)


def _value_at(payload: Payload, position: int) -> tuple[int, int]:
    """(bytes to the next head, decoded size) of the value at `position`, without what is in a container."""
    head = payload[position]
    width = LENGTH_BYTES[head]
    if not width:
        return DISTANCE[head], SIZE[head]
    length = int.from_bytes(payload[position + 1 : position + 1 + width], "big")
    in_bytes = 0 if 0xDC <= head <= 0xDF else length
    return DISTANCE[head] + in_bytes, SIZE[head] + EACH[head] * length


def _window_at(data: NDArray[np.uint8]) -> tuple[int, int]:
    """As `_value_at`, of all values that begin in a window; the first begins at its first byte."""
    size = max(1, min(_WINDOW_BYTES, len(data)))
    heads = data[:size]
    distances, sizes = _DISTANCES[heads], _SIZES[heads]
    where = np.flatnonzero(_HAS_LENGTH[heads])
    if len(where):
        kinds = heads[where]
        following = np.zeros(len(data) + _LONGEST_HEAD_BYTES, np.int64)
        following[: len(data)] = data
        widths = _LENGTHS_OF_BYTES[kinds]
        lengths = np.zeros(len(where), np.int64)
        for byte in range(4):
            lengths = np.where(byte < widths, lengths << 8 | following[where + 1 + byte], lengths)
        distances[where] += _IN_BYTES[kinds] * lengths
        sizes[where] += _EACHES[kinds] * lengths
    # One more entry represents everything after the window; it points to itself, and has size 0.
    one = np.append(np.minimum(np.arange(size) + distances, size), size)
    cost = np.append(sizes, 0)
    many, cost_of_many = one, cost
    for _ in range(_JUMPS):
        cost_of_many = cost_of_many + cost_of_many[many]
        many = many[many]
    position = used = 0
    while (next_position := int(many[position])) < size:
        used += int(cost_of_many[position])
        position = next_position
    while (next_position := int(one[position])) < size:
        used += int(cost[position])
        position = next_position
    return position + int(distances[position]), used + int(cost[position])


def ending(payload: Payload, start: int) -> Generator[None, None, int | None]:
    """The end of the value at `start`, however deep it is nested; None if the payload ends before it, or
    is not msgpack. Yields every few milliseconds. 0.2 s a MiB: for what is too deep for msgpack's own stack.
    """
    position, left, heads = start, 1, _HEADS_A_STEP
    while left:
        heads, position, left = heads_of(payload, position, left, _HEADS_A_STEP)
        if left < 0 or (left and heads < _HEADS_A_STEP):
            return None
        yield
    return position if position <= len(payload) else None


_HEADS_A_STEP = 16_384


def measured_bytes(payload: Payload, events: int, *, limit_bytes: int) -> int:
    """What `measuring` returns, in one go."""
    return run_to_end(measuring(payload, events, limit_bytes=limit_bytes))


def slices(payload: Payload, *, limit_bytes: int, max_events: int) -> Iterator[tuple[int, int, int]]:
    """Cuts well-formed events into slices: (first byte, byte after the last, events).

    A slice surely decodes to at most `limit_bytes`, or is a single event; it has at most `max_events`.
    """
    walker = msgpack.Unpacker(read_size=max(len(payload), 1), max_buffer_size=max(len(payload), 1))
    walker.feed(payload)
    skip, tell = walker.skip, walker.tell
    begin = end = events = 0
    while end < len(payload):
        skip()
        stop = tell()
        if events and (events == max_events or most_bytes(stop - begin, events + 1) > limit_bytes):
            yield begin, end, events
            begin, events = end, 0
        end = stop
        events += 1
    if events:
        yield begin, end, events
