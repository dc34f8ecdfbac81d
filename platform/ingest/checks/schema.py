"""Whether the events of a chunk are what their policy asks for: the record schema and the bounds of time.

The schema becomes msgspec types once, and a chunk is decoded against them in one call into C: an array32
header with the number of events before the payload makes it `list[(time, record)]`. Times stay bytes: msgpack
is big endian, so of the times of one form the smallest bytes are the earliest. Only if that fails are the
events checked one by one, to find the invalid ones.
"""

import struct
from collections.abc import Generator, Iterator
from typing import Any, Literal

import msgpack
import msgspec
from msgspec import Raw

from ...errors import ChunkRejected, PolicyInvalid
from ...records.event_separation import EventSeparator, SeparatedEvents, raw_field_fault
from ...records.events import NS_PER_S, decode_record
from ...records.sliced_work import run_to_end
from ...store.catalog import policy_schema as avro
from .event_times import fault_of_time, times_valid
from .schema_bytes import BIN_AND_STR, FindFault, bytes_within
from .schema_types import TypeCompiler
from .schema_wording import fault_in_words

BATCH_EVENTS = 16_384
"""Events that are decoded at once: a chunk of a million tiny events must neither take gigabytes of memory nor
block the event loop."""
BATCH_BYTES = 2 * 1024 * 1024
"""Bytes of events that are decoded at once, or one event: 2 MiB of numbers take 10 ms."""
FEW_EVENTS = 256
"""Size of the groups into which a batch with invalid events is divided; only groups with invalid events are
checked one by one."""


class EventCheck:
    """Checks chunks against a schema, or the bounds of time, or both; immutable.

    Memory while it runs: the decoded events of a batch, a few hundred bytes each and at most about 60 for
    each byte of it, but never while it has yielded; and two copies of the payload.
    """

    def __init__(
        self,
        schema: avro.Record | None,
        *,
        additional_fields: Literal["refuse", "allow"] = "refuse",
        max_future_s: float | None = None,
        max_age_s: float | None = None,
        raw_field: str | None = None,
    ) -> None:
        """Raises PolicyInvalid for a schema that no check can be made of.

        `raw_field` is what a policy with format = "raw" archives of each record.
        """
        record: Any = Raw
        self._faults_of_bytes: FindFault | None = None
        self._schema = schema
        self._raw = None if raw_field is None else _RawField(raw_field)
        self.is_of_policy = schema is not None or max_future_s is not None or max_age_s is not None
        """The policy has a schema or bounds of time; otherwise events are checked for what all must be."""
        self.looks_at_times_alone = not self.is_of_policy and raw_field is None
        self._max_future_s = max_future_s
        self._max_age_s = max_age_s
        if schema is not None:
            try:
                record = TypeCompiler(surplus=additional_fields).type_of(schema)
                msgspec.msgpack.Decoder(record)  # says whether msgspec can tell the types apart
            except (TypeError, ValueError, RecursionError) as error:
                raise PolicyInvalid(f"schema: cannot be checked: {error}") from error
            self._faults_of_bytes = bytes_within(schema)
        event: Any = _event_type(record)
        self._one: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(event)
        self._all: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[event])

    def sift(
        self, payload: bytes | bytearray | memoryview, events: int, *, now_ns: int
    ) -> SeparatedEvents | None:
        """None if all `events` of the payload are valid, else the invalid events and the reasons.

        The payload must be well-formed (`count_events`). Raises ChunkRejected if it is not.
        """
        return run_to_end(self.sifting(payload, events, now_ns=now_ns))

    def sifting(
        self, payload: bytes | bytearray | memoryview, events: int, *, now_ns: int
    ) -> Generator[None, None, SeparatedEvents | None]:
        """As `sift`, in slices of a few milliseconds: between two of them it yields."""
        bounds = self._bounds(now_ns)
        separator: EventSeparator | None = None
        passed = 0
        for begin, end, count in _batches(payload, events, BATCH_EVENTS):
            if passed:
                yield
            batch = payload[begin:end]
            if self._all_valid(batch, count, bounds):
                if separator is not None:
                    separator.accept(batch, count)
            else:
                if separator is None:
                    separator = EventSeparator()
                    separator.accept(payload[:begin], passed)
                yield from self._sift_batch(batch, count, bounds, separator)
            passed += count
        return None if separator is None or not separator.rejected else separator.separated()

    def _sift_batch(
        self,
        batch: bytes | bytearray | memoryview,
        count: int,
        bounds: tuple[int, int],
        separator: EventSeparator,
    ) -> Generator[None, None, None]:
        """Checks a batch in groups, since most groups are valid; checks only the others event by event."""
        for begin, end, number in _batches(batch, count, FEW_EVENTS):
            yield
            few = batch[begin:end]
            if number < count and self._all_valid(few, number, bounds):
                separator.accept(few, number)
                continue
            for raw in _raw_events(_as_array(few, number)):
                fault = self._fault(raw, bounds)
                if fault is None:
                    separator.accept(raw, 1)
                else:
                    separator.reject(
                        raw, fault_in_words(fault, raw, self._schema) if separator.names_next else ""
                    )

    def _bounds(self, now_ns: int) -> tuple[int, int]:
        earliest, latest = -(1 << 63), (1 << 63) - 1
        if self._max_age_s is not None:
            earliest = max(earliest, now_ns - int(self._max_age_s * NS_PER_S))
        if self._max_future_s is not None:
            latest = min(latest, now_ns + int(self._max_future_s * NS_PER_S))
        return earliest, latest

    def _all_valid(self, batch: bytes | bytearray | memoryview, count: int, bounds: tuple[int, int]) -> bool:
        try:
            events = self._all.decode(_as_array(batch, count))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if not times_valid([bytes(event.time) for event in events], bounds):
            return False
        if self._raw is not None and not self._raw.all_have_it(_as_array(batch, count)):
            return False
        return self._faults_of_bytes is None or (
            self._faults_of_bytes([event.record for event in events]) is None
        )

    def _fault(self, raw: Raw, bounds: tuple[int, int]) -> Exception | str | None:
        try:
            event = self._one.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return error.with_traceback(None)  # which has the caller's frame, which has the error: a cycle
        return (
            fault_of_time(bytes(event.time), bounds)
            or (None if self._faults_of_bytes is None else self._faults_of_bytes([event.record]))
            or (None if self._raw is None else self._raw.fault(raw))
        )


