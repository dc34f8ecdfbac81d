"""Bodies in any layout become their events; errors name the position in the body."""

import base64
import json
import struct
import tracemalloc
from collections.abc import Generator
from contextlib import suppress
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlencode

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.errors import ChunkRejected
from windvane.ingest.bodies import formats as http_formats
from windvane.ingest.bodies.formats import BodyFormat, events_of
from windvane.ingest.bodies.json_bodies import MAX_JSON_RECORD_BYTES
from windvane.records.events import iterate_events

ARRIVED_NS = 1_790_000_000_000_000_007
MIB = 1024 * 1024


def event_time(ns: int) -> msgpack.ExtType:
    return msgpack.ExtType(0, struct.pack(">II", *divmod(ns, 10**9)))


def payload_of(
    body: bytes, media_type: str, *, max_bytes: int = 64 * MIB, time_key: str = "", time: str = ""
) -> bytes:
    format = BodyFormat(media_type, time_key=time_key, time=time)
    return bytes(events_of(body, format, arrived_ns=ARRIVED_NS, max_bytes=max_bytes))


def events(
    body: bytes, media_type: str = "application/json", *, time_key: str = "", time: str = ""
) -> list[tuple[int, Any]]:
    payload = payload_of(body, media_type, time_key=time_key, time=time)
    return [(ns, as_text(record)) for ns, record in iterate_events(payload)]


