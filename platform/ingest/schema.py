"""Whether the events of a chunk are what their policy asks for: the record schema and the bounds of time.

The schema becomes msgspec types once, and a chunk is decoded against them in one call into C: an array32
header with the number of events before the payload makes it `list[(time, record)]`. Times stay bytes: msgpack
is big endian, so of the times of one form the smallest bytes are the earliest. Only where that fails are the
events looked at one by one, to find those that are invalid.

    null → None              enum → Literal            record → Struct, keys typed str
    boolean → bool           array → list              union → of these
    int, long → int in range map → dict[str, …]        bytes, fixed → Raw, whose head is looked at after
    float, double → float (takes integers)             the decode, as bin and str are both taken
"""

import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import reduce
from typing import Annotated, Any, Literal

import msgpack
import msgspec
from msgspec import Meta, Raw

from ..errors import ChunkRefused, PolicyInvalid
from ..events import NS_PER_S, decode_time
from ..store import policy_schema as avro

BATCH_EVENTS = 16_384
"""Events that are decoded at once: a chunk of a million tiny ones must not take its weight in GB, nor the
event loop from everybody else."""
FEW_EVENTS = 256
"""Where some in a batch are invalid, so many are looked at together, and one by one only where they are."""
NAMED_EVENTS = 5
"""Of how many invalid events the reason tells."""


class Sifted(msgspec.Struct, frozen=True):
    """A chunk in which some events are invalid: its payload in two parts, in their order."""

    valid: bytes
    valid_events: int
    invalid: bytes
    invalid_events: int
    reason: str
    """The first few invalid events, by index and path."""


class _Sieve:
    """What passed so far of a chunk in which some events are invalid, and what did not."""

    def __init__(self) -> None:
        self._valid, self._invalid = bytearray(), bytearray()
        self._valid_events = self._invalid_events = 0
        self._reasons: list[str] = []

    @property
    def names_more(self) -> bool:
        """Whether the reason of the next invalid event will be told."""
        return self._invalid_events < NAMED_EVENTS

    def let_pass(self, events: bytes | bytearray | memoryview | Raw, count: int) -> None:
        self._valid += events
        self._valid_events += count

    def hold_back(self, event: Raw, fault: str) -> None:
        if self.names_more:
            self._reasons.append(f"event {self._valid_events + self._invalid_events}: {fault}")
        self._invalid += event
        self._invalid_events += 1

    def sifted(self) -> Sifted:
        if self._invalid_events > NAMED_EVENTS:
            self._reasons.append(f"and {self._invalid_events - NAMED_EVENTS} more events")
        return Sifted(
            valid=bytes(self._valid),
            valid_events=self._valid_events,
            invalid=bytes(self._invalid),
            invalid_events=self._invalid_events,
            reason="; ".join(self._reasons),
        )


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
    ) -> None:
        """Raises PolicyInvalid for a schema that no check can be made of."""
        record: Any = Raw
        self._faults_of_bytes: _FindFault | None = None
        self._schema = schema
        self._max_future_s = max_future_s
        self._max_age_s = max_age_s
        if schema is not None:
            try:
                record = _Compiler(surplus=additional_fields).type_of(schema)
                msgspec.msgpack.Decoder(record)  # says whether msgspec can tell the types apart
            except (TypeError, ValueError, RecursionError) as error:
                raise PolicyInvalid(f"schema: cannot be checked: {error}") from error
            self._faults_of_bytes = _bytes_within(schema)
        event: Any = msgspec.defstruct(
            "Event",
            [("time", Raw), ("record", record)],
            array_like=True,
            gc=False,
            forbid_unknown_fields=True,
        )
        self._one: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(event)
        self._all: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[event])

    def sift(self, payload: bytes | bytearray | memoryview, events: int, *, now_ns: int) -> Sifted | None:
        """None where all `events` of the payload are valid, else which are not, and why.

        The payload must be well-formed (`count_events`); ChunkRefused where it is not even that.
        """
        slices = self.sifting(payload, events, now_ns=now_ns)
        while True:
            try:
                next(slices)
            except StopIteration as end:
                found: Sifted | None = end.value
                return found

    def sifting(
        self, payload: bytes | bytearray | memoryview, events: int, *, now_ns: int
    ) -> Generator[None, None, Sifted | None]:
        """As `sift`, in slices of a few milliseconds: between two of them it yields."""
        bounds = self._bounds(now_ns)
        sieve: _Sieve | None = None
        passed = 0
        for begin, end, count in _batches(payload, events, BATCH_EVENTS):
            if passed:
                yield
            batch = payload[begin:end]
            if self._all_valid(batch, count, bounds):
                if sieve is not None:
                    sieve.let_pass(batch, count)
            else:
                if sieve is None:
                    sieve = _Sieve()
                    sieve.let_pass(payload[:begin], passed)
                yield from self._sift_batch(batch, count, bounds, sieve)
            passed += count
        return None if sieve is None else sieve.sifted()

    def _sift_batch(
        self,
        batch: bytes | bytearray | memoryview,
        count: int,
        bounds: tuple[int, int],
        sieve: "_Sieve",
    ) -> Generator[None, None, None]:
        """Most of a batch is valid, mostly: only where it is not, events are looked at one by one."""
        for begin, end, number in _batches(batch, count, FEW_EVENTS):
            yield
            few = batch[begin:end]
            if number < count and self._all_valid(few, number, bounds):
                sieve.let_pass(few, number)
                continue
            for raw in _raw_events(_as_array(few, number)):
                fault = self._fault(raw, bounds)
                if fault is None:
                    sieve.let_pass(raw, 1)
                else:
                    sieve.hold_back(raw, self._in_words(fault, raw) if sieve.names_more else "")

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
        if not _times_valid([bytes(event.time) for event in events], bounds):
            return False
        return self._faults_of_bytes is None or (
            self._faults_of_bytes([event.record for event in events]) is None
        )

    def _fault(self, raw: Raw, bounds: tuple[int, int]) -> Exception | str | None:
        try:
            event = self._one.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return error
        return _fault_of_time(bytes(event.time), bounds) or (
            None if self._faults_of_bytes is None else self._faults_of_bytes([event.record])
        )

    def _in_words(self, fault: Exception | str, raw: Raw) -> str:
        if isinstance(fault, str):
            return fault
        if isinstance(fault, UnicodeDecodeError):
            _, record = msgpack.unpackb(raw, unicode_errors="surrogateescape", strict_map_key=False)
            return _not_utf8(record, self._schema, "") or "holds text that is not UTF-8"
        if isinstance(fault, RecursionError):
            return "is nested too deeply"
        return _in_words(str(fault))


