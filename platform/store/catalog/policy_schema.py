"""The Avro schema of a policy's records, parsed into a small tree from which a validator is built.

fastavro checks Avro's own rules (names, defaults, symbols). Of Avro's types a policy supports null,
boolean, int, long, float, double, bytes, string, enum, fixed, array, map, record, references to named
types, and unions whose branches differ in their msgpack type; a logical type counts as its base type. A
field or a type may also have `minimum` and `maximum` (numbers) and `maxLength` (strings in characters, bytes
in bytes). A field with a `default` is optional in a record; any other is required.

Source: Apache Avro specification 1.12, "Schema Declaration"; `minimum`, `maximum` and `maxLength` as in JSON
Schema.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from ...errors import PolicyInvalid

MAX_SCHEMA_TYPES = 2000
"""How many types, counted as they are written, a schema may have."""
MAX_SCHEMA_DEPTH = 32
"""How deep records, arrays and maps may be nested, references followed."""
MAX_SCHEMA_CHARACTERS = 256 * 1024

INT = (-(2**31), 2**31 - 1)
LONG = (-(2**63), 2**63 - 1)


class Null(Struct, frozen=True):
    """msgpack nil."""


class Boolean(Struct, frozen=True):
    """msgpack true or false."""


class Integer(Struct, frozen=True):
    """A msgpack integer, the bounds included; `int` and `long` differ only in their bounds."""

    minimum: int
    maximum: int


class Number(Struct, frozen=True):
    """A msgpack float or integer, the bounds included; NaN is within no bound."""

    minimum: float | None = None
    maximum: float | None = None


class Text(Struct, frozen=True):
    """A msgpack str in UTF-8, of at most `max_length` characters."""

    max_length: int | None = None


class Bytes(Struct, frozen=True):
    """A msgpack bin, or a str of any bytes: fluentd types binary as str."""

    min_length: int = 0
    max_length: int | None = None


class Enum(Struct, frozen=True):
    """A msgpack str that is one of the symbols."""

    symbols: tuple[str, ...]


class Array(Struct, frozen=True):
    """A msgpack array."""

    items: "Type"


class Map(Struct, frozen=True):
    """A msgpack map whose keys are str."""

    values: "Type"


class Field(Struct, frozen=True):
    """A field of a record; if it is not `required` it may be missing, and `default` replaces it."""

    name: str
    type: "Type"
    required: bool
    default: Any = None


class Record(Struct, frozen=True):
    """A msgpack map with the fields as keys, typed str."""

    name: str
    fields: tuple[Field, ...]


class Union(Struct, frozen=True):
    """Any one of the branches, no two of which accept the same kind of msgpack value."""

    branches: tuple["Type", ...]


Type: TypeAlias = Null | Boolean | Integer | Number | Text | Bytes | Enum | Array | Map | Record | Union

_KIND_OF_VALUE: dict[type, str] = {
    Null: "null",
    Boolean: "boolean",
    Integer: "number",
    Number: "number",
    Text: "string",
    Bytes: "string",
    Enum: "string",
    Array: "array",
    Map: "map",
    Record: "map",
}


def schema_from_json(text: str) -> dict[str, Any]:
    """Decode a schema from JSON, without further checks. Raises PolicyInvalid."""
    if not text.lstrip().startswith("{"):
        raise PolicyInvalid(
            f"schema: must be a schema, not the text {text[:60]!r}; write it as a table or as JSON "
            "(a path to a file with it is read by `windvane policy create` and `windvane apply` alone)"
        )
    try:
        schema = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PolicyInvalid(f"schema: is not valid JSON: {error}") from error
    return dict(schema)


def parse_schema(schema: Mapping[str, Any]) -> Record:
    """The tree of a schema, whose outermost type is a record. Raises PolicyInvalid, which names the path."""
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARACTERS:
        raise PolicyInvalid(
            f"schema: has more than {MAX_SCHEMA_CHARACTERS} characters of JSON; make it smaller"
        )
    import fastavro.schema  # only here: it takes longer to load than all the rest

    try:
        parsed = fastavro.schema.parse_schema(json.loads(json.dumps(schema)))
    except fastavro.schema.UnknownType as error:
        raise PolicyInvalid(
            f"schema: the type {str(error)[:200]!r} is not known; Avro has null, boolean, int, long, float, "
            "double, bytes, string, record, enum, array, map, fixed, and the names that are defined before"
        ) from error
    except fastavro.schema.SchemaParseException as error:
        raise PolicyInvalid(f"schema: is not a valid Avro schema: {error}") from error
    # fastavro fails on input of another shape with TypeError, KeyError, AttributeError, …
    except Exception as error:
        raise PolicyInvalid(
            f"schema: is not a valid Avro schema ({error}); it begins with "
            '{"type": "record", "name": "…", "fields": [{"name": "…", "type": "…"}]}'
        ) from error
    tree = _Parser().parse(parsed, "schema", {}, 0)
    if not isinstance(tree, Record):
        raise PolicyInvalid('schema: its outermost type must be a record, {"type": "record", …}')
    return tree


_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_NAMESPACE = "windvane"


def check_publishable(schema: Any, path: str = "schema") -> None:
    """Raises PolicyInvalid if records cannot be published in a parsed schema: if other readers reject its
    names, or the frame around the records uses them (namespace "windvane").
    """
    if isinstance(schema, list):
        for i, branch in enumerate(schema):
            check_publishable(branch, f"{path}[{i}]")
    if not isinstance(schema, Mapping):
        return
    if schema.get("type") in ("record", "enum", "fixed"):
        full_name = f"{schema.get('namespace') or ''}.{schema['name']}".strip(".")
        if not all(map(_AVRO_NAME.fullmatch, full_name.split("."))):
            raise PolicyInvalid(
                f"{path}.name: {full_name!r} is not a valid name in Avro: letters, digits and _ of ASCII"
            )
        if full_name.startswith(f"{OWN_NAMESPACE}."):
            raise PolicyInvalid(
                f'{path}.name: {full_name!r} is in the namespace "{OWN_NAMESPACE}", which belongs to the '
                "frame around the records; take another"
            )
    for i, field in enumerate(schema.get("fields", ())):
        if not _AVRO_NAME.fullmatch(field["name"]):
            raise PolicyInvalid(
                f"{path}.fields[{i}].name: {field['name']!r} is not a valid name in Avro (letters, digits "
                'and _ of ASCII, no digit first), so that encoding = "avro" cannot take it'
            )
        check_publishable(field["type"], f"{path}.{field['name']}")
    for key in ("type", "items", "values"):
        if not isinstance(schema.get(key), str):
            check_publishable(schema.get(key), f"{path}.{key}")


class _Parser:
    def __init__(self) -> None:
        self._named: dict[str, tuple[Type, int]] = {}  # with its depth
        self._open: set[str] = set()
        self._depth = 0  # of the type that was parsed last
        self._types = 0

    def parse(self, schema: Any, path: str, outside: Mapping[str, Any], level: int) -> Type:
        """The type at `path`; `outside` are the bounds that its field states."""
        self._types += 1
        if self._types > MAX_SCHEMA_TYPES:
            raise PolicyInvalid(f"schema: has more than {MAX_SCHEMA_TYPES} types; make it smaller")
        if level > MAX_SCHEMA_DEPTH:
            raise PolicyInvalid(f"{path}: lies over {MAX_SCHEMA_DEPTH} types deep; flatten the records")
        self._depth = 0
        if isinstance(schema, list):
            return self._union(schema, path, outside, level)
        if isinstance(schema, str):
            schema = {"type": schema}
        if not isinstance(schema, dict) or not isinstance(schema.get("type"), str | list | dict):
            raise PolicyInvalid(
                f"{path}: is not a valid type; write its name, a table with `type`, or a list of types"
            )
        if not isinstance(schema["type"], str):
            return self.parse(schema["type"], path, {**outside, **_bounds(schema)}, level + 1)
        return self._one(schema["type"], schema, path, {**outside, **_bounds(schema)}, level)

    def _one(
        self, name: str, schema: dict[str, Any], path: str, bounds: Mapping[str, Any], level: int
    ) -> Type:
        if name in ("int", "long"):
            return _integer(bounds, path, *(INT if name == "int" else LONG))
        if name in ("float", "double"):
            return _number(bounds, path)
        if name in ("string", "bytes"):
            length = _max_length(bounds, path)
            return Text(length) if name == "string" else Bytes(max_length=length)
        _check_fit(bounds, (), path)
        if name == "null":
            return Null()
        if name == "boolean":
            return Boolean()
        if name == "array":
            items = self.parse(schema.get("items"), f"{path}.items", {}, level + 1)
            self._depth += 1
            return Array(items)
        if name == "map":
            values = self.parse(schema.get("values"), f"{path}.values", {}, level + 1)
            self._depth += 1
            return Map(values)
        if name in ("record", "enum", "fixed"):
            return self._named_type(name, schema, path, level)
        return self._reference(name, path, level)

    def _named_type(self, name: str, schema: dict[str, Any], path: str, level: int) -> Type:
        full_name = schema["name"]
        self._open.add(full_name)
        made: Type
        if name == "record":
            made = self._record(full_name, schema, path, level)
        elif name == "enum":
            symbols = schema.get("symbols")
            if not symbols or not isinstance(symbols, list) or len(set(symbols)) != len(symbols):
                raise PolicyInvalid(f"{path}.symbols: must be a list of different names")
            made = Enum(tuple(symbols))
        else:
            size = schema.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= 2**30:
                raise PolicyInvalid(f"{path}.size: must be an integer >= 0, the number of bytes")
            made = Bytes(size, size)
        self._open.discard(full_name)
        self._named[full_name] = (made, self._depth)
        return made

    def _record(self, full_name: str, schema: dict[str, Any], path: str, level: int) -> Record:
        tables = schema.get("fields")
        if not isinstance(tables, list):
            raise PolicyInvalid(f"{path}.fields: must be a list of fields")
        fields: dict[str, Field] = {}
        deepest = 0
        for i, table in enumerate(tables):
            name = table.get("name")
            if not isinstance(name, str) or not name or not name.isprintable():
                raise PolicyInvalid(f"{path}.fields[{i}].name: must be text, the key in the record")
            if name in fields:
                raise PolicyInvalid(f"{path}.fields[{i}].name: there is a field {name!r} already")
            inner = f"{path}.{name}"
            made = self.parse(table.get("type"), inner, _bounds(table), level + 1)
            fields[name] = Field(name, made, "default" not in table, table.get("default"))
            deepest = max(deepest, self._depth)
        self._depth = deepest + 1
        return Record(full_name, tuple(fields.values()))

    def _reference(self, name: str, path: str, level: int) -> Type:
        if name in self._open:
            raise PolicyInvalid(f"{path}: {name!r} holds itself; records of unbounded depth are not taken")
        if name not in self._named:
            raise PolicyInvalid(f"{path}: the type {name!r} is not known here")
        made, self._depth = self._named[name]
        if level + self._depth > MAX_SCHEMA_DEPTH:
            raise PolicyInvalid(f"{path}: lies over {MAX_SCHEMA_DEPTH} types deep; flatten the records")
        return made

    def _union(self, schemas: list[Any], path: str, outside: Mapping[str, Any], level: int) -> Type:
        branches: list[Type] = []
        kinds: dict[str, int] = {}
        unused = dict(outside)
        deepest = 0
        for i, schema in enumerate(schemas):
            if isinstance(schema, list):
                raise PolicyInvalid(f"{path}[{i}]: a union holds no union; put its branches into this one")
            fitting = _fitting(schema, outside)
            for bound in fitting:
                unused.pop(bound, None)
            branch = self.parse(schema, f"{path}[{i}]", fitting, level + 1)
            deepest = max(deepest, self._depth)
            if isinstance(branch, Union):
                raise PolicyInvalid(f"{path}[{i}]: a union holds no union; put its branches into this one")
            first = kinds.setdefault(_KIND_OF_VALUE[type(branch)], i)
            if first != i:
                raise PolicyInvalid(
                    f"{path}: nothing in a record tells branch {first} from branch {i} "
                    f"(both are a {_KIND_OF_VALUE[type(branch)]}); leave one, a double takes integers too"
                )
            branches.append(branch)
        _check_fit(unused, (), path)
        if not branches:
            raise PolicyInvalid(f"{path}: is a union of nothing")
        if any(isinstance(b, Bytes) for b in branches) and any(
            not isinstance(b, Bytes | Null) for b in branches
        ):
            raise PolicyInvalid(f"{path}: bytes and fixed go into a union with null alone")
        self._depth = deepest
        return Union(tuple(branches))


_BOUND_IS_FOR = {"minimum": "numbers", "maximum": "numbers", "maxLength": "string and bytes"}
_BOUNDED_TYPES = {
    "minimum": ("int", "long", "float", "double"),
    "maximum": ("int", "long", "float", "double"),
    "maxLength": ("string", "bytes"),
}


def _bounds(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: table[name] for name in _BOUND_IS_FOR if name in table}


def _fitting(schema: Any, bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds of a field that apply to this branch of its union."""
    name = schema.get("type") if isinstance(schema, dict) else schema
    return {bound: value for bound, value in bounds.items() if name in _BOUNDED_TYPES[bound]}


