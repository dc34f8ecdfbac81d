"""The peers of benchmarks/store.py: each appends rows with their times, then opens and reads all rows."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from windvane.store.interface import open_store

Row = NDArray[np.float32]

CHUNK_BYTES = 256 * 1024
"""Of the peers that have chunks: at least one row, and not more than is written at a time where each is."""


class Rows(ABC):
    """An array of float32 rows that grows, and its times."""

    name: ClassVar[str]
    rows_divisor: ClassVar[int] = 1
    """A slow peer gets that many times fewer rows; figures are bytes a second."""

    def __init__(self, folder: Path, row_bytes: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.columns = row_bytes // 4
        self.rows_per_chunk = max(1, CHUNK_BYTES // row_bytes)

    @abstractmethod
    def append(self, row: Row, time_ns: int) -> None:
        """Append one row, shape (1, columns); readers see it."""

    @abstractmethod
    def commit(self) -> None:
        """Make what was appended durable."""

    @abstractmethod
    def read(self, buffer: Row) -> None:
        """Open the finished array, so that no cache of the writer has it, and read all rows."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    @abstractmethod
    def finish(self) -> None:
        """What a peer does after the last append so that readers see it."""


class Windvane(Rows):
    """A data array."""

    name = "Windvane"
    array = "bench:rows"

    def __init__(self, folder: Path, row_bytes: int) -> None:
        super().__init__(folder, row_bytes)
        self.store = open_store("local:", folder)
        self.writer = self.store.array_writer(
            self.array, dtype=np.dtype(np.float32), row_shape=(self.columns,), attrs={}
        ).resume(None, database_id=b"")
        self._time = np.zeros(1, np.int64)

    def append(self, row: Row, time_ns: int) -> None:
        self._time[0] = time_ns
        self.writer.append(row, self._time)

    def finish(self) -> None:
        pass

    def commit(self) -> None:
        self.writer.flush()

    def read(self, buffer: Row) -> None:
        with self.store.array(self.array) as array:
            np.copyto(buffer, array[:])

    def close(self) -> None:
        self.writer.close()
        self.store.close()


class Bare(Rows):
    """Two files, one for rows and one for times."""

    name = "bare os.write"

    def __init__(self, folder: Path, row_bytes: int) -> None:
        super().__init__(folder, row_bytes)
        flags = os.O_CREAT | os.O_RDWR
        self._rows, self._times = os.open(folder / "rows", flags), os.open(folder / "times", flags)
        self._time = np.zeros(1, np.int64)

    def append(self, row: Row, time_ns: int) -> None:
        self._time[0] = time_ns
        os.write(self._rows, row.data)
        os.write(self._times, self._time.data)

    def finish(self) -> None:
        pass

    def commit(self) -> None:
        os.fdatasync(self._times)
        os.fdatasync(self._rows)

    def read(self, buffer: Row) -> None:
        descriptor = os.open(self.folder / "rows", os.O_RDONLY)
        os.preadv(descriptor, [buffer.data], 0)
        os.close(descriptor)

    def close(self) -> None:
        os.close(self._rows)
        os.close(self._times)


class H5pySwmr(Rows):
    """HDF5 with single writer, multiple readers: readers see a row when its dataset was flushed."""

    name = "h5py SWMR"

    def __init__(self, folder: Path, row_bytes: int) -> None:
        super().__init__(folder, row_bytes)
        self._file = _peer("h5py").File(folder / "rows.h5", "w", libver="latest")
        self._rows = self._file.create_dataset(
            "rows", (0, self.columns), "<f4", maxshape=(None, self.columns), chunks=self._chunk()
        )
        self._times = self._file.create_dataset("times", (0,), "<i8", maxshape=(None,), chunks=(4096,))
        self._file.swmr_mode = True
        self._count = 0

    def _chunk(self) -> tuple[int, int]:
        return self.rows_per_chunk, self.columns

    def append(self, row: Row, time_ns: int) -> None:
        count = self._count + 1
        self._times.resize((count,))
        self._times[count - 1] = time_ns
        self._rows.resize((count, self.columns))
        self._rows[count - 1 : count] = row
        self._count = count

    def finish(self) -> None:
        self._times.flush()
        self._rows.flush()

    def commit(self) -> None:
        self.finish()
        os.fsync(self._file.id.get_vfd_handle())

    def read(self, buffer: Row) -> None:
        self._file.close()
        self._file = _peer("h5py").File(self.folder / "rows.h5", "r", swmr=True)
        self._file["rows"].read_direct(buffer)

    def close(self) -> None:
        self._file.close()


class Zarr(Rows):
    """zarr-python, without compression."""

    name = "zarr-python"
    rows_divisor = 10

    def __init__(self, folder: Path, row_bytes: int) -> None:
        super().__init__(folder, row_bytes)
        self._begin(str(folder / "rows.zarr"))

    def _finished(self) -> Any:
        return str(self.folder / "rows.zarr")

    def _begin(self, store: Any) -> None:
        group = _peer("zarr").create_group(store)
        chunk = self.rows_per_chunk, self.columns
        self._rows = group.create_array(
            "rows", shape=(0, self.columns), chunks=chunk, dtype="<f4", compressors=None
        )
        self._times = group.create_array("times", shape=(0,), chunks=(4096,), dtype="<i8", compressors=None)
        self._count = 0

    def append(self, row: Row, time_ns: int) -> None:
        count = self._count + 1
        self._times.resize((count,))
        self._times[count - 1] = time_ns
        self._rows.resize((count, self.columns))
        self._rows[count - 1 : count] = row
        self._count = count

    def finish(self) -> None:
        pass

    def commit(self) -> None:
        raise NotImplementedError("zarr-python does not sync")

    def read(self, buffer: Row) -> None:
        buffer[:] = _peer("zarr").open_group(self._finished(), mode="r")["rows"][:]

    def close(self) -> None:
        pass


class Icechunk(Zarr):
    """zarr-python over icechunk: one transaction for all rows, committed at the end."""

    name = "icechunk"

    def _begin(self, store: Any) -> None:
        os.environ.setdefault("ICECHUNK_LOG", "error")  # it warns of concurrent commits, which there are not
        icechunk = _peer("icechunk")
        storage = icechunk.local_filesystem_storage(str(self.folder / "repository"))
        self._repository = icechunk.Repository.create(storage)
        self._session = self._repository.writable_session("main")
        super()._begin(self._session.store)

    def _finished(self) -> Any:
        return self._repository.readonly_session("main").store

    def finish(self) -> None:
        self._session.commit("rows")


PEERS: Mapping[str, type[Rows]] = {each.name: each for each in (Windvane, Bare, H5pySwmr, Zarr, Icechunk)}


def _peer(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise SystemExit(f"{module} is missing: pip install '.[benchmark]'") from None
