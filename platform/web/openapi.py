"""The description of the API (OpenAPI 3.1), kept by hand; a test holds it against routes and answers.

The schemas of JSON answers are made from the types in answers.py.
"""

from typing import Any

import msgspec

from .answers import (
    AlarmAction,
    AlarmInfo,
    AlarmShelving,
    AlarmSummary,
    ArrayInfo,
    DeadLetterDetail,
    DeadLetterInfo,
    DocumentInfo,
    Health,
    Problem,
    Status,
    StreamInfo,
)
from .live.frames import Refused, Subscribe, Subscribed, Unsubscribe, Waiting

_ANSWERS = (Health, Status, StreamInfo, ArrayInfo, DocumentInfo, DeadLetterInfo, DeadLetterDetail, Problem)
_ALARMS = (AlarmSummary, AlarmInfo, AlarmAction, AlarmShelving)
_LIVE_MESSAGES = (Subscribe, Unsubscribe, Subscribed, Waiting, Refused)

_POLICY: dict[str, Any] = {
    "title": "Policy",
    "description": "Which tags may enter, in which format, how much of them, and what runs on them.",
    "type": "object",
    "required": ["reference"],
    "properties": {
        "reference": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,200}$"},
        "title": {"type": "string"},
        "tags": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Patterns: * one part, ** any number, {a,b}. By default the reference.",
        },
        "format": {"enum": ["raw", "msgpack", "json"]},
        "field": {"type": "string"},
        "limits": {
            "type": "object",
            "properties": {
                "chunk_bytes": {"type": "integer"},
                "events_per_chunk": {"type": "integer"},
                "decoded_bytes": {"type": "integer"},
            },
        },
        "pipeline": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["operation"],
                "properties": {
                    "operation": {"type": "string"},
                    "name": {"type": "string"},
                    "input": {"type": "string"},
                    "keep": {"type": "boolean"},
                    "publish": {"type": "boolean"},
                },
                "description": "Other members are the operation's parameters.",
            },
        },
        "alarm": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["output", "column"],
                "properties": {
                    "output": {"type": "string"},
                    "column": {"type": "string"},
                    "name": {"type": "string"},
                    "warning": {"type": "number"},
                    "danger": {"type": "number"},
                    "side": {"enum": ["above", "below"]},
                    "hysteresis": {"type": "number", "minimum": 0},
                    "hold_rows": {"type": "integer", "minimum": 1},
                },
            },
        },
        "encoding": {"enum": ["msgpack", "avro"]},
        "topic": {
            "type": "object",
            "properties": {"retention_hours": {"type": "number"}, "retention_bytes": {"type": "integer"}},
        },
        "partitions": {"type": "integer", "minimum": 1},
    },
}


def _parameter(name: str, place: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "schema": schema, "description": description, **required}


def _query(name: str, kind: str, description: str) -> dict[str, Any]:
    return _parameter(name, "query", {"type": kind}, description)


_REF = _parameter(
    "ref", "path", {"type": "string"}, "The reference; characters that a path cannot hold are quoted."
)
_POLICY_NAME = _parameter(
    "policy", "path", {"type": "string"}, "The policy that the chunk is measured against."
)
_TAG = {**_query("reference", "string", "The tag of the events."), "required": True}
_LETTER = _parameter("id", "path", {"type": "integer"}, "The letter's number.")
_PAGES = [
    _query(
        "limit", "integer", "Entries on a page, 1,000 unless said, at most 10,000. A Link header leads on."
    ),
    _query("after", "string", "The page begins after this reference."),
]
_SLICE = [
    _query("start", "integer", "As in Python's a[start:stop:step]; negative counts from the end."),
    _query("stop", "integer", "As in Python's slices."),
    _query("step", "integer", "As in Python's slices; not 0."),
    _parameter(
        "format",
        "query",
        {"enum": ["raw", "npy", "json"], "default": "raw"},
        "raw: the rows' bytes, C order; npy: a NumPy file; json: nested arrays, null for NaN.",
    ),
]
_RANGE = [
    _parameter("Range", "header", {"type": "string"}, "Byte ranges, one or several (RFC 9110, section 14)."),
    _parameter(
        "If-Range", "header", {"type": "string"}, "An earlier ETag of this stream lets the Range hold."
    ),
]
_IF_MATCH = [
    _parameter("If-Match", "header", {"type": "string"}, "The ETag of the revision that is to be changed."),
    _parameter(
        "If-None-Match", "header", {"type": "string"}, "* allows the change only where there is none."
    ),
]


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, **_content("application/json", schema)}


