"""The description of the API (OpenAPI 3.1), made from the routes and from the structs that they name."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from ..store.catalog.policy import Policy, Step
from .answers import Problem
from .parameters import describe_parameters
from .problems import PROBLEM_TYPE
from .route import Access, Answer, Content, Messages, Route

_SECURITY: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The access token of the home."},
    "basic": {"type": "http", "scheme": "basic", "description": "The access token as the password."},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "windvane-8080",
        "description": "Set by a request with ?token=…; the number is the port of the web tier.",
    },
    "sender": {
        "type": "http",
        "scheme": "basic",
        "description": "A user and password of forward-security.toml; a token of it is a bearer token.",
    },
}
# {}: without credentials, on loopback.
_ADMITTED: Mapping[Access, Sequence[str]] = {
    Access.TOKEN: ("bearer", "basic", "cookie"),
    Access.SENDER: ("bearer", "basic", "cookie", "sender"),
}
_EVERY_ROUTE = {
    HTTPStatus.UNAUTHORIZED: "The credentials are missing or wrong.",
    HTTPStatus.FORBIDDEN: "A page of another origin sent the request.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "An unexpected error; the web tier's log has the traceback.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The store or the catalog cannot be read now; retry after Retry-After.",
}
_WITH_PATH = {HTTPStatus.NOT_FOUND: "No such resource."}
_WITH_QUERY = {HTTPStatus.BAD_REQUEST: "A parameter is not valid."}
_WITH_JSON_BODY = {
    HTTPStatus.BAD_REQUEST: "The body is not valid JSON, or nested too deeply.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than 4 MiB.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not JSON, or it is compressed.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The body does not fit its schema, or breaks a rule that has no schema.",
}


def describe_api(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """The whole description as the JSON document of `/openapi.json`."""
    described = list(routes)
    schemas = _Schemas(described)
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        path = re.sub(r"{(\w+):[^{}]+}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Windvane",
            "version": version,
            "description": "Errors are problem details (RFC 9457). References in paths are percent-encoded.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {
                _named(status): _problem(description, schemas) for status, description in _EVERY_ROUTE.items()
            },
            "securitySchemes": dict(_SECURITY),
        },
    }


class _Schemas:
    """The JSON schemas of all types that the routes name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        answered: list[Any] = [Problem]
        sent: list[Any] = []
        for route in routes:
            answered += [kind for answer in route.answers for kind in _types(answer.content)]
            sent += _types(route.body or {})
            if route.messages is not None:
                answered += route.messages.to_client
                sent += route.messages.from_client
        kinds = [*dict.fromkeys((*answered, *sent))]
        found, self.components = msgspec.json.schema_components(
            kinds, ref_template="#/components/schemas/{name}"
        )
        self._of = dict(zip(kinds, found, strict=True))
        _make_portable(self.components)
        self._require_what_is_always_sent(answered, sent)
        _describe_policy(self.components)

    def of(self, kind: Any) -> Any:
        """The schema of a type, or the schema itself."""
        return kind if isinstance(kind, Mapping) else self._of[kind]

    def _require_what_is_always_sent(self, answered: Iterable[Any], sent: Iterable[Any]) -> None:
        """In structs that are only sent in responses, members with a default are present too."""
        optional = {kind.__name__ for kind in _structs_in(sent)}
        for kind in _structs_in(answered):
            if kind.__name__ not in optional and not kind.__struct_config__.omit_defaults:
                schema = self.components[kind.__name__]
                schema["required"] = list(schema["properties"])


def _make_portable(node: Any) -> None:
    """Adds what msgspec omits, and replaces what other programs do not support, at any depth of a schema."""
    if isinstance(node, list):
        for each in node:
            _make_portable(each)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name not in ("default", "enum", "const"):
            _make_portable(value)
    if isinstance(node.get("description"), str):
        node["description"] = inspect.cleandoc(node["description"])
    if isinstance(node.get("pattern"), str):  # ECMA-262 has no \\Z
        node["pattern"] = re.sub(r"\\Z$", "$", node["pattern"])
    if all(isinstance(value, str) for value in node.get("enum", [None])):
        node["type"] = "string"
    if node.get("type") == "object" and "properties" not in node:
        node.setdefault("additionalProperties", True)


