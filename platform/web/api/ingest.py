"""Chunks over HTTP. The web tier passes them on to the gateway, which checks and stores them."""

from http import HTTPStatus
from typing import Annotated, Any, Literal

from aiohttp import web
from msgspec import Meta, Struct, field

from ..auth import SHOWS_TOKEN
from ..route import BINARY, BYTES, JSON, Access, Answer, route
from ..tier_client import ACCESS_HEADER, TierClient

_RECORD = {"type": "object"}
_BODY = {
    BYTES: BINARY,
    JSON: {"anyOf": [_RECORD, {"type": "array", "items": _RECORD}]},
    "application/x-ndjson": {"type": "string"},
    "application/msgpack": BINARY,
    "application/x-www-form-urlencoded": _RECORD,
}
_STORED = Answer(
    HTTPStatus.NO_CONTENT,
    "All of it is durable.",
    headers={"Windvane-Rejected-Events": "How many events were rejected, if any; they are a dead letter."},
)
_PROBLEMS = {
    HTTPStatus.BAD_REQUEST: "The request has no valid tag, or its body broke off.",
    HTTPStatus.FORBIDDEN: "The policy does not allow this sender or this tag, or the origin is another's.",
    HTTPStatus.NOT_FOUND: "No such policy.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body, or what it decompresses to, exceeds a limit.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The content type or encoding is not supported.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The body is malformed, or the policy rejects it.",
    HTTPStatus.TOO_MANY_REQUESTS: "Over the policy's rate; resend after Retry-After.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The gateway is not running or full; resend after Retry-After.",
}


class PolicyPath(Struct, frozen=True):
    """A policy in the path."""

    policy: Annotated[str, Meta(description="The policy that the chunk is checked against.")]


class PolicyAndTagPath(PolicyPath, frozen=True):
    """A policy and a tag in the path."""

    tag: Annotated[str, Meta(description="The tag; slashes in it become dots.")]


class TimeQuery(Struct, frozen=True, kw_only=True):
    """Which times the events have; by default that of their arrival."""

    time_key: Annotated[
        str | None,
        Meta(description="The key of a record that holds its time; it is removed from the record."),
    ] = None
    time: Annotated[
        str | None, Meta(description="The time of all events: seconds since the epoch, or RFC 3339.")
    ] = None


class TagQuery(TimeQuery, frozen=True, kw_only=True):
    """The tag in the query."""

    reference: Annotated[
        str | None, Meta(description="The tag of the events; the header Fluent-Tag may have it instead.")
    ] = None


class ChunkHeaders(Struct, frozen=True):
    """How the body is encoded, and what makes it known when it is resent."""

    content_encoding: Annotated[
        Literal["gzip", "zstd", "identity"] | None, Meta(description="How the body is compressed.")
    ] = field(name="Content-Encoding", default=None)
    idempotency_key: Annotated[
        str | None, Meta(description="The same when the same chunk is resent, so that it is stored once.")
    ] = field(name="Idempotency-Key", default=None)


_DECLARED: dict[str, Any] = {
    "tag": "ingest",
    "answers": [_STORED],
    "problems": _PROBLEMS,
    "headers": ChunkHeaders,
    "body": _BODY,
    "access": Access.SENDER,
}


class IngestRoutes:
    """The routes of in_http of fluentd, and that of fluent-plugin-wendelin."""

    def __init__(self, tiers: TierClient) -> None:
        self._tiers = tiers

    @route("POST", "/ingest/{policy}", path_parameters=PolicyPath, query=TagQuery, **_DECLARED)
    async def ingest(self, request: web.Request) -> web.StreamResponse:
        """Ingest a chunk: records as JSON or msgpack, or msgpack events [time, record]."""
        authorization = request.headers.get("Authorization")
        if request[SHOWS_TOKEN]:
            headers = {ACCESS_HEADER: "token"}
        else:
            headers = {} if authorization is None else {"Authorization": authorization}
        return await self._tiers.hand_on(request, "gateway", headers=headers)

    @route(
        "POST", "/ingest/{policy}/{tag:.+}", path_parameters=PolicyAndTagPath, query=TimeQuery, **_DECLARED
    )
    async def ingest_tag(self, request: web.Request) -> web.StreamResponse:
        """Ingest a chunk whose tag is in the path."""
        return await self.ingest(request)

    @route(
        "POST",
        "/erp5/portal_ingestion_policies/{policy}/ingest",
        path_parameters=PolicyPath,
        query=TagQuery,
        **_DECLARED,
    )
    async def ingest_as_wendelin(self, request: web.Request) -> web.StreamResponse:
        """Ingest a chunk at the address that fluent-plugin-wendelin uses."""
        return await self.ingest(request)
