"""Untrusted JSON: request bodies and messages of the live feed, with a bound on their nesting.

Decoders, encoders and code that walks over a decoded value recurse. Each raises RecursionError beyond a
different depth, and the bound here is far below all of them.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from .problems import RequestRejected

MAX_NESTING = 64
"""Objects and arrays within each other; the deepest policies have a dozen."""

Value = TypeVar("Value")


class NestedTooDeeply(ValueError):
    """JSON with more than MAX_NESTING objects and arrays within each other."""

    def __init__(self) -> None:
        super().__init__(f"the JSON has more than {MAX_NESTING} objects and arrays within each other")


def decode_json(text: bytes | str, decode: Callable[[bytes | str], Value]) -> Value:
    """`decode(text)`, if the nesting of the result is within MAX_NESTING.

    Raises NestedTooDeeply, and whatever `decode` raises.
    """
    try:
        value = decode(text)
    except RecursionError:
        raise NestedTooDeeply from None
    if _is_deep(value):
        raise NestedTooDeeply
    return value


async def read_json(request: web.Request, decode: Callable[[bytes | str], Value]) -> Value:
    """The JSON body of `request` as `decode` gives it, decoded in a thread.

    Raises RequestRejected: 415 for another content type, 400 for what is not JSON or nested too deeply, 422
    for what msgspec.ValidationError names.
    """
    if request.content_type != "application/json":
        raise RequestRejected(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON, with 'Content-Type: application/json'."
        )
    body = await request.read()
    try:
        return await asyncio.to_thread(decode_json, body, decode)
    except NestedTooDeeply as error:
        raise RequestRejected(HTTPStatus.BAD_REQUEST, f"The body is rejected: {error}; flatten it.") from None
    except msgspec.ValidationError as error:
        raise RequestRejected(HTTPStatus.UNPROCESSABLE_ENTITY, f"The body does not fit: {error}.") from None
    except msgspec.DecodeError as error:
        raise RequestRejected(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {error}.") from None


def _is_deep(value: Any) -> bool:
    """Level by level, so that nothing here recurses either."""
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return False
    return True