def _check_fit(bounds: Mapping[str, Any], allowed: tuple[str, ...], path: str) -> None:
    for name in bounds:
        if name not in allowed:
            raise PolicyInvalid(f"{path}.{name}: is for {_BOUND_IS_FOR[name]}; take it out here")


def _integer(bounds: Mapping[str, Any], path: str, low: int, high: int) -> Integer:
    _check_fit(bounds, ("minimum", "maximum"), path)
    found = {}
    for name, default in (("minimum", low), ("maximum", high)):
        value = bounds.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise PolicyInvalid(f"{path}.{name}: is {value!r:.60}, must be an integer from {low} to {high}")
        found[name] = value
    _check_order(found["minimum"], found["maximum"], path)
    return Integer(**found)


def _number(bounds: Mapping[str, Any], path: str) -> Number:
    _check_fit(bounds, ("minimum", "maximum"), path)
    found: dict[str, float] = {}
    for name in ("minimum", "maximum"):
        if name in bounds:
            value = bounds[name]
            if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1.7e308:
                raise PolicyInvalid(f"{path}.{name}: is {value!r:.60}, must be a number")
            found[name] = float(value)
    _check_order(found.get("minimum"), found.get("maximum"), path)
    return Number(**found)


def _check_order(minimum: float | None, maximum: float | None, path: str) -> None:
    if minimum is not None and maximum is not None and minimum > maximum:
        raise PolicyInvalid(f"{path}.minimum: is {minimum}, above its maximum {maximum}")


def _max_length(bounds: Mapping[str, Any], path: str) -> int | None:
    _check_fit(bounds, ("maxLength",), path)
    length = bounds.get("maxLength")
    if length is not None and (
        not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= 2**30
    ):
        raise PolicyInvalid(f"{path}.maxLength: is {length!r:.60}, must be an integer >= 0")
    return length
