import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from numpy.typing import NDArray
from windvane.errors import RangeGone, StoreLocked, StreamDamaged
from windvane.store.files.data_array import DataArray
from windvane.store.files.data_array_writer import DataArrayWriter

from tests.store.files.resumed import resumed

PAGE = mmap.PAGESIZE
FIELDS = np.dtype(
    [("time", "<i8"), ("place", "<f4", (3,)), ("name", "S5"), ("inner", [("a", "u1"), ("b", ">i2")])]
)


def open_writer(directory: Path, rows: NDArray[Any], **attrs: Any) -> DataArrayWriter:
    return resumed(
        DataArrayWriter(
            directory, "s:o", dtype=rows.dtype, row_shape=rows.shape[1:], attrs=attrs, segment_bytes=PAGE
        )
    )


def write(directory: Path, rows: NDArray[Any], **attrs: Any) -> DataArray:
    """An array of these rows; row i has the event time i * 10 ns."""
    with open_writer(directory, rows, **attrs) as writer:
        writer.append(rows, np.arange(len(rows), dtype=np.int64) * 10)
    return DataArray(directory, "s:o")


def counting(rows: int, *row_shape: int, dtype: str = "<i4") -> NDArray[Any]:
    return np.arange(rows * int(np.prod(row_shape)), dtype=dtype).reshape(rows, *row_shape)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["u1", "<f4", "<f8", ">i2", "<c16", "<M8[ns]", "S3", "?"]))
