"""Bodies of HTTP requests as chunks: JSON, JSON lines, msgpack and forms become `[time, record]` events.

What is understood, by Content-Type:

    application/octet-stream, or none         msgpack events, one behind the other, or these in base64
    application/json, …/x-ndjson, …/jsonl     objects, arrays of objects, one behind the other, in any layout
    application/msgpack, …/x-msgpack          records, events, or arrays of them, one behind the other
    application/x-www-form-urlencoded         a field `data_chunk`, `json`, `ndjson` or `msgpack`, and `time`

Everything here is a function of the bytes: no clock, no socket.
"""

import base64
import binascii
from collections.abc import Generator, Mapping
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

import msgspec

from ...errors import ChunkRejected
from ...records.sliced_work import run_to_end
from ...records.times import parse_time
from .body_events import BodyBounds
from .json_bodies import events_of_json
from .msgpack_bodies import events_of_msgpack

EVENTS = "application/octet-stream"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MSGPACK = "application/msgpack"
_NAMES: Mapping[str, str] = {
    "": EVENTS,
    EVENTS: EVENTS,
    FORM: FORM,
    JSON: JSON,
    "application/x-ndjson": JSON,
    "application/ndjson": JSON,
    "application/jsonl": JSON,
    "application/x-jsonlines": JSON,
    MSGPACK: MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
}

_FORM_FIELDS = {"data_chunk": EVENTS, "json": JSON, "ndjson": JSON, "msgpack": MSGPACK}
_MAX_FORM_FIELDS = 16
_MAX_TIME_BYTES = _MAX_NAME_BYTES = 200
_FORM_SLICE_BYTES = 64 * 1024
Payload = bytes | bytearray | memoryview
MAX_EVENTS = 2**30
_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"


class BodyFormat(msgspec.Struct, frozen=True):
    """How to read a body: its media type, the record's key that holds the time, and the time of all events.

    Its text form (`str`, `parse`) is what a dead letter keeps of it: `application/json?time_key=date`.
    """

    media_type: str
    time_key: str = ""
    time: str = ""

    def __str__(self) -> str:
        given = {"time_key": self.time_key, "time": self.time}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"{self.media_type}?{query}" if query else self.media_type

    @classmethod
    def parse(cls, text: str) -> "BodyFormat":
        """The inverse of `str`; members that are not known are left out."""
        media_type, _, query = text.partition("?")
        given = dict(parse_qsl(query))
        return cls(media_type, given.get("time_key", ""), given.get("time", ""))


def events_of(
    body: Payload, format: BodyFormat, *, arrived_ns: int, max_bytes: int, max_events: int = MAX_EVENTS
) -> Payload:
    """What `making_events` returns, in one go."""
    return run_to_end(
        making_events(body, format, arrived_ns=arrived_ns, max_bytes=max_bytes, max_events=max_events)
    )


def making_events(
    body: Payload, format: BodyFormat, *, arrived_ns: int, max_bytes: int, max_events: int
) -> Generator[None, None, Payload]:
    """Converts `body` to a payload of concatenated msgpack events; returns `body` itself if it is one.

    Yields every few milliseconds. Events without a time get `format.time`, else `arrived_ns`. Raises
    ChunkRejected: "unsupported-type", "malformed", "bad-time", or "too-large" and "too-many-events" if the
    payload would exceed `max_bytes` or `max_events`.

    Memory: the payload, and what one JSON record of MAX_JSON_RECORD_BYTES becomes when it is decoded.
    """
    kind = _NAMES.get(format.media_type)
    if kind is None:
        raise ChunkRejected(
            "unsupported-type",
            f"the content type {format.media_type!r:.80} is not known; send one of "
            f"{', '.join(name for name in _NAMES if name)}",
        )
    if kind == EVENTS:
        return _decode_base64(bytes(body)) if _is_base64(body) else body
    if kind == FORM and bytes(body[:1]) == b"\x92":
        # curl and others call any body a form unless told otherwise; an event says what it is.
        return body
    if kind == FORM:
        kind, body, time = yield from _form_field(bytes(body))
        if kind == EVENTS:
            return body
        format = msgspec.structs.replace(format, time=time or format.time)
    stamp_ns = (format.time and parse_time(format.time)) or arrived_ns
    bounds = BodyBounds(max_bytes, max_events)
    if kind == JSON:
        return (yield from events_of_json(body, format.time_key, stamp_ns, bounds))
    return (yield from events_of_msgpack(body, format.time_key, stamp_ns, bounds))


def _form_field(body: bytes) -> Generator[None, None, tuple[str, bytes, str]]:
    """The kind of the one field that counts, its bytes, and the field `time`; yields as `making_events`."""
    if body.count(b"&") >= _MAX_FORM_FIELDS:
        raise ChunkRejected(
            "malformed",
            f"the form has more than {_MAX_FORM_FIELDS} fields; send events as Content-Type: "
            "application/octet-stream",
        )
    values: list[tuple[str, bytes]] = []
    time = ""
    for field in body.split(b"&"):
        encoded_name, _, value = field.partition(b"=")
        name = unquote_to_bytes(encoded_name[:_MAX_NAME_BYTES]).decode("latin-1")
        if name in _FORM_FIELDS:
            values.append((_FORM_FIELDS[name], (yield from _percent_decoding(value))))
        elif name == "time" and not time:
            time = (yield from _percent_decoding(value[:_MAX_TIME_BYTES])).decode("latin-1")
    if not values and _is_base64(body):
        return EVENTS, _decode_base64(body), ""
    if len(values) != 1:
        looks = " (it looks like JSON: say Content-Type: application/json)" if body[:1] in b"{[" else ""
        raise ChunkRejected(
            "malformed",
            f"the form has {len(values)} of the fields {', '.join(_FORM_FIELDS)}{looks}; send one of them",
        )
    [(kind, value)] = values
    if kind == EVENTS and _is_base64(value):
        value = _decode_base64(value)
    return kind, value, time


def _percent_decoding(text: bytes) -> Generator[None, None, bytes]:
    """A form's encoding undone, 64 KiB at a time: the library takes 75 bytes of memory for each byte."""
    if b"%" not in text:
        return text.replace(b"+", b" ")
    decoded = bytearray()
    start = 0
    while start < len(text):
        stop = start + _FORM_SLICE_BYTES
        # Not between a per cent sign and its two digits.
        cut = text.rfind(b"%", stop - 2, stop) if stop < len(text) else -1
        stop = stop if cut < 0 else cut
        decoded += unquote_to_bytes(text[start:stop].replace(b"+", b" "))
        start = stop
        yield
    return bytes(decoded)


def _is_base64(body: bytes | bytearray | memoryview) -> bool:
    """An event begins with the array of two, 0x92: no letter of base64. So the two cannot be mistaken."""
    return bool(body) and not bytes(body[:1024]).translate(None, _BASE64_ALPHABET)


def _decode_base64(body: bytes) -> bytes:
    try:
        return base64.b64decode(body.translate(None, b"\r\n"), validate=True)
    except binascii.Error as error:
        raise ChunkRejected(
            "malformed", f"the body is not valid base64 ({error}); check the sender"
        ) from error
