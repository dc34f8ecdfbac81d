"""The bytes that a policy's format appends to the data stream."""

import json
import math
import struct
from typing import Any

import msgpack
import pytest
from windvane.errors import ChunkRejected, OperationFailed
from windvane.processors.worker.pipeline.archive import (
    bytes_block,
    decode_events,
    json_lines,
    parse_json_lines,
    raw_pieces,
    rfc3339,
)
from windvane.processors.worker.pipeline.plain_records import MAX_PLAIN_DEPTH
from windvane.records.events import check_pairs

AT = msgpack.ExtType(0, struct.pack(">II", 1_790_000_000, 123_456_789))


def payload(*events: Any, **pack: Any) -> bytes:
    return b"".join(msgpack.packb(event, **pack) for event in events)


def test_raw_takes_bare_strings_bare_binary_and_the_field_of_maps() -> None:
    events = decode_events(payload([AT, "a"], [AT, b"\xff\x00"], [1, {"message": b"b", "other": 1}]))
    assert raw_pieces(events, "message") == [b"a", b"\xff\x00", b"b"]


def test_raw_takes_binary_that_fluentd_typed_str() -> None:
    typed_str = b"\x92\x01\x81\xa7message\xa3\xff\x00\xfe"
    assert raw_pieces(decode_events(typed_str), "message") == [b"\xff\x00\xfe"]


@pytest.mark.parametrize("record", [{"other": "x"}, {"message": 7}, {"message": {"a": 1}}, 7, None, ["x"]])
def test_raw_reports_the_record_without_bytes(record: Any) -> None:
    with pytest.raises(OperationFailed, match="record 1 of the chunk"):
        raw_pieces(decode_events(payload([1, "fine"], [1, record])), "message")


def test_bytes_are_mapped_to_their_events() -> None:
    block = bytes_block([b"ab", b"", b"cde"], [10, 20, 30], first=100)
    assert block.rows.tobytes() == b"abcde"
    assert block.row_times_ns.tolist() == [10, 10, 30, 30, 30]


def test_json_is_one_line_an_event_with_its_time() -> None:
    record = {"text": "grün", "raw": b"\xff", "list": [1, 2.5, None, True], "": {}}
    lines = (
        json_lines(decode_events(payload([AT, record], [[AT, {"meta": 1}], "bare"]))).decode().splitlines()
    )
    assert [json.loads(line) for line in lines] == [
        {
            "time": "2026-09-21T14:13:20.123456789Z",
            "record": {
                "text": "grün",
                "raw": {"base64": "/w=="},
                "list": [1, 2.5, None, True],
                "": {},
            },
        },
        {"time": "2026-09-21T14:13:20.123456789Z", "record": "bare"},
    ]


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        (AT, 1_790_000_000_123_456_789),
        ([AT, {}], 1_790_000_000_123_456_789),
        (0, 0),
        (1_790_000_000, 1_790_000_000_000_000_000),
        (1.5, 1_500_000_000),
        (msgpack.Timestamp(5, 7), 5_000_000_007),
    ],
)
def test_every_time_format_is_decoded(time: Any, ns: int) -> None:
    assert decode_events(payload([time, {}])).times_ns == [ns]


@pytest.mark.parametrize(
    "time", [None, "now", True, 2**63, float("nan"), [1, 2, 3], {}, msgpack.ExtType(1, b"x" * 8)]
)
def test_an_invalid_time_is_reported(time: Any) -> None:
    with pytest.raises(ChunkRejected, match="an event's time is"):
        decode_events(payload([time, {}]))


def test_times_before_1970_are_written_too() -> None:
    assert rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"


@pytest.mark.parametrize("event", [[1], [1, 2, 3], {"a": 1}, 7])
def test_an_event_that_is_not_a_pair_is_not_stored_in_a_stream_of_events(event: Any) -> None:
    check_pairs(payload([1, {}], [[1, {}], {}]), 2)
    for decode in (lambda data: check_pairs(data, 2), decode_events):
        with pytest.raises(ChunkRejected):
            decode(payload([1, {}], event))


