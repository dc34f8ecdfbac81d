"""What the store costs compared with bare writes and with the formats that are used for the same data.

- One row at a time is appended to a data array (with its time), to bare files (`os.write` of row and time),
  to h5py in SWMR mode, to zarr-python and to icechunk; then all rows are read into one buffer.
- A commit (durable) every 20 appends of 4 KiB, against h5py in SWMR mode with `flush` and `fsync`.
- Views of all rows, and random rows, against `numpy.memmap`.
- A row to each of many streams' arrays and a checkpoint, first with every writer to open, then with all open.

Every peer takes the same rows in the same run, in turn, and in another order each time (zarr-python and
icechunk a tenth of the rows, since they take milliseconds for each). Figures are medians.

    pip install '.[benchmark]'
    python benchmarks/store.py [--streams 10000] [--json FILE]
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamCheckpoint
from windvane.store.interface import ArrayWriter, StoreEngine, StreamWriter, open_store

from benchmarks.array import timed
from benchmarks.report import Report, arguments
from benchmarks.store_peers import PEERS, Bare, H5pySwmr, Rows, Windvane

KIB, MIB = 1024, 1024 * 1024
SIZES = {4 * KIB: 2000, 256 * KIB: 200}
"""Bytes of a row: how many rows a repetition appends."""
APPENDS_PER_COMMIT, COMMITS = 20, 40
RANDOM_ROWS = 20_000
OUTPUTS = ("samples", "spectrum", "features")


def main() -> None:
    """Run it all and print the table."""
    parser = arguments((__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repetitions", type=int, default=7, help="of each append and read (default: 7)")
    parser.add_argument("--view-mib", type=int, default=1024, help="of the viewed array (default: 1024)")
    parser.add_argument("--streams", type=int, default=1000, help="with 3 arrays each (default: 1000)")
    parser.add_argument("--directory", type=Path, help="on the disk to measure (default: a temporary one)")
    options = parser.parse_args()
    report = Report("The store and its peers")
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for row_bytes, rows in SIZES.items():
            appends_and_reads(report, Path(folder), row_bytes, rows, options.repetitions)
        commits(report, Path(folder), options.repetitions)
        views(report, Path(folder), options.view_mib)
        many_streams(report, Path(folder) / "many", options.streams)
    report.finish(options.json)


def appends_and_reads(report: Report, folder: Path, row_bytes: int, rows: int, repetitions: int) -> None:
    """Append and read the same rows with every peer, in turn."""
    block = np.random.default_rng(7).random((rows, row_bytes // 4), dtype=np.float32)
    writing: dict[str, list[float]] = {name: [] for name in PEERS}
    reading: dict[str, list[float]] = {name: [] for name in PEERS}
    for repetition in range(repetitions):
        for name in _in_turn(list(PEERS), repetition):
            part = block[: rows // PEERS[name].rows_divisor]
            buffer = np.zeros_like(part)
            with closing(PEERS[name](folder / "peer", row_bytes)) as peer:
                writing[name].append(timed(partial(_append_all, peer, part)) / part.nbytes)
                reading[name].append(timed(partial(peer.read, buffer)) / part.nbytes)
                assert np.array_equal(buffer, part), name
            shutil.rmtree(folder / "peer")
    for what, times in (("append", writing), ("read", reading)):
        for name in PEERS:
            if name != Windvane.name:
                _compare(report, f"{what} {row_bytes // KIB} KiB rows, to {name}", times, name)


def _append_all(peer: Rows, block: NDArray[np.float32]) -> None:
    for number in range(len(block)):
        peer.append(block[number : number + 1], number)
    peer.finish()


def commits(report: Report, folder: Path, repetitions: int) -> None:
    """Make every 20 appends durable."""
    row_bytes = 4 * KIB
    block = np.random.default_rng(7).random((APPENDS_PER_COMMIT, row_bytes // 4), dtype=np.float32)
    times: dict[str, list[float]] = {name: [] for name in (Windvane.name, Bare.name, H5pySwmr.name)}

    for repetition in range(repetitions):
        for name in _in_turn(list(times), repetition):
            with closing(PEERS[name](folder / "peer", row_bytes)) as peer:
                times[name].append(timed(partial(_commit_often, peer, block)) / (COMMITS * block.nbytes))
            shutil.rmtree(folder / "peer")
    for name in (Bare.name, H5pySwmr.name):
        _compare(report, f"commit every 20 appends of 4 KiB, to {name}", times, name)


def _commit_often(peer: Rows, block: NDArray[np.float32]) -> None:
    for _ in range(COMMITS):
        for number in range(len(block)):
            peer.append(block[number : number + 1], number)
        peer.commit()


def views(report: Report, folder: Path, view_mib: int) -> None:
    """The sum over a view of all rows, and single rows at random."""
    row_bytes = 4 * KIB
    count = view_mib * MIB // row_bytes
    block = np.random.default_rng(7).random((KIB, row_bytes // 4), dtype=np.float32)
    times_ns = np.arange(len(block), dtype=np.int64)
    flat = folder / "flat"
    with closing(Windvane(folder / "view", row_bytes)) as ours, flat.open("wb") as file:
        for _ in range(count // len(block)):
            ours.writer.append(block, times_ns)
            file.write(block.data)
        memmap = np.memmap(flat, dtype=np.float32, mode="r").reshape(-1, row_bytes // 4)
        with ours.store.array(Windvane.array) as array:
            numbers = np.random.default_rng(3).integers(0, len(array), RANDOM_ROWS).tolist()
            assert np.array_equal(array[numbers[0]], memmap[numbers[0]])
            pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                f"sum over a view of {view_mib} MiB": (
                    lambda: np.sum(array[:]),
                    lambda: np.sum(memmap[:]),
                ),
                "random row": (partial(_look_at, array, numbers), partial(_look_at, memmap, numbers)),
            }
            for name, pair in pairs.items():
                durations = _pairs(pair, 9)
                ratio = statistics.median(theirs / mine for mine, theirs in durations)
                mine, theirs = (statistics.median(each) for each in zip(*durations, strict=True))
                if name == "random row":
                    scale, unit = 1e6 / RANDOM_ROWS, "µs"
                else:
                    scale, unit = 1e3, "ms"
                report.add(name, mine * scale, unit, f"numpy.memmap, {theirs * scale:.3g} {unit}", ratio)


def _look_at(rows: Any, numbers: list[int]) -> None:
    for number in numbers:
        rows[number]


def many_streams(report: Report, folder: Path, streams: int) -> None:
    """A row to each array of every stream, and a checkpoint; then once more with all writers open."""
    folder.mkdir()
    samples = np.zeros((1, 64), np.float32)
    with ExitStack() as opened:
        store = opened.enter_context(open_store("local:", folder))
        checkpoints = SqlCheckpointDatabase(folder / "checkpoints.sqlite")
        opened.callback(checkpoints.close)
        writers: dict[str, tuple[StreamWriter, list[ArrayWriter]]] = {}

        def round_() -> None:
            for number in range(streams):
                name = f"bench.{number}"
                if name not in writers:
                    writers[name] = _open(store, name, checkpoints.database_id, opened)
                stream, arrays = writers[name]
                stream.append(samples.data, arrived_ns=1, chunk_id=b"0123456789abcdef", events=1)
                for array in arrays:
                    array.append(samples, np.zeros(1, np.int64))
            _checkpoint(store, checkpoints, writers)

        cold_s, warm_s = timed(round_), statistics.median(timed(round_) for _ in range(3))
        what = f"a row to 3 arrays of {streams} streams and a checkpoint"
        report.add(f"{what}, cold", cold_s, "s")
        report.add(f"{what}, warm", warm_s, "s")
        report.add(f"{what}: memory", _resident_bytes() / 1e6, "MB")
        inodes = sum(len(folders) + len(names) for _, folders, names in os.walk(folder))
        report.add(f"{what}: inodes", inodes, "")


def _open(
    store: StoreEngine, name: str, database_id: bytes, opened: ExitStack
) -> tuple[StreamWriter, list[ArrayWriter]]:
    stream = opened.enter_context(store.stream_writer(name, attrs={"tag": name}))
    stream.resume(None, database_id=database_id)
    arrays = []
    for output in OUTPUTS:
        dtype = np.dtype(np.float32)
        array = store.array_writer(f"{name}:{output}", dtype=dtype, row_shape=(64,), attrs={})
        arrays.append(opened.enter_context(array).resume(None, database_id=database_id))
    return stream, arrays


def _checkpoint(
    store: StoreEngine,
    checkpoints: SqlCheckpointDatabase,
    writers: dict[str, tuple[StreamWriter, list[ArrayWriter]]],
) -> None:
    store.sync()
    streams = {
        name: StreamCheckpoint(outputs={each.reference: each.found for each in (stream, *arrays)})
        for name, (stream, arrays) in writers.items()
    }
    checkpoints.commit(positions={("bench", 0): 1}, streams=streams, chunk_keys={}, window=1)
    for stream, arrays in writers.values():
        for each in (stream, *arrays):
            each.mark_committed(each.found)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _in_turn(names: list[str], repetition: int) -> list[str]:
    start = repetition % len(names)
    return names[start:] + names[:start]


def _pairs(
    pair: tuple[Callable[[], object], Callable[[], object]], repetitions: int
) -> list[tuple[float, float]]:
    durations = []
    for repetition in range(repetitions + 1):
        if repetition % 2:
            mine, theirs = timed(pair[0]), timed(pair[1])
        else:
            theirs, mine = timed(pair[1]), timed(pair[0])
        if repetition:  # the first one maps the pages of both
            durations.append((mine, theirs))
    return durations


def _compare(report: Report, name: str, times: dict[str, list[float]], peer: str) -> None:
    """Add a figure from the seconds for a byte."""
    ours, theirs = times[Windvane.name], times[peer]
    ratio = statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
    rate, peer_rate = (1e-6 / statistics.median(each) for each in (ours, theirs))
    report.add(name, rate, "MB/s", f"{peer}, {peer_rate:,.4g} MB/s", ratio)


if __name__ == "__main__":
    main()
