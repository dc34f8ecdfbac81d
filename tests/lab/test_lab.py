import io
import os
import socket
import warnings
import wave
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.errors import (
    ArrayNotFound,
    ColumnNotFound,
    ConfigInvalid,
    RangeGone,
    SelectionInvalid,
    StreamNotFound,
)
from windvane.lab import Context, connect
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.data_stream_writer import DataStreamWriter
from windvane.store.files.store import Store

from tests.store.files.resumed import resumed

SEGMENT_BYTES = 64 * 1024


class Filled:
    """A home with something in it, and its writers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store(home / "store", segment_bytes=SEGMENT_BYTES)
        self.voice = self.stream("voice", b"hello ", b"world")
        self.spectrum = self.array("voice:spectrum", np.arange(12, dtype="<f4").reshape(4, 3))

    def stream(self, reference: str, *chunks: bytes) -> DataStreamWriter:
        writer = resumed(self.store.stream_writer(reference, attrs={"tag": reference}))
        for number, chunk in enumerate(chunks, start=1):
            writer.append(chunk, arrived_ns=number * 10**9, chunk_id=None, events=2)
        return writer

    def array(self, reference: str, rows: NDArray[np.float32]) -> DataArrayWriter:
        writer = resumed(
            self.store.array_writer(
                reference,
                dtype=rows.dtype,
                row_shape=rows.shape[1:],
                attrs={"rate_hz": 4.0, "columns": ["a", "b"]},
            )
        )
        writer.append(rows, np.arange(len(rows)) * 10**9)
        return writer


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


@pytest.fixture
def context(filled: Filled) -> Context:
    return connect(filled.home)


def test_a_home_is_found_by_its_path_and_by_default(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect(str(filled.home)).home == filled.home
    monkeypatch.setenv("WINDVANE_HOME", str(filled.home))
    assert connect().home == filled.home
    monkeypatch.chdir(filled.home.parent)
    assert connect(filled.home.name).home == filled.home


def test_what_is_not_a_home_is_rejected_and_not_made_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="not a Windvane home"):
        connect(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_used(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", reject)
    context = connect(filled.home)
    assert context.streams["voice"].read() == b"hello world"
    assert context.arrays["voice:spectrum"][:].sum() == 66


def test_an_array_is_a_read_only_view_of_the_files(context: Context) -> None:
    array = context.arrays["voice:spectrum"]
    view = array[1:3]
    np.testing.assert_array_equal(view, np.arange(3, 9, dtype="<f4").reshape(2, 3), strict=True)
    assert np.shares_memory(array[:], array[1:3])
    assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1


def test_a_view_across_segments_is_contiguous(filled: Filled, context: Context) -> None:
    rows = np.random.default_rng(2).normal(size=(5 * SEGMENT_BYTES // 12, 3)).astype("<f4")
    filled.array("voice:long", rows)
    view = context.arrays["voice:long"][:]
    assert view.flags.c_contiguous
    np.testing.assert_array_equal(view, rows)


def test_numpy_takes_an_array_as_its_own(context: Context) -> None:
    array = context.arrays["voice:spectrum"]
    assert np.asarray(array).base is not None
    assert float(np.mean(array)) == 5.5
    assert np.asarray(array, dtype=np.float64).dtype == np.float64
    assert (array.shape, array.ndim, array.dtype, array.nbytes, len(array)) == (
        (4, 3),
        2,
        np.dtype("<f4"),
        48,
        4,
    )
    assert (array.columns, array.attrs["rate_hz"]) == (("a", "b"), 4.0)


def test_an_array_grows_while_it_is_open(filled: Filled, context: Context) -> None:
    array = context.arrays["voice:spectrum"]
    before = array[:]
    filled.spectrum.append(np.full((2, 3), 9, dtype="<f4"), np.array([7, 8]))
    assert (len(before), len(array)) == (4, 6)
    assert array[-1].tolist() == [9, 9, 9]


def test_the_times_of_the_rows_are_dates(context: Context) -> None:
    times = context.arrays["voice:spectrum"].times
    assert times.dtype == np.dtype("datetime64[ns]")
    assert times[2] == np.datetime64("1970-01-01T00:00:02")
    assert not times.flags.owndata


def test_rows_that_retention_dropped_are_gone_and_the_rest_is_there(filled: Filled, context: Context) -> None:
    rows = np.arange(4 * SEGMENT_BYTES // 4, dtype="<f4").reshape(-1, 1)
    writer = filled.array("old:rows", rows)
    writer.drop_before(len(rows) // 2)
    array = context.arrays["old:rows"]
    assert array.start > 0
    with pytest.raises(RangeGone):
        array[0]
    np.testing.assert_array_equal(np.asarray(array), rows[array.start :])
    assert len(array.times) == len(rows) - array.start
    assert f"{array.start:,}" in repr(array)


def test_bytes_that_retention_dropped_are_gone_and_the_rest_is_read(filled: Filled, context: Context) -> None:
    writer = filled.stream("old", *(bytes([number]) * SEGMENT_BYTES for number in range(4)))
    writer.drop_before(2 * SEGMENT_BYTES)
    stream = context.streams["old"]
    assert stream.start == 2 * SEGMENT_BYTES
    assert stream.read_range(stream.start, 1) == b"\2"
    assert len(stream.read()) == 2 * SEGMENT_BYTES
    with pytest.raises(RangeGone):
        stream.read_range(0, 1)


def test_a_stream_gives_bytes_by_offset(context: Context) -> None:
    stream = context.streams["voice"]
    assert stream.read() == b"hello world"
    assert (stream.read_range(6, 3), stream.read_range(6, 99), stream.read_range(99, 1)) == (
        b"wor",
        b"world",
        b"",
    )
    assert (stream[:5], stream[-5:], stream[3:3], stream[5:2]) == (b"hello", b"world", b"", b"")
    assert (len(stream), stream.size, stream.chunks, stream.events) == (11, 11, 2, 4)
    assert stream.last_arrival == np.datetime64("1970-01-01T00:00:02")
    with pytest.raises(ValueError, match="step"):
        stream[::2]


def test_a_read_with_arguments_warns_since_a_file_s_read_means_something_else(context: Context) -> None:
    stream = context.streams["voice"]
    for arguments, expected in (((6,), b"world"), ((6, 3), b"wor"), ((0, 5), b"hello")):
        with pytest.warns(DeprecationWarning, match=r"read_range\(offset, length\)"):
            assert stream.read(*arguments) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stream.read() == b"hello world"


@pytest.mark.parametrize("arguments", [(-1, 3), (3, -1)])
def test_a_range_of_bytes_is_not_negative(context: Context, arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        context.streams["voice"].read_range(*arguments)


def test_a_stream_opens_as_a_file_that_libraries_read(filled: Filled, context: Context) -> None:
    sound = io.BytesIO()
    samples = np.arange(-500, 500, dtype="<i2")
    with wave.open(sound, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(8000)
        made.writeframes(samples.tobytes())
    filled.stream("sound", sound.getvalue()[:100], sound.getvalue()[100:])
    with context.streams["sound"].open() as file, wave.open(file) as read:
        assert read.getframerate() == 8000
        assert read.readframes(2000) == samples.tobytes()


def test_a_file_over_a_stream_can_seek(context: Context) -> None:
    with context.streams["voice"].open() as file:
        assert (file.seek(-5, os.SEEK_END), file.read()) == (6, b"world")
        assert (file.seek(1), file.read(4), file.tell()) == (1, b"ello", 5)
        assert (file.seek(99), file.read()) == (99, b"")


def test_the_outputs_of_a_stream_go_by_their_names(context: Context) -> None:
    stream = context.streams["voice"]
    assert list(stream.arrays) == ["voice:spectrum"]
    assert stream.arrays["spectrum"].reference == "voice:spectrum"
    assert "spectrum" in stream.arrays
    assert "voice:spectrum" in stream.arrays
    assert "phase" not in stream.arrays


def test_catalogues_are_mappings_that_see_what_is_new(filled: Filled, context: Context) -> None:
    assert (list(context.streams), len(context.arrays)) == (["voice"], 1)
    filled.stream("noise", b"x")
    assert list(context.streams) == ["noise", "voice"]
    assert [stream.reference for stream in context.streams.values()] == ["noise", "voice"]
    assert "noise" in context.streams
    assert context.streams.get("nothing") is None


def test_what_is_not_there_is_an_error_that_names_what_is_spelt_alike(context: Context) -> None:
    with pytest.raises(ArrayNotFound, match="there is voice:spectrum"):
        context.arrays["voice:spectrun"]
    with pytest.raises(StreamNotFound, match="there is voice"):
        context.streams["voices"]
    with pytest.raises(LookupError):
        context.streams["xyz"]


def representations(context: Context) -> Iterator[str]:
    yield repr(context)
    yield repr(context.streams)
    yield repr(context.arrays)
    yield repr(context.streams["voice"])
    yield repr(context.arrays["voice:spectrum"])


def test_what_is_printed_helps(filled: Filled, context: Context) -> None:
    whole, streams, arrays, stream, array = representations(context)
    assert str(filled.home) in whole
    assert streams.splitlines()[0] == "1 stream"
    assert "11 B" in streams
    assert "last 1970-01-01T00:00:02 UTC" in streams
    assert arrays.splitlines() == ["1 array", "  voice:spectrum  4 × 3  float32  48 B"]
    assert "4 events in 2 chunks" in stream
    assert "spectrum" in stream
    assert "rate_hz: 4.0" in array
    assert "1970-01-01T00:00:03" in array


def test_an_empty_home_can_be_printed_too(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    context = connect(tmp_path)
    assert repr(context.arrays) == "0 arrays"
    assert "0 streams" in repr(context)


def test_a_long_list_is_cut_short(filled: Filled, context: Context) -> None:
    for number in range(40):
        filled.stream(f"t{number:02}").close()
    lines = repr(context.streams).splitlines()
    assert lines[0] == "41 streams"
    assert len(lines) == 32
    assert lines[-1].startswith("… and 11 more")


def test_a_stream_says_that_it_is_cut_by_slices(context: Context) -> None:
    with pytest.raises(TypeError, match=r"cut by slices, not by 0: stream\[a:b\]"):
        context.streams["voice"][0]  # type: ignore[index]


def test_an_address_is_not_a_home() -> None:
    with pytest.raises(ConfigInvalid, match="takes a folder, not the address http://localhost:8080"):
        connect("http://localhost:8080")


def test_rows_are_selected_by_time(context: Context) -> None:
    array = context.arrays["voice:spectrum"]
    for start, stop in (
        ("1970-01-01T00:00:01Z", "1970-01-01T00:00:03Z"),
        (np.datetime64(1, "s"), np.datetime64(3, "s")),
        (datetime(1970, 1, 1, 0, 0, 0, 1), datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC)),
    ):
        found = array[start:stop]
        assert np.shares_memory(found, array[:])
        np.testing.assert_array_equal(found, array[1:3])
        np.testing.assert_array_equal(array[start:stop, 1:], array[1:3, 1:])
    with pytest.raises(SelectionInvalid, match="RFC 3339"):
        array["noon":]


def test_columns_are_selected_by_name(filled: Filled, context: Context) -> None:
    filled.array("voice:pairs", np.arange(8, dtype="<f4").reshape(4, 2))
    array = context.arrays["voice:pairs"]
    np.testing.assert_array_equal(array["b"], array[:, 1])
    np.testing.assert_array_equal(array["1970-01-01T00:00:02Z":, "a"], array[2:, 0])
    assert array[-1, "b"] == 7
    assert np.shares_memory(array["b"], array[:])
    with pytest.raises(ColumnNotFound, match=r"voice:pairs has no column 'c'; it has a, b"):
        array["c"]


def test_fields_of_records_are_columns_also_after_retention(filled: Filled, context: Context) -> None:
    dtype = np.dtype([("n", "<i8"), ("at", [("x", "<f4"), ("y", "<f4", 2)])])
    rows = np.zeros(4 * SEGMENT_BYTES // dtype.itemsize, dtype)
    rows["n"] = np.arange(len(rows))
    writer = resumed(filled.store.array_writer("voice:records", dtype=dtype, row_shape=(), attrs={}))
    writer.append(rows, np.arange(len(rows)))
    writer.drop_before(len(rows) // 2)
    array = context.arrays["voice:records"]
    assert array.start > 0
    np.testing.assert_array_equal(array["n"], rows["n"][array.start :])
    np.testing.assert_array_equal(array[-5:, "at.y"], rows["at"]["y"][-5:])
    assert array[-5:, "at.y", 1].shape == (5,)


def test_bytes_are_selected_by_time_of_arrival(context: Context) -> None:
    stream = context.streams["voice"]
    assert stream["1970-01-01T00:00:02Z":] == b"world"
    assert stream[: np.datetime64(2, "s")] == b"hello "
    assert stream[2:"1970-01-01T00:00:02Z"] == b"llo "


def test_an_overview_is_of_rows_or_of_times_and_of_a_column(filled: Filled, context: Context) -> None:
    rows = np.random.default_rng(2).normal(size=(900, 4)).astype(np.float32)
    filled.array("voice:wide", rows)
    array = context.arrays["voice:wide"]
    found = array.overview(128, 900, pixels=3, column=2)
    assert found.rows.tolist() == [128, 384, 640, 900]
    assert np.array_equal(found.max, [rows[128:384, 2].max(), rows[384:640, 2].max(), rows[640:, 2].max()])
    since = array.times[450]
    assert array.overview(since, pixels=450).rows.tolist() == list(range(450, 901))
    cells = array.overview2d(0, 900, pixels=1, bins=2)
    assert cells.max.tolist() == [[rows[:, :2].max(), rows[:, 2:].max()]]
