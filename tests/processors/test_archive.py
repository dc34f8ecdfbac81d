"""What a policy's format appends to the data stream."""

import json
import struct
from typing import Any

import msgpack
import pytest
from windvane.errors import ChunkRefused, OperationFailed
from windvane.events import check_pairs
from windvane.processors.archive import bytes_block, decode_events, json_lines, raw_pieces, rfc3339

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
def test_raw_says_which_record_has_no_bytes(record: Any) -> None:
    with pytest.raises(OperationFailed, match="record 1 of the chunk"):
        raw_pieces(decode_events(payload([1, "fine"], [1, record])), "message")


def test_bytes_know_which_event_brought_them() -> None:
    block = bytes_block([b"ab", b"", b"cde"], [10, 20, 30], first=100)
    assert block.rows.tobytes() == b"abcde"
    assert block.row_times_ns.tolist() == [10, 10, 30, 30, 30]


def test_json_is_one_line_an_event_with_its_time() -> None:
    record = {"text": "grün", "raw": b"\xff", "list": [1, 2.5, None, True], 7: "integer key"}
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
                "7": "integer key",
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
def test_every_form_of_time_is_understood(time: Any, ns: int) -> None:
    assert decode_events(payload([time, {}])).times_ns == [ns]


@pytest.mark.parametrize(
    "time", [None, "now", True, 2**63, float("nan"), [1, 2, 3], {}, msgpack.ExtType(1, b"x" * 8)]
)
def test_what_is_no_time_is_told(time: Any) -> None:
    with pytest.raises(ChunkRefused, match="an event's time is"):
        decode_events(payload([time, {}]))


def test_times_before_1970_are_written_too() -> None:
    assert rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"


@pytest.mark.parametrize("event", [[1], [1, 2, 3], {"a": 1}, 7])
def test_what_is_no_pair_does_not_enter_a_stream_of_events(event: Any) -> None:
    check_pairs(payload([1, {}], [[1, {}], {}]), 2)
    for refuse in (lambda data: check_pairs(data, 2), decode_events):
        with pytest.raises(ChunkRefused):
            refuse(payload([1, {}], event))