def as_text(value: Any) -> Any:
    """Decoded msgpack has bytes for text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {as_text(key): as_text(inner) for key, inner in value.items()}
    return [as_text(inner) for inner in value] if isinstance(value, list) else value


RECORDS: list[dict[str, Any]] = [{"a": 1, "text": 'ü \u2028 "]},{'}, {}, {"b": [1.5, None, {"c": [True]}]}]
EXPECTED = [(ARRIVED_NS, record) for record in RECORDS]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2, ensure_ascii=False),
        "\n".join(map(json.dumps, RECORDS)),
        "\r\n\r\n".join(map(json.dumps, RECORDS)) + "\n",
        "".join(map(json.dumps, RECORDS)),
        json.dumps(RECORDS[:2]) + json.dumps(RECORDS[2]),
        "[]\n" + json.dumps(RECORDS),
        "\ufeff" + json.dumps(RECORDS),
        "\ufeff\n".join(map(json.dumps, RECORDS)),
    ],
    ids=[
        "array",
        "indented",
        "lines",
        "blank lines",
        "no separator",
        "array and object",
        "empty array",
        "byte order mark",
        "a byte order mark before each",
    ],
)
@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson"])
def test_json_in_any_layout_is_the_same_events(body: str, media_type: str) -> None:
    assert events(body.encode(), media_type) == EXPECTED


@pytest.mark.parametrize("body", [b"", b"  \n", b"[]", b"[ ]\n"])
def test_a_body_without_records_has_no_events(body: bytes) -> None:
    assert payload_of(body, "application/json") == b""


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(
    records=st.lists(st.dictionaries(st.text(max_size=5), _values, max_size=4), max_size=8),
    separator=st.sampled_from(["", "\n", " "]),
    window_bytes=st.integers(200, 400),
)
def test_where_the_windows_lie_changes_nothing(
    records: list[dict[str, Any]], separator: str, window_bytes: int
) -> None:
    one_by_one = [json.dumps(record, ensure_ascii=False) for record in records]
    longest = max((len(text.encode()) for text in one_by_one), default=0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "windvane.ingest.bodies.json_bodies.MAX_JSON_RECORD_BYTES", max(window_bytes, longest + 8)
        )
        for body in (separator.join(one_by_one), f"[{','.join(one_by_one)}]"):
            assert [record for _, record in events(body.encode())] == records


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a":1}\n{"a":', "record 1"),
        (b'[{"a":1},', "no end"),
        (b'[{"a":1} {"b":2}]', "comma"),
        (b"[1]", "'1' does not begin an object"),
        (b"null", "'n' does not begin"),
        (b"[[{}]]", "'[' does not begin"),
        (b'{"a":"\xff"}', "byte 6 is not valid UTF-8"),
        (b'{"a":' + b"[" * 100_000, "record 0"),
        ("{}".encode("utf-16"), "it is UTF-16"),
        (
            b'[{},{"a":' + b"[" * 800 + b"]" * 800 + b"}]",
            "record 1 cannot be read: it is nested deeper than 800",
        ),
        (b"message=hello", "does not begin an object"),
    ],
)
def test_invalid_json_is_rejected_with_its_position(body: bytes, says: str) -> None:
    with pytest.raises(ChunkRejected) as rejected:
        payload_of(body, "application/json")
    assert rejected.value.code == "malformed"
    assert says in str(rejected.value)


def test_a_record_over_the_bound_is_rejected_and_one_below_it_is_not() -> None:
    below = b'{"a":"' + b"x" * (MAX_JSON_RECORD_BYTES - 100) + b'"}'
    assert len(events(b"[" + below + b"," + below + b"]")) == 2
    with pytest.raises(ChunkRejected, match="longer ones are not taken"):
        payload_of(b'[{},{"a":"' + b"x" * (MAX_JSON_RECORD_BYTES + 100) + b'"}]', "application/json")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b"[]," * 5_000_000,
        b'{"a":[' + b"[]," * 300_000 + b"[]]}",
        b"[" + b"{}," * 500_000 + b"{}]",
        b" " * 30 * MIB,
        b'"' * 30 * MIB,
    ],
    ids=["unclosed lists", "lists", "empty records", "blanks", "quotes"],
)
def test_json_that_grows_when_it_is_decoded_is_bounded(body: bytes) -> None:
    tracemalloc.start()
    try:
        payload_of(body, "application/json", max_bytes=4 * MIB)
    except ChunkRejected:
        pass
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 48 * MIB


def test_the_time_key_is_taken_out_of_the_record() -> None:
    body = b'[{"date": 1790000000.5, "a": 1}, {"a": 2}]'  # as Fluent Bit's format json
    assert events(body, time_key="date") == [(1_790_000_000_500_000_000, {"a": 1}), (ARRIVED_NS, {"a": 2})]
    assert events(body)[0] == (ARRIVED_NS, {"date": 1790000000.5, "a": 1})


@pytest.mark.parametrize("other", ["", ', "b": NaN', ', "b": 18446744073709551616', ', "b": "\\ud800"'])
@pytest.mark.parametrize("layout", ["[%s, %s]", "%s\n%s\n", "%s%s"])
def test_a_number_in_json_keeps_the_nanoseconds_that_a_float_has_not(layout: str, other: str) -> None:
    record = f'{{"date": 1790000000.123456789{other}}}'
    body = layout.replace("%s", record, 1).replace("%s", '{"date": 1790000000}').encode()
    payload = payload_of(body, "application/json", time_key="date")
    assert [ns for ns, _ in iterate_events(payload)] == [1_790_000_000_123_456_789, 1_790_000_000_000_000_000]


@pytest.mark.parametrize("key", ['a"b', "a\\b", "ü"])
def test_a_time_key_may_be_any_text(key: str) -> None:
    body = json.dumps({key: 1.5, "a": 2}).encode()
    assert events(body, time_key=key) == [(1_500_000_000, {"a": 2})]


def test_the_last_of_two_times_counts_in_json_and_in_msgpack() -> None:
    assert events(b'{"t": 1, "a": 2, "t": 3}', time_key="t") == [(3_000_000_000, {"a": 2})]
    packed = b"\x83\xa1t\x01\xa1a\x02\xa1t\x03"
    assert events(packed, "application/msgpack", time_key="t") == [(3_000_000_000, {"a": 2})]


def test_one_time_may_hold_for_all_events() -> None:
    assert [ns for ns, _ in events(b"{}{}", time="1790000001.25")] == [1_790_000_001_250_000_000] * 2
    assert [ns for ns, _ in events(b"{}", time="0")] == [ARRIVED_NS]  # as in_http has it


PACKED = [bytes(msgpack.packb(record)) for record in RECORDS]
EVENT = bytes(msgpack.packb([event_time(5_000_000_000), {"a": 1}]))
EVENT_15 = bytes(msgpack.packb([[event_time(5_000_000_000), {}], {"a": 1}]))


def array_of(*values: bytes) -> bytes:
    return bytes(msgpack.Packer().pack_array_header(len(values))) + b"".join(values)


@pytest.mark.parametrize(
    "body",
    [
        b"".join(PACKED),
        array_of(*PACKED),
        array_of(*PACKED[:2]) + PACKED[2],
        b"\xdd\0\0\0\3" + b"".join(PACKED),
    ],
    ids=["one behind the other", "array", "array of two and one", "array32"],
)
@pytest.mark.parametrize("media_type", ["application/msgpack", "application/x-msgpack"])
def test_msgpack_records_become_events_and_keep_their_bytes(body: bytes, media_type: str) -> None:
    assert events(body, media_type) == EXPECTED
    payload = payload_of(body, media_type)
    head = b"\x92" + msgpack.packb(event_time(ARRIVED_NS))
    assert payload == b"".join(head + packed for packed in PACKED)


@pytest.mark.parametrize("event", [EVENT, EVENT_15])
def test_msgpack_events_are_taken_as_they_are(event: bytes) -> None:
    for body in (event * 3, array_of(event, event), array_of(event, event, event), event):
        assert payload_of(body, "application/msgpack") == event * (len(body) // len(event))


def test_the_time_key_is_taken_out_of_a_msgpack_record_whose_other_bytes_stay() -> None:
    record = b"\x83\xa1a\xcc\x05\xa4date\xcb" + struct.pack(">d", 1790000000.5) + b"\xc4\x01b\xa1\xff"
    (ns, kept), *_ = iterate_events(payload_of(record, "application/msgpack", time_key="date"))
    assert (ns, kept) == (1_790_000_000_500_000_000, {b"a": 5, b"b": b"\xff"})
    assert payload_of(record, "application/msgpack", time_key="date").endswith(
        b"\x82\xa1a\xcc\x05\xc4\x01b\xa1\xff"
    )
    for written in (
        b"\xd7\0\0\0\0\0\0\0\0\7",
        b"\xc7\x08\0\0\0\0\0\0\0\0\7",
        msgpack.packb(msgpack.Timestamp(0, 7)),
    ):
        assert events(b"\x81\xa4date" + written, "application/msgpack", time_key="date") == [(7, {})]


@pytest.mark.parametrize(
    "body",
    [
        PACKED[0][:-1],
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc1",
        b"\x93\x01\x02\x03",
        b"\x81\xc1\x00",
        b"\xa3abc",
        PACKED[0] + b"\xdb\xff\xff\xff\xff",
        b"\x91" * 100_000,
    ],
)
def test_invalid_msgpack_is_rejected(body: bytes) -> None:
    for time_key in ("", "a"):
        with pytest.raises(ChunkRejected) as rejected:
            payload_of(body, "application/msgpack", time_key=time_key)
        assert rejected.value.code == "malformed"


@given(
    st.binary(max_size=60),
    st.sampled_from(["application/json", "application/msgpack", "application/x-www-form-urlencoded"]),
)
def test_any_bytes_are_events_or_rejected(body: bytes, media_type: str) -> None:
    for time_key in ("", "a"):
        with suppress(ChunkRejected):
            payload_of(body, media_type, time_key=time_key)


def test_forms_hold_what_in_http_and_older_plugins_send() -> None:
    form = "application/x-www-form-urlencoded"
    assert events(urlencode({"json": json.dumps(RECORDS), "time": "7.5"}).encode(), form) == [
        (7_500_000_000, record) for record in RECORDS
    ]
    assert events(b'json={"a":1}', form) == [(ARRIVED_NS, {"a": 1})]
    assert events(b"ndjson=" + quote_from_bytes(b'{"a":1}\n{"a":2}').encode(), form)[1] == (
        ARRIVED_NS,
        {"a": 2},
    )
    assert events(b"msgpack=" + quote_from_bytes(PACKED[0]).encode(), form) == EXPECTED[:1]
    assert payload_of(b"data_chunk=" + quote_from_bytes(EVENT).encode(), form) == EVENT
    assert payload_of(base64.b64encode(EVENT), form) == EVENT
    assert payload_of(EVENT, form) == EVENT  # curl's name for any body


@pytest.mark.parametrize("body", [b"", b"a=1", b"json=1&msgpack=2", b'{"a":1}', b"&" * 100])
def test_a_form_without_its_one_field_is_rejected(body: bytes) -> None:
    with pytest.raises(ChunkRejected) as rejected:
        payload_of(body, "application/x-www-form-urlencoded")
    assert rejected.value.code == "malformed"
    if body.startswith(b"{"):
        assert "Content-Type: application/json" in str(rejected.value)


def test_octets_are_events_or_these_in_base64() -> None:
    assert payload_of(EVENT, "application/octet-stream") == EVENT
    assert payload_of(base64.encodebytes(EVENT * 20), "application/octet-stream") == EVENT * 20


def test_the_rejection_of_an_unknown_type_names_the_known_types() -> None:
    with pytest.raises(ChunkRejected, match="application/x-ndjson") as rejected:
        payload_of(b"a;b", "text/csv")
    assert rejected.value.code == "unsupported-type"


@pytest.mark.parametrize(
    "format", [BodyFormat("application/json"), BodyFormat("application/json", time_key="a&b=ü?", time="1.5")]
)
def test_a_format_survives_being_kept_as_text(format: BodyFormat) -> None:
    assert BodyFormat.parse(str(format)) == format


@given(
    st.lists(st.sampled_from([b"%", b"%4", b"%41", b"%zz", b"+", b"a", b"\xff"])).map(b"".join),
    st.integers(3, 9),
)
def test_a_form_is_decoded_as_the_library_does_wherever_it_is_cut(text: bytes, cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_formats, "_FORM_SLICE_BYTES", cut)
        assert end_of(http_formats._percent_decoding(text)) == unquote_to_bytes(text.replace(b"+", b" "))


def end_of(steps: Generator[None, None, bytes]) -> bytes:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


def test_a_large_form_takes_a_few_times_its_size() -> None:
    packed = b"\x92\x00\xa0" * 200_000
    body = b"data_chunk=" + b"".join(b"%%%02x" % byte for byte in packed)
    tracemalloc.start()
    payload = events_of(body, BodyFormat(http_formats.FORM), arrived_ns=1, max_bytes=1 << 23)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert payload == packed
    assert peak < 8 * len(body) + 5 * MIB


def test_the_fields_that_are_searched_for_a_time_are_bounded() -> None:
    fields = {f"{i}": 0 for i in range(10_001)}
    with pytest.raises(ChunkRejected, match="10001 fields"):
        payload_of(msgpack.packb(fields), "application/msgpack", time_key="date")