def _list_of(name: str) -> dict[str, Any]:
    return _json("One page.", {"type": "array", "items": _ref(name)})


def _bytes(description: str, media_type: str = "application/octet-stream") -> dict[str, Any]:
    return {"description": description, **_content(media_type, {"type": "string", "format": "binary"})}


def _operation(
    summary: str,
    responses: dict[str, dict[str, Any]],
    *parameters: dict[str, Any],
    body: dict[str, Any] | None = None,
    tag: str,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "tags": [tag]}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = {"required": True, **body}
    operation["responses"] = {**responses, "default": _problem("A problem.")}
    return operation


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, **_content("application/problem+json", _ref("Problem"))}


def _policies() -> dict[str, Any]:
    body = _content("application/json", _ref("Policy"))
    done = _json("The policy as it is now.", _ref("Policy"))
    return {
        "/api/v1/policies": {
            "get": _operation("The ingestion policies", {"200": _list_of("Policy")}, *_PAGES, tag="policies"),
            "post": _operation("Make a policy", {"201": done}, body=body, tag="policies"),
        },
        "/api/v1/policies/{ref}": {
            "get": _operation("One policy", {"200": done}, _REF, tag="policies"),
            "put": _operation(
                "Make or replace a policy",
                {"200": done, "201": done},
                _REF,
                *_IF_MATCH,
                body=body,
                tag="policies",
            ),
            "delete": _operation(
                "Remove a policy", {"204": {"description": "It is gone."}}, _REF, *_IF_MATCH, tag="policies"
            ),
        },
    }


def _streams() -> dict[str, Any]:
    part = _bytes("The ranges asked for; several come as multipart/byteranges.")
    gone = {"description": "The stream's beginning is no longer kept; member start says where it begins now."}
    whole = {"200": _bytes("All bytes."), "206": part, "410": gone, "416": {"description": "Nothing there."}}
    return {
        "/api/v1/streams": {
            "get": _operation(
                "The data streams",
                {"200": _list_of("StreamInfo")},
                *_PAGES,
                _query("q", "string", "Words that a reference must contain, in any case."),
                tag="streams",
            )
        },
        "/api/v1/streams/{ref}": {
            "get": _operation(
                "One stream", {"200": _json("The stream.", _ref("StreamInfo"))}, _REF, tag="streams"
            )
        },
        "/api/v1/streams/{ref}/data": {
            "get": _operation("The bytes of a stream", whole, _REF, *_RANGE, tag="streams")
        },
    }


def _arrays() -> dict[str, Any]:
    rows = _bytes("The rows; headers Windvane-Dtype and Windvane-Shape say how to read them.")
    rows["content"]["application/json"] = {"schema": {"type": "array"}}
    return {
        "/api/v1/arrays": {
            "get": _operation("The data arrays", {"200": _list_of("ArrayInfo")}, *_PAGES, tag="arrays")
        },
        "/api/v1/arrays/{ref}": {
            "get": _operation(
                "One array", {"200": _json("The array.", _ref("ArrayInfo"))}, _REF, tag="arrays"
            )
        },
        "/api/v1/arrays/{ref}/data": {
            "get": _operation("A slice of the rows", {"200": rows}, _REF, *_SLICE, tag="arrays")
        },
        "/api/v1/arrays/{ref}/times": {
            "get": _operation(
                "The event times of a slice of the rows: int64, ns since the epoch, UTC",
                {"200": rows},
                _REF,
                *_SLICE,
                tag="arrays",
            )
        },
    }


