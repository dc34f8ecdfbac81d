"""Converts records from msgpack into the Avro schema of their policy.

In one call into C, msgspec decodes a slice of a chunk into types derived from the schema, and detects records
that do not match. fastavro writes the resulting dicts, also in one call. Only `bytes` and `fixed` are
converted one by one, since forwarders type binary as str.
"""

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import fastavro
import msgpack
import msgspec
from msgspec import Meta, Raw

from ....bus.messages.chunks import prefix_of
from ....bus.messages.results import (
    ResultPart,
    event_schema,
    records_head,
    records_part_size,
    records_schema,
)
from ....bus.topic_names import records_topic
from ....errors import ChunkRejected, OperationFailed
from ....records.events import decode_time
from ....store.catalog import policy_schema as avro
from ....store.catalog.policy_schema import parse_schema

EVENTS_A_PASS = 4096
_Repair = Callable[[Any], Any]


class AvroRecords:
    """Makes messages of a policy's chunks; immutable, for any thread.

    Memory while it runs: the dicts of 4,096 events, and the encoded chunk.
    """

    def __init__(self, reference: str, schema: Mapping[str, Any], *, partitions: int) -> None:
        """For the policy `reference`, whose records have `schema`; its topic has `partitions`."""
        self._reference = reference
        self._partitions = partitions
        self._topic = records_topic(reference)
        self._prefix = prefix_of(records_schema(schema))
        self._writes = fastavro.parse_schema({"type": "array", "items": event_schema(schema)})
        tree = parse_schema(schema)
        event: Any = msgspec.defstruct(
            "Event", [("time", Raw), ("record", _type_of(tree))], array_like=True, gc=False
        )
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[event])
        self._repair = _repair_of(tree)

    def parts(
        self,
        payload: bytes,
        *,
        stream: str,
        archive: bytes,
        first_event: int,
        part_bytes: int,
        max_bytes: int,
    ) -> list[ResultPart]:
        """The events of a chunk, the first of which has the number `first_event` in the data stream, in parts
        of at most `part_bytes`, or of one event.

        Raises OperationFailed if a record does not fit the schema, or if its message alone is over
        `max_bytes`, and ChunkRejected if an event has no time.
        """
        head = records_head(self._prefix, stream=stream, archive=archive)
        parts: list[ResultPart] = []
        number = first_event
        for events in self._slices(payload):
            for block, count in self._blocks(events, head, part_bytes, max_bytes):
                part = ResultPart(
                    topic=self._topic,
                    key=stream.encode(),
                    head=head,
                    first=number,
                    count=count,
                    arrays=(block,),
                    size=records_part_size(head, block),
                    partitions=self._partitions,
                )
                number += count
                parts.append(part)
        return parts

    def _slices(self, payload: bytes) -> Iterator[list[dict[str, Any]]]:
        unpacker = msgpack.Unpacker(max_buffer_size=max(len(payload), 1))
        unpacker.feed(payload)
        start, index = 0, 0
        while start < len(payload):
            count = 0
            try:
                while count < EVENTS_A_PASS and unpacker.tell() < len(payload):
                    unpacker.skip()
                    count += 1
            except (ValueError, msgpack.OutOfData) as error:
                raise ChunkRejected(
                    "malformed", f"event {index + count} cannot be read: {error!r}"
                ) from error
            end = unpacker.tell()
            try:
                decoded = self._decoder.decode(struct.pack(">BI", 0xDD, count) + payload[start:end])
            except (msgspec.DecodeError, RecursionError) as error:
                cause, _, path = str(error).partition(" - at `$")
                raise OperationFailed(
                    f"a record among the events {index} to {index + count - 1} of the chunk does not fit the "
                    f"schema of policy {self._reference!r}: {cause}{path and f' at {path[:-1]}'}"
                ) from error
            yield [
                {
                    "time": decode_time(bytes(event.time)),
                    "record": self._repair(event.record) if self._repair else event.record,
                }
                for event in decoded
            ]
            start, index = end, index + count

    def _blocks(
        self, events: list[dict[str, Any]], head: bytes, part_bytes: int, max_bytes: int
    ) -> Iterator[tuple[bytes, int]]:
        body = io.BytesIO()
        try:
            fastavro.schemaless_writer(body, self._writes, events)
        # fastavro passes on any error of its encoder: TypeError, ValueError, OverflowError, …
        except Exception as error:
            raise OperationFailed(
                f"a record cannot be written in the schema of policy {self._reference!r}: {error}"
            ) from error
        block = body.getvalue()[:-1]  # the last byte is the end of the array
        size = records_part_size(head, block)
        if size <= part_bytes or (len(events) == 1 and size <= max_bytes):
            yield block, len(events)
            return
        if len(events) == 1:
            raise OperationFailed(
                f"a record makes a message of {size} bytes, and the bus takes at most {max_bytes}"
            )
        half = len(events) // 2
        yield from self._blocks(events[:half], head, part_bytes, max_bytes)
        yield from self._blocks(events[half:], head, part_bytes, max_bytes)


