"""Describes the allowed values of an operation's parameter from its type annotation."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "nothing"}
_BOUNDS = {"gt": "over", "ge": "from", "lt": "below", "le": "up to"}


def describe(hint: Any) -> str:
    """The values that the annotation allows, in words, such as "a whole number from 2 up to 1048576"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f"{word} {bound:g}" if isinstance(bound, float) else f"{word} {bound}"
            for meta in arguments[1:]
            if isinstance(meta, msgspec.Meta)
            for key, word in _BOUNDS.items()
            if (bound := getattr(meta, key)) is not None
        ]
        return " ".join([describe(arguments[0]), *bounds])
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(describe(argument) for argument in arguments if argument is not NoneType)
    if origin is tuple:
        return f"[{', '.join(map(describe, arguments))}]"
    if origin is list:
        return f"a list of: {describe(arguments[0])}"
    if origin is dict or hint is dict:
        return "a table"
    return _NAMES.get(hint, str(hint))
