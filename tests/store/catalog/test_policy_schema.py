"""Avro schemas of policies: the supported types, and the error messages for the others."""

from typing import Any

import pytest
from windvane.errors import PolicyInvalid
from windvane.store.catalog.policy_schema import (
    Array,
    Boolean,
    Bytes,
    Enum,
    Field,
    Integer,
    Map,
    Null,
    Number,
    Record,
    Text,
    Union,
    parse_schema,
)


def record(*fields: dict[str, Any], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(type_: Any, **more: Any) -> dict[str, Any]:
    return {"name": "x", "type": type_, **more}


INT = Integer(-(2**31), 2**31 - 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (field("null"), Null()),
        (field("boolean"), Boolean()),
        (field("int"), INT),
        (field("long"), Integer(-(2**63), 2**63 - 1)),
        (field("int", minimum=0, maximum=7), Integer(0, 7)),
        (field({"type": "long", "minimum": 3}), Integer(3, 2**63 - 1)),
        (field({"type": "long", "logicalType": "timestamp-micros"}), Integer(-(2**63), 2**63 - 1)),
        (field("float"), Number()),
        (field("double", maximum=2), Number(None, 2.0)),
        (field("string", maxLength=5), Text(5)),
        (field("bytes"), Bytes()),
        (field({"type": "fixed", "name": "F", "size": 4}), Bytes(4, 4)),
        (field({"type": "enum", "name": "E", "symbols": ["A", "B"]}), Enum(("A", "B"))),
        (field({"type": "array", "items": {"type": "int", "maximum": 1}}), Array(Integer(-(2**31), 1))),
        (field({"type": "map", "values": "string"}), Map(Text())),
        (field(["null", "double"], minimum=0.5), Union((Null(), Number(0.5)))),
        (field(["string", "int"], maxLength=3, maximum=4), Union((Text(3), Integer(-(2**31), 4)))),
        (field(record(field("int"), name="N")), Record("N", (Field("x", INT, True),))),
    ],
)
def test_each_type_is_read(given: dict[str, Any], expected: Any) -> None:
    assert parse_schema(record(given)).fields == (Field("x", expected, True),)


def test_a_field_with_a_default_may_be_missing() -> None:
    [only] = parse_schema(record(field(["null", "int"], default=None))).fields
    assert not only.required


def test_a_named_type_is_known_behind_its_definition() -> None:
    first = {"name": "a", "type": {"type": "enum", "name": "E", "namespace": "n", "symbols": ["A"]}}
    second = {"name": "b", "type": {"type": "array", "items": "n.E"}}
    assert parse_schema(record(first, second)).fields[1].type == Array(Enum(("A",)))


def deep(levels: int) -> dict[str, Any]:
    made: Any = "int"
    for _ in range(levels):
        made = {"type": "array", "items": made}
    return field(made)


def chain(length: int) -> list[dict[str, Any]]:
    """Records that each contain the previous one twice: n records have 2**n paths, n deep."""
    fields = [{"name": "f0", "type": record(field("int"), name="R0")}]
    for i in range(1, length):
        inner = [{"name": name, "type": f"R{i - 1}"} for name in ("a", "b")]
        fields.append({"name": f"f{i}", "type": record(*inner, name=f"R{i}")})
    return fields


def test_a_type_that_is_named_again_and_again_is_read_once() -> None:
    assert len(parse_schema(record(*chain(25), name="top")).fields) == 25


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "schema: its outermost type must be a record"),
        (record(field("flaot")), "schema: the type 'flaot' is not known; Avro has null, boolean"),
        (record({"type": "int"}), "schema: is not a valid Avro schema"),
        (record({"name": "x"}), "schema: is not a valid Avro schema: Record field 'x' is missing 'type'"),
        (record(field("int"), field("int")), "schema.fields[1].name: there is a field 'x' already"),
        (record(field("int", default="three")), "schema: is not a valid Avro schema: Default value"),
        (
            record(field("int", minimum=0.5)),
            "schema.x.minimum: is 0.5, must be an integer from -2147483648 to",
        ),
        (record(field("int", maximum=2**31)), "schema.x.maximum: is 2147483648, must be an integer from"),
        (record(field("int", minimum=5, maximum=4)), "schema.x.minimum: is 5, above its maximum 4"),
        (record(field("double", minimum="0")), "schema.x.minimum: is '0', must be a number"),
        (record(field("string", maximum=4)), "schema.x.maximum: is for numbers; take it out here"),
        (record(field("string", maxLength=-1)), "schema.x.maxLength: is -1, must be an integer >= 0"),
        (record(field("boolean", maxLength=1)), "schema.x.maxLength: is for string and bytes"),
        (record(field(["null", "string"], minimum=1)), "schema.x.minimum: is for numbers; take it out"),
        (record(field(["int", "double"])), "schema.x: nothing in a record tells branch 0 from branch 1"),
        (record(field(["string", "bytes"])), "schema.x: nothing in a record tells branch 0 from branch 1"),
        (record(field(["bytes", "int"])), "schema.x: bytes and fixed go into a union with null alone"),
        (record(field(["int", ["null", "string"]])), "schema.x[1]: a union holds no union"),
        (record(field([])), "schema.x: is a union of nothing"),
        (record(field(["null", "R"])), "schema.x[1]: 'R' holds itself"),
        (record(field({"type": "fixed", "name": "F", "size": -1})), "schema.x.size: must be an integer >= 0"),
        (record(field({"type": "enum", "name": "E", "symbols": []})), "schema.x.symbols: must be a list of"),
        (record(deep(40)), "lies over 32 types deep"),
        (record(*chain(40), name="top"), "lies over 32 types deep"),
        (record(*({"name": f"f{i}", "type": "int"} for i in range(2500))), "has more than 2000 types"),
    ],
)
def test_what_is_not_taken_is_named_by_its_path(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_schema(schema)
    assert message in str(caught.value)