RECORDS = {
    "NaN": math.nan,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
    "-0.0": -0.0,
    "the smallest float": 5e-324,
    "2^63": 2**63,
    "2^64 - 1": 2**64 - 1,
    "-2^63": -(2**63),
    "EventTime": AT,
    "timestamp of msgpack": msgpack.Timestamp(2**60, 999_999_999),
    "extension": msgpack.ExtType(127, b"\xff"),
    "extension of EventTime's type": msgpack.ExtType(0, b"short"),
    "binary": b"\xff\x00",
    "lone surrogate": b"\xed\xa0\x80",
    "line breaks": "a\r\n\u2028\x85\x00",
    "looks like our bytes": {"base64": "aGk="},
    "looks like our bytes but is not valid base64": {"base64": "hello"},
    "looks like our extension": {"ext": 1, "base64": "aGk="},
    "integer keys": {1: "integer", "1": "text", -1: None},
    "other keys": {None: 1, 1.5: 2, True: 3, b"\xff": 4, AT: 5},
    "empty": [{}, [], "", b"", None],
    "a field of our name": {"msgpack": "gaFh", "record": 1, "time": 2},
}


@pytest.mark.parametrize("name", RECORDS)
def test_values_without_a_json_form_round_trip_exactly(name: str) -> None:
    value = RECORDS[name]
    events = decode_events(payload([AT, {"a": value}], [AT, [value, {"b": [value]}]], [AT, value]))
    lines = json_lines(events)
    assert len(lines.splitlines()) == 3
    assert all(json.loads(line)["time"] == "2026-09-21T14:13:20.123456789Z" for line in lines.splitlines())
    # The text distinguishes -0.0 from 0.0 and an EventTime from a number, and shows NaN as NaN.
    assert described(parse_json_lines(lines)) == described(events)


def described(events: Any) -> list[str]:
    return [repr([type(record), record]) for each in events.slices() for record in each.records]


@pytest.mark.parametrize("kind", [b"\x91", b"\x81\xa1a", b"\x81\xff"])
@pytest.mark.parametrize("depth", [MAX_PLAIN_DEPTH, MAX_PLAIN_DEPTH + 1, 600, 1020])
def test_any_nesting_that_can_be_decoded_round_trips(kind: bytes, depth: int) -> None:
    events = decode_events(b"\x92\x01" + kind * depth + b"\xa1x")
    back = parse_json_lines(json_lines(events))
    before: Any
    after: Any
    [before], [after] = ([each.records[0] for each in some.slices()] for some in (events, back))
    while isinstance(before, list | dict):
        assert len(after) == len(before) == 1
        if isinstance(before, dict) and isinstance(after, dict):
            assert after.keys() == before.keys()
            [before], [after] = before.values(), after.values()
        else:
            assert isinstance(after, list)
            [before], [after] = before, after
    assert after == before == b"x"


def test_lines_contain_the_closest_json_form_of_the_record() -> None:
    [line] = json_lines(decode_events(payload([AT, {"v": math.inf, 1: AT, "ok": 1.5}]))).splitlines()
    told = json.loads(line)
    assert told.keys() == {"time", "record", "msgpack"}
    assert told["record"] == {"v": None, "1": "2026-09-21T14:13:20.123456789Z", "ok": 1.5}


def test_lines_in_the_former_format_are_read() -> None:
    old = b"".join(
        b'{"time":"2026-09-21T14:13:20.000000001Z","record":%s}\n' % record
        for record in (
            b'{"raw":{"base64":"/w=="}}',
            b'{"x":{"ext":5,"base64":"/w=="}}',
            b'{"photo":{"base64":"hello"}}',  # from a user: bytes were never written in this form
            b'{"photo":{"base64":7}}',
            b'{"v":null}',
        )
    )
    [events] = parse_json_lines(old).slices()
    assert events.records == [
        {b"raw": b"\xff"},
        {b"x": msgpack.ExtType(5, b"\xff")},
        {b"photo": {b"base64": b"hello"}},
        {b"photo": {b"base64": 7}},
        {b"v": None},
    ]
