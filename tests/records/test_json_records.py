"""JSON becomes the same records by every protocol, and no digit of a number is lost."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.commands.sources.chunks import Losses
from windvane.commands.sources.records import jsonl_chunks
from windvane.errors import ChunkRejected, FramingError, InputInvalid, JsonInvalid
from windvane.ingest.bodies.formats import BodyFormat, events_of
from windvane.ingest.forward.json_events import JsonReader
from windvane.records.events import iterate_events
from windvane.records.json_records import MAX_NESTING, decode_json, decode_object, nesting_exceeds, pack_json


def over_http(record: bytes) -> bytes:
    body = b'[{"first": 1}, %b, {"last": 1}]' % record
    return bytes(events_of(body, BodyFormat("application/json"), arrived_ns=1, max_bytes=1 << 24))


def over_http_in_lines(record: bytes) -> bytes:
    body = b'{"first": 1}\n%b\n{"last": 1}\n' % record
    return bytes(events_of(body, BodyFormat("application/x-ndjson"), arrived_ns=1, max_bytes=1 << 24))


def over_forward(record: bytes) -> bytes:
    reader = JsonReader(
        b'["t", [[1, {"first": 1}], [1, %b], [1, {"last": 1}]]]' % record, max_message_bytes=1 << 20
    )
    (message,) = reader.messages()
    return bytes(message.payload)


def from_a_file(record: bytes) -> bytes:
    pieces = [b'{"first": 1}\n%b\n{"last": 1}\n' % record, b""]
    losses = Losses()
    batches = jsonl_chunks(lambda _: pieces.pop(0), chunk_bytes=1 << 20, losses=losses)
    payload = b"".join(chunk.payload for batch in batches for chunk in batch)
    if losses.lines:
        raise InputInvalid(str(losses))
    return payload


ENTRIES = [over_http, over_http_in_lines, over_forward, from_a_file]
Entry = Callable[[bytes], bytes]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("-0.0", -0.0),
        ("-0", -0.0),
        ("-0e1", -0.0),
        ("[-0]", [-0.0]),
        ("[0, -0 ,-0.5,-0\t]", [0, -0.0, -0.5, -0.0]),
        ("0e-400", 0.0),
        ("1e-400", b"1e-400"),
        ("-1E-0400", b"-1E-0400"),
        ("1e-324", b"1e-324"),
        ("5e-324", 5e-324),
        ("1e-99999", b"1e-99999"),
        ("0." + "0" * 400 + "1", b"0." + b"0" * 400 + b"1"),
        ("0." + "0" * 240 + "1e-99", b"0." + b"0" * 240 + b"1e-99"),
        ('"-0, 1e-400"', b"-0, 1e-400"),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", 2**63),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551616", b"18446744073709551616"),
        ("-9223372036854775809", b"-9223372036854775809"),
        ("1" * 5000, b"1" * 5000),
        ("1e400", b"1e400"),
        ("-1.5e999", b"-1.5e999"),
        ("1e308", 1e308),
        ("0.1", 0.1),
        ('"\\ud800"', b"\xed\xa0\x80"),
        ('"\\ude00\\ud83dx"', b"\xed\xb8\x80\xed\xa0\xbdx"),
        ('"\\ud83d\\ude00"', "😀".encode()),
        ('"\\u0000"', b"\0"),
        ('"a\tb\x01"', b"a\tb\x01"),
        ('"\ufeff"', "\ufeff".encode()),
        ('""', b""),
        ("{}", {}),
        ("[]", []),
        ("null", None),
        ('{"x": 1, "x": 2}', {b"x": 2}),
        ('{"\\udc00": [18446744073709551616, NaN]}', {b"\xed\xb0\x80": [b"18446744073709551616", math.nan]}),
        ("[" * (MAX_NESTING - 1) + "]" * (MAX_NESTING - 1), None),
        ("[" * 600 + '18446744073709551616, "\\ud800"' + "]" * 600, None),
    ],
)
def test_a_value_is_the_same_at_each_entry(entry: Entry, text: str, value: Any) -> None:
    first, found, last = (record for _, record in iterate_events(entry(f'{{"v": {text}, "w": 7}}'.encode())))
    assert (first, found[b"w"], last) == ({b"first": 1}, 7, {b"last": 1})
    if not text.startswith("[["):
        assert repr(found[b"v"]) == repr(value)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    "text",
    [
        b'{"v": nan}',
        b'{"v": 01}',
        b'{"v": .5}',
        b'{"v": 1.}',
        b'{"v": +1}',
        b"{'v': 1}",
        b'{"v": 1,}',
        b'{"v": "\xff"}',
        b'{"v": "\xed\xa0\x80"}',
        b'{"v"}',
        b'{"v": ' + b"[" * MAX_NESTING + b"]" * MAX_NESTING + b"}",
        b'{"v": ' + b'{"v":' * 950 + b"1" + b"}" * 951,
        b'{"v": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"[1]",
        b"1",
        b'"v"',
        b"null",
    ],
)
def test_what_is_not_a_record_is_rejected_at_each_entry(entry: Entry, text: bytes) -> None:
    with pytest.raises((ChunkRejected, FramingError, InputInvalid)):
        entry(text)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def as_stored(value: Any) -> Any:
    """What msgpack holds of a value, by the rules of the module in the simplest words."""
    if isinstance(value, str):
        # JSON cannot separate two adjacent surrogate halves.
        return json.loads(json.dumps(value)).encode("utf-8", "surrogatepass")
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return str(value).encode()
    if isinstance(value, dict):
        return {as_stored(key): as_stored(inner) for key, inner in value.items()}
    return [as_stored(inner) for inner in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=4), _values, max_size=4))
def test_any_record_is_stored_as_the_rules_say_at_each_entry(record: dict[str, Any]) -> None:
    text = json.dumps(record).encode()
    assert repr(msgpack.unpackb(pack_json(decode_object(text)), raw=True)) == repr(as_stored(record))
    payloads = {entry(text).split(b"\x81\xa5first\x01")[1].split(b"\x81\xa4last")[0] for entry in ENTRIES[:2]}
    assert len(payloads) == 1


@given(
    st.binary(max_size=40) | st.text('[]{}",:0123456789.eE+-NaInfity\\u\ufeff ', max_size=40).map(str.encode)
)
def test_any_bytes_are_a_value_or_rejected(text: bytes) -> None:
    with suppress(JsonInvalid):
        pack_json(decode_json(text))


def test_what_follows_the_value_is_reported() -> None:
    with pytest.raises(JsonInvalid, match="'2' follows the value, at character 4"):
        decode_json(b"[1] 2")
    with pytest.raises(JsonInvalid, match="it is an array, not an object"):
        decode_object(b"[1]")
    with pytest.raises(JsonInvalid, match="it is UTF-16"):
        decode_object("{}".encode("utf-16"))


def test_nesting_is_counted_without_recursion() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert nesting_exceeds(value, 99_999)
    assert not nesting_exceeds([[1]], 2)
    assert nesting_exceeds([{"a": []}], 2)
    while isinstance(value, list):  # Python's own end of so deep a value recurses
        value = value.pop()
