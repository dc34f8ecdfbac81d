"""Ranges of time in arrays and streams, whatever the order of their times and whatever retention dropped."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.errors import RangeGone
from windvane.records.bounds import Instant
from windvane.store.files.data_array import DataArray
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.data_stream import DataStream
from windvane.store.files.data_stream_writer import DataStreamWriter
from windvane.store.files.rows import Rows
from windvane.store.selection.time_ranges import byte_range, offset_at, row_at, row_slice, rows_between

from tests.store.files.resumed import resumed

ROW_BYTES = 512
times = st.lists(st.integers(0, 20), max_size=40)


def array_of(directory: Path, times_ns: list[int]) -> DataArray:
    with writer_of(directory) as writer:
        append(writer, times_ns)
    return DataArray(directory, "s:o")


def writer_of(directory: Path) -> DataArrayWriter:
    return resumed(
        DataArrayWriter(
            directory,
            "s:o",
            dtype=np.dtype("u1"),
            row_shape=(ROW_BYTES,),
            attrs={},
            segment_bytes=mmap.PAGESIZE,
        )
    )


def append(writer: DataArrayWriter, times_ns: list[int]) -> None:
    writer.append(np.zeros((len(times_ns), ROW_BYTES), "u1"), np.array(times_ns, np.int64))


@settings(deadline=None)
@given(given_times=times, start=st.integers(-1, 21), stop=st.integers(-1, 21))
def test_of_ascending_times_the_range_has_exactly_the_rows_within_it(
    tmp_path_factory: pytest.TempPathFactory, given_times: list[int], start: int, stop: int
) -> None:
    ascending = sorted(given_times)
    array = array_of(tmp_path_factory.mktemp("array") / "a", ascending)
    rows = rows_between(array, Instant(start), Instant(stop))
    assert list(rows) == [row for row, time in enumerate(ascending) if start <= time < stop]


@settings(deadline=None)
@given(given_times=times, time_ns=st.integers(-1, 21))
def test_of_times_in_any_order_the_row_is_a_place_where_they_cross(
    tmp_path_factory: pytest.TempPathFactory, given_times: list[int], time_ns: int
) -> None:
    row = row_at(array_of(tmp_path_factory.mktemp("array") / "a", given_times), time_ns)
    assert row == len(given_times) or given_times[row] >= time_ns
    assert row == 0 or given_times[row - 1] < time_ns


def test_a_time_before_the_rows_that_are_kept_selects_from_the_first_kept(tmp_path: Path) -> None:
    with writer_of(tmp_path / "a") as writer:
        append(writer, list(range(2_000)))
        writer.drop_before(1_500)
        array = DataArray(tmp_path / "a", "s:o")
        assert 0 < array.start <= 1_500
        assert rows_between(array, Instant(3), None) == range(array.start, 2_000)
        assert rows_between(array, Instant(3), Instant(4)) == range(array.start, array.start)
        assert rows_between(array, Instant(1_600), Instant(1_610)) == range(1_600, 1_610)
        with pytest.raises(RangeGone, match="was dropped"):
            rows_between(array, 3, Instant(1_600))


def test_times_and_numbers_can_be_mixed_and_have_steps(tmp_path: Path) -> None:
    array = array_of(tmp_path / "a", [10, 20, 30, 40])
    assert rows_between(array, 1, Instant(40)) == range(1, 3)
    assert rows_between(array, Instant(20), -1) == range(1, 3)
    assert rows_between(array, Instant(20), None, 2) == range(1, 4, 2)
    assert row_slice(array, -2, None, -1) == slice(-2, None, -1)
    assert row_slice(array, Instant(30), Instant(10), -1) == slice(2, 0, -1)


def test_few_rows_are_read_however_long_the_array_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = array_of(tmp_path / "a", list(range(5_000)))
    read: list[int] = []
    plain = Rows.__getitem__

    def counted(rows: Rows, key: int) -> Any:
        read.append(key)
        return plain(rows, key)

    monkeypatch.setattr(Rows, "__getitem__", counted)
    assert row_at(array, 1_234) == 1_234
    assert len(read) <= 13


def test_a_stream_is_selected_by_the_times_of_arrival(tmp_path: Path) -> None:
    writer = resumed(DataStreamWriter(tmp_path / "s", "s", attrs={}))
    with writer:
        empty = DataStream(tmp_path / "s", "s")
        assert (offset_at(empty, 0), byte_range(empty, Instant(0), None)) == (0, range(0, 0))
        for arrived_ns, chunk in ((10, b"aaa"), (20, b""), (30, b"bb"), (40, b"c")):
            writer.append(chunk, arrived_ns=arrived_ns, chunk_id=None, events=1)
    stream = DataStream(tmp_path / "s", "s")
    assert [offset_at(stream, time_ns) for time_ns in (0, 10, 11, 21, 31, 41)] == [0, 0, 3, 3, 5, 6]
    for start, stop, expected in (
        (None, Instant(30), b"aaa"),
        (Instant(30), None, b"bbc"),
        (Instant(11), Instant(40), b"bb"),
        (Instant(40), Instant(30), b""),
        (1, Instant(40), b"aabb"),
        (-2, None, b"bc"),
    ):
        offsets = byte_range(stream, start, stop)
        assert stream.read(offsets.start, len(offsets)) == expected


def test_bytes_that_were_dropped_are_gone_by_offset_and_left_out_by_time(tmp_path: Path) -> None:
    page = mmap.PAGESIZE
    with resumed(DataStreamWriter(tmp_path / "s", "s", attrs={}, segment_bytes=page)) as writer:
        for number in range(8):
            writer.append(bytes(page), arrived_ns=number, chunk_id=None, events=1)
        writer.drop_before(5 * page)
        stream = DataStream(tmp_path / "s", "s")
        kept = stream.start
        assert 0 < kept <= 5 * page
        assert byte_range(stream, None, None) == byte_range(stream, Instant(0), None) == range(kept, 8 * page)
        assert byte_range(stream, Instant(6), Instant(7)) == range(6 * page, 7 * page)
        with pytest.raises(RangeGone, match=f"the first that is kept is byte {kept}"):
            byte_range(stream, kept - 1, None)
