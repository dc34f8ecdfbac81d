"""An overview as plain NumPy computes it from all rows."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from windvane.store.files.data_array import DataArray
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.pyramid_writer import LocalPyramidWriter
from windvane.store.pyramid.cells import CellLayout
from windvane.store.pyramid.overview import Overview

from tests.store.files.resumed import resumed

MEAN_TOLERANCE = 2.0**-20
"""Of the largest magnitude in a pixel, as `Overview.mean` promises."""


def made(
    directory: Path, rows: NDArray[Any], *, segment_bytes: int = 65_536, **attrs: Any
) -> DataArrayWriter:
    """An array of these rows; row i has the event time i * 10 ns."""
    writer = resumed(
        DataArrayWriter(
            directory,
            "s:o",
            dtype=rows.dtype,
            row_shape=rows.shape[1:],
            attrs=attrs,
            segment_bytes=segment_bytes,
        )
    )
    writer.append(rows, np.arange(len(rows), dtype=np.int64) * 10)
    return writer


def pyramid_of(array: DataArray, committed_rows: int, **options: Any) -> LocalPyramidWriter:
    layout = CellLayout.of(array.dtype, array.row_shape)
    assert layout is not None
    return LocalPyramidWriter(array, layout, committed_rows=committed_rows, **options)


def with_pyramid(array: DataArray, committed_rows: int) -> None:
    """Extend the pyramid, and mark all of it as durable."""
    with pyramid_of(array, committed_rows) as pyramid:
        pyramid.extend(committed_rows)
        pyramid.mark_durable(pyramid.lengths)


def assert_equals_brute_force(
    found: Overview, rows: NDArray[Any], *, kept_from: int = 0, cells_from: int | None = None
) -> None:
    """`rows` are all rows ever appended, of plain numbers; those before `kept_from` are dropped, and the
    overview has cells from `cells_from` on.
    """
    cells_from = kept_from if cells_from is None else cells_from
    edges = found.rows.tolist()
    assert edges == sorted(set(edges)) or len(edges) == 1
    is_float = rows.dtype.kind == "f"
    for pixel, (first, stop) in enumerate(pairwise(edges)):
        there = rows[max(first, cells_from) : max(stop, cells_from)]
        valid = ~np.isnan(there) if is_float else np.ones(there.shape, np.bool_)
        count = valid.sum(axis=0)
        assert np.array_equal(found.count[pixel], count)
        filled = count > 0
        if not len(there):
            continue
        low = np.where(filled, np.fmin.reduce(there, axis=0), found.min[pixel])
        high = np.where(filled, np.fmax.reduce(there, axis=0), found.max[pixel])
        assert np.array_equal(found.min[pixel], low, equal_nan=is_float)
        assert np.array_equal(found.max[pixel], high, equal_nan=is_float)
        with np.errstate(all="ignore"):
            mean = np.where(valid, there, 0).sum(axis=0, dtype=np.float64) / count
            magnitude = np.maximum(abs(low.astype(np.float64)), abs(high.astype(np.float64)))
            error = abs(found.mean[pixel] - mean)
        assert np.all((error <= MEAN_TOLERANCE * magnitude) | (found.mean[pixel] == mean) | np.isnan(mean))
    times_ns = found.times_ns.tolist()
    for edge, time_ns in zip(edges, times_ns, strict=True):
        row = edge - 1 if edge == len(rows) else edge
        if not cells_from <= row < kept_from or time_ns != row * 10:  # the time of a dropped row may be known
            assert time_ns == (row * 10 if kept_from <= row < len(rows) else -(2**63))