def _catalog() -> dict[str, Any]:
    search = [
        _query("q", "string", "A part of the reference or the title, in any case."),
        _query("type", "string", "Only documents of this type."),
        _query("state", "string", "Only documents in this state."),
    ]
    before = _query("before", "integer", "The page begins after the letter of this number.")
    return {
        "/api/v1/search": {
            "get": _operation(
                "The catalog's documents", {"200": _list_of("DocumentInfo")}, *search, *_PAGES, tag="catalog"
            )
        },
        "/api/v1/dead-letters": {
            "get": _operation(
                "Refused input, the newest first",
                {"200": _list_of("DeadLetterInfo")},
                _PAGES[0],
                before,
                tag="dead letters",
            )
        },
        "/api/v1/dead-letters/{id}": {
            "get": _operation(
                "One dead letter",
                {"200": _json("The letter.", _ref("DeadLetterDetail"))},
                _LETTER,
                tag="dead letters",
            ),
            "delete": _operation(
                "Drop a dead letter, for good",
                {"204": {"description": "It is gone."}},
                _LETTER,
                tag="dead letters",
            ),
        },
        "/api/v1/dead-letters/{id}/replay": {
            "post": _operation(
                "Send a dead letter again, through the policies as they are now",
                {
                    "204": {"description": "It is durable, and no longer a dead letter."},
                    "200": {
                        "description": "Some of its events are durable, and it is no longer a dead letter. "
                        "The others were rejected again and are a new one. A JSON object says how many: "
                        "stored_events, rejected_events, and the reason."
                    },
                    "409": _problem("It cannot be sent again; the detail says why."),
                    "422": _problem("It was refused again, and stays."),
                    "429": _problem("Its policy takes no more now; again after Retry-After."),
                    "503": _problem("The gateway is away or full; again after Retry-After."),
                },
                _LETTER,
                tag="dead letters",
            )
        },
        "/api/v1/dead-letters/{id}/payload": {
            "get": _operation(
                "The bytes that were refused", {"200": _bytes("The payload.")}, _LETTER, tag="dead letters"
            )
        },
    }


def _alarms() -> dict[str, Any]:
    found = [
        _parameter(
            "state",
            "query",
            {"enum": ["open", "raised", "acknowledged", "shelved", "cleared"]},
            "Only alarms in this state; open is all but cleared.",
        ),
        _query("stream", "string", "Only alarms of this data stream."),
        _PAGES[0],
        _query("before", "integer", "The page begins after the alarm of this revision."),
    ]
    done = {
        "200": _json("The alarm as it is now.", _ref("AlarmInfo")),
        "409": _problem("It does not fit the alarm's state; the detail says why."),
        "412": _problem("Others have changed the alarm since that revision."),
    }

    def act(summary: str, body: str = "AlarmAction") -> dict[str, Any]:
        content = _content("application/json", _ref(body))
        return {"post": _operation(summary, done, _REF, _IF_MATCH[0], body=content, tag="alarms")}

    one = "/api/v1/alarms/{ref}"
    return {
        "/api/v1/alarms": {
            "get": _operation(
                "The alarms, the last change first", {"200": _list_of("AlarmSummary")}, *found, tag="alarms"
            )
        },
        one: {
            "get": _operation(
                "One alarm, its evidence and its history",
                {"200": _json("The alarm.", _ref("AlarmInfo"))},
                _REF,
                tag="alarms",
            )
        },
        f"{one}/acknowledge": act("Say that somebody has seen it"),
        f"{one}/comment": act("Say something about it"),
        f"{one}/shelve": act("Put it aside for a while, or until it gets worse", "AlarmShelving"),
        f"{one}/unshelve": act("Take it back before its time"),
        f"{one}/clear": act("Say that it is over"),
    }


