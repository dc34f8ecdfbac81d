import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import StoreLocked
from windvane.store.files.data_array import DataArray
from windvane.store.files.pyramid_levels import pyramid_directory
from windvane.store.files.pyramid_writer import LocalPyramidWriter
from windvane.store.pyramid.cells import CellLayout
from windvane.store.pyramid.dropped_rows import first_row
from windvane.store.pyramid.overview import overview

from tests.store.pyramid.brute_force import (
    assert_equals_brute_force,
    made,
    pyramid_of,
    with_pyramid,
)

ROWS = np.arange(300_000, dtype="<i4")[::-1].copy()


def bytes_of(array: DataArray) -> list[bytes]:
    return [level.cells(level.first_row, level.stop_row).tobytes() for level in array.levels()]


@pytest.fixture
def array(tmp_path: Path) -> DataArray:
    made(tmp_path / "a", ROWS).close()
    return DataArray(tmp_path / "a", "s:o")


def test_levels_have_every_whole_cell(array: DataArray) -> None:
    with_pyramid(array, len(ROWS))
    levels = array.levels()
    assert [level.stop_row for level in levels] == [len(ROWS) // size * size for size in (64, 4096, 262144)]
    cells = levels[1].cells(4096, 3 * 4096)
    assert cells["max"].tolist() == [ROWS[4096], ROWS[2 * 4096]]
    assert cells["min"].tolist() == [ROWS[2 * 4096 - 1], ROWS[3 * 4096 - 1]]
    assert cells["mean"].tolist() == [ROWS[4096:8192].mean(), ROWS[8192:12288].mean()]
    assert cells["time"].tolist() == [4096 * 10, 8192 * 10]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, len(ROWS)), max_size=6).map(sorted), crashes=st.booleans())
def test_a_pyramid_that_grows_in_steps_is_the_one_made_at_once(
    array: DataArray, stops: list[int], crashes: bool
) -> None:
    found = []
    for steps in ([], stops):
        shutil.rmtree(pyramid_directory(array.directory), ignore_errors=True)
        for stop in steps:
            with pyramid_of(array, stop) as pyramid:
                pyramid.extend(stop)
                if not crashes:
                    pyramid.mark_durable(pyramid.lengths)
                assert pyramid.covered_rows == stop // 64 * 64
        with_pyramid(array, len(ROWS))
        found.append(bytes_of(array))
    assert found[0] == found[1]


