"""What a data array costs compared with one flat file: the sum of all rows, opening, appending, slicing.

- The same bytes lie once in the segments of a data array and once in one file that `numpy.memmap` maps. The
  sums over `array[:]` and over the memmap are taken in turn, so that whatever else the machine does meets
  both.
- Small chunks are appended in turn to many data streams, each with its arrival record and checksum, against
  bare `os.pwrite` of the same bytes into open files.

    python benchmarks/array.py [--segments 24] [--streams 2000] [--json FILE]
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from windvane.store.files.segmented_writer import DEFAULT_SEGMENT_BYTES
from windvane.store.files.store import Store

from benchmarks.report import Report, arguments

BINS = 1025  # a spectrum of 2,048 samples: rows of 4,100 bytes, which cross the ends of segments
ROWS_PER_APPEND = 1000
CHUNK = bytes(200)
ARRAY = "bench:spectrum"


def main() -> None:
    """Run it all and print the table."""
    parser = arguments((__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--segments", type=int, default=24, help="of 64 MiB in the array (default: 24)")
    parser.add_argument("--repetitions", type=int, default=15, help="of each sum (default: 15)")
    parser.add_argument("--streams", type=int, default=2000, help="to append to in turn (default: 2000)")
    options = parser.parse_args()
    report = Report(f"Data array of {options.segments} segments")
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store") as store:
        flat = Path(folder) / "flat"
        write_both(store, flat, options.segments)
        sums(report, store, flat, options.repetitions)
        looks(report, store, flat)
        appends(report, store, Path(folder) / "bare", options.streams)
    report.finish(options.json)


def write_both(store: Store, flat: Path, segments: int) -> None:
    """Write the same rows into an array and into a flat file."""
    block = np.random.default_rng(7).random((ROWS_PER_APPEND, BINS), dtype=np.float32)
    count = -(-segments * DEFAULT_SEGMENT_BYTES // block.nbytes)
    times_ns = np.arange(ROWS_PER_APPEND, dtype=np.int64)
    with (
        store.array_writer(ARRAY, dtype=block.dtype, row_shape=(BINS,), attrs={}).resume(
            None, database_id=b""
        ) as writer,
        flat.open("wb") as file,
    ):
        for _ in range(count):
            writer.append(block, times_ns)
            file.write(block.data)
    store.sync()


def sums(report: Report, store: Store, flat: Path, repetitions: int) -> None:
    """Sum all rows of both, in turn."""
    array = store.array(ARRAY)
    memmap = np.memmap(flat, dtype=array.dtype, mode="r").reshape(-1, BINS)
    assert np.array_equal(array[::997], memmap[::997])
    ours: list[float] = []
    theirs: list[float] = []
    for repetition in range(repetitions + 1):
        pair = [(ours, lambda: array[:]), (theirs, lambda: memmap)]
        for times, whole in pair if repetition % 2 else reversed(pair):
            duration = timed(lambda whole=whole: whole().sum())  # type: ignore[misc]
            if repetition:  # the first one maps the pages of both
                times.append(duration)
    ratio = statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
    rate = memmap.nbytes / statistics.median(ours) / 1e9
    peer = memmap.nbytes / statistics.median(theirs) / 1e9
    report.add("sum over array[:]", rate, "GB/s", f"one numpy.memmap, {peer:.3g} GB/s", ratio)


def looks(report: Report, store: Store, flat: Path) -> None:
    """Open, map, slice, and read the length."""
    ours = best(lambda: store.array(ARRAY)[:], 50)
    theirs = best(lambda: np.memmap(flat, dtype=np.float32, mode="r"), 50)
    report.add("open and map all", ours * 1e3, "ms", f"numpy.memmap, {theirs * 1e3:.3g} ms", theirs / ours)
    array = store.array(ARRAY)
    memmap: NDArray[Any] = np.memmap(flat, dtype=np.float32, mode="r").reshape(-1, BINS)
    ours, theirs = best(lambda: array[1000:2000], 20_000), best(lambda: memmap[1000:2000], 20_000)
    report.add("array[1000:2000]", ours * 1e6, "µs", f"numpy.memmap, {theirs * 1e6:.3g} µs", theirs / ours)
    report.add("len(array)", best(lambda: len(array), 20_000) * 1e6, "µs")


def appends(report: Report, store: Store, bare: Path, streams: int) -> None:
    """Append small chunks in turn to many streams, and to bare files."""
    writers = [
        store.stream_writer(f"bench.{number}", attrs={}).resume(None, database_id=b"")
        for number in range(streams)
    ]
    bare.mkdir()
    # Not more of them: the descriptors are to be there for the streams.
    count = min(streams, 1000)
    files = [os.open(bare / str(number), os.O_CREAT | os.O_WRONLY) for number in range(count)]

    def append() -> None:
        for writer in writers:
            writer.append(CHUNK, arrived_ns=1, chunk_id=b"0123456789abcdefghijklmn", events=1)

    def write() -> None:
        for file in files:
            os.pwrite(file, CHUNK, 0)

    append()  # the first one makes the segments
    ours, theirs = zip(*((timed(append), timed(write)) for _ in range(9)), strict=True)
    each, bare_each = statistics.median(ours) / streams * 1e6, statistics.median(theirs) / count * 1e6
    against = f"one bare os.pwrite, {bare_each:.3g} µs"
    report.add(f"append 200 B to each of {streams} streams", each, "µs/append", against, bare_each / each)
    for writer in writers:
        writer.close()
    for file in files:
        os.close(file)


def best(action: Callable[[], object], repetitions: int) -> float:
    """Give the median duration in s of an action too short to be timed alone more exactly."""
    return statistics.median(timed(action) for _ in range(repetitions))


def timed(action: Callable[[], object]) -> float:
    """Give the duration of an action in s."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
