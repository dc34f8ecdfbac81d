"""Results as messages: rows of a step, and records in their policy's own Avro schema.

    C3 01 | fingerprint, 8 bytes | head | first number | array…

Avro single-object encoding, as in `chunks.py`. Both schemas (`schemas/rows.avsc`, and the result of
`records_schema` for a policy) end with the number of the first row or event, followed by the arrays of
values. An array in Avro is a sequence of blocks, each preceded by its count. So consecutive parts are joined
into one message by concatenating their blocks, without a second encoding.
"""

import copy
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import fastavro
import msgspec
import numpy as np
from numpy.typing import NDArray

from ..interface import Buffer
from .chunks import encode_long, prefix_of

ROWS_SCHEMA: dict[str, Any] = json.loads(files("windvane.bus").joinpath("schemas/rows.avsc").read_text())
_RECORDS_FRAME: dict[str, Any] = json.loads(
    files("windvane.bus").joinpath("schemas/records.avsc").read_text()
)
_ROWS_PREFIX = prefix_of(ROWS_SCHEMA)
_ROWS_HEAD = fastavro.parse_schema(
    {
        **ROWS_SCHEMA,
        "fields": [f for f in ROWS_SCHEMA["fields"] if f["name"] not in ("first_row", "times", "values")],
    }
)
_RECORDS_HEAD = fastavro.parse_schema({**_RECORDS_FRAME, "fields": _RECORDS_FRAME["fields"][:2]})
_LONGS = fastavro.parse_schema({"type": "array", "items": "long"})
_END = b"\0"  # of an array: a block of no items
_VARINT_BYTES = 10  # of the longest long


class ResultPart(msgspec.Struct, frozen=True, gc=False):
    """Rows or events of one stream, encoded: a message, or a part of one.

    `head` is the part of the message before the first number; `arrays` has one block for each array. Parts of
    one topic with equal heads can share a message if their numbers are consecutive.
    """

    topic: str
    key: bytes
    head: bytes
    first: int
    count: int
    arrays: tuple[bytes, ...]
    size: int
    """Upper bound on the bytes of a message of this part alone."""
    partitions: int = 1
    """Partitions to create if its topic does not exist."""

    def continues(self, before: "ResultPart") -> bool:
        """Whether this part can follow `before` in a message."""
        return self.first == before.first + before.count and self.head == before.head


def join(parts: Sequence[ResultPart]) -> tuple[Buffer, ...]:
    """Buffers whose concatenation is the message of `parts`, each of which continues the one before it."""
    pieces: list[Buffer] = [parts[0].head, encode_long(parts[0].first)]
    for index in range(len(parts[0].arrays)):
        pieces += [part.arrays[index] for part in parts]
        pieces.append(_END)
    return tuple(pieces)


def rows_head(
    *, stream: str, output: str, array: bytes, dtype: str, row_shape: Sequence[int], columns: Sequence[str]
) -> bytes:
    """The head of messages of rows; `schemas/rows.avsc` documents the fields."""
    head = io.BytesIO()
    head.write(_ROWS_PREFIX)
    fastavro.schemaless_writer(
        head,
        _ROWS_HEAD,
        {
            "stream": stream,
            "output": output,
            "array": array,
            "dtype": dtype,
            "row_shape": list(row_shape),
            "columns": list(columns),
        },
    )
    return head.getvalue()


def rows_parts(
    rows: NDArray[Any],
    times_ns: NDArray[np.int64],
    *,
    topic: str,
    stream: str,
    head: bytes,
    first_row: int,
    partitions: int,
    part_bytes: int,
    max_bytes: int,
) -> Iterator[ResultPart]:
    """Split the rows, in order, into parts of `part_bytes` or of one row; never over `max_bytes`.

    Args:
        rows: shape (n, *row_shape), of real numbers; float32 and integers become doubles.
        times_ns: int64 of shape (n,).
        first_row: the number of `rows[0]` in its data array.

    Raises:
        ValueError: a single row exceeds the size of a message, or the numbers are not real.
    """
    if not np.can_cast(rows.dtype, np.float64, casting="same_kind"):
        raise ValueError(f"rows of {rows.dtype} cannot be published as doubles")
    values = int(np.prod(rows.shape[1:], dtype=np.int64))
    around = len(head) + 3 * _VARINT_BYTES + 2
    row_bytes = 8 * values + _VARINT_BYTES
    if around + row_bytes > max_bytes:
        raise ValueError(
            f"a row of {values} values needs a message of {around + row_bytes} bytes; the bus's limit is "
            f"{max_bytes}"
        )
    step = max(1, (part_bytes - around) // row_bytes)
    for start in range(0, len(rows), step):
        part = np.ascontiguousarray(rows[start : start + step], "<f8")
        times = encode_value(_LONGS, times_ns[start : start + step].tolist())[:-1]
        doubles = encode_long(part.size) + part.tobytes() if part.size else b""
        yield ResultPart(
            topic=topic,
            key=stream.encode(),
            head=head,
            first=first_row + start,
            count=len(part),
            arrays=(times, doubles),
            size=around + len(times) + len(doubles),
            partitions=partitions,
        )


def records_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the messages on a policy's records topic.

    It is `schemas/records.avsc` with the policy's own `schema` as the type of the record. A schema without a
    namespace keeps none ("namespace": ""), so that its types keep the names that the policy gives them.
    """
    own = copy.deepcopy(dict(schema))
    if "." not in own["name"]:
        own.setdefault("namespace", "")
    made = copy.deepcopy(_RECORDS_FRAME)
    event = made["fields"][-1]["type"]["items"]
    event["fields"][-1].update(type=own, doc="In the policy's own schema.")
    return made


def event_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of one event in a message of records; `schema` is the policy's."""
    event: dict[str, Any] = records_schema(schema)["fields"][-1]["type"]["items"]
    # Inside the frame it inherits the namespace; on its own it has to declare it.
    return {**event, "namespace": _RECORDS_FRAME["namespace"]}


def records_head(prefix: bytes, *, stream: str, archive: bytes) -> bytes:
    """The head of messages of records, whose schema has the prefix `prefix`."""
    return prefix + encode_value(_RECORDS_HEAD, {"stream": stream, "archive": archive})


def records_part_size(head: bytes, block: bytes) -> int:
    """Upper bound on the bytes of a message of records with one block."""
    return len(head) + len(block) + _VARINT_BYTES + 1


def encode_value(schema: Any, value: Any) -> bytes:
    """A value in Avro's binary encoding; `schema` is parsed."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema, value)
    return body.getvalue()
