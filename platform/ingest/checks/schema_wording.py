"""What is wrong with a record, in words: by its path, as a person would say it."""

from collections.abc import Iterator
from typing import Any

import msgpack
from msgspec import Raw

from ...records.nesting import TOO_DEEP
from ...store.catalog import policy_schema as avro


def fault_in_words(fault: Exception | str, raw: Raw, schema: "avro.Type | None") -> str:
    """Of a fault that was found in the event `raw`."""
    if isinstance(fault, str):
        return fault
    if isinstance(fault, UnicodeDecodeError):
        _, record = msgpack.unpackb(raw, unicode_errors="surrogateescape", strict_map_key=False)
        return _not_utf8(record, schema, "") or "holds text that is not UTF-8"
    if isinstance(fault, RecursionError):
        return TOO_DEEP
    return _in_words(str(fault))


def _not_utf8(value: Any, node: "avro.Type | None", path: str) -> str | None:
    """The place of the first text that is not UTF-8, in a value decoded with surrogates for such bytes."""
    inner: Iterator[tuple[str, avro.Type | None, Any]]
    match node:
        case avro.Text() | avro.Enum() if isinstance(value, str) and not _is_utf8(value):
            return f"{path}: is not UTF-8; declare it as bytes, or fix the sender"
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
        return f"{path}: is {cause.removeprefix('Invalid enum value ')}, which is not one of its symbols"
    if "$[1]" not in place and "$[0]" not in place:
        return "is not a [time, record]; check the sender"
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
