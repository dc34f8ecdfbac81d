"""The limit of nested maps and lists in one record: the same at every endpoint."""

import struct

import msgpack

MAX_NESTING = 800
"""The depth of nested maps and lists in one record.

msgpack ends at 1,024; Python's and msgspec's decoders near 960, less what calls them: this is below all.
"""
TOO_DEEP = f"is nested deeper than {MAX_NESTING} levels"

Payload = bytes | bytearray | memoryview

_MSGPACK_LEVELS = 1024
# Levels before the events leave as many of msgpack's own as an event may have: its pair, and its record's.
_LEVELS_BEFORE = b"\x91" * (_MSGPACK_LEVELS - 2 - MAX_NESTING)


def as_bounded_array(count: int) -> bytes:
    """A prefix that makes `count` events one value: msgpack raises StackError if one is too deep."""
    return _LEVELS_BEFORE + struct.pack(">BI", 0xDD, count)


BOUNDED_ARRAY_BYTES = len(as_bounded_array(0))


def is_too_deep(payload: Payload, events: int = 1) -> bool:
    """Whether one of the events has more than `MAX_NESTING` levels; one walk in C, and a copy of the payload.

    False if the payload turns out to be broken before that.
    """
    if len(payload) <= MAX_NESTING:
        return False
    size = len(payload) + BOUNDED_ARRAY_BYTES
    walker = msgpack.Unpacker(read_size=size, max_buffer_size=size)
    walker.feed(as_bounded_array(events))
    walker.feed(payload)
    try:
        walker.skip()
    except msgpack.StackError:
        return True
    except (msgpack.OutOfData, ValueError):
        return False
    return False