def test_basic_indexing_gives_what_numpy_gives(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: str
) -> None:
    shape = data.draw(np_st.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9))
    rows = np.arange(int(np.prod(shape)), dtype="<i8").reshape(shape)
    plain = rows.astype("<M8[ns]" if dtype == "<M8[ns]" else dtype)
    array = write(tmp_path_factory.mktemp("array") / "a", plain)
    key = data.draw(np_st.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    ours, theirs = array[key], plain[key]
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


def test_whole_arrays_are_contiguous_over_many_segments_and_not_copied(tmp_path: Path) -> None:
    rows = counting(4000, 7)  # a row of 28 bytes crosses the end of every segment but every seventh
    array = write(tmp_path / "a", rows)
    assert np.array_equal(array[:], rows)
    assert array[:].flags.c_contiguous
    assert array[:].ctypes.data == array[:].ctypes.data
    assert np.shares_memory(array[:], array[100:200])
    assert not array[:].flags.writeable
    assert array.shape == (4000, 7)
    assert (len(array), array.ndim, array.dtype, array.row_shape) == (4000, 2, rows.dtype, (7,))


def test_it_is_an_array_to_numpy(tmp_path: Path) -> None:
    rows = counting(50, 3)
    array = write(tmp_path / "a", rows)
    assert np.shares_memory(np.asarray(array), array[:])
    assert np.array_equal(np.asarray(array, dtype=np.float64), rows.astype(np.float64))
    assert np.array_equal(array[[3, 1, -1]], rows[[3, 1, -1]])
    assert np.array_equal(array[rows[:, 0] > 60], rows[rows[:, 0] > 60])
    assert np.array_equal(array[np.int64(7)], rows[7])
    assert np.array_equal(np.stack(list(array)), rows)
    for outside in (50, -51):
        with pytest.raises(IndexError, match="there are 50"):
            array[outside]


def test_it_grows_while_views_stay(tmp_path: Path) -> None:
    rows = counting(3000, 5)
    with open_writer(tmp_path / "a", rows) as writer:
        array = DataArray(tmp_path / "a", "s:o")
        assert len(array) == 0
        assert array[:].shape == (0, 5)
        views = []
        for low in range(0, 3000, 100):
            assert writer.append(rows[low : low + 100], np.arange(low, low + 100)) == low
            assert len(array) == low + 100
            views.append(array[:])
        for number, view in enumerate(views):
            assert np.array_equal(view, rows[: (number + 1) * 100])
        assert np.array_equal(array.times_ns[:], np.arange(3000))


def test_each_row_has_its_event_time(tmp_path: Path) -> None:
    array = write(tmp_path / "a", counting(100, 2))
    assert array.times_ns.dtype == np.int64
    assert len(array.times_ns) == 100
    assert array.times_ns[-1] == 990
    assert np.asarray(array.times_ns)[10:13].tolist() == [100, 110, 120]


def test_dtype_shape_and_attrs_come_back(tmp_path: Path) -> None:
    rows = np.zeros((3, 2), FIELDS)
    rows["name"] = b"abc"
    attrs = {"columns": ["räder", "速度"], "rate_hz": 25600.0, "nested": {"a": [1, None, True]}}
    array = write(tmp_path / "a", rows, **attrs)
    assert array.dtype == FIELDS
    assert array[:].tobytes() == rows.tobytes()
    assert dict(array.attrs) == attrs
    assert json.loads((tmp_path / "a/meta.json").read_text())["uid"] == array.uid.hex()


def test_cutting_back_and_writing_again_gives_the_same_array(tmp_path: Path) -> None:
    rows = counting(1000, 3)
    times = np.arange(1000)
    with open_writer(tmp_path / "a", rows) as writer:
        writer.append(rows, times)
        array = DataArray(tmp_path / "a", "s:o")
        writer.cut(123)
        assert len(array) == len(array.times_ns) == writer.length == 123
        assert writer.append(rows[123:], times[123:]) == 123
    assert np.array_equal(array[:], rows)
    assert np.array_equal(array.times_ns[:], times)
    with open_writer(tmp_path / "a", rows) as writer:
        assert writer.uid == array.uid
        with pytest.raises(StreamDamaged, match="missing"):
            writer.cut(1001)


@pytest.mark.parametrize("part", ["rows", "times"])
def test_a_crash_between_times_and_rows_is_cut_off(tmp_path: Path, part: str) -> None:
    rows = counting(10, 3)
    array = write(tmp_path / "a", rows)
    head = tmp_path / "a" / part / "head"
    raw = bytearray(head.read_bytes())
    one_short = int.from_bytes(raw[24:32], "little") - 4  # half a time, a third of a row
    head.write_bytes(raw[:24] + one_short.to_bytes(8, "little") + raw[32:])
    array = DataArray(tmp_path / "a", "s:o")
    assert len(array) == len(array.times_ns) == 9
    with open_writer(tmp_path / "a", rows) as writer:
        assert writer.length == 9
        writer.append(rows[9:], np.array([90]))
    assert np.array_equal(array[:], rows)
    assert np.array_equal(array.times_ns[:], np.arange(10) * 10)


def test_dropped_rows_are_gone_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    rows = counting(5000, 3)
    with open_writer(tmp_path / "a", rows) as writer:
        writer.append(rows, np.arange(5000))
        array = DataArray(tmp_path / "a", "s:o")
        everything = array[:]
        writer.drop_before(4000)
    start = array.start
    assert 3000 < start <= 4000
    assert array.shape == (5000, 3)
    assert array.times_ns.start == start
    for key in (slice(None), slice(None, None, -7), slice(None, 4500), slice(-30, None, 2), Ellipsis):
        kept = array[key]
        assert np.array_equal(kept, rows[start:][key] if key != slice(None, 4500) else rows[start:4500])
    assert np.array_equal(array[4200, 1:], rows[4200, 1:])
    assert np.array_equal(np.asarray(array), rows[start:])
    for gone in (start - 1, slice(0, 10), slice(start - 1, None), -5000):
        with pytest.raises(RangeGone, match=f"first that is kept is row {start}"):
            array[gone]
    with pytest.raises(IndexError, match="take a view first"):
        array[[4500, 4600]]
    assert np.array_equal(everything, rows)


def test_rows_that_do_not_belong_are_rejected(tmp_path: Path) -> None:
    times = np.arange(2)
    with open_writer(tmp_path / "a", counting(0, 3)) as writer:
        for wrong in (counting(2, 4), counting(2), counting(2, 3, dtype="<i8")):
            with pytest.raises(ValueError, match="takes rows of int32"):
                writer.append(wrong, times)
        wrong_times: Any
        for wrong_times in (np.arange(3), np.arange(2.0), np.zeros((2, 1), np.int64)):
            with pytest.raises(ValueError, match="need times of int64"):
                writer.append(counting(2, 3), wrong_times)
        assert writer.append(counting(0, 3), np.arange(0)) == 0
        assert writer.append(counting(2, 6)[:, ::2], times) == 0  # not contiguous
    assert np.array_equal(DataArray(tmp_path / "a", "s:o")[:], counting(2, 6)[:, ::2])


def test_rows_that_cannot_be_stored_are_rejected(tmp_path: Path) -> None:
    for dtype in (np.dtype(object), np.dtype("V0"), np.dtype(("f4", (2,)))):
        with pytest.raises(ValueError, match="cannot be stored"):
            DataArrayWriter(tmp_path / "a", "s:o", dtype=dtype, row_shape=(), attrs={})
    with pytest.raises(ValueError, match="positive integers"):
        DataArrayWriter(tmp_path / "a", "s:o", dtype=np.dtype("f4"), row_shape=(0,), attrs={})
    for value in (float("nan"), b"bytes", np.int64(3)):
        with pytest.raises(ValueError, match="must be JSON"):
            DataArrayWriter(tmp_path / "a", "s:o", dtype=np.dtype("f4"), row_shape=(), attrs={"x": value})
    assert not (tmp_path / "a").exists()


def test_other_attrs_dtype_or_shape_set_the_old_array_aside(tmp_path: Path) -> None:
    first = write(tmp_path / "a", counting(10, 3), window="hann")
    assert not first.replaced
    second = write(tmp_path / "a", counting(20, 3), window="boxcar")
    third = write(tmp_path / "a", counting(30, 4), window="boxcar")
    fourth = write(tmp_path / "a", counting(40, 4, dtype="<f4"), window="boxcar")
    assert [len(DataArray(tmp_path / name, name)) for name in ("a~1", "a~2", "a~3", "a")] == [10, 20, 30, 40]
    assert [len(array) for array in (first, second, third, fourth)] == [10, 20, 30, 40]
    assert len({array.uid for array in (first, second, third, fourth)}) == 4
    assert first.replaced
    assert not fourth.replaced


def test_an_array_of_the_same_description_continues(tmp_path: Path) -> None:
    attrs = {"columns": ("a", "b"), "rate_hz": 1.5}
    first = write(tmp_path / "a", counting(10, 2), **attrs)
    again = write(tmp_path / "a", counting(10, 2), **dict(reversed(attrs.items())))
    assert first.uid == again.uid
    assert len(first) == 20


def test_rows_whose_description_is_lost_are_set_aside_not_overwritten(tmp_path: Path) -> None:
    rows = counting(10, 3)
    write(tmp_path / "a", rows)
    (tmp_path / "a/meta.json").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        DataArray(tmp_path / "a", "s:o")
    again = DataArrayWriter(tmp_path / "a", "s:o", dtype=rows.dtype, row_shape=(3,), attrs={})
    again.resume(None, database_id=b"").close()
    assert len(DataArray(tmp_path / "a", "s:o")) == 0
    assert (tmp_path / "a~1/rows/c.0.0").read_bytes() == rows.tobytes()


def test_an_array_that_is_being_written_is_not_set_aside(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a", counting(0, 3)):
        for rows in (counting(0, 3), counting(0, 4)):
            with pytest.raises(StoreLocked):
                open_writer(tmp_path / "a", rows)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
