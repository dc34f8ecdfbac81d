import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.web.live.frames import Pace, Subscribe, Unsubscribe, decode_message, encode_frame


def test_a_frame_is_a_header_of_32_bytes_then_the_times_then_the_rows() -> None:
    rows = np.arange(12, dtype="<f4").reshape(4, 3)
    times_ns = np.array([10, 20, 30, 40])
    frame = encode_frame(7, rows, times_ns, selected=range(100, 120, 5), length=1000)
    assert frame[:32] == struct.pack("<IIQIIQ", 7, 4, 100, 5, 12, 1000)
    assert frame[32:64] == times_ns.astype("<i8").tobytes()
    assert frame[64:] == rows.tobytes()


def test_messages_are_distinguished_by_op() -> None:
    found = decode_message('{"op": "subscribe", "id": 4294967295, "array": "a:b", "from": -3}')
    assert found == Subscribe(id=2**32 - 1, array="a:b", from_row=-3)
    assert decode_message('{"op": "subscribe", "id": 0, "array": "a:b", "from": null}') == Subscribe(0, "a:b")
    assert decode_message('{"op": "unsubscribe", "id": 5}') == Unsubscribe(5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"op": "shout"}',
        '{"op": "subscribe", "id": 1}',
        '{"op": "subscribe", "id": -1, "array": "a:b"}',
        '{"op": "subscribe", "id": 4294967296, "array": "a:b"}',
        '{"op": "subscribe", "id": 1, "array": ""}',
        '{"op": "subscribe", "id": 1, "array": "a:b", "form": 3}',
        '{"op": "subscribe", "id": 1, "array": "a:b", "max_rows_per_s": 0}',
    ],
)
def test_an_invalid_message_is_rejected(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_message(text)


@settings(deadline=None)
@given(
    growth=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    begin=st.integers(0, 50),
    frame_rows=st.integers(1, 8),
    max_lag_rows=st.integers(8, 40),
)
def test_rows_come_in_order_once_and_none_is_left_out_while_the_arrears_are_small(
    growth: list[int], begin: int, frame_rows: int, max_lag_rows: int
) -> None:
    pace = Pace(lag_rows=begin, frame_rows=frame_rows, max_lag_rows=max_lag_rows, max_rows_per_s=None)
    length, next_row, least_lag = begin, 0, begin
    for more in [*growth, *[0] * 200]:
        length += more
        lag = length - next_row
        chosen = pace.choose(next_row=next_row, length=length, now_s=0.0)
        assert len(chosen) <= frame_rows
        if lag == 0:
            assert not chosen
            continue
        assert next_row <= chosen[0]
        assert chosen[-1] < length
        if lag <= least_lag + max_lag_rows:
            assert (chosen.start, chosen.step) == (next_row, 1)
        else:
            assert (chosen[-1], chosen.step > 1 or lag <= frame_rows) == (length - 1, True)
        next_row = chosen[-1] + 1
        least_lag = min(least_lag, length - next_row)
    assert next_row == length


def test_one_that_comes_back_gets_all_that_it_missed_however_much() -> None:
    pace = Pace(lag_rows=10_000, frame_rows=100, max_lag_rows=200, max_rows_per_s=None)
    rows: list[int] = []
    for _ in range(100):
        rows += pace.choose(next_row=len(rows), length=10_000, now_s=0.0)
    assert rows == list(range(10_000))


def test_one_that_falls_behind_is_led_to_the_newest_row_in_one_frame() -> None:
    pace = Pace(lag_rows=0, frame_rows=100, max_lag_rows=200, max_rows_per_s=None)
    chosen = pace.choose(next_row=0, length=10_000, now_s=0.0)
    assert (len(chosen), chosen.step, chosen[-1]) == (100, 100, 9_999)
    assert pace.choose(next_row=10_000, length=10_050, now_s=0.0) == range(10_000, 10_050)


def test_one_that_wants_few_rows_gets_no_more_a_second_and_the_newest_among_them() -> None:
    pace = Pace(lag_rows=1_000, frame_rows=100, max_lag_rows=200, max_rows_per_s=5)
    first = pace.choose(next_row=0, length=1_000, now_s=0.0)
    assert (len(first), first[-1]) == (5, 999)
    assert not pace.choose(next_row=1_000, length=1_100, now_s=0.1)
    later = pace.choose(next_row=1_000, length=1_100, now_s=0.6)
    assert (len(later), later[-1]) == (3, 1_099)
    sent = sum(len(pace.choose(next_row=0, length=10**6, now_s=1 + tick / 20)) for tick in range(200))
    assert 45 <= sent <= 55
