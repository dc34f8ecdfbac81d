"""Chunks as records in Avro: an independent reader decodes what was sent."""

import io
import struct
from itertools import pairwise
from typing import Any

import fastavro
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.bus.messages.chunks import prefix_of
from windvane.bus.messages.results import ROWS_SCHEMA, join, records_schema, rows_head, rows_parts
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.worker.pipeline.avro_records import AvroRecords
from windvane.store.catalog.policy import policy_from_mapping

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Power",
    "fields": [
        {"name": "kw", "type": "double"},
        {"name": "count", "type": "int", "minimum": -5},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["RUN", "STOP"]}},
        {"name": "before", "type": "State", "default": "STOP"},
        {"name": "operator", "type": ["null", "string"], "default": None},
        {"name": "raw", "type": "bytes", "default": "\u00ff0"},
        {"name": "maybe", "type": ["null", "bytes"], "default": None},
        {"name": "blades", "type": {"type": "array", "items": "float"}, "default": [1.5]},
        {"name": "tags", "type": {"type": "map", "values": "bytes"}, "default": {"a": "\u0001"}},
        {
            "name": "inner",
            "type": ["null", {"type": "record", "name": "Inner", "fields": [{"name": "b", "type": "bytes"}]}],
            "default": None,
        },
    ],
}
MISSING = {
    "before": "STOP",
    "operator": None,
    "raw": b"\xff0",
    "maybe": None,
    "blades": [1.5],
    "tags": {"a": b"\x01"},
    "inner": None,
}
BIG = 1 << 20


def encoder(schema: dict[str, Any] = SCHEMA, **more: Any) -> AvroRecords:
    policy = policy_from_mapping({"reference": "power", "schema": schema, "encoding": "avro", **more})
    assert policy.schema is not None
    return AvroRecords(policy.reference, policy.schema, partitions=policy.partitions)


def packed(events: list[tuple[int, Any]], *, binary_as_str: bool = False) -> bytes:
    packer = msgpack.Packer(use_bin_type=not binary_as_str, unicode_errors="surrogateescape")
    time = [msgpack.ExtType(0, struct.pack(">II", *divmod(ns, 10**9))) for ns, _ in events]
    return b"".join(packer.pack([t, record]) for t, (_, record) in zip(time, events, strict=True))