def test_cells_that_were_not_marked_are_not_read(array: DataArray) -> None:
    with pyramid_of(array, len(ROWS)) as pyramid:
        pyramid.extend(50_000)
        durable = pyramid.lengths
        pyramid.extend(len(ROWS))
        assert [level.stop_row for level in array.levels()] == [0, 0, 0]
        pyramid.mark_durable(durable)
    assert [level.stop_row for level in array.levels()] == [50_000 // 64 * 64, 50_000 // 4096 * 4096, 0]
    assert_equals_brute_force(overview(array, 0, len(ROWS), pixels=30), ROWS)


def test_a_pyramid_has_one_writer(array: DataArray) -> None:
    with pyramid_of(array, 0), pytest.raises(StoreLocked):
        pyramid_of(array, 0)


def other_array(directory: Path) -> None:
    for name in ("rows", "times", "meta.json", "zarr.json"):
        if (directory / name).exists():
            (directory / name).rename(directory.parent / f"old {name}")
    made(directory, -ROWS).close()


def damaged(directory: Path) -> None:
    for path in (pyramid_directory(directory) / "1").rglob("*"):
        if path.is_file() and path.stat().st_size > 4096:
            path.write_bytes(path.read_bytes()[:4096])


def headless(directory: Path) -> None:
    (pyramid_directory(directory) / "pyramid.json").unlink()


def of_another_version(directory: Path) -> None:
    path = pyramid_directory(directory) / "pyramid.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))


@pytest.mark.parametrize("change", [other_array, damaged, headless, of_another_version])
def test_a_pyramid_that_does_not_fit_is_created_again(tmp_path: Path, change: Any) -> None:
    made(tmp_path / "a", ROWS).close()
    with DataArray(tmp_path / "a", "s:o") as array:
        with_pyramid(array, len(ROWS))
    change(tmp_path / "a")
    with DataArray(tmp_path / "a", "s:o") as array:
        rows = array[:].copy()
        assert_equals_brute_force(overview(array, 0, len(rows), pixels=30), rows)
        with_pyramid(array, len(rows))
        assert array.levels()[0].stop_row == len(rows) // 64 * 64
        assert_equals_brute_force(overview(array, 0, len(rows), pixels=30), rows)


def test_a_pyramid_beyond_the_committed_rows_is_created_again(tmp_path: Path) -> None:
    with made(tmp_path / "a", ROWS) as writer, DataArray(tmp_path / "a", "s:o") as array:
        with_pyramid(array, len(ROWS))
        writer.cut(100_000)
        writer.append(-ROWS[100_000:], np.arange(100_000, len(ROWS)) * 10)
        with pyramid_of(array, 100_000) as pyramid:
            assert pyramid.covered_rows == 0
        with_pyramid(array, 100_000)
        changed = np.concatenate([ROWS[:100_000], -ROWS[100_000:]])
        assert_equals_brute_force(overview(array, 0, len(ROWS), pixels=30), changed)


def test_retention_frees_cells_and_a_pyramid_that_was_behind_starts_at_the_first_kept_row(
    tmp_path: Path,
) -> None:
    with made(tmp_path / "a", ROWS) as writer, DataArray(tmp_path / "a", "s:o") as array:
        layout = CellLayout.of(array.dtype, array.row_shape)
        assert layout is not None
        with LocalPyramidWriter(array, layout, committed_rows=0, segment_bytes=4096) as pyramid:
            pyramid.extend(150_000)
            pyramid.mark_durable(pyramid.lengths)
            writer.drop_before(100_000)
            pyramid.drop_before(array.start)
            assert 50_000 < array.levels()[0].first_row <= array.start
            pyramid.extend(160_000)
            pyramid.mark_durable(pyramid.lengths)
        assert_equals_brute_force(
            overview(array, 0, len(ROWS), pixels=30),
            ROWS,
            kept_from=array.start,
            cells_from=first_row(array, array.levels()),
        )
        writer.drop_before(200_001)
        assert array.start > 160_000
        with_pyramid(array, len(ROWS))
        [first, second] = array.levels()
        assert array.start <= first.first_row < array.start + 64
        assert array.start <= second.first_row < array.start + 4096
        assert_equals_brute_force(
            overview(array, 0, len(ROWS), pixels=30),
            ROWS,
            kept_from=array.start,
            cells_from=first_row(array, array.levels()),
        )


def test_rows_without_numbers_have_no_pyramid() -> None:
    for dtype in ("<c16", "S3", "?", "<M8[ns]", "<f16"):
        assert CellLayout.of(np.dtype(dtype), ()) is None


def test_a_pyramid_takes_at_most_seven_percent_of_the_rows() -> None:
    for dtype in ("<f4", "<i2", "<f8", "<i4"):
        layout = CellLayout.of(np.dtype(dtype), (5,))
        assert layout is not None
        share = sum(layout.dtype(level).itemsize / 64**level for level in range(1, 6))
        assert share / (5 * np.dtype(dtype).itemsize) <= 0.07


def test_records_have_statistics_of_each_number(tmp_path: Path) -> None:
    rows: NDArray[Any] = np.zeros(9_000, [("speed", "<f4"), ("name", "S4"), ("state", "<i2")])
    rows["speed"] = np.arange(9_000)
    rows["speed"][70] = np.nan
    rows["state"] = np.arange(9_000) % 7
    made(tmp_path / "a", rows).close()
    with DataArray(tmp_path / "a", "s:o") as array:
        with_pyramid(array, len(rows))
        for column in ("speed", "state"):
            found = overview(array, 0, len(rows), pixels=50, column=column)
            assert_equals_brute_force(found, rows[column])
