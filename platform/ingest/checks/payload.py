"""A chunk's payload: checked, and its events counted."""

from collections.abc import Generator
from typing import Final

import msgpack

from ...errors import ChunkRejected
from ...records.nesting import BOUNDED_ARRAY_BYTES, MAX_NESTING, TOO_DEEP, as_bounded_array, is_too_deep
from ...records.sliced_work import run_to_end

Payload = bytes | bytearray | memoryview

INVALID_EVENTS: Final = "invalid-event"
"""The code of events that cannot be stored, whatever their policy asks for."""

EVENTS_A_STEP = 16_384
MAX_EVENTS = 2**30


def count_events(payload: Payload, size_hint: int | None = None, *, max_events: int = MAX_EVENTS) -> int:
    """What `counting` returns, in one go."""
    return run_to_end(counting(payload, size_hint, max_events=max_events))


def counting(payload: Payload, size_hint: int | None, *, max_events: int) -> Generator[None, None, int]:
    """Counts the events and checks that all are well-formed msgpack; yields every few milliseconds.

    `size_hint` is the option `size`: if it is right, one call into C walks all events; if it is absent or
    wrong (it is only a hint) they are walked one by one. If there are more than `max_events`, the result is
    larger than that, and the other events are not checked. Raises ChunkRejected("malformed") with the index
    of the first event that is not well-formed, or if the first is not a `[time, record]`; the code that
    decodes the events checks this for the others. Raises ChunkRejected("invalid-event") if an event is
    nested too deeply.
    """
    if len(payload) and not begins_with_pair(payload):
        raise ChunkRejected(
            "malformed", "the payload does not begin with an event [time, record]; check the sender"
        )
    count, walker = 0, None
    if size_hint and 0 < size_hint <= len(payload):
        walker = _walk_as_one_array(payload, size_hint)
    if walker is None:
        walker = _new_walker(payload)
        walker.feed(payload)
        walked_before = 0
    else:
        count, walked_before = size_hint or 0, BOUNDED_ARRAY_BYTES
    skip, tell = walker.skip, walker.tell
    start = tell()
    try:
        while count <= max_events:
            for _ in range(EVENTS_A_STEP):
                before, start = start, tell()
                if start - before > MAX_NESTING:
                    _check_nesting(payload, before - walked_before, start - walked_before, count - 1)
                skip()
                count += 1
            yield
    except msgpack.OutOfData:
        pass
    except msgpack.StackError as error:
        raise nested_too_deeply(f"event {count}") from error
    except ChunkRejected:
        raise  # it is a ValueError too
    except ValueError as error:
        reason = str(error) or type(error).__name__
        raise ChunkRejected(
            "malformed", f"event {count} is not well-formed ({reason}); check the sender"
        ) from error
    if count <= max_events and start - walked_before != len(payload):
        raise ChunkRejected(
            "malformed", f"the payload of {len(payload)} bytes ends inside event {count}; check the sender"
        )
    return count


def _check_nesting(payload: Payload, begin: int, end: int, index: int) -> None:
    if is_too_deep(payload[begin:end]):
        raise nested_too_deeply(f"event {index}")


def nested_too_deeply(what: str) -> ChunkRejected:
    """The error that rejects a chunk for its nesting, or makes the gateway check its events one by one."""
    return ChunkRejected(INVALID_EVENTS, f"{what} {TOO_DEEP}; check the sender")


def _walk_as_one_array(payload: Payload, count: int) -> "msgpack.Unpacker | None":
    """A walker after the first `count` events; None if there are fewer, or one is malformed."""
    walker = _new_walker(payload)
    walker.feed(as_bounded_array(count))
    walker.feed(payload)
    try:
        walker.skip()
    except (msgpack.OutOfData, ValueError):
        return None
    return walker


def _new_walker(payload: Payload) -> msgpack.Unpacker:
    size = len(payload) + BOUNDED_ARRAY_BYTES
    return msgpack.Unpacker(read_size=size, max_buffer_size=size)


def begins_with_pair(payload: Payload) -> bool:
    """Whether the first event is an array of two, as every event is; `payload` is not empty."""
    head = payload[0]
    return (
        head == 0x92
        or (head == 0xDC and payload[1:3] == b"\0\2")
        or (head == 0xDD and payload[1:5] == b"\0\0\0\2")
    )
