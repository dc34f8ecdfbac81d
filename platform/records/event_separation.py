"""Separates the events of a chunk that cannot be decoded from the valid ones, so that those are stored.

The gateway makes the cheap checks for every chunk, and all checks for chunks that fail those and for replays.
The worker checks everything that it decodes.
"""

from collections.abc import Generator

import msgpack
import msgspec

from ..errors import ChunkRejected
from .decoded_size import DEFAULT_LIMIT_BYTES, ending, is_surely_within, measured_bytes
from .events import decode_event
from .nesting import TOO_DEEP, is_too_deep
from .sliced_work import run_to_end

NAMED_EVENTS = 5
"""How many invalid events the reason names."""
_EVENTS_A_STEP = 256

Payload = bytes | bytearray | memoryview


class SeparatedEvents(msgspec.Struct, frozen=True):
    """The payload of a chunk in two parts, valid and invalid events, each in the order of the chunk."""

    valid: bytes
    valid_events: int
    invalid: bytes
    invalid_events: int
    reason: str
    """Names the first `NAMED_EVENTS` invalid events, by index and path."""

    @property
    def total(self) -> str:
        """How many of how many are invalid: "2 of 500 events"."""
        return f"{self.invalid_events} of {self.valid_events + self.invalid_events} events"


class EventSeparator:
    """Collects the valid and the invalid events of a chunk, event by event."""

    def __init__(self) -> None:
        self._valid, self._invalid = bytearray(), bytearray()
        self._valid_events = self._invalid_events = 0
        self._reasons: list[str] = []

    @property
    def names_next(self) -> bool:
        """Whether the reason will name the next invalid event."""
        return self._invalid_events < NAMED_EVENTS

    @property
    def rejected(self) -> int:
        """How many events are invalid so far."""
        return self._invalid_events

    def accept(self, events: Payload | msgspec.Raw, count: int) -> None:
        """Add valid events."""
        self._valid += events
        self._valid_events += count

    def reject(self, event: Payload | msgspec.Raw, fault: str) -> None:
        """Add an invalid event; `fault` is used only if `names_next`."""
        if self.names_next:
            self._reasons.append(f"event {self._valid_events + self._invalid_events}: {fault}")
        self._invalid += event
        self._invalid_events += 1

    def separated(self) -> SeparatedEvents:
        """Return both parts."""
        if self._invalid_events > NAMED_EVENTS:
            self._reasons.append(f"and {self._invalid_events - NAMED_EVENTS} more events")
        return SeparatedEvents(
            valid=bytes(self._valid),
            valid_events=self._valid_events,
            invalid=bytes(self._invalid),
            invalid_events=self._invalid_events,
            reason="; ".join(self._reasons),
        )


def separate_decodable(
    payload: Payload, *, raw_field: str | None, max_event_bytes: int = DEFAULT_LIMIT_BYTES
) -> SeparatedEvents:
    """Return the result of `separating_decodable` without yielding."""
    return run_to_end(separating_decodable(payload, raw_field=raw_field, max_event_bytes=max_event_bytes))


def separating_decodable(
    payload: Payload, *, raw_field: str | None, max_event_bytes: int = DEFAULT_LIMIT_BYTES
) -> Generator[None, None, SeparatedEvents]:
    """Decode each event by itself; yields every few milliseconds. The payload may be any bytes.

    Invalid are events that no worker can decode, and events that decode to more than `max_event_bytes`. If a
    policy archives the bytes of `raw_field`, so are events without these bytes. If the payload is not msgpack
    from some byte on, or ends within an event, the whole rest counts as one event.

    Memory: two copies of the payload, and one decoded event.
    """
    view = memoryview(payload)
    size = len(view)
    walker: msgpack.Unpacker | None = msgpack.Unpacker(read_size=size or 1, max_buffer_size=size or 1)
    assert walker is not None
    walker.feed(view)
    separator = EventSeparator()
    start = events = 0
    while start < size:
        stop: int | None = None
        fault: str | None = None
        if walker is not None:
            try:
                walker.skip()
                stop = walker.tell()
            except msgpack.StackError:
                walker = None  # it cannot continue after this event
            except msgpack.OutOfData:
                fault = "the chunk ends inside it"
            except ValueError as error:
                fault = f"is not well-formed msgpack ({str(error) or type(error).__name__})"
        if stop is None and fault is None:
            stop = yield from ending(view, start)
            fault = None if stop is not None else "is not well-formed msgpack, or the chunk ends inside it"
        if stop is None:
            separator.reject(view[start:], f"{fault}; the {size - start} bytes from it on are rejected")
            break
        event = view[start:stop]
        fault = _fault(event, raw_field, max_event_bytes)
        if fault is None:
            separator.accept(event, 1)
        else:
            separator.reject(event, fault)
        start = stop
        events += 1
        if events % _EVENTS_A_STEP == 0:
            yield
    return separator.separated()


def _fault(event: memoryview, raw_field: str | None, max_event_bytes: int) -> str | None:
    if (
        not is_surely_within(event, 1, limit_bytes=max_event_bytes)
        and measured_bytes(event, 1, limit_bytes=max_event_bytes) > max_event_bytes
    ):
        return (
            f"takes more than {max_event_bytes} bytes of memory once it is decoded; raise "
            "limits.decoded_bytes of the policy"
        )
    if is_too_deep(event):
        return TOO_DEEP
    try:
        _, record = decode_event(event)
    except ChunkRejected as rejection:
        return str(rejection)
    return None if raw_field is None else raw_field_fault(record, raw_field)


def raw_field_fault(record: object, field: str) -> str | None:
    """Why a decoded record has no bytes to archive; None if it has them."""
    value = record.get(field.encode()) if isinstance(record, dict) else record
    if isinstance(value, bytes):
        return None
    what = f"no field {field!r} that is a string or binary" if isinstance(record, dict) else "no bytes"
    return f'has {what}; format = "raw" needs it: set `field` in the policy, or another `format`'
