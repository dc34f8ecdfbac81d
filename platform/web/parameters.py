"""Parameters of a request as structs: decoded from its path, query and headers, and described for openapi.py.

A struct has one field for each parameter, `str`, `int` or a `Literal`, optional if it may be None; in a query
also `tuple[str, ...]`, of a parameter that may be repeated. The field's `msgspec.Meta` has the description
and the bounds.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect
from msgspec.structs import replace
from multidict import MultiMapping

from ..errors import SelectionInvalid
from ..records.bounds import Bound, parse_bound
from .problems import RequestRejected

LARGEST_INTEGER = 2**63 - 1
"""What SQLite, PostgreSQL and NumPy can take."""

_DIGITS = 20
INTEGER_BOUNDS: Mapping[str, Any] = {"exclusiveMinimum": -(10.0**_DIGITS), "exclusiveMaximum": 10.0**_DIGITS}
Integer = Annotated[int, Meta(extra_json_schema=dict(INTEGER_BOUNDS))]
"""An integer of up to 20 digits in a query; beyond 64 bits it counts as the largest, or least."""

BoundText = Annotated[str, Meta(extra_json_schema={"format": "number-or-time"})]
"""A bound of a range in a query, which `bound` reads."""

Parameters = TypeVar("Parameters", bound=Struct)


class ReferencePath(Struct, frozen=True):
    """The path of one resource."""

    ref: Annotated[str, Meta(description="The reference, percent-encoded where a path requires it.")]


def decode_path(kind: type[Parameters], given: Mapping[str, str]) -> Parameters:
    """The parameters in a path, of which `given` are the parts. RequestRejected (404) names a mistake."""
    decoded = _decode(kind, given, status=HTTPStatus.NOT_FOUND)
    for field in _fields(kind):
        # The largest integer stands for all that are larger, which no resource has as its ID.
        if getattr(decoded, field.attribute) == LARGEST_INTEGER:
            raise RequestRejected(
                HTTPStatus.NOT_FOUND, f"{field.name}={given[field.name][:40]} is too large."
            )
    return decoded


def decode_query(kind: type[Parameters], given: MultiMapping[str]) -> Parameters:
    """The parameters in a query; an empty one counts as absent. RequestRejected (400) names a mistake."""
    present = {name: given[name] for name in _names(kind) if given.get(name)}
    decoded = _decode(kind, present, status=HTTPStatus.BAD_REQUEST)
    repeated = {
        field.attribute: tuple(filter(None, given.getall(field.name, ())))
        for field in _fields(kind)
        if field.is_repeated
    }
    return replace(decoded, **repeated) if repeated else decoded


def bound(name: str, text: str | None) -> Bound | None:
    """The bound in the parameter `name`; None if it is absent. RequestRejected (400) names a mistake."""
    try:
        return None if text is None else parse_bound(text)
    except SelectionInvalid as error:
        raise RequestRejected(HTTPStatus.BAD_REQUEST, f"{name}: {error}.") from None


def decode_headers(kind: type[Parameters], given: Mapping[str, str]) -> Parameters:
    """The parameters in headers, whose names `given` finds in any case."""
    present = {name: given[name] for name in _names(kind) if name in given}
    return _decode(kind, present, status=HTTPStatus.BAD_REQUEST)


def describe_parameters(kind: type[Struct], place: str) -> list[dict[str, Any]]:
    """The fields of `kind` as OpenAPI's Parameter Objects; `place` is path, query or header."""
    _, components = msgspec.json.schema_components((kind,))
    schema = components[kind.__name__]
    found = []
    for name, described in schema["properties"].items():
        value = dict(described)
        entry: dict[str, Any] = {"name": name, "in": place, "description": value.pop("description", "")}
        choices = [choice for choice in value.pop("anyOf", ()) if choice != {"type": "null"}]
        if choices:
            value = {**choices[0], **value}
        if value.get("default", ...) is None:
            del value["default"]
        if name in schema["required"]:
            entry["required"] = True
        elif place == "query":
            entry["allowEmptyValue"] = True
        found.append({**entry, "schema": value})
    return found


def integer_in(text: str) -> int | None:
    """The decimal integer that `text` is, with any number of leading zeros; None if it is not one.

    Python itself raises ValueError for more than 4,300 digits. More than 20 stand for a number that no
    database and no array can have.

    >>> integer_in("-0042")
    -42
    >>> integer_in("9" * 5000) > LARGEST_INTEGER
    True
    """
    match = re.fullmatch(r"([+-]?)0*([0-9]+)", text)
    return int(match[1] + match[2][:21]) if match else None


class _Field(NamedTuple):
    attribute: str
    name: str
    required: bool
    is_repeated: bool
    read: Callable[[str], Any]
    """Raises ValueError, which says what is wrong with the text."""


@cache
def _fields(kind: type[Struct]) -> tuple[_Field, ...]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return tuple(
        _Field(field.name, field.encode_name, field.required, _is_repeated(field.type), _reader(field.type))
        for field in described.fields
    )


@cache
def _names(kind: type[Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in _fields(kind))


def _decode(kind: type[Parameters], given: Mapping[str, str], *, status: HTTPStatus) -> Parameters:
    values: dict[str, Any] = {}
    for field in _fields(kind):
        if field.name not in given:
            if field.required:
                raise RequestRejected(status, f"{field.name} is required.")
            continue
        text = given[field.name]
        try:
            values[field.attribute] = field.read(text)
        except ValueError as error:
            raise RequestRejected(status, f"{field.name}={text[:40]} {error}.") from None
    return kind(**values)


def _is_repeated(kind: inspect.Type) -> bool:
    return isinstance(kind.type if isinstance(kind, inspect.Metadata) else kind, inspect.VarTupleType)


def _reader(kind: inspect.Type) -> Callable[[str], Any]:
    if isinstance(kind, inspect.Metadata):
        return _reader(kind.type)
    if isinstance(kind, inspect.UnionType):
        (only,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
        return _reader(only)
    if isinstance(kind, inspect.IntType):
        return partial(_integer, least=kind.ge)
    if isinstance(kind, inspect.LiteralType):
        return partial(_choice, allowed=[str(value) for value in kind.values])
    assert isinstance(kind, inspect.StrType | inspect.VarTupleType), kind
    return str


def _integer(text: str, *, least: int | None) -> int:
    number = integer_in(text)
    if number is None or abs(number) >= 10**_DIGITS:
        raise ValueError("is not a valid integer")
    number = max(-LARGEST_INTEGER - 1, min(number, LARGEST_INTEGER))
    if least is not None and number < least:
        raise ValueError(f"is too small: it must be at least {least}")
    return number


def _choice(text: str, *, allowed: Sequence[str]) -> str:
    if text not in allowed:
        raise ValueError(f"is not known; it may be {', '.join(allowed)}")
    return text
