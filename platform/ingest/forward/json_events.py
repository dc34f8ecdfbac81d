"""Events as JSON on the forward port, as fluentd's in_forward takes them: for `nc` and small devices.

    ["turbine.t07", 1790000000, {"power_kw": 1520.5}]
    ["turbine.t07", [[1790000000, {"power_kw": 1520.5}], [1790000001.5, {…}]], {"chunk": "id"}]

A connection whose first byte is `[`, `{` or that of a byte order mark (none begins a message in msgpack)
speaks JSON to its end: values one behind the other, white space between them or not. Times and records are
what they are over HTTP (`times`, `json_records`); a time of null is 0, of a sender without a clock. Acks are
JSON too. Here events are decoded and packed one by one, which msgpack on the same port spares.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from ...errors import FramingError, JsonInvalid
from ...records.json_records import BYTE_ORDER_MARK, MAX_NESTING, decode_json, exact_numbers, pack_json_into
from ..bodies.body_events import event_head, head_of
from .framing import FREE_BYTES, MAX_TAG_BYTES
from .message import Message, json_options

FIRST_BYTES = frozenset(b"[{" + BYTE_ORDER_MARK[:1])
MAX_JSON_MESSAGE_BYTES = 1024 * 1024
"""Decoded JSON can be 24 times as large as its text: what sends more at once has msgpack."""
MAX_DEPTH = MAX_NESTING + 8
"""Of a message: what is around a record is not nested deeper."""
_READ_BYTES = 64 * 1024
_BLANK = re.compile(rb"(?:[ \t\r\n]|%b)*+" % BYTE_ORDER_MARK)
_STRUCTURE = re.compile(rb'["\[\]{}]')
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class JsonReader:
    """The receive buffer of a connection that speaks JSON, and the parser over it, used as `MessageReader`.

    Memory: `max_message_bytes`, 1 MiB at most, of one incomplete message and what one read adds; while it is
    decoded 24 times as much.
    Every byte is looked at once, however the bytes are cut.
    """

    has_more = False
    """`messages` gives all that is complete."""

    def __init__(self, received: bytes | memoryview, *, max_message_bytes: int) -> None:
        self._max_message_bytes = min(max_message_bytes, MAX_JSON_MESSAGE_BYTES)
        self._room = bytearray(_READ_BYTES)
        self._pending = bytearray(received)
        self._scanned = 0
        self._depth = 0
        self._in_string = False

    @property
    def pending(self) -> memoryview:
        """The bytes of the message that is not complete, or not well-formed."""
        return memoryview(bytes(self._pending))

    @property
    def pending_bytes(self) -> int:
        """How many they are."""
        return len(self._pending)

    def writable(self) -> memoryview:
        """Where the next bytes go."""
        return memoryview(self._room)

    def received(self, size: int) -> None:
        """`size` bytes were written into what `writable` gave."""
        self._pending += memoryview(self._room)[:size]

    def messages(self) -> Iterator[Message]:
        """Yields complete messages in order. Raises FramingError if the bytes are not such JSON."""
        start = 0
        try:
            while (found := self._next_end(start)) is not None:
                begin, end = found
                message = _message(bytes(self._pending[begin:end]))
                start = end
                yield message
        finally:
            del self._pending[:start]
            self._scanned = max(0, self._scanned - start)
        if len(self._pending) > self._max_message_bytes:
            raise FramingError(
                f"a JSON message of {len(self._pending)} bytes or more is over the limit of "
                f"{self._max_message_bytes}; send smaller ones, or msgpack"
            )

    def _next_end(self, start: int) -> tuple[int, int] | None:
        """(begin, end) of the message at `start`; None if it is incomplete."""
        pending = self._pending
        position = max(start, self._scanned)
        if not self._depth:
            start = position = _end(_BLANK, pending, position)
            if BYTE_ORDER_MARK.startswith(pending[position : position + 3]):
                self._scanned = position
                return None  # nothing, or the beginning of a mark
            if pending[position] not in b"[{":
                raise FramingError(f"byte 0x{pending[position]:02x} stands where a JSON message should begin")
        while position < len(pending):
            if self._in_string:
                position = _end(_IN_STRING, pending, position)
                if position == len(pending) or pending[position] == 0x5C:  # its other half has not come yet
                    break
                self._in_string = False
                position += 1
                continue
            if (token := _STRUCTURE.search(pending, position)) is None:
                position = len(pending)
                break
            position = token.end()
            kind = token[0]
            if kind == b'"':
                self._in_string = True
            elif kind in b"[{":
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise FramingError(f"a JSON message is nested deeper than {MAX_DEPTH}; check the sender")
            else:
                self._depth -= 1
                if not self._depth:
                    self._scanned = position
                    return start, position
        self._scanned = position
        return None

    def settle(self) -> int:
        """How many bytes of memory the incomplete message has; 0 where they are few."""
        return len(self._pending) if len(self._pending) > FREE_BYTES else 0

    def compact(self) -> None:
        """Nothing to give back: 64 KiB stay."""

    @property
    def knows_the_end(self) -> bool:
        """JSON never says how long it is."""
        return False


def encode_json_ack(chunk: bytes) -> bytes:
    """`{"ack": chunk}`."""
    return msgspec.json.encode({"ack": chunk.decode(errors="replace")})


def _end(pattern: re.Pattern[bytes], data: bytearray, position: int) -> int:
    match = pattern.match(data, position)
    return position if match is None else match.end()


def _message(encoded: bytes) -> Message:
    try:
        message = decode_json(encoded)
    except JsonInvalid as error:
        raise FramingError(f"a message is not valid JSON: {error}; check the sender") from None
    if not isinstance(message, list) or not 2 <= len(message) <= 4 or not isinstance(message[0], str):
        raise FramingError(
            'a JSON message is ["tag", time, {record}] or ["tag", [[time, {record}], …]]; check the sender'
        )
    tag = message[0].encode("utf-8", "surrogatepass")
    if len(tag) > MAX_TAG_BYTES:
        raise FramingError(f"a tag of {len(tag)} bytes is over the limit of {MAX_TAG_BYTES}")
    if isinstance(message[1], list):
        entries, option = message[1], message[2:]
    else:
        entries, option = [message[1:3]], message[3:]
    if len(option) > 1:
        raise FramingError("a JSON message in Forward mode has 2 or 3 elements, this one 4; check the sender")
    times = [_time_of(entry) for entry in entries]
    if any(isinstance(time, float) for time in times):
        exact = exact_numbers(encoded)
        times = [entry[0] for entry in (exact[1] if isinstance(exact[1], list) else [exact[1:3]])]
    payload = bytearray()
    for time, entry in zip(times, entries, strict=True):
        try:
            payload += event_head(0) if time is None else head_of(time)
            pack_json_into(entry[1], payload)
        except JsonInvalid as error:
            raise FramingError(f"a JSON event's record cannot be kept: {error}; check the sender") from None
    given = option[0] if option and option[0] is not None else {}
    if not isinstance(given, dict):
        raise FramingError(
            f"a message's option is an object, this one {type(given).__name__}; check the sender"
        )
    return Message(tag, bytes(payload), len(entries), json_options(given))


def _time_of(entry: Any) -> Any:
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict)):
        raise FramingError("a JSON event is [time, {record}]; check the sender")
    return entry[0]