def _type_of(type_: avro.Type) -> Any:
    """The type that msgspec decodes; values with bytes are converted afterwards."""
    match type_:
        case avro.Null():
            return None
        case avro.Boolean():
            return bool
        case avro.Integer():
            return Annotated[int, Meta(ge=type_.minimum, le=type_.maximum)]
        case avro.Number():
            return float
        case avro.Text():
            return str
        case avro.Bytes():
            return Raw
        case avro.Enum():
            return Literal[type_.symbols]
        case avro.Array():
            return list[_type_of(type_.items)]  # type: ignore[misc]
        case avro.Map():
            return dict[str, _type_of(type_.values)]  # type: ignore[misc]
        case avro.Record():
            fields: dict[str, Any] = {}
            for field in type_.fields:
                inner = _type_of(field.type)
                # msgspec (0.22) takes no Raw that is required; fastavro finds that one is missing.
                is_required = field.required and inner is not Raw
                fields[field.name] = inner if is_required else NotRequired[inner]
            return TypedDict(type_.name, fields)  # type: ignore[operator]
        case avro.Union():
            if any(isinstance(branch, avro.Bytes) for branch in type_.branches):
                return Raw
            return reduce(lambda a, b: a | b, map(_type_of, type_.branches))


def _repair_of(type_: avro.Type) -> _Repair | None:
    """Returns a function that converts the raw values within to bytes; None if there are none."""
    match type_:
        case avro.Bytes():
            return _bytes
        case avro.Union():
            if any(isinstance(branch, avro.Bytes) for branch in type_.branches):
                return lambda value: None if bytes(value) == b"\xc0" else _bytes(value)
            repairs = [repair for branch in type_.branches if (repair := _repair_of(branch))]
            # Each branch recognizes its own values: a union has at most one array, map and record.
            return _chain(repairs) if repairs else None
        case avro.Array():
            items = _repair_of(type_.items)
            if items is None:
                return None
            return lambda value: list(map(items, value)) if isinstance(value, list) else value
        case avro.Map():
            values = _repair_of(type_.values)
            if values is None:
                return None
            return lambda value: (
                {key: values(inner) for key, inner in value.items()} if isinstance(value, dict) else value
            )
        case avro.Record():
            return _repair_of_record(type_)
    return None


def _repair_of_record(record: avro.Record) -> _Repair | None:
    repairs = [(field, repair) for field in record.fields if (repair := _repair_of(field.type))]
    if not repairs:
        return None
    defaults = {field.name: _default(field.type, field.default) for field, _ in repairs if not field.required}

    def convert_fields(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for field, convert in repairs:
            if field.name in value:
                value[field.name] = convert(value[field.name])
            elif field.name in defaults:
                # fastavro uses a default unchanged from JSON, where bytes are text.
                value[field.name] = defaults[field.name]
        return value

    return convert_fields


def _chain(repairs: list[_Repair]) -> _Repair:
    return lambda value: reduce(lambda mended, repair: repair(mended), repairs, value)


def _default(type_: avro.Type, default: Any) -> Any:
    """A default with bytes instead of JSON's text: one character for each byte (Avro 1.12, "Schema
    Record").
    """
    match type_:
        case avro.Bytes():
            return str(default).encode("latin-1")
        case avro.Union():
            return _default(type_.branches[0], default)
        case avro.Array():
            return [_default(type_.items, item) for item in default]
        case avro.Map():
            return {key: _default(type_.values, value) for key, value in default.items()}
        case avro.Record():
            return {
                field.name: _default(field.type, default.get(field.name, field.default))
                for field in type_.fields
            }
    return default


def _bytes(raw: Any) -> bytes:
    value = msgpack.unpackb(bytes(raw), raw=True)
    if not isinstance(value, bytes):
        raise OperationFailed(f"a record has {value!r:.60} where the schema has bytes")
    return value
