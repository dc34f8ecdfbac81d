"""Reads the status of a tier that may be of another version, as the structs of `windvane.runtime.statuses`.

A tier of another version may lack members, add some, or give them another form. What it lacks is 0, empty
or null; what this version does not know is left out.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ..runtime.statuses import TierStatus

ReportedStatus = TypeVar("ReportedStatus", bound=TierStatus)


def read_status(kind: type[ReportedStatus], reported: Mapping[str, Any]) -> ReportedStatus:
    """The status that a tier reported (decoded JSON), as far as it is understood."""
    status: ReportedStatus = _read(inspect.type_info(kind), reported)
    return status


class _NotUnderstood(Exception):
    """A value is not of the type, and the type has no empty value."""


def _read(kind: inspect.Type, value: Any) -> Any:
    """`value` as `kind`; members and entries that are not understood are empty or left out."""
    match kind:
        case inspect.StructType(cls=struct, fields=fields) if isinstance(value, Mapping):
            return struct(**{field.name: _read_or_empty(field.type, value, field.name) for field in fields})
        case inspect.ListType(item_type=item) if isinstance(value, list):
            return list(_read_entries(item, dict(enumerate(value))).values())
        case inspect.DictType(value_type=item) if isinstance(value, Mapping):
            return _read_entries(item, value)
        case inspect.UnionType(types=types):
            return _read_first(types, value)
        case inspect.IntType():
            return _convert(value, int)
        case inspect.FloatType():
            return _convert(value, float)
        case inspect.StrType():
            return _convert(value, str)
        case inspect.NoneType():
            return _convert(value, None)
        case inspect.LiteralType(values=values) if value in values:
            return value
    raise _NotUnderstood


def _read_or_empty(kind: inspect.Type, members: Mapping[str, Any], name: str) -> Any:
    try:
        return _read(kind, members.get(name))
    except _NotUnderstood:
        return _empty(kind)


def _read_entries(kind: inspect.Type, entries: Mapping[Any, Any]) -> dict[Any, Any]:
    found = {}
    for key, entry in entries.items():
        try:
            found[key] = _read(kind, entry)
        except _NotUnderstood:
            continue
    return found


def _read_first(kinds: tuple[inspect.Type, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return _read(kind, value)
        except _NotUnderstood:
            continue
    raise _NotUnderstood


def _convert(value: Any, into: Any) -> Any:
    try:
        return msgspec.convert(value, into)
    except msgspec.ValidationError:
        raise _NotUnderstood from None


def _empty(kind: inspect.Type) -> Any:
    match kind:
        case inspect.ListType():
            return []
        case inspect.DictType():
            return {}
        case inspect.IntType():
            return 0
        case inspect.FloatType():
            return 0.0
        case inspect.StrType():
            return ""
        case inspect.UnionType(includes_none=True):
            return None
    raise _NotUnderstood