def _as_array(events: bytes | bytearray | memoryview, count: int) -> bytes:
    return struct.pack(">BI", 0xDD, count) + events


def _batches(
    payload: bytes | bytearray | memoryview, events: int, size: int
) -> Iterator[tuple[int, int, int]]:
    """Where each `size` events begin and end, and how many they are."""
    if events <= size:
        yield 0, len(payload), events
        return
    walker = msgpack.Unpacker(read_size=len(payload), max_buffer_size=len(payload))
    walker.feed(payload)
    skip = walker.skip
    for first in range(0, events, size):
        start, count = walker.tell(), min(size, events - first)
        for _ in range(count):
            skip()
        yield start, walker.tell(), count


_raw_event_array = msgspec.msgpack.Decoder(list[Raw])


def _raw_events(array: bytes) -> list[Raw]:
    try:
        return _raw_event_array.decode(array)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ChunkRefused("malformed", f"an event is not well-formed ({error}); check the sender") from error


# What stands before the seconds (u32, then nanoseconds u32 or nothing) in the usual forms of time.
_TIME_FORMS: tuple[tuple[bytes, str], ...] = (
    (b"\xd7\x00", ">II"),  # EventTime as fixext8
    (b"\x92\xd7\x00", ">II"),  # [EventTime, metadata]
    (b"\xce", ">I"),  # integer seconds
    (b"\xc7\x08\x00", ">II"),  # EventTime as ext8
    (b"\x92\xc7\x08\x00", ">II"),
    (b"\x92\xce", ">I"),
)


def _times_valid(times: Sequence[bytes], bounds: tuple[int, int]) -> bool:
    """Whether all are times within the bounds.

    All that sorts between two byte strings with a common prefix has that prefix. So where the smallest and
    the largest are times of one form, all are, and lie between the two.
    """
    if not times:
        return True
    smallest, largest = min(times), max(times)
    for prefix, numbers in _TIME_FORMS:
        if smallest.startswith(prefix):
            return (
                largest.startswith(prefix)
                and bounds[0] <= _time_of_form(smallest, prefix, numbers)
                and _time_of_form(largest, prefix, numbers) <= bounds[1]
            ) or all(_fault_of_time(time, bounds) is None for time in times)
    if smallest == largest:
        return _fault_of_time(smallest, bounds) is None
    return all(_fault_of_time(time, bounds) is None for time in times)


def _time_of_form(time: bytes, prefix: bytes, numbers: str) -> int:
    seconds, *nanoseconds = struct.unpack_from(numbers, time, len(prefix))
    return int(seconds * NS_PER_S + sum(nanoseconds))


def _fault_of_time(time: bytes, bounds: tuple[int, int]) -> str | None:
    try:
        ns = decode_time(time)
    except ChunkRefused as error:
        return str(error)
    if ns < bounds[0]:
        return f"its time lies {(bounds[0] - ns) / NS_PER_S:.0f} s beyond limits.max_age_s; look at its clock"
    if ns > bounds[1]:
        return (
            f"its time lies {(ns - bounds[1]) / NS_PER_S:.0f} s beyond limits.max_future_s; look at its clock"
        )
    return None


