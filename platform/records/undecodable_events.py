"""The events of a chunk that cannot be decoded, cut out of it so that the others go on.

The gateway checks what is cheap to check of every chunk, and everything of what looks wrong and of what is
sent again by hand. The worker checks everything that it decodes: for it this is the second line.
"""

from collections.abc import Generator

import msgpack
import msgspec

from ..errors import ChunkRefused
from .decoded_size import DEFAULT_LIMIT_BYTES, ending, is_surely_within, measured_bytes
from .events import decode_event
from .nesting import TOO_DEEP, is_too_deep

NAMED_EVENTS = 5
"""Of how many invalid events the reason tells."""
_EVENTS_A_STEP = 256

Payload = bytes | bytearray | memoryview


class Sifted(msgspec.Struct, frozen=True):
    """A chunk in which some events are invalid: its payload in two parts, in their order."""

    valid: bytes
    valid_events: int
    invalid: bytes
    invalid_events: int
    reason: str
    """The first few invalid events, by index and path."""

    @property
    def total(self) -> str:
        """How many of how many are invalid: "2 of 500 events"."""
        return f"{self.invalid_events} of {self.valid_events + self.invalid_events} events"


class Sieve:
    """What passed so far of a chunk in which some events are invalid, and what did not."""

    def __init__(self) -> None:
        self._valid, self._invalid = bytearray(), bytearray()
        self._valid_events = self._invalid_events = 0
        self._reasons: list[str] = []

    @property
    def names_more(self) -> bool:
        """Whether the reason of the next invalid event will be told."""
        return self._invalid_events < NAMED_EVENTS

    @property
    def held_back(self) -> int:
        """How many events are invalid so far."""
        return self._invalid_events

    def let_pass(self, events: Payload | msgspec.Raw, count: int) -> None:
        """Events that are valid."""
        self._valid += events
        self._valid_events += count

    def hold_back(self, event: Payload | msgspec.Raw, fault: str) -> None:
        """One that is not; `fault` is not looked at unless `names_more`."""
        if self.names_more:
            self._reasons.append(f"event {self._valid_events + self._invalid_events}: {fault}")
        self._invalid += event
        self._invalid_events += 1

    def sifted(self) -> Sifted:
        """Both parts."""
        if self._invalid_events > NAMED_EVENTS:
            self._reasons.append(f"and {self._invalid_events - NAMED_EVENTS} more events")
        return Sifted(
            valid=bytes(self._valid),
            valid_events=self._valid_events,
            invalid=bytes(self._invalid),
            invalid_events=self._invalid_events,
            reason="; ".join(self._reasons),
        )


def sift_decodable(
    payload: Payload, *, raw_field: str | None, max_event_bytes: int = DEFAULT_LIMIT_BYTES
) -> Sifted:
    """What `sifting_decodable` returns, in one go."""
    steps = sifting_decodable(payload, raw_field=raw_field, max_event_bytes=max_event_bytes)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Sifted = end.value
            return found


def sifting_decodable(
    payload: Payload, *, raw_field: str | None, max_event_bytes: int = DEFAULT_LIMIT_BYTES
) -> Generator[None, None, Sifted]:
    """Decodes each event by itself, whatever the payload is; yields every few milliseconds.

    Invalid are events that no worker can decode, that decode to more than `max_event_bytes`, and, where a
    policy archives the bytes of `raw_field`, those that have none. Where the payload is no msgpack any more,
    or ends within an event, all the rest counts as one event.

    Memory: two copies of the payload, and one decoded event.
    """
    view = memoryview(payload)
    size = len(view)
    walker: msgpack.Unpacker | None = msgpack.Unpacker(read_size=size or 1, max_buffer_size=size or 1)
    assert walker is not None
    walker.feed(view)
    sieve = Sieve()
    start = events = 0
    while start < size:
        stop: int | None = None
        fault: str | None = None
        if walker is not None:
            try:
                walker.skip()
                stop = walker.tell()
            except msgpack.StackError:
                walker = None  # it is of no use behind this event
            except msgpack.OutOfData:
                fault = "the chunk ends inside it"
            except ValueError as error:
                fault = f"is not well-formed msgpack ({str(error) or type(error).__name__})"
        if stop is None and fault is None:
            stop = yield from ending(view, start)
            fault = None if stop is not None else "is not well-formed msgpack, or the chunk ends inside it"
        if stop is None:
            sieve.hold_back(view[start:], f"{fault}; the {size - start} bytes from it on are kept back")
            break
        event = view[start:stop]
        fault = _fault(event, raw_field, max_event_bytes)
        if fault is None:
            sieve.let_pass(event, 1)
        else:
            sieve.hold_back(event, fault)
        start = stop
        events += 1
        if events % _EVENTS_A_STEP == 0:
            yield
    return sieve.sifted()


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
    except ChunkRefused as refusal:
        return str(refusal)
    return None if raw_field is None else fault_of_raw(record, raw_field)


def fault_of_raw(record: object, field: str) -> str | None:
    """Why a decoded record has no bytes to archive; None where it has."""
    value = record.get(field.encode()) if isinstance(record, dict) else record
    if isinstance(value, bytes):
        return None
    what = f"no field {field!r} that is a string or binary" if isinstance(record, dict) else "no bytes"
    return f'has {what}; format = "raw" needs it: set `field` in the policy, or another `format`'
