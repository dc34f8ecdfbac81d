"""The first bytes of msgpack values, as far as a forward message needs them: strings and arrays."""

from ...errors import FramingError

NIL = 0xC0
PAIR = b"\x92"  # the array of two that holds an event


STRINGS = frozenset((*range(0xA0, 0xC0), *range(0xC4, 0xC7), *range(0xD9, 0xDC)))
"""The first bytes of a str or bin."""

ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
"""The first bytes of an array."""


def string_at(buffer: bytearray, position: int, tail: int) -> tuple[int, int] | None:
    """(start, stop) of the bytes of a str or bin; None if its header is incomplete."""
    if position >= tail:
        return None
    head = buffer[position]
    if 0xA0 <= head <= 0xBF:
        return position + 1, position + 1 + (head & 0x1F)
    if 0xD9 <= head <= 0xDB:
        width = 1 << (head - 0xD9)
    elif 0xC4 <= head <= 0xC6:
        width = 1 << (head - 0xC4)
    else:
        raise FramingError(f"byte 0x{head:02x} stands where a tag should begin; is it the forward protocol?")
    start = position + 1 + width
    if start > tail:
        return None
    return start, start + int.from_bytes(buffer[position + 1 : start], "big")


def array_header(buffer: bytearray, position: int, tail: int) -> tuple[int, int] | None:
    """(number of elements, position of the first); None if the header is incomplete."""
    head = buffer[position]
    if 0x90 <= head <= 0x9F:
        return head & 0x0F, position + 1
    if head != 0xDC and head != 0xDD:
        raise FramingError(f"no forward message begins with byte 0x{head:02x}; {_what_begins_so(head)}")
    start = position + (3 if head == 0xDC else 5)
    if start > tail:
        return None
    return int.from_bytes(buffer[position + 1 : start], "big"), start


def _what_begins_so(head: int) -> str:
    if head == 0x16:
        return (
            "TLS does, which this port does not speak: set gateway.tls_cert_file and tls_key_file, or turn "
            "TLS off in the sender"
        )
    return "is it the forward protocol?"