class _RawField:
    """Whether records have the bytes that format = "raw" archives: under a field, or as the whole record."""

    def __init__(self, field: str) -> None:
        self._field = field
        named = msgspec.defstruct("Record", [("value", Raw)], rename={"value": field}, gc=False)
        self._in_field: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[_event_type(named)])  # type: ignore[misc]
        self._bare: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[_event_type(Raw)])  # type: ignore[misc]

    def all_have_it(self, array: bytes) -> bool:
        """Whether all records have the field; False if they have to be checked one by one."""
        try:
            values = [event.record.value for event in self._in_field.decode(array)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:
                values = [event.record for event in self._bare.decode(array)]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return False
        return BIN_AND_STR.issuperset([memoryview(value)[0] for value in values])

    def fault(self, event: Raw) -> str | None:
        """What is wrong with one that is well-formed."""
        try:
            _, record = decode_record(bytes(event))
        except (ValueError, TypeError, RecursionError) as error:
            return f"cannot be decoded ({error or type(error).__name__})"
        return raw_field_fault(record, self._field)


def _event_type(record: Any) -> Any:
    return msgspec.defstruct(
        "Event", [("time", Raw), ("record", record)], array_like=True, gc=False, forbid_unknown_fields=True
    )


def _as_array(events: bytes | bytearray | memoryview, count: int) -> bytes:
    return struct.pack(">BI", 0xDD, count) + events


def _batches(
    payload: bytes | bytearray | memoryview, events: int, size: int
) -> Iterator[tuple[int, int, int]]:
    """Where each `size` events, or as many as `BATCH_BYTES` have, begin and end, and how many they are."""
    if events <= size and len(payload) <= BATCH_BYTES:
        yield 0, len(payload), events
        return
    walker = msgpack.Unpacker(read_size=len(payload), max_buffer_size=len(payload))
    walker.feed(payload)
    skip, tell = walker.skip, walker.tell
    start = count = 0
    for _ in range(events):
        skip()
        count += 1
        if count == size or tell() - start >= BATCH_BYTES:
            yield start, tell(), count
            start, count = tell(), 0
    if count:
        yield start, tell(), count


_raw_event_array = msgspec.msgpack.Decoder(list[Raw])


def _raw_events(array: bytes) -> list[Raw]:
    try:
        return _raw_event_array.decode(array)
    except RecursionError:
        return _raw_events_walked_over(array)
    except msgspec.DecodeError as error:
        raise ChunkRejected(
            "malformed", f"an event is not well-formed ({error}); check the sender"
        ) from error


def _raw_events_walked_over(array: bytes) -> list[Raw]:
    """As `_raw_events`, of events of which one is too deep for msgspec."""
    walker = msgpack.Unpacker(read_size=len(array), max_buffer_size=len(array))
    walker.feed(array)
    events: list[Raw] = []
    try:
        for _ in range(walker.read_array_header()):
            start = walker.tell()
            walker.skip()
            events.append(Raw(array[start : walker.tell()]))
    except (msgpack.OutOfData, ValueError) as error:
        raise ChunkRejected(
            "malformed", f"an event is not well-formed ({error!r}); check the sender"
        ) from error
    return events
