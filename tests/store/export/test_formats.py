"""Every format, read by its own library, has the array's values and times bit by bit."""

import csv
import io
import json
import struct
import sys
import tomllib
import tracemalloc
import warnings
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asammdf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io.wavfile
import zarr
from numpy.typing import NDArray
from windvane.errors import ColumnNotFound, ExportFailed, ExportUnavailable
from windvane.store.export.files import export_file, format_of
from windvane.store.export.formats import FORMATS
from windvane.store.export.pieces import export_pieces
from windvane.store.export.rows_to_export import BLOCK_BYTES, RowsToExport
from windvane.store.files.store import Store

from tests.store.files.resumed import resumed

FIRST_NS = 1_793_491_200_000_000_007  # 2026-11-01T00:00:00.000000007Z
ROWS = 50_000  # several blocks
RECORD = np.dtype([("n", "<i8"), ("at", [("x", ">f8"), ("y", "<f4", (2,))]), ("ok", "?")])


class Arrays:
    """A store with arrays of any rows."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")

    def put(self, rows: NDArray[Any], **attrs: Any) -> RowsToExport:
        """All rows of a new array; row i is i * 1,000,001 ns after the first."""
        name = f"s:x{len(self.store.arrays())}"
        with resumed(
            self.store.array_writer(name, dtype=rows.dtype, row_shape=rows.shape[1:], attrs=attrs)
        ) as writer:
            writer.append(rows, times_of(rows))
        return RowsToExport(self.store.array(name), range(len(rows)))


def times_of(rows: NDArray[Any]) -> NDArray[np.int64]:
    return FIRST_NS + np.arange(len(rows), dtype=np.int64) * 1_000_001


@pytest.fixture
def arrays(tmp_path: Path) -> Iterator[Arrays]:
    made = Arrays(tmp_path)
    with made.store:
        yield made


def bits_of(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()


def floats(*shape: int) -> NDArray[np.float32]:
    """Numbers of any bits: negative zeros, infinities and NaNs with payloads among them."""
    rows = np.random.default_rng(7).integers(0, 2**32, shape, dtype=np.uint32).view("<f4")
    rows.reshape(-1)[:3] = [-0.0, np.inf, np.nan]
    return rows


def written(export: RowsToExport, name: str) -> bytes:
    return b"".join(piece() for piece in export_pieces(export, FORMATS[name]))


def read_columns(export: RowsToExport, name: str, folder: Path) -> dict[str, NDArray[Any]]:
    """The columns of the file as its own library reads them, `time` as int64 ns among them."""
    data = written(export, name)
    if name in ("parquet", "arrow"):
        table = pq.read_table(io.BytesIO(data)) if name == "parquet" else pa.ipc.open_file(data).read_all()
        assert table.schema.field("time").type == pa.timestamp("ns", tz="UTC")
        columns = {field: table[field].combine_chunks() for field in table.column_names}
        columns["time"] = columns["time"].cast("int64")
        return {
            field: (column.flatten() if pa.types.is_fixed_size_list(column.type) else column).to_numpy(
                zero_copy_only=False
            )
            for field, column in columns.items()
        }
    if name == "zarr":
        (folder / "x.zarr.zip").write_bytes(data)
        with warnings.catch_warnings(action="error"), zarr.storage.ZipStore(folder / "x.zarr.zip") as store:
            group = zarr.open_group(store, mode="r")
            return {key: np.asarray(array[:]) for key, array in group.arrays()}
    (folder / "x.mf4").write_bytes(data)
    with asammdf.MDF(folder / "x.mf4") as mdf:
        assert mdf.header.abs_time == FIRST_NS
        found = {key: mdf.get(key) for key in mdf.channels_db if key != "time"}
        seconds = found["time_ns"].timestamps
        assert (FIRST_NS + np.round(seconds * 1e9).astype("i8") == found["time_ns"].samples).all()
        return {"time" if key == "time_ns" else key: signal.samples for key, signal in found.items()}


@pytest.mark.parametrize("name", ["parquet", "arrow", "zarr", "mdf"])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i2", ">i4", "<u8", "<i8", "?"])
def test_named_columns_and_times_are_read_back_bit_by_bit(
    arrays: Arrays, tmp_path: Path, name: str, dtype: str
) -> None:
    rows = floats(ROWS, 3) if dtype == "<f4" else (np.arange(ROWS * 3).reshape(ROWS, 3) * 7).astype(dtype)
    found = read_columns(arrays.put(rows, columns=["rms", "peak", "time"]), name, tmp_path)
    assert found.keys() == {"time", "rms", "peak", "time_2"}
    np.testing.assert_array_equal(found.pop("time"), times_of(rows))
    for place, key in enumerate(["rms", "peak", "time_2"]):
        assert bits_of(found[key]) == bits_of(rows[:, place])


@pytest.mark.parametrize("name", ["parquet", "arrow", "zarr"])
@pytest.mark.parametrize("shape", [(ROWS,), (3_000, 129), (700, 5, 100), (0, 4)])
def test_rows_of_any_shape_are_read_back_bit_by_bit(
    arrays: Arrays, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    rows = floats(*shape) if shape[0] else np.zeros(shape, "<f4")
    found = read_columns(arrays.put(rows), name, tmp_path)
    assert bits_of(found["value" if len(shape) == 1 else "values"]) == bits_of(rows)
    np.testing.assert_array_equal(found["time"], times_of(rows))


@pytest.mark.parametrize("name", ["parquet", "arrow", "zarr"])
def test_fields_of_records_are_columns(arrays: Arrays, tmp_path: Path, name: str) -> None:
    rows = np.frombuffer(np.random.default_rng(1).bytes(RECORD.itemsize * 900), RECORD).copy()
    rows["ok"] = rows["n"] % 2 == 0
    found = read_columns(arrays.put(rows), name, tmp_path)
    for key, expected in (
        ("n", rows["n"]),
        ("at.x", rows["at"]["x"]),
        ("at.y", rows["at"]["y"]),
        ("ok", rows["ok"]),
    ):
        assert bits_of(found[key]) == bits_of(expected)


def test_numbers_of_a_row_are_channels_of_mdf(arrays: Arrays, tmp_path: Path) -> None:
    rows = floats(300, 5)
    found = read_columns(arrays.put(rows), "mdf", tmp_path)
    np.testing.assert_array_equal(found["time"], times_of(rows))
    assert bits_of(np.stack([found[str(place)] for place in range(5)], axis=1)) == bits_of(rows)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "S3", "<c16", "<M8[us]", RECORD])
def test_npy_is_read_back_bit_by_bit(arrays: Arrays, dtype: Any) -> None:
    size = np.dtype(dtype).itemsize
    rows = np.frombuffer(np.random.default_rng(1).bytes(size * 6_000), dtype).reshape(3_000, 2)
    loaded = np.load(io.BytesIO(written(arrays.put(rows), "npy")))
    assert (loaded.dtype, loaded.shape) == (rows.dtype, rows.shape)
    assert loaded.tobytes() == rows.tobytes()


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8"])
def test_csv_is_read_back_to_the_same_numbers(arrays: Arrays, dtype: str) -> None:
    rows = (np.random.default_rng(1).standard_normal((ROWS, 2)) * 1e6).astype(dtype)
    text = written(arrays.put(rows, columns=["a", "b"]), "csv").decode()
    heading, *lines = csv.reader(io.StringIO(text, newline=""))
    assert heading == ["time_ns", "a", "b"]
    assert [int(line[0]) for line in lines] == times_of(rows).tolist()
    assert np.array([line[1:] for line in lines]).astype(dtype).tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    ("dtype", "channels"), [("u1", ()), ("<i2", ()), ("<i2", (2,)), (">i4", (3,)), ("<f4", ()), ("<f8", (2,))]
)
@pytest.mark.parametrize("count", [ROWS, 1, 0])
def test_wav_is_read_back_bit_by_bit(
    arrays: Arrays, dtype: str, channels: tuple[int, ...], count: int
) -> None:
    rows = np.random.default_rng(1).integers(0, 200, (count, *channels)).astype(dtype)
    data = written(arrays.put(rows, kind="samples", rate_hz=25_600.0, unit="g"), "wav")
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    with warnings.catch_warnings(action="error"):
        rate_hz, samples = scipy.io.wavfile.read(io.BytesIO(data))
    assert rate_hz == 25_600
    assert bits_of(samples) == bits_of(rows)
    if np.dtype(dtype).kind in "iu":
        with wave.open(io.BytesIO(data)) as file:
            assert file.readframes(count) == bits_of(rows)


def test_each_format_that_can_has_the_description_of_the_array_and_its_unit(
    arrays: Arrays, tmp_path: Path
) -> None:
    export = arrays.put(np.zeros(9, "<i2"), kind="samples", rate_hz=8_000.0, unit="m/s²", note="a<b & c")
    export = RowsToExport(export.source, range(2, 7))
    expected = {
        "reference": export.source.reference,
        "first_row": 2,
        "row_shape": [],
        "attrs": {"kind": "samples", "rate_hz": 8_000.0, "unit": "m/s²", "note": "a<b & c"},
    }
    for schema in (
        pq.read_schema(io.BytesIO(written(export, "parquet"))),
        pa.ipc.open_file(written(export, "arrow")).schema,
    ):
        assert json.loads(schema.metadata[b"windvane"]) == expected
        assert schema.field("value").metadata[b"unit"].decode() == "m/s²"
    (tmp_path / "x.zarr.zip").write_bytes(written(export, "zarr"))
    group: Any = zarr.open_group(zarr.storage.ZipStore(tmp_path / "x.zarr.zip"), mode="r")
    assert dict(group.attrs) == expected
    assert group.metadata.zarr_format == 3
    assert group["value"].attrs["units"] == "m/s²"
    assert group["time"].attrs["units"] == "nanoseconds since 1970-01-01"
    assert group["value"].metadata.dimension_names == ("time",)
    (tmp_path / "x.mf4").write_bytes(written(export, "mdf"))
    with asammdf.MDF(tmp_path / "x.mf4") as mdf:
        assert json.loads(mdf.header.description) == expected
        assert mdf.get("value").unit == "m/s²"
    data = written(export, "wav")
    assert json.dumps(expected, ensure_ascii=False).encode() in data
    assert b"ICRD\x1f\x00\x00\x002026-11-01T00:00:00.002000009Z\0" in data


@pytest.mark.parametrize("name", [*FORMATS])
def test_columns_can_be_chosen(arrays: Arrays, tmp_path: Path, name: str) -> None:
    rows = np.arange(40, dtype="<i2").reshape(10, 4)
    whole = arrays.put(rows, columns=["a", "b", "c", "d"], rate_hz=10.0)
    one = RowsToExport(whole.source, range(3, 8), ("c",))
    if name == "npy":
        np.testing.assert_array_equal(np.load(io.BytesIO(written(one, name))), rows[3:8, 2])
    elif name == "wav":
        assert scipy.io.wavfile.read(io.BytesIO(written(one, name)))[1].tolist() == rows[3:8, 2].tolist()
    elif name == "csv":
        assert written(one, name).startswith(b"time_ns,c\r\n1793491200003000010,14\r\n")
    elif name != "mdf":
        found = read_columns(RowsToExport(whole.source, range(10), ("d", "a")), name, tmp_path)
        assert set(found) == {"time", "d", "a"}
        np.testing.assert_array_equal(found["d"], rows[:, 3])
    if name in ("npy", "wav"):
        with pytest.raises(ExportFailed, match="choose one column"):
            written(RowsToExport(whole.source, range(10), ("d", "a")), name)
    with pytest.raises(ColumnNotFound, match="it has a, b, c, d"):
        written(RowsToExport(whole.source, range(10), ("e",)), name)


@pytest.mark.parametrize(
    ("name", "rows", "attrs", "said"),
    [
        ("parquet", np.zeros(3, "<c16"), {}, "complex128, which Parquet cannot hold; export it as .npy"),
        ("arrow", np.zeros(3, "V4"), {}, "which Arrow IPC cannot hold"),
        ("csv", np.zeros(3, "V4"), {}, "which CSV cannot hold"),
        ("csv", np.zeros((3, 2), RECORD), {}, "only .npy can hold"),
        ("zarr", np.zeros(3, "S4"), {}, "which Zarr cannot hold; export it as .parquet"),
        ("mdf", np.zeros(3, "<c16"), {}, "which MDF4 cannot hold"),
        ("mdf", np.zeros((3, 5_000), "<f4"), {}, "5,000 numbers"),
        ("wav", np.zeros((3, 2), "<f4"), {}, "does not hold samples"),
        ("wav", np.zeros((3, 2), "<f4"), {"rate_hz": 9.0, "kind": "spectrum"}, "does not hold samples"),
        ("wav", np.zeros(3, "<u2"), {"rate_hz": 9.0}, "WAV holds u1, i2, i4, f4 and f8"),
        ("wav", np.zeros((3, 256), "<i2"), {"rate_hz": 9.0}, "up to 255 channels"),
        ("wav", np.zeros((3, 2, 2), "<i2"), {"rate_hz": 9.0}, "WAV holds"),
        ("wav", np.zeros(3, "<i2"), {"rate_hz": 0.5}, "at least 1 Hz"),
    ],
)
def test_what_a_format_cannot_hold_is_rejected_before_the_first_byte(
    arrays: Arrays, name: str, rows: NDArray[Any], attrs: dict[str, Any], said: str
) -> None:
    first = next(iter(export_pieces(arrays.put(rows, **attrs), FORMATS[name])))
    with pytest.raises(ExportFailed, match=said):
        first()


def test_a_wav_file_beyond_4_gib_is_rejected_with_the_rows_that_fit(arrays: Arrays) -> None:
    export = arrays.put(np.zeros(3, "<i4"), rate_hz=10.0)
    with pytest.raises(ExportFailed, match=r"select at most 1,073,7\d\d,\d\d\d rows"):
        written(RowsToExport(export.source, range(2**30)), "wav")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("parquet", "pyarrow.parquet", "parquet"),
        ("arrow", "pyarrow.ipc", "parquet"),
        ("zarr", "zarr", "zarr"),
        ("mdf", "asammdf", "mdf"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    arrays: Arrays, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExportUnavailable, match=rf"not installed: pip install 'windvane\[{extra}\]'"):
        written(arrays.put(np.zeros(3)), name)


def test_the_extras_that_messages_name_are_those_of_the_project() -> None:

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras["export"] == sorted(extras["parquet"] + extras["zarr"] + extras["mdf"])


@pytest.mark.parametrize("name", ["npy", "csv", "parquet", "arrow", "zarr", "wav"])
def test_memory_does_not_grow_with_the_rows(arrays: Arrays, name: str) -> None:
    rows = np.random.default_rng(1).standard_normal(300_000)
    export = arrays.put(rows, rate_hz=1000.0)
    written(RowsToExport(export.source, range(10)), name)  # imports
    largest = total = 0
    tracemalloc.start()
    try:
        for piece in export_pieces(export, FORMATS[name]):
            size = len(piece())
            largest, total = max(largest, size), total + size
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert largest < total / 4
    # Text of numbers is many times larger than they are.
    assert peak_bytes < (40 if name == "csv" else 5) * BLOCK_BYTES


@pytest.mark.parametrize("name", [*FORMATS])
def test_a_file_on_the_disk_is_what_the_pieces_are(arrays: Arrays, tmp_path: Path, name: str) -> None:
    export = arrays.put(np.arange(ROWS, dtype="<i2"), rate_hz=1000.0)
    target = tmp_path / f"x{FORMATS[name].suffix}"
    assert sum(export_file(export, target, format_of(target.name))) == ROWS
    if name == "zarr":
        with zipfile.ZipFile(target) as file, zipfile.ZipFile(io.BytesIO(written(export, name))) as other:
            assert {each: file.read(each) for each in file.namelist()} == {
                each: other.read(each) for each in other.namelist()
            }
    elif name == "mdf":
        assert len(target.read_bytes()) == len(written(export, name))
    else:
        assert target.read_bytes() == written(export, name)


def test_negative_zeros_alone_in_a_chunk_of_zarr_keep_their_sign(arrays: Arrays, tmp_path: Path) -> None:
    rows = np.full(100, -0.0)
    found = read_columns(arrays.put(rows), "zarr", tmp_path)
    assert bits_of(found["value"]) == bits_of(rows)
