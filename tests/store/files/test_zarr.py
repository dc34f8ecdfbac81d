"""What other programs read of a data array of format 2, while it is written and after a crash."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from windvane.errors import ArrayNotSealable
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.store import Store

from tests.processes import started, wait_until
from tests.store.files.format_1 import make_array_of_format_1
from tests.store.files.resumed import DATABASE_ID

SEGMENT_BYTES = 8192


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store", segment_bytes=SEGMENT_BYTES) as store:
        yield store


def writer_of(
    store: Store,
    reference: str = "t:x",
    *,
    dtype: Any = "<f4",
    row_shape: tuple[int, ...] = (4,),
    committed: OutputLength | None = None,
) -> DataArrayWriter:
    attrs = {"kind": "samples", "unit": "m/s²", "rate_hz": 100.0}
    writer = store.array_writer(reference, dtype=np.dtype(dtype), row_shape=row_shape, attrs=attrs)
    return writer.resume(committed, database_id=DATABASE_ID)


def rows_of(count: int, *, dtype: Any = "<f4", row_shape: tuple[int, ...] = (4,), seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    return random.integers(0, 2 if dtype == "?" else 100, (count, *row_shape)).astype(dtype)


def commit(writer: DataArrayWriter, store: Store) -> None:
    length = writer.snapshot()
    store.sync()
    writer.mark_committed(length)


@pytest.mark.parametrize(
    "dtype", ["?", "<i1", "<u2", "<i4", ">i4", "<i8", "<f2", "<f4", ">f8", "<c8", "<c16"]
)
@pytest.mark.parametrize("row_shape", [(), (3,), (2, 5)], ids=str)
def test_zarr_reads_the_sealed_rows_of_every_dtype(
    store: Store, dtype: str, row_shape: tuple[int, ...]
) -> None:
    with writer_of(store, dtype=dtype, row_shape=row_shape) as writer:
        rows = rows_of(40_000 // (1 + 4 * len(row_shape)), dtype=dtype, row_shape=row_shape)
        writer.append(rows, np.arange(len(rows)))
        commit(writer, store)
        with store.array("t:x") as array:
            assert array.zarr_path is not None
            sealed = zarr.open_array(str(array.zarr_path), mode="r")
            assert sealed.shape[0] > len(rows) // 2
            assert sealed.dtype == array.dtype.newbyteorder("=")  # Zarr gives native ones
            assert np.array_equal(sealed[:], rows[: sealed.shape[0]])
            assert np.array_equal(sealed[:], array[: sealed.shape[0]])
            times = zarr.open_array(str(array.directory / "times"), mode="r")
            assert np.array_equal(times[:], np.arange(sealed.shape[0]))


def test_only_rows_of_whole_committed_segments_are_sealed(store: Store) -> None:
    with writer_of(store) as writer, store.array("t:x") as array:
        writer.append(rows_of(511), np.arange(511))
        commit(writer, store)
        assert array.zarr_path is None
        writer.append(rows_of(1000), np.arange(1000))
        assert array.zarr_path is None  # nothing commits them
        commit(writer, store)
        assert zarr.open_array(str(array.zarr_path), mode="r").shape == (1024, 4)


def test_xarray_reads_times_units_and_the_names_of_dimensions(store: Store) -> None:
    with writer_of(store) as writer:
        rows = rows_of(2048)
        writer.append(rows, 1_700_000_000_000_000_000 + np.arange(2048) * 10_000_000)
        commit(writer, store)
    with xarray.open_zarr(store.root / "t" / "arrays" / "x", consolidated=False) as dataset:
        found = dataset["rows"]
        assert found.dims == ("time", "channel")
        assert found.attrs["units"] == "m/s²"
        assert np.array_equal(found.values, rows)
        assert str(found["times"].values[0]) == "2023-11-14T22:13:20.000000000"
        assert dataset["times"].values.astype(np.int64)[-1] == 1_700_000_020_470_000_000


@pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")
def test_the_store_is_a_tree_of_zarr_groups(store: Store) -> None:
    for reference in ("t:x", "t:y", "u/1:x"):
        with writer_of(store, reference) as writer:
            writer.append(rows_of(512), np.arange(512))
            commit(writer, store)
    root = zarr.open_group(str(store.root), mode="r")
    assert sorted(root.group_keys()) == ["t", "u%2F1"]
    arrays = root["t/arrays"]
    assert isinstance(arrays, zarr.Group)
    assert sorted(arrays.group_keys()) == ["x", "y"]
    assert isinstance(rows := root["u%2F1/arrays/x/rows"], zarr.Array)
    assert rows.shape == (512, 4)


WRITE_AND_BE_KILLED = """
import sys
from pathlib import Path
import numpy as np
from windvane.store.files.store import Store
store = Store(Path(sys.argv[1]), segment_bytes=8192)
writer = store.array_writer("t:x", dtype=np.dtype("<f4"), row_shape=(4,), attrs={})
writer.resume(None, database_id=b"test")
number = 0
while True:
    rows = np.arange(number, number + 100, dtype="<f4").repeat(4).reshape(100, 4)
    writer.append(rows, np.arange(number, number + 100))
    number += 100
    if number % 700 == 0:
        length = writer.snapshot()
        store.sync()
        writer.mark_committed(length)
        print(number, flush=True)
