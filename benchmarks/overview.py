"""What an overview costs, whatever the length of the array, and what keeping its pyramid costs.

- Arrays of 10^9 and 10^10 float32 samples, of which most blocks are holes of sparse files. The pyramid is
  made by its own writer. Ranges at 1,000 pixels are read, and once by plain NumPy from all rows.
- Rows are appended with and without a thread that extends the pyramid, in turn. The limit is for the CPU time
  of the appending thread; the wall-clock time also has what the machine does besides.

    python benchmarks/overview.py [--samples 1000000000 ...] [--json FILE]
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from windvane.processors.worker.pyramids import Pyramids
from windvane.store.files.data_array import DataArray
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.segmented_file import SegmentedFile
from windvane.store.files.store import Store
from windvane.store.pyramid.overview import overview
from windvane.web.api.overviews import overview_info
from windvane.web.pages import json_bytes

from benchmarks.report import Report, arguments

PIXELS = 1_000
RANGES = 41
BLOCK_ROWS = 4 * 1024 * 1024
FILLED_EVERY = 101
"""One of so many blocks has samples; the others are zeros."""
APPEND_ROWS = 64 * 1024
"""Rows of an append: 256 KiB."""
APPENDS_PER_SYNC = 400
SYNCS = 5
PAIRS = 9


def main() -> None:
    """Run it all and print the table."""
    parser = arguments((__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[10**9, 10**10], help="lengths (default: 10^9 and 10^10)"
    )
    parser.add_argument("--folder", help="for the files (default: a temporary one); takes 3 GB for 10^10")
    options = parser.parse_args()
    report = Report(f"Overviews of {PIXELS:,} pixels")
    for samples in options.samples:
        with (
            tempfile.TemporaryDirectory(dir=options.folder) as folder,
            Store(Path(folder) / "store") as store,
        ):
            read(report, store, samples)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        appends(report, Path(folder))
    report.finish(options.json)


def read(report: Report, store: Store, samples: int) -> None:
    """Ranges of an array of so many samples."""
    rows_bytes = sparse_array(store, samples)
    with store.array("bench:samples") as array:
        with_pyramid(store, array)
        name = f"{samples:.0e} samples".replace("e+", "e")
        pyramid_bytes = sum(
            len(level.cells(0, level.stop_row)) * cell_bytes(level) for level in array.levels()
        )
        report.add(f"{name}: space", 100 * pyramid_bytes / rows_bytes, "% of the rows", "at most 7")
        whole_s, requested = measured(array, [(0, samples)] * RANGES)
        brute_s = timed(partial(brute_force, array)) if samples <= 10**9 else None
        against = f"NumPy over all rows, {brute_s * 1e3:.0f} ms" if brute_s is not None else None
        ratio = brute_s / whole_s if brute_s is not None else None
        report.add(f"{name}: the whole array", whole_s * 1e3, "ms", against, ratio)
        report.add(f"{name}: requested from files", requested / 1e6, "MB", "at most 2")
        chance = random.Random(5)
        ranges = [sorted(chance.sample(range(samples), 2)) for _ in range(RANGES)]
        some_s, requested = measured(array, [(first, stop) for first, stop in ranges])
        report.add(f"{name}: a random range", some_s * 1e3, "ms")
        report.add(f"{name}: requested, at most", requested / 1e6, "MB")


def cell_bytes(level: Any) -> int:
    """The bytes of a cell of a level."""
    return int(level.cells(0, 0).dtype.itemsize)


def measured(array: DataArray, ranges: Sequence[tuple[int, int]]) -> tuple[float, int]:
    """The median duration in s of the overviews, as JSON, and the most bytes that one of them requested."""
    durations, most = [], 0
    for first, stop in ranges:
        with counting() as count:
            answer(array, first, stop)  # it maps the pages
        most = max(most, count[0])
        durations.append(timed(partial(answer, array, first, stop)))
    return statistics.median(durations), most


def answer(array: DataArray, first: int, stop: int) -> bytes:
    """The body of the answer over HTTP."""
    return json_bytes(overview_info(overview(array, first, stop, pixels=PIXELS)))


def brute_force(array: DataArray) -> None:
    """The same by plain NumPy, in blocks."""
    edges = np.linspace(0, len(array), PIXELS + 1).astype(np.int64)
    for first, stop in pairwise(edges):
        rows = array[int(first) : int(stop)]
        rows.min(), rows.max(), rows.mean(dtype=np.float64)


@contextmanager
def counting() -> Iterator[list[int]]:
    """Count the bytes that are requested from segmented files."""
    count = [0]
    view, read = SegmentedFile.view, SegmentedFile.read

    def counting_view(self: SegmentedFile, start: int, stop: int) -> NDArray[np.uint8]:
        count[0] += stop - start
        return view(self, start, stop)

    def counting_read(self: SegmentedFile, offset: int, size: int) -> bytes:
        count[0] += size
        return read(self, offset, size)

    SegmentedFile.view, SegmentedFile.read = counting_view, counting_read  # type: ignore[method-assign]
    try:
        yield count
    finally:
        SegmentedFile.view, SegmentedFile.read = view, read  # type: ignore[method-assign]


def sparse_array(store: Store, samples: int) -> int:
    """An array of which most blocks are holes; the bytes of its rows."""
    filled = np.random.default_rng(7).normal(size=BLOCK_ROWS).astype(np.float32)
    empty, times_ns = np.zeros_like(filled), np.zeros(BLOCK_ROWS, np.int64)
    with new_array(store) as writer:
        for number, first in enumerate(range(0, samples, BLOCK_ROWS)):
            count = min(BLOCK_ROWS, samples - first)
            if number % FILLED_EVERY:
                with writing_holes():
                    writer.append(empty[:count], times_ns[:count])
            else:
                writer.append(filled[:count], times_ns[:count])
        store.sync()
    return samples * filled.itemsize


@contextmanager
def writing_holes() -> Iterator[None]:
    """What is written meanwhile are zeros: the files only grow."""
    pwritev = os.pwritev

    def grow(descriptor: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        if os.fstat(descriptor).st_size < offset + size:
            os.ftruncate(descriptor, offset + size)
        return size

    os.pwritev = grow  # type: ignore[assignment]
    try:
        yield
    finally:
        os.pwritev = pwritev


def new_array(store: Store) -> DataArrayWriter:
    """An empty array."""
    writer = store.array_writer("bench:samples", dtype=np.dtype(np.float32), row_shape=(), attrs={})
    return writer.resume(None, database_id=b"")


class SparseArray(DataArray):
    """The rows of the blocks that are holes are not read from there: they would fill the page cache."""

    def __getitem__(self, key: Any) -> Any:
        if (key.start // BLOCK_ROWS) % FILLED_EVERY == 0:
            return super().__getitem__(key)
        return np.zeros(key.stop - key.start, np.float32)

    @property
    def times_ns(self) -> Any:
        """All times are zeros."""
        return _Zeros()


class _Zeros:
    def __getitem__(self, key: slice) -> NDArray[np.int64]:
        return np.zeros(len(range(key.start, key.stop, key.step)), np.int64)


def with_pyramid(store: Store, stored: DataArray) -> None:
    """Extend the pyramid over all rows."""
    array = SparseArray(stored.directory, stored.reference)
    writer = store.pyramid_writer(array, committed_rows=len(array))
    assert writer is not None
    with writer:
        writer.extend(len(array))
        store.sync()
        writer.mark_durable(writer.lengths)


def appends(report: Report, folder: Path) -> None:
    """Append and sync with and without a thread that extends the pyramid, in turn."""
    rows = np.random.default_rng(7).normal(size=APPEND_ROWS).astype(np.float32)
    ratios, cpu_ratios, with_s = [], [], []
    for pair in range(PAIRS):
        both = {}
        for extends in (False, True) if pair % 2 else (True, False):
            with Store(folder / f"store {pair} {extends}") as store:
                both[extends] = append(store, rows, extends=extends)
            remove(folder)
        with_s.append(both[True][0])
        ratios.append(both[True][0] / both[False][0])
        cpu_ratios.append(both[True][1] / both[False][1])
    rate = SYNCS * APPENDS_PER_SYNC * rows.nbytes / statistics.median(with_s) / 1e6
    report.add("append 256 KiB rows with the pyramid", rate, "MB/s")
    more = 100 * (statistics.median(cpu_ratios) - 1)
    report.add("CPU time of appends with the pyramid", more, "% more", "at most 5")
    report.add("wall-clock time of appends with the pyramid", 100 * (statistics.median(ratios) - 1), "% more")


def append(store: Store, rows: NDArray[np.float32], *, extends: bool) -> tuple[float, float]:
    """The wall-clock and CPU time in s that appends take; syncs do not count, since disks vary more."""
    times_ns = np.zeros(len(rows), np.int64)
    pyramids = Pyramids(store, failed=print).start()
    duration_s = cpu_s = 0.0
    with new_array(store) as writer:
        for _ in range(SYNCS):
            began_s, began_cpu_s = time.perf_counter(), time.thread_time()
            for _ in range(APPENDS_PER_SYNC):
                writer.append(rows, times_ns)
            duration_s += time.perf_counter() - began_s
            cpu_s += time.thread_time() - began_cpu_s
            synced_s = time.monotonic()
            store.sync()
            if extends:
                pyramids.committed([{"bench:samples": writer.found}], began_s=synced_s)
    pyramids.close()
    return duration_s, cpu_s


def remove(folder: Path) -> None:
    """Remove the files of the stores below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def timed(action: Callable[[], object]) -> float:
    """Give the duration of an action in s."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
