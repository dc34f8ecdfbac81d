"""Bytes in decoded records: bin and str are both taken, so what msgspec left as it was is looked at here."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from ...store.catalog import policy_schema as avro
from .schema_types import attribute_of

FindFault = Callable[[list[Any]], str | None]
BIN_AND_STR = frozenset([*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB])
_NIL = 0xC0


def bytes_within(node: avro.Type, *, path: str = "", nullable: bool = False) -> "FindFault | None":
    """The check of all `bytes` and `fixed` in a list of decoded values, column by column.

    None if the type contains neither. None among the values is skipped: null, or a missing field.
    """
    match node:
        case avro.Bytes(low, high):
            return _look_at_bytes(path, low, high, nullable=nullable)
        case avro.Union(branches):
            nullable = any(isinstance(branch, avro.Null) for branch in branches)
            looks = [look for b in branches if (look := bytes_within(b, path=path, nullable=nullable))]
            kinds = {avro.Array: list, avro.Map: dict}
            if not looks:
                return None
            [branch] = [b for b in branches if bytes_within(b)]
            [look] = looks
            if isinstance(branch, avro.Bytes):
                return look
            kind: Any = kinds.get(type(branch), msgspec.Struct)
            return lambda values: look([value for value in values if isinstance(value, kind)])
        case avro.Array(items):
            look_at_items = bytes_within(items, path=f"{path}[...]")
            if look_at_items is None:
                return None
            return lambda values: look_at_items([item for value in values for item in value])
        case avro.Map(items):
            look_at_values = bytes_within(items, path=f"{path}[...]")
            if look_at_values is None:
                return None
            return lambda values: look_at_values([item for value in values for item in value.values()])
        case avro.Record(_, fields):
            columns = [
                (attribute_of(i), look)
                for i, field in enumerate(fields)
                if (look := bytes_within(field.type, path=f"{path}.{field.name}".removeprefix(".")))
            ]
            return None if not columns else lambda values: _look_at_columns(columns, values)
    return None


def _look_at_columns(columns: list[tuple[str, FindFault]], records: list[Any]) -> str | None:
    for attribute, look in columns:
        values = [v for record in records if (v := getattr(record, attribute)) is not None]
        if fault := look(values):
            return fault
    return None


def _look_at_bytes(path: str, low: int, high: int | None, *, nullable: bool) -> FindFault:
    allowed = BIN_AND_STR | {_NIL} if nullable else BIN_AND_STR
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
