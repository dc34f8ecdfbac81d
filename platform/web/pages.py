"""Lists in pages: `?limit=&after=`, and a Link header that leads to the next page (RFC 8288)."""

import asyncio
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from .problems import RequestRefused

DEFAULT_PAGE = 1_000
LARGEST_PAGE = 10_000
LARGEST_INTEGER = 2**63 - 1
"""What SQLite, PostgreSQL and NumPy can take."""


def encode_nothing_known(value: object) -> Any:
    """What msgspec does not know: NumPy scalars as Python's, complex numbers as [real, imaginary]."""
    if isinstance(value, complex):
        return [value.real, value.imag]
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=encode_nothing_known, decimal_format="number")


def json_bytes(value: object) -> bytes:
    """`value` as JSON; not-a-number and infinities become null, for which JSON has no other word."""
    return _encoder.encode(value)


def json_response(
    value: object, *, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer that caches ask about each time."""
    return json_bytes_response(json_bytes(value), status=status, headers=headers)


def json_bytes_response(
    body: bytes, *, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The same, of JSON that was encoded elsewhere."""
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-cache", **(headers or {})},
    )


async def json_page(make: Callable[[], object], *, headers: Mapping[str, str]) -> web.Response:
    """A JSON answer of what `make` gives, both in a thread: long pages must not hold up the event loop."""
    return json_bytes_response(await asyncio.to_thread(lambda: json_bytes(make())), headers=headers)


def whole_number(request: web.Request, name: str) -> int | None:
    """The query parameter `name` as an integer of 64 bits, None if it is absent or empty.

    A number of 20 digits beyond 64 bits counts as the largest, or least, that there is. Otherwise 400.
    """
    text = request.query.get(name, "")
    if not text:
        return None
    number = integer_in(text)
    if number is None or abs(number) >= 10**20:
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST,
            f"{name}={text[:40]} is not a valid whole number; write it as in {name}=100.",
        )
    return max(-LARGEST_INTEGER - 1, min(number, LARGEST_INTEGER))


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


def one_of(request: web.Request, name: str, *allowed: str) -> str:
    """The query parameter `name`, which must be one of `allowed`; the first is the default. Otherwise 400."""
    value = request.query.get(name) or allowed[0]
    if value not in allowed:
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST, f"{name}={value[:40]} is not known; it may be {', '.join(allowed)}."
        )
    return value


def page_limit(request: web.Request) -> int:
    """How many entries a page may have: `?limit=`, at least 1; at most LARGEST_PAGE are given."""
    limit = whole_number(request, "limit")
    if limit is None:
        return DEFAULT_PAGE
    if limit < 1:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, f"limit={limit} gives nothing; it must be at least 1.")
    return min(limit, LARGEST_PAGE)


def next_page(request: web.Request, **cursor: str) -> dict[str, str]:
    """The Link header for the page that begins after `cursor`."""
    return {"Link": f'<{request.rel_url.update_query(cursor)}>; rel="next"'}