def read(message: bytes, schema: dict[str, Any]) -> Any:
    """Decodes a message with an independent reader and the schema, and checks the fingerprint."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    assert message[:2] == b"\xc3\x01"
    assert message[2:10].hex() == fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    body = io.BytesIO(message[10:])
    value = fastavro.schemaless_reader(body, fastavro.parse_schema(schema), None)
    assert not body.read()
    return value


RECORDS = st.fixed_dictionaries(
    {
        "kw": st.floats(allow_nan=False) | st.integers(-(2**50), 2**50),
        "count": st.integers(-5, 2**31 - 1),
        "state": st.sampled_from(["RUN", "STOP"]),
    },
    optional={
        "before": st.sampled_from(["RUN", "STOP"]),
        "operator": st.none() | st.text(max_size=5),
        "raw": st.binary(max_size=5),
        "maybe": st.none() | st.binary(max_size=5),
        "blades": st.lists(st.floats(width=32, allow_nan=False), max_size=3),
        "tags": st.dictionaries(st.text(max_size=3), st.binary(max_size=3), max_size=2),
        "inner": st.none() | st.fixed_dictionaries({"b": st.binary(max_size=3)}),
        "surplus": st.none(),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**61), RECORDS), min_size=1, max_size=40),
    st.booleans(),
    st.integers(300, 3000),
    st.integers(0, 2**40),
)
def test_an_independent_reader_decodes_what_was_sent(
    events: list[tuple[int, Any]], binary_as_str: bool, max_bytes: int, first: int
) -> None:
    parts = encoder(additional_fields="allow").parts(
        packed(events, binary_as_str=binary_as_str),
        stream="turbine.t1",
        archive=b"uid",
        first_event=first,
        part_bytes=max_bytes,
        max_bytes=max_bytes,
    )
    assert [part.first for part in parts] == [
        first + sum(p.count for p in parts[:i]) for i in range(len(parts))
    ]
    wanted = [
        {"time": ns, "record": {k: v for k, v in {**MISSING, **record}.items() if k != "surplus"}}
        for ns, record in events
    ]
    # Together as one message, and each as its own.
    assert all(after.continues(before) for before, after in pairwise(parts))
    schema = records_schema(SCHEMA)
    assert read(b"".join(join(parts)), schema) == {
        "stream": "turbine.t1",
        "archive": b"uid",
        "first_event": first,
        "events": wanted,
    }
    apart = [read(b"".join(join([part])), schema) for part in parts]
    assert [event for message in apart for event in message["events"]] == wanted
    for part in parts:
        assert len(b"".join(join([part]))) <= part.size <= max_bytes


def test_the_types_of_a_policy_keep_the_names_that_it_gives_them() -> None:
    canonical = fastavro.schema.to_parsing_canonical_form(records_schema(SCHEMA))
    assert '{"name":"Power","type":"record"' in canonical
    assert '{"name":"State","type":"enum"' in canonical
    assert '{"name":"windvane.Event","type":"record"' in canonical
    placed = fastavro.schema.to_parsing_canonical_form(records_schema({**SCHEMA, "namespace": "park"}))
    assert '{"name":"park.State","type":"enum"' in placed
    assert prefix_of(records_schema(SCHEMA)) != prefix_of(records_schema({**SCHEMA, "namespace": "park"}))


GOOD = {"kw": 1.0, "count": 1, "state": "RUN"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 1.5}, "Expected `int`, got `float`"),
        ({"count": 2**31}, "2147483647"),
        ({"kw": "x"}, "Expected `float`, got `str`"),
        ({"kw": None}, "Expected `float`, got `None`"),
        ({"state": "NO"}, "Invalid enum"),
        ({"raw": 3}, "where the schema has bytes"),
        ({"tags": {"a": 1}}, "where the schema has bytes"),
    ],
)
def test_a_record_that_does_not_fit_is_rejected_not_coerced(wrong: dict[str, Any], words: str) -> None:
    payload = packed([(1, GOOD), (2, {**GOOD, **wrong})])
    with pytest.raises(OperationFailed) as caught:
        encoder().parts(payload, stream="s", archive=b"", first_event=0, part_bytes=BIG, max_bytes=BIG)
    assert words in str(caught.value)


def test_a_record_too_large_for_a_message_is_rejected() -> None:
    payload = packed([(1, {**GOOD, "operator": "x" * 2000})])
    with pytest.raises(OperationFailed, match="the bus takes at most 1000"):
        encoder().parts(payload, stream="s", archive=b"", first_event=0, part_bytes=100, max_bytes=1000)


def test_many_events_are_taken_slice_by_slice() -> None:
    payload = packed([(i, {**GOOD, "count": i}) for i in range(10_000)])
    parts = encoder().parts(payload, stream="s", archive=b"", first_event=7, part_bytes=BIG, max_bytes=BIG)
    counts = [e["record"]["count"] for e in read(b"".join(join(parts)), records_schema(SCHEMA))["events"]]
    assert counts == list(range(10_000))
    assert parts[0].first == 7
    assert max(part.count for part in parts) == 4096


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"namespace": "windvane"}, 'is in the namespace "windvane"'),
        ({"name": "windvane.Event"}, 'is in the namespace "windvane"'),
        (
            {"fields": [{"name": "a-b", "type": "int"}]},
            "schema.fields[0].name: 'a-b' is not a valid name in Avro",
        ),
        (
            {
                "fields": [
                    {
                        "name": "x",
                        "type": {
                            "type": "array",
                            "items": {"type": "fixed", "name": "windvane.Rows", "size": 1},
                        },
                    }
                ]
            },
            "schema.x.items.name: 'windvane.Rows' is in the namespace",
        ),
    ],
)
def test_names_that_are_not_valid_in_avro_are_rejected_with_the_policy(
    change: dict[str, Any], words: str
) -> None:
    policy_from_mapping({"reference": "p", "schema": {**SCHEMA, **change}})
    with pytest.raises(PolicyInvalid) as caught:
        encoder({**SCHEMA, **change})
    assert words in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["<f4", "<f8", "<i2", "<i8", "|b1"]),
    st.sampled_from([(), (1,), (3,), (2, 3)]),
    st.integers(1, 50),
    st.integers(200, 2000),
)
def test_an_independent_reader_decodes_rows_as_doubles(
    dtype: str, row_shape: tuple[int, ...], count: int, max_bytes: int
) -> None:
    rng = np.random.default_rng(count)
    rows = (rng.normal(size=(count, *row_shape)) * 100).astype(dtype)
    times = rng.integers(0, 2**62, count)
    head = rows_head(stream="s", output="o", array=b"u", dtype=dtype, row_shape=row_shape, columns=("a", "b"))
    parts = list(
        rows_parts(
            rows,
            times,
            topic="t",
            stream="s",
            head=head,
            first_row=2**33,
            partitions=1,
            part_bytes=max_bytes,
            max_bytes=max_bytes,
        )
    )
    value = read(b"".join(join(parts)), ROWS_SCHEMA)
    assert value["first_row"] == 2**33
    assert (value["stream"], value["output"], value["array"], value["dtype"]) == ("s", "o", b"u", dtype)
    assert (value["row_shape"], value["columns"]) == (list(row_shape), ["a", "b"])
    assert np.array_equal(np.reshape(value["values"], rows.shape), rows.astype("<f8"))
    assert value["times"] == times.tolist()
    for part in parts:
        assert len(b"".join(join([part]))) <= part.size <= max_bytes


def test_rows_too_large_for_a_message_are_rejected() -> None:
    head = rows_head(stream="s", output="o", array=b"u", dtype="<f8", row_shape=(100,), columns=())
    given_: Any = dict(
        topic="t", stream="s", head=head, first_row=0, partitions=1, part_bytes=500, max_bytes=500
    )
    with pytest.raises(ValueError, match="a row of 100 values"):
        list(rows_parts(np.zeros((1, 100)), np.zeros(1, np.int64), **given_))
    with pytest.raises(ValueError, match="complex128"):
        list(rows_parts(np.zeros(1, complex), np.zeros(1, np.int64), **given_))