def _describe_policy(components: dict[str, Any]) -> None:
    """What `policy_from_mapping` does before it converts to structs, and `__post_init__` after that."""
    if Policy.__name__ not in components:
        return
    for name in ("Policy", "Limits", "Topic", "Allow", "AlarmRule"):
        components[name]["additionalProperties"] = False
    step = components[Step.__name__]
    del step["properties"]["parameters"]
    step["additionalProperties"] = True
    step["description"] += "\n\nOther members are the parameters of the operation."
    components["Policy"]["properties"]["schema"]["anyOf"].append({"type": "string"})  # Avro's JSON
    for schema, name in (("Policy", "tags"), ("Step", "name"), ("AlarmRule", "name")):
        del components[schema]["properties"][name]["default"]
    components["PolicySettings"] = {
        **components["Policy"],
        "title": "PolicySettings",
        "description": "A policy whose reference is given separately, and may be repeated in it.",
        "required": [],
    }
    for name in ("PolicyDraft", "PolicyReplacement"):
        if name in components:
            components[name]["properties"]["body"] = {"$ref": "#/components/schemas/PolicySettings"}


def _types(content: Content) -> list[Any]:
    return [kind for kind in content.values() if not isinstance(kind, Mapping)]


def _structs_in(kinds: Iterable[Any]) -> set[type[Struct]]:
    """The structs that the types are made of, in any depth."""
    found: set[type[Struct]] = set()

    def visit(node: Any) -> None:
        if isinstance(node, msgspec.inspect.StructType):
            if node.cls in found:
                return
            found.add(node.cls)
        if isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field):
            for name in node.__struct_fields__:
                visit(getattr(node, name))
        elif isinstance(node, tuple):
            for each in node:
                visit(each)

    for kind in kinds:
        visit(msgspec.inspect.type_info(kind))
    return found


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary, "tags": [route.tag]}
    if route.description:
        operation["description"] = route.description
    operation["security"] = [{}, *({scheme: []} for scheme in _ADMITTED[route.access])]
    parameters = [
        entry
        for kind, place in (
            (route.path_parameters, "path"),
            (route.query, "query"),
            (route.headers, "header"),
        )
        if kind is not None
        for entry in describe_parameters(kind, place)
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body, schemas)}
    operation["responses"] = {
        str(int(answer.status)): _response(answer, schemas) for answer in route.answers
    } | {
        str(int(status)): _problem_or_shared(status, description, schemas)
        for status, description in sorted(_problems_of(route).items())
        if status not in {answer.status for answer in route.answers}
    }
    if route.messages is not None:
        operation["x-websocket"] = _messages(route.messages, schemas)
    return operation


def _problems_of(route: Route) -> dict[HTTPStatus, str]:
    found = dict(_EVERY_ROUTE)
    if route.path_parameters is not None:
        found |= _WITH_PATH
    if route.query is not None:
        found |= _WITH_QUERY
    if route.body is not None and route.access is Access.TOKEN:
        found |= _WITH_JSON_BODY
    return {**found, **route.problems}


def _response(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        response["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in answer.headers.items()
        }
    if answer.content:
        response["content"] = _content(answer.content, schemas)
    return response


def _content(content: Content, schemas: _Schemas) -> dict[str, Any]:
    return {media_type: {"schema": schemas.of(kind)} for media_type, kind in content.items()}


def _problem(description: str, schemas: _Schemas) -> dict[str, Any]:
    return {"description": description, "content": _content({PROBLEM_TYPE: Problem}, schemas)}


def _problem_or_shared(status: HTTPStatus, description: str, schemas: _Schemas) -> dict[str, Any]:
    if _EVERY_ROUTE.get(status) == description:
        return {"$ref": f"#/components/responses/{_named(status)}"}
    return _problem(description, schemas)


def _named(status: HTTPStatus) -> str:
    return status.phrase.replace(" ", "")


def _messages(messages: Messages, schemas: _Schemas) -> dict[str, Any]:
    return {
        "fromClient": {"oneOf": [schemas.of(kind) for kind in messages.from_client]},
        "toClient": {"oneOf": [schemas.of(kind) for kind in messages.to_client]},
        "binary": messages.binary,
    }
