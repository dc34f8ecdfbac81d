"""Lists in pages: `?limit=&after=`, and a Link header with the address of the next page (RFC 8288)."""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from .parameters import INTEGER_BOUNDS, Integer

DEFAULT_PAGE = 1_000
LARGEST_PAGE = 10_000


class LimitQuery(Struct, frozen=True, kw_only=True):
    """How many entries a page may have."""

    limit: Annotated[
        int,
        Meta(
            ge=1,
            description=f"Entries on a page; {LARGEST_PAGE:,} if it is more.",
            extra_json_schema={"exclusiveMaximum": INTEGER_BOUNDS["exclusiveMaximum"]},
        ),
    ] = DEFAULT_PAGE

    @property
    def entries(self) -> int:
        """Entries on a page, at most LARGEST_PAGE."""
        return min(self.limit, LARGEST_PAGE)


class PageQuery(LimitQuery, frozen=True, kw_only=True):
    """A page of a list in the order of references."""

    after: Annotated[str, Meta(description="The page begins after this reference.")] = ""


class RevisionPageQuery(LimitQuery, frozen=True, kw_only=True):
    """A page of a list in which the newest is first."""

    before: Annotated[Integer | None, Meta(description="The page begins after the entry of this number.")] = (
        None
    )


def encode_nothing_known(value: object) -> Any:
    """Encodes types that msgspec lacks: NumPy scalars as Python's, complex numbers as [real, imaginary]."""
    if isinstance(value, complex):
        return [value.real, value.imag]
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=encode_nothing_known, decimal_format="number")


def json_bytes(value: object) -> bytes:
    """`value` as JSON; NaN and infinities, which JSON cannot represent, become null."""
    return _encoder.encode(value)


def json_response(
    value: object, *, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON response that caches must revalidate."""
    return json_bytes_response(json_bytes(value), status=status, headers=headers)


def json_bytes_response(
    body: bytes, *, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The same, for JSON that is encoded already."""
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-cache", **(headers or {})},
    )


async def json_page(make: Callable[[], object], *, headers: Mapping[str, str]) -> web.Response:
    """A JSON response with the result of `make`, made in a thread so as not to block the event loop."""
    return json_bytes_response(await asyncio.to_thread(lambda: json_bytes(make())), headers=headers)


def next_page(request: web.Request, **cursor: str) -> dict[str, str]:
    """The Link header of the page after `cursor`."""
    return {"Link": f'<{request.rel_url.update_query(cursor)}>; rel="next"'}