def _platform() -> dict[str, Any]:
    live = {
        "description": "A WebSocket. The client sends Subscribe and Unsubscribe as JSON text; the server "
        "sends Subscribed, Waiting and Refused as JSON text, and rows as binary frames, little endian: "
        "u32 id, u32 count, u64 first_row, u32 step, u32 row_bytes, u64 length, "
        "then count int64 event times in ns, then count rows."
    }
    page = _bytes("Prometheus text format 0.0.4; the label tier says whose a sample is.", "text/plain")
    return {
        "/api/v1/health": {
            "get": _operation(
                "Whether the installation is healthy",
                {
                    "200": _json("It is.", _ref("Health")),
                    "503": _json("It is not, for these reasons.", _ref("Health")),
                },
                tag="platform",
            )
        },
        "/api/v1/status": {
            "get": _operation(
                "What each tier says of itself", {"200": _json("The status.", _ref("Status"))}, tag="platform"
            )
        },
        "/api/v1/live": {"get": _operation("Rows as they are written", {"101": live}, tag="live")},
        "/metrics": {"get": _operation("Metrics of all tiers", {"200": page}, tag="platform")},
        "/openapi.json": {
            "get": _operation(
                "This description", {"200": _json("OpenAPI 3.1.", {"type": "object"})}, tag="platform"
            )
        },
    }


def _ingest() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    record = {"type": "object"}
    body = {
        "content": {
            "application/octet-stream": {"schema": binary},
            "application/json": {"schema": {"anyOf": [record, {"type": "array", "items": record}]}},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "application/msgpack": {"schema": binary},
            "application/x-www-form-urlencoded": {"schema": record},
        }
    }
    answers = {
        "204": {"description": "All of it is durable."},
        "400": _problem("The request names no tag, or one that cannot be, or its body broke off."),
        "403": _problem("The policy does not let this sender send, or not this tag."),
        "404": _problem("There is no such policy."),
        "408": _problem("Nothing of the body came for half a minute."),
        "413": _problem("The body, or what it unpacks to, is over a limit."),
        "415": _problem("The content type or encoding is not known."),
        "422": _problem("The body is not well-formed, or not what the policy allows."),
        "429": _problem("Over the policy's rate; again after Retry-After."),
        "503": _problem("The gateway is away or full; again after Retry-After."),
    }
    asked = [
        _query(
            "time_key", "string", "The key of a record that holds its time; it is taken out of the record."
        ),
        _query("time", "string", "The time of all events: seconds since the epoch, or RFC 3339."),
        _parameter(
            "Content-Encoding",
            "header",
            {"enum": ["gzip", "zstd", "identity"]},
            "How the body is compressed.",
        ),
        _parameter(
            "Idempotency-Key",
            "header",
            {"type": "string"},
            "What the same chunk has when it is sent again, so that it is stored once.",
        ),
    ]

    def take(*tag: dict[str, Any]) -> dict[str, Any]:
        summary = "Take in a chunk: records as JSON or msgpack, or msgpack events [time, record]"
        return _operation(summary, answers, _POLICY_NAME, *tag, *asked, body=body, tag="ingest")

    in_path = _parameter("tag", "path", {"type": "string"}, "The tag; slashes in it become dots.")
    return {
        "/ingest/{policy}": {"post": take(_TAG)},
        "/ingest/{policy}/{tag}": {"post": take(in_path)},
        "/erp5/portal_ingestion_policies/{policy}/ingest": {"post": take(_TAG)},
    }


def describe_api(version: str) -> dict[str, Any]:
    """The whole description."""
    _, schemas = msgspec.json.schema_components(
        (*_ANSWERS, *_ALARMS, *_LIVE_MESSAGES), ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Windvane", "version": version},
        "security": [{}, {"bearer": []}, {"basic": []}, {"cookie": []}],
        "paths": {
            **_platform(),
            **_policies(),
            **_streams(),
            **_arrays(),
            **_catalog(),
            **_alarms(),
            **_ingest(),
        },
        "components": {
            "schemas": {**schemas, "Policy": _POLICY},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The token as password."},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "windvane-8080"},
            },
        },
    }