class _Compiler:
    """From the tree of a schema to msgspec's types; a type that is named several times is made once."""

    def __init__(self, *, surplus: Literal["refuse", "allow"]) -> None:
        self._forbid_unknown_fields = surplus == "refuse"
        self._made: dict[int, Any] = {}

    def type_of(self, node: avro.Type) -> Any:
        made = self._made.get(id(node))
        if made is None:
            made = self._made[id(node)] = self._make(node)
        return made

    def _make(self, node: avro.Type) -> Any:
        match node:
            case avro.Null():
                return None
            case avro.Boolean():
                return bool
            case avro.Integer(minimum, maximum):
                return Annotated[int, Meta(ge=minimum, le=maximum)]
            case avro.Number(low, high):
                return float if low is None and high is None else Annotated[float, Meta(ge=low, le=high)]
            case avro.Text(max_length):
                return str if max_length is None else Annotated[str, Meta(max_length=max_length)]
            case avro.Bytes():
                return Raw
            case avro.Enum(symbols):
                return Literal[symbols]
            case avro.Array(items):
                return list[self.type_of(items)]  # type: ignore[misc]
            case avro.Map(values):
                return dict[str, self.type_of(values)]  # type: ignore[misc]
            case avro.Record():
                return self._struct(node)
            case avro.Union(branches):
                if any(isinstance(branch, avro.Bytes) for branch in branches):
                    return Raw
                return reduce(
                    lambda one, other: one | other, map(self.type_of, branches[1:]), self.type_of(branches[0])
                )
        raise TypeError(node)

    def _struct(self, node: avro.Record) -> Any:
        fields: list[Any] = []
        names: dict[str, str] = {}
        for i, field in sorted(enumerate(node.fields), key=lambda each: not each[1].required):
            attribute = _attribute(i)
            names[attribute] = field.name
            kind = self.type_of(field.type)
            fields.append((attribute, kind) if field.required else (attribute, kind, None))
        return msgspec.defstruct(
            "Record", fields, rename=names, gc=False, forbid_unknown_fields=self._forbid_unknown_fields
        )


def _attribute(index: int) -> str:
    """A field's name may be none that Python takes: its place names the attribute."""
    return f"f{index}"


_FindFault = Callable[[list[Any]], str | None]
_BIN_AND_STR = frozenset([*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB])
_NIL = 0xC0


def _bytes_within(node: avro.Type, *, path: str = "", nullable: bool = False) -> "_FindFault | None":
    """What looks at all `bytes` and `fixed` in a list of decoded values, column by column.

    None where the type holds neither. None among the values is skipped: null, or a field that is missing.
    """
    match node:
        case avro.Bytes(low, high):
            return _look_at_bytes(path, low, high, nullable=nullable)
        case avro.Union(branches):
            nullable = any(isinstance(branch, avro.Null) for branch in branches)
            looks = [look for b in branches if (look := _bytes_within(b, path=path, nullable=nullable))]
            kinds = {avro.Array: list, avro.Map: dict}
            if not looks:
                return None
            [branch] = [b for b in branches if _bytes_within(b)]
            [look] = looks
            if isinstance(branch, avro.Bytes):
                return look
            kind: Any = kinds.get(type(branch), msgspec.Struct)
            return lambda values: look([value for value in values if isinstance(value, kind)])
        case avro.Array(items):
            look_at_items = _bytes_within(items, path=f"{path}[...]")
            if look_at_items is None:
                return None
            return lambda values: look_at_items([item for value in values for item in value])
        case avro.Map(items):
            look_at_values = _bytes_within(items, path=f"{path}[...]")
            if look_at_values is None:
                return None
            return lambda values: look_at_values([item for value in values for item in value.values()])
        case avro.Record(_, fields):
            columns = [
                (_attribute(i), look)
                for i, field in enumerate(fields)
                if (look := _bytes_within(field.type, path=f"{path}.{field.name}".removeprefix(".")))
            ]
            return None if not columns else lambda values: _look_at_columns(columns, values)
    return None


def _look_at_columns(columns: list[tuple[str, _FindFault]], records: list[Any]) -> str | None:
    for attribute, look in columns:
        values = [v for record in records if (v := getattr(record, attribute)) is not None]
        if fault := look(values):
            return fault
    return None


