from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import ColumnNotFound, OverviewImpossible
from windvane.store.files.data_array import DataArray
from windvane.store.pyramid.cells import FACTOR
from windvane.store.pyramid.dropped_rows import first_row
from windvane.store.pyramid.overview import overview, overview2d

from tests.store.pyramid.brute_force import assert_equals_brute_force, made, with_pyramid

ROWS = 300_001
"""Three levels, and a tail of each."""


def numbers(dtype: str, *shape: int) -> NDArray[Any]:
    random = np.random.default_rng(5)
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        native = np.dtype(dtype).newbyteorder("=")
        return random.integers(limits.min, limits.max, shape, native, endpoint=True).astype(dtype)
    rows = random.normal(1e3, 1e4, shape).astype(dtype)
    rows[random.random(shape) < 0.01] = np.nan
    rows[len(rows) // 3 : len(rows) // 3 + 9_000] = np.nan  # cells of level 2 without a number
    rows[-1], rows[700] = np.inf, -np.inf
    return rows


ARRAYS = {
    "<f4": (ROWS,),
    ">i2": (ROWS,),
    "<f8": (20_000, 3),
    "<u8": (ROWS,),
    "<f2": (9_000,),
    "i1": (9_000, 2),
}


@pytest.fixture(scope="module")
def arrays(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, bool], tuple[DataArray, NDArray[Any]]]:
    """By dtype, and whether rows were dropped: arrays with pyramids that lack the last rows."""
    found = {}
    for dtype, shape in ARRAYS.items():
        rows = numbers(dtype, *shape)
        for dropped in (False, True):
            directory = tmp_path_factory.mktemp("array") / "a"
            with made(directory, rows, segment_bytes=65_536 if len(rows) > 10_000 else 4096) as writer:
                array = DataArray(directory, "s:o")
                with_pyramid(array, len(rows) - 130)
                if dropped:
                    writer.drop_before(len(rows) // 4)
                    assert array.start
                found[dtype, dropped] = array, rows
    return found


@settings(max_examples=200, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(list(ARRAYS)), dropped=st.booleans())
def test_an_overview_equals_brute_force(
    arrays: dict[tuple[str, bool], tuple[DataArray, NDArray[Any]]],
    data: st.DataObject,
    dtype: str,
    dropped: bool,
) -> None:
    array, rows = arrays[dtype, dropped]
    past_the_end = len(rows) + 5_000
    first, stop = sorted(data.draw(st.tuples(st.integers(0, past_the_end), st.integers(0, past_the_end))))
    pixels = data.draw(st.integers(1, 1_200))
    found = overview(array, first, stop, pixels=pixels)
    assert len(found.rows) <= pixels + 1
    assert found.min.dtype == found.max.dtype == rows.dtype
    assert found.rows[0] <= first
    assert found.rows[-1] >= stop
    is_of_cells = FACTOR * pixels <= stop - first
    cells_from = first_row(array, array.levels()) if is_of_cells else array.start
    assert_equals_brute_force(found, rows, kept_from=array.start, cells_from=cells_from)


def test_edges_snap_outward_to_cells_but_not_past_what_there_is(tmp_path: Path) -> None:
    rows = np.arange(10_000, dtype="<f4")
    made(tmp_path / "a", rows).close()
    with DataArray(tmp_path / "a", "s:o") as array:
        assert overview(array, 100, 900, pixels=5).rows.tolist() == [64, 192, 384, 576, 768, 960]
        assert overview(array, 100, 163, pixels=3).rows.tolist() == [100, 121, 142, 163]
        assert overview(array, 9_990, 10_000, pixels=20).rows.tolist() == list(range(9_990, 10_001))
        assert overview(array, 0, 10_000, pixels=2).rows.tolist() == [0, 4096, 10_000]
        assert overview(array, 9_900, 20_000, pixels=2).rows.tolist() == [8192, 12_288, 20_000]
        assert overview(array, 5, 5, pixels=2).rows.tolist() == [5]


def test_an_overview_without_a_pyramid_is_the_same(tmp_path: Path) -> None:
    rows = numbers("<f4", ROWS)
    made(tmp_path / "a", rows).close()
    with DataArray(tmp_path / "a", "s:o") as array:
        before = overview(array, 1_000, ROWS, pixels=60)
        with_pyramid(array, ROWS)
        after = overview(array, 1_000, ROWS, pixels=60)
        assert np.array_equal(before.rows, after.rows)
        assert np.array_equal(before.times_ns, after.times_ns)
        assert_equals_brute_force(before, rows)
        assert_equals_brute_force(after, rows)


def test_a_column_is_a_name_or_an_index(tmp_path: Path) -> None:
    rows = numbers("<f8", 9_000, 3)
    made(tmp_path / "a", rows, columns=["rms", "peak", "1"]).close()
    with DataArray(tmp_path / "a", "s:o") as array:
        with_pyramid(array, len(rows))
        for column, index in (("rms", 0), ("peak", 1), ("1", 2), (0, 0), ("2", 2)):
            assert_equals_brute_force(overview(array, 0, 9_000, pixels=9, column=column), rows[:, index])
        for unknown in ("crest", "3", -1, "\N{SUPERSCRIPT TWO}"):
            with pytest.raises(ColumnNotFound, match="rms, peak"):
                overview(array, 0, 9_000, pixels=9, column=unknown)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_maxima_over_time_and_bins_equal_brute_force(
    spectra: tuple[DataArray, NDArray[Any]], data: st.DataObject
) -> None:
    array, rows = spectra
    first, stop = sorted(data.draw(st.tuples(st.integers(0, 9_500), st.integers(0, 9_500))))
    pixels, bins = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 40))
    found = overview2d(array, first, stop, pixels=pixels, bins=bins)
    assert (found.bins[0], found.bins[-1]) == (0, rows.shape[1])
    assert found.max.shape == (len(found.rows) - 1, min(bins, rows.shape[1]))
    for pixel, (low, high) in enumerate(zip(found.rows, found.rows[1:], strict=False)):
        there = rows[low:high]
        assert found.count[pixel] == len(there)
        for cell, (begin, end) in enumerate(zip(found.bins, found.bins[1:], strict=False)):
            expected = np.fmax.reduce(there[:, begin:end], axis=None, initial=np.nan)
            assert np.array_equal(found.max[pixel, cell], expected, equal_nan=True)


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataArray, NDArray[Any]]:
    directory = tmp_path_factory.mktemp("array") / "a"
    rows = numbers("<f4", 9_000, 17)
    made(directory, rows).close()
    array = DataArray(directory, "s:o")
    with_pyramid(array, 8_900)
    return array, rows


def test_rows_without_an_overview_are_rejected(tmp_path: Path) -> None:
    made(tmp_path / "a", np.zeros(100, "<c16")).close()
    made(tmp_path / "b", np.zeros((100, 50_000), "u1")).close()
    made(tmp_path / "c", np.zeros(100, "<f4")).close()
    made(tmp_path / "d", np.zeros(100, [("speed", "<f4"), ("name", "S4")])).close()
    with pytest.raises(OverviewImpossible, match="complex128"):
        overview(DataArray(tmp_path / "a", "s:o"), 0, 100, pixels=9)
    with pytest.raises(OverviewImpossible, match="5,000,000 numbers"):
        overview(DataArray(tmp_path / "b", "s:o"), 0, 100, pixels=100)
    with pytest.raises(OverviewImpossible, match="one dimension"):
        overview2d(DataArray(tmp_path / "c", "s:o"), 0, 100, pixels=9, bins=9)
    with pytest.raises(OverviewImpossible, match="column=speed"):
        overview(DataArray(tmp_path / "d", "s:o"), 0, 100, pixels=9)
