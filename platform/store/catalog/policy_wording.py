"""The error messages for invalid policies: the path, the value, and what is allowed.

It also checks that TOML, JSON and msgpack can represent a value of a policy unchanged.
"""

import difflib
import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import PolicyInvalid

MAX_NESTING = 16
"""How deep tables and lists of a parameter may be nested."""

REFERENCE = r"^[A-Za-z0-9._-]{1,200}\Z"
NAME = r"^[A-Za-z0-9_-]{1,100}\Z"
TEXT = r"^[^\x00-\x1f\x7f-\x9f]*\Z"


def plain_value(value: Any, path: str, nesting: int = 0, *, max_nesting: int = MAX_NESTING) -> Any:
    """A copy of a parameter's value, which TOML, JSON and msgpack must represent unchanged."""
    if nesting > max_nesting:
        raise PolicyInvalid(f"{path}: lies over {max_nesting} tables or lists deep")
    if isinstance(value, Mapping):
        return {
            key_text(key, path): plain_value(item, f"{path}.{key}", nesting + 1, max_nesting=max_nesting)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            plain_value(item, f"{path}[{i}]", nesting + 1, max_nesting=max_nesting)
            for i, item in enumerate(value)
        ]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PolicyInvalid(f"{path}: is an integer of more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise PolicyInvalid(
            f"{path}: is {value}; JSON has no such number, leave it out or write a finite one"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PolicyInvalid(
        f"{path}: is {kind_of(value)}; text, numbers, true, false, lists and tables of these are allowed"
    )


def key_text(key: Any, path: str) -> str:
    """A key of a table, which must be text."""
    if not isinstance(key, str):
        raise PolicyInvalid(f"{path}: the key {key!r} is {kind_of(key)}; keys are text")
    return key


def check_keys(table: Mapping[str, Any], path: str, allowed: Sequence[str]) -> None:
    """Reject the unknown keys of a table."""
    for key in table:
        if key not in allowed:
            raise PolicyInvalid(f"{path}.{key}: is not known{meant(str(key), allowed)}".removeprefix("."))


def meant(given: str, allowed: Sequence[str]) -> str:
    """The end of a message about an unknown word."""
    close = difflib.get_close_matches(given.lower(), allowed, n=1)
    return (f'; did you mean "{close[0]}"?' if close else ";") + f" Allowed: {', '.join(allowed)}"


_KINDS: tuple[tuple[type | tuple[type, ...], str, str], ...] = (
    # Python's type, msgspec's name of it, ours. A bool is an int too, so it precedes int.
    (bool, "bool", "true or false"),
    (int, "int", "an integer"),
    (float, "float", "a number"),
    (str, "str", "text"),
    (bytes, "bytes", "bytes"),
    (Mapping, "object", "a table"),
    ((list, tuple), "array", "a list"),
    (type(None), "null", "nothing (null)"),
)
_WORDS = {theirs: ours for _, theirs, ours in _KINDS}
_PATTERN_WORDS = (
    (REFERENCE, "1 to 200 letters, digits, dots, underscores and dashes of ASCII"),
    (NAME, "1 to 100 letters, digits, underscores and dashes of ASCII"),
    (TEXT, "text without control characters"),
)


# The input may be of any size and depth.
_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


def kind_of(value: Any) -> str:
    """The description of a value in messages."""
    return next((ours for kind, _, ours in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")


def in_words(message: str, plain: Any, choices: Mapping[str, Sequence[str]]) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.limits.chunk_bytes`", reworded as in this file.

    `choices` are the allowed words, by path without indices.
    """
    cause, _, path = message.partition(" - at `$")
    path = path.strip(".`")
    value = plain
    for key, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        value = value[int(index)] if index else value[key]
    shown = _short.repr(value)
    if cause.startswith("Invalid enum"):
        allowed = choices[re.sub(r"\[\d+\]", "", path)]
        return f"{path}: {shown} is not known{meant(str(value), allowed)}"
    expected, _, found = cause.removeprefix("Expected ").partition(", got ")
    if found:
        wanted = _WORDS.get(expected.strip("`").removesuffix(" | null"), expected)
        hint = f", such as [{json.dumps(value)}]" if expected == "`array`" and isinstance(value, str) else ""
        return f"{path}: is {kind_of(value)} ({shown}), must be {wanted}{hint}"
    for pattern, words in _PATTERN_WORDS:
        if repr(pattern) in expected:
            return f"{path}: is {shown}, must be {words}"
    return f"{path}: is {shown}, must be {re.sub('`(.*?)`', lambda name: _WORDS[name[1]], expected)}"