def _look_at_bytes(path: str, low: int, high: int | None, *, nullable: bool) -> _FindFault:
    allowed = _BIN_AND_STR | {_NIL} if nullable else _BIN_AND_STR
    wanted = "bytes or null" if nullable else "bytes"

    def look(values: list[Raw]) -> str | None:
        views = [memoryview(value) for value in values]
        if not allowed.issuperset([view[0] for view in views]):
            head = next(view for view in views if view[0] not in allowed)
            return f"{path}: is {_kind_of_head(head)}, must be {wanted}"
        if low or high is not None:
            for view in views:
                size = _size_of_bytes(view)
                if view[0] != _NIL and (size < low or (high is not None and size > high)):
                    most = f"at most {high}" if low != high else f"{high}"
                    return f"{path}: has {size} bytes, must have {most}"
        return None

    return look


def _size_of_bytes(value: memoryview) -> int:
    """Of a whole msgpack bin or str: what is behind its head."""
    head = value[0]
    if head < 0xC0:
        return len(value) - 1
    return len(value) - {0xC4: 2, 0xC5: 3, 0xC6: 5, 0xD9: 2, 0xDA: 3, 0xDB: 5}.get(head, 1)


def _kind_of_head(value: memoryview) -> str:
    """What a msgpack value is that is neither bin nor str."""
    head = value[0]
    if head <= 0x8F or 0xDE <= head <= 0xDF:
        return "an integer" if head < 0x80 else "a map"
    if head <= 0x9F or 0xDC <= head <= 0xDD:
        return "a list"
    if head >= 0xE0 or 0xCC <= head <= 0xD3:
        return "an integer"
    names = {0xC0: "null", 0xC2: "true or false", 0xC3: "true or false", 0xCA: "a number", 0xCB: "a number"}
    return names.get(head, "an extension")


def _not_utf8(value: Any, node: "avro.Type | None", path: str) -> str | None:
    """The place of the first text that is not UTF-8, in a value decoded with surrogates for such bytes."""
    inner: Iterator[tuple[str, avro.Type | None, Any]]
    match node:
        case avro.Text() | avro.Enum() if isinstance(value, str) and not _is_utf8(value):
            return f"{path}: is not UTF-8; declare it as bytes, or mend the sender"
        case avro.Union(branches):
            return next((found for branch in branches if (found := _not_utf8(value, branch, path))), None)
        case avro.Array(items) if isinstance(value, list):
            inner = ((f"{path}[{i}]", items, item) for i, item in enumerate(value))
        case avro.Map(items) if isinstance(value, dict):
            inner = ((f"{path}[{_shown(key)}]", items, item) for key, item in value.items())
        case avro.Record(_, fields) if isinstance(value, dict):
            types = {field.name: field.type for field in fields}
            inner = (
                (f"{path}.{_shown(key)}".removeprefix("."), types.get(key), item)
                for key, item in value.items()
            )
        case _:
            return None
    for inner_path, inner_node, item in inner:
        if inner_node is None and "\\x" in inner_path:
            return f"{inner_path}: is not known, and its name is not UTF-8"
        if found := _not_utf8(item, inner_node, inner_path):
            return found
    if isinstance(node, avro.Map) and not all(map(_is_utf8, filter(lambda k: isinstance(k, str), value))):
        return f"{path}: has a key that is not UTF-8"
    return None


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _shown(key: Any) -> str:
    return str(key).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_WORDS = {
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bytes": "bytes",
    "object": "a map",
    "array": "a list",
    "null": "null",
    "None": "null",
    "ext": "an extension",
}


def _in_words(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$[1].code`" as "code: is text, must be an integer"."""
    cause, _, place = message.partition(" - at `")
    _, _, path = place.rstrip("`").partition("$[1]")
    path = path.removeprefix(".")
    if place.startswith("key`"):
        return (
            f"{path or 'the record'}: has a key that is {_kinds(cause.partition(', got ')[2])}, must be text"
        )
    if cause.startswith("Object missing required field "):
        return f"{_inner(path, cause)}: is missing"
    if cause.startswith("Object contains unknown field "):
        return f'{_inner(path, cause)}: is not in the schema; add it, or set additional_fields = "allow"'
    if cause.startswith("Invalid enum value "):
        return f"{path}: is {cause.removeprefix('Invalid enum value ')}, which is none of its symbols"
    if "$[1]" not in place and "$[0]" not in place:
        return "is no [time, record]; check the sender"
    expected, _, found = cause.removeprefix("Expected ").partition(", got ")
    if found:
        return f"{path or 'the record'}: is {_kinds(found)}, must be {_kinds(expected)}"
    kind, _, bound = expected.partition("` ")
    return f"{path}: must be {_kinds(kind)} {bound}"


def _inner(path: str, cause: str) -> str:
    name = cause[cause.index("`") + 1 : cause.rindex("`")]
    return f"{path}.{name}".removeprefix(".")


def _kinds(expected: str) -> str:
    return " or ".join(_WORDS.get(kind, kind) for kind in expected.strip("`").split(" | "))
