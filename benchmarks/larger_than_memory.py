"""A mean spectrum of an array larger than memory, by two processes of Dask with a memory limit each.

The array has 10 GB of rows, of which few are not zero (the others are holes of the files). Each process is
in a cgroup of its own, whose limit the kernel enforces: the run fails if one is killed, or if the mean is
wrong. Needs the rights to make cgroups.

    python benchmarks/larger_than_memory.py [--gigabytes 10] [--limit-mib 768] [--json FILE]
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dask.array
import numpy as np
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from windvane.store.files.head import Head
from windvane.store.files.segmented_file import SegmentedFile
from windvane.store.files.store import Store

from benchmarks.report import Report, arguments

BINS = 1025
RATE_HZ = 50.0
"""Rows per second: segments of 64 MiB."""
PROCESSES = 2
START_S = 60.0
ARRAY = "bench:spectrum"


def main() -> None:
    """Make the array, start the processes, compute, and print the table."""
    parser = arguments((__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of rows (default: 10)")
    parser.add_argument("--limit-mib", type=int, default=768, help="memory of each process (default: 768)")
    options = parser.parse_args()
    limit_bytes = options.limit_mib * 1024 * 1024
    report = Report(
        f"Mean spectrum of {options.gigabytes:g} GB, {PROCESSES} processes of {options.limit_mib} MiB"
    )
    with tempfile.TemporaryDirectory() as folder:
        path, expected = sparse_array(Path(folder), int(options.gigabytes * 1e9))
        with (
            LocalCluster(n_workers=0, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
            Client(cluster) as client,  # type: ignore[no-untyped-call]
            workers(cluster.scheduler_address, limit_bytes) as groups,
        ):
            client.wait_for_workers(PROCESSES, timeout=START_S)
            began_s = time.perf_counter()
            rows = dask.array.from_zarr(str(path))  # type: ignore[no-untyped-call]
            mean = rows.mean(axis=0).compute()
            took_s = time.perf_counter() - began_s
            peaks = [group.peak_bytes() for group in groups]
    if not np.allclose(mean, expected, rtol=1e-5):
        raise SystemExit("the mean is wrong")
    against = f"the limit, {limit_bytes / 1e9:.2f} GB"
    report.add("peak memory of a process", max(peaks) / 1e9, "GB", against, limit_bytes / max(peaks))
    report.add("rate", options.gigabytes / took_s, "GB/s")
    report.finish(options.json)


def sparse_array(folder: Path, size_bytes: int) -> tuple[Path, NDArray[np.float64]]:
    """Make the array; return the path for Zarr, and the mean of its rows."""
    store = Store(folder / "store")
    with store.array_writer(
        ARRAY, dtype=np.dtype("<f4"), row_shape=(BINS,), attrs={"kind": "spectra"}, rate_hz=RATE_HZ
    ).resume(None, database_id=b"") as writer:
        row = np.arange(BINS, dtype="<f4")[np.newaxis]
        writer.append(row, np.zeros(1, np.int64))
        store.sync()
        writer.mark_committed(writer.snapshot())
    directory = store.array_directory(ARRAY)
    rows = extend(directory / "rows", size_bytes, BINS * 4)
    extend(directory / "times", rows * 8, 8)
    with store.array(ARRAY) as array:
        sealed = array.seal(zarr_root=store.root)
        assert sealed == len(array) == rows
        assert array.zarr_path is not None
        return array.zarr_path, np.arange(BINS) / rows


def extend(directory: Path, size_bytes: int, item_bytes: int) -> int:
    """Make a segmented file longer by holes, to at least `size_bytes` in whole segments; count its items."""
    with SegmentedFile(directory) as file:
        length = -(-size_bytes // item_bytes) * item_bytes
        for segment in range(0, length, file.segment_bytes):
            path = directory / file.names.name(segment)
            path.touch()
            os.truncate(path, file.segment_bytes)
    descriptor = os.open(directory / "head", os.O_RDWR)
    head = Head(descriptor, directory / "head", writeable=True)
    os.close(descriptor)
    head.length = head.committed = length
    head.close()
    return length // item_bytes


class MemoryGroup:
    """A cgroup with a memory limit, of version 1 or 2."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        """Raises OSError if this process may not make one."""
        root = Path("/sys/fs/cgroup")
        self._is_second = (root / "cgroup.controllers").exists()
        self.path = (root if self._is_second else root / "memory") / f"{name}-{os.getpid()}"
        self.path.mkdir()
        limit = "memory.max" if self._is_second else "memory.limit_in_bytes"
        (self.path / limit).write_text(str(limit_bytes))

    def peak_bytes(self) -> int:
        """The most that its processes had, with the page cache."""
        name = "memory.peak" if self._is_second else "memory.max_usage_in_bytes"
        return int((self.path / name).read_text())


@contextmanager
def workers(scheduler: str, limit_bytes: int) -> Iterator[list[MemoryGroup]]:
    """Processes of Dask, each in a cgroup of its own."""
    groups, processes = [], []
    try:
        for number in range(PROCESSES):
            group = MemoryGroup(f"windvane-dask-{number}", limit_bytes)
            groups.append(group)
            script = (
                f'echo $$ > {group.path}/cgroup.procs && exec "$0" -m distributed.cli.dask_worker '
                f"{scheduler} --no-nanny --nthreads 1 --memory-limit {limit_bytes} --no-dashboard"
            )
            processes.append(
                subprocess.Popen(["sh", "-c", script, sys.executable], stderr=subprocess.DEVNULL)
            )
        yield groups
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for group in groups:
            with suppress(OSError):
                group.path.rmdir()


if __name__ == "__main__":
    main()
