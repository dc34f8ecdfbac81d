"""One declaration per route: the application registers its handlers from it, and openapi.py describes it.

    class StreamRoutes:
        @route("GET", f"{API}/streams/{REF}", tag="streams", answers=[json_answer(StreamInfo, "The stream.")])
        async def get(self, request: web.Request, path: ReferencePath) -> web.Response:
            \"\"\"Get one stream.\"\"\"

The first line of the docstring is the summary, the rest the description. The parameters `path`, `query`,
`headers` and `body` of a handler are decoded into the struct of their annotation, a body from JSON, before
the handler runs. A handler that passes a request on instead declares what the other end decodes as arguments
of `route`. Statuses that follow from these (400, 401, 404, 415, 422 and so on) need no mention.

`declared_routes` gives the routes of a class, for the description; `route_definitions` those of an object,
for the application. A resource whose routes are made at run time gives `Route`s to `route_definition`.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar, get_type_hints

import msgspec
from aiohttp import web
from msgspec import Struct

from .json_input import read_json
from .parameters import decode_headers, decode_path, decode_query

API = "/api/v1"
REF = "{ref:[^/]+}"
"""A reference in a path has any character but "/" as it is; aiohttp's own pattern excludes braces too."""

JSON = "application/json"
BYTES = "application/octet-stream"
BINARY: Mapping[str, Any] = {"type": "string", "format": "binary"}
"""The schema of bytes."""

Content: TypeAlias = Mapping[str, Any]
"""By media type: the type that msgspec encodes or decodes, or a JSON schema as a mapping."""

HandlerMethod = TypeVar("HandlerMethod", bound=Callable[..., Awaitable[web.StreamResponse]])


class Access(Enum):
    """Which identities a route admits."""

    TOKEN = "token"
    """Who has the access token; on loopback also every client without credentials."""
    SENDER = "sender"
    """The same, and senders whose credentials the policy knows: the gateway checks those."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that is not a problem; `headers` are those of its own, with descriptions."""

    status: HTTPStatus
    description: str
    content: Content = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages on a WebSocket: JSON from and to the client, and binary frames, in words."""

    from_client: tuple[type[Struct], ...]
    to_client: tuple[type[Struct], ...]
    binary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What is known of a route without running it. `path` is aiohttp's, with patterns.

    `problems` are the statuses of problems (RFC 9457) of this route, with descriptions; those that follow
    from its parameters and body are added by the description.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answers: tuple[Answer, ...]
    description: str = ""
    problems: Mapping[HTTPStatus, str] = field(default_factory=dict)
    path_parameters: type[Struct] | None = None
    query: type[Struct] | None = None
    headers: type[Struct] | None = None
    body: Content | None = None
    access: Access = Access.TOKEN
    messages: Messages | None = None


NOT_MODIFIED = Answer(HTTPStatus.NOT_MODIFIED, "If-None-Match names the ETag that it has now.")


def json_answer(
    kind: Any,
    description: str,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """A JSON answer of the type `kind`."""
    return Answer(status, description, {JSON: kind}, headers or {})


def page_of(kind: Any, *, headers: Mapping[str, str] | None = None) -> Answer:
    """A page of a list whose entries are `kind`."""
    link = {"Link": 'The address of the next page, as <…>; rel="next" (RFC 8288); absent on the last page.'}
    return json_answer(list[kind], "One page.", headers={**link, **(headers or {})})


def route(
    method: str,
    path: str,
    *,
    tag: str,
    answers: Iterable[Answer],
    problems: Mapping[HTTPStatus, str] | None = None,
    path_parameters: type[Struct] | None = None,
    query: type[Struct] | None = None,
    headers: type[Struct] | None = None,
    body: Content | None = None,
    access: Access = Access.TOKEN,
    messages: Messages | None = None,
) -> Callable[[HandlerMethod], HandlerMethod]:
    """Declares that a handler method serves `method` and `path`. A method may have several."""

    def declare(handler: HandlerMethod) -> HandlerMethod:
        decoded = {name: kind for name, kind in get_type_hints(handler).items() if name in _DECODED}
        summary, _, description = (inspect.getdoc(handler) or "").partition("\n\n")
        declared = Route(
            method=method,
            path=path,
            name=f"{tag}_{handler.__name__}".replace(" ", "_").replace("-", "_"),
            tag=tag,
            summary=" ".join(summary.split()).removesuffix("."),
            description=description,
            answers=tuple(answers),
            problems=problems or {},
            path_parameters=decoded.get("path", path_parameters),
            query=decoded.get("query", query),
            headers=decoded.get("headers", headers),
            body=body if body is not None else {JSON: decoded["body"]} if "body" in decoded else None,
            access=access,
            messages=messages,
        )
        setattr(handler, _DECLARED, [declared, *getattr(handler, _DECLARED, ())])
        return handler

    return declare


def declared_routes(owner: type) -> list[Route]:
    """The routes that the methods of a class declare, in their order."""
    return [declared for member in vars(owner).values() for declared in getattr(member, _DECLARED, ())]


def route_definitions(owner: object) -> list[web.RouteDef]:
    """The same routes for an application, served by the methods of `owner`."""
    return [
        route_definition(declared, getattr(owner, name))
        for name, member in vars(type(owner)).items()
        for declared in getattr(member, _DECLARED, ())
    ]


def route_definition(declared: Route, handler: Callable[..., Awaitable[web.StreamResponse]]) -> web.RouteDef:
    """One route for an application; `handler` gets those of path, query, headers and body that it names."""
    wanted = inspect.signature(handler).parameters.keys() & _DECODED
    body_type = (declared.body or {}).get(JSON)
    decode_body = msgspec.json.Decoder(body_type).decode if "body" in wanted else None

    async def handle(request: web.Request) -> web.StreamResponse:
        arguments: dict[str, Any] = {}
        if declared.path_parameters is not None and "path" in wanted:
            arguments["path"] = decode_path(declared.path_parameters, request.match_info)
        if declared.query is not None and "query" in wanted:
            arguments["query"] = decode_query(declared.query, request.query)
        if declared.headers is not None and "headers" in wanted:
            arguments["headers"] = decode_headers(declared.headers, request.headers)
        if decode_body is not None:
            arguments["body"] = await read_json(request, decode_body)
        return await handler(request, **arguments)

    setattr(handle, _DECLARED, declared)
    # A WebSocket has no answer to HEAD.
    named = {"allow_head": declared.messages is None} if declared.method == "GET" else {}
    return web.RouteDef(declared.method, declared.path, handle, named)


def access_of(request: web.Request) -> Access:
    """Which identities the route of a request admits; TOKEN if it has none."""
    declared = getattr(request.match_info.handler, _DECLARED, None)
    return declared.access if isinstance(declared, Route) else Access.TOKEN


_DECLARED = "windvane_routes"
_DECODED = frozenset({"path", "query", "headers", "body"})