"""


@pytest.mark.system
def test_sealed_rows_equal_the_array_while_it_is_written_and_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_AND_BE_KILLED, str(tmp_path)]
    with started(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            array = Store(tmp_path).array("t:x")
            wait_until(lambda: array.zarr_path is not None, "sealed rows")
            lengths = set()

            def has_grown() -> bool:
                sealed = zarr.open_array(str(array.zarr_path), mode="r")
                lengths.add(sealed.shape[0])
                assert np.array_equal(sealed[:], array[: sealed.shape[0]])
                return len(lengths) > 5

            wait_until(has_grown, "more sealed rows")
        finally:
            process.kill()
    has_grown()
    assert zarr.open_array(str(array.zarr_path), mode="r")[-1, 0] == max(lengths) - 1


def test_the_tail_is_sealed_on_request_and_continues(store: Store) -> None:
    with writer_of(store) as writer, store.array("t:x") as array:
        rows = rows_of(3000)
        writer.append(rows[:700], np.arange(700))
        commit(writer, store)
        writer.append(rows[700:800], np.arange(700, 800))  # not committed
        assert array.seal(zarr_root=store.root) == 700
        sealed = zarr.open_array(str(array.zarr_path), mode="r")
        assert np.array_equal(sealed[:], rows[:700])
        writer.append(rows[800:], np.arange(800, 3000))
        assert np.array_equal(array[:], rows)
        commit(writer, store)
        sealed = zarr.open_array(str(array.zarr_path), mode="r")
        assert np.array_equal(sealed[:], rows[:2560])
        assert np.array_equal(zarr.open_array(str(array.directory / "times"))[:], np.arange(2560))


def test_what_cannot_be_sealed_is_explained(store: Store, tmp_path: Path) -> None:
    with writer_of(store) as writer, store.array("t:x") as array:
        writer.append(rows_of(10), np.arange(10))
        with pytest.raises(ArrayNotSealable, match="next checkpoint"):
            array.seal(zarr_root=store.root)
    with writer_of(store, "t:dates", dtype="<M8[ns]", row_shape=()) as writer:
        writer.append(np.zeros(10, "<M8[ns]"), np.arange(10))
        commit(writer, store)
    with store.array("t:dates") as array, pytest.raises(ArrayNotSealable, match="no data type"):
        array.seal(zarr_root=store.root)
    make_array_of_format_1(store, "t:old", rows_of(10), np.arange(10), attrs={})
    with store.array("t:old") as array, pytest.raises(ArrayNotSealable, match="windvane upgrade"):
        array.seal(zarr_root=store.root)


def test_rows_that_were_dropped_read_as_nan(store: Store) -> None:
    with writer_of(store) as writer, store.array("t:x") as array:
        rows = rows_of(2048)
        writer.append(rows, np.arange(2048))
        commit(writer, store)
        writer.drop_before(600)
        sealed = zarr.open_array(str(array.zarr_path), mode="r")
        assert sealed.attrs["first_row"] == array.start == 512
        assert np.isnan(sealed[:512]).all()
        assert np.array_equal(sealed[512:], rows[512:])


def test_metadata_that_a_power_cut_took_is_written_when_the_array_is_resumed(store: Store) -> None:
    with writer_of(store) as writer:
        writer.append(rows_of(1024), np.arange(1024))
        commit(writer, store)
        length = writer.snapshot()
    path = store.array("t:x").directory / "rows" / "zarr.json"
    expected = path.read_bytes()
    path.write_bytes(b"")
    with writer_of(store, committed=length):
        assert path.read_bytes() == expected


def test_metadata_never_shows_rows_that_are_cut_off(store: Store) -> None:
    with writer_of(store) as writer, store.array("t:x") as array:
        writer.append(rows_of(1024), np.arange(1024))
        commit(writer, store)
        writer.cut(600)
        assert zarr.open_array(str(array.zarr_path), mode="r").shape[0] == 512


def test_rows_whose_size_fits_no_whole_page_are_sealed_too(tmp_path: Path) -> None:
    """A spectrum of 32,768 samples: the lcm of its row and a page is larger than a segment may be."""
    rows = rows_of(20, row_shape=(16_385,))
    with Store(tmp_path, segment_bytes=4 * 16_385 * 4) as store:
        with writer_of(store, row_shape=(16_385,)) as writer:
            writer.append(rows, np.arange(20))
            commit(writer, store)
        with store.array("t:x") as array:
            assert not array.is_contiguous
            assert np.array_equal(array[:], rows)
            assert np.array_equal(array[3:9], rows[3:9])
            assert np.array_equal(zarr.open_array(str(array.zarr_path), mode="r")[:], rows)
