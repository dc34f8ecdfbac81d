"""The store: finds and makes the data streams and data arrays below one directory."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...directories import make_directory
from ...errors import ArrayNotFound, DiskFull, StoreFailed, StreamNotFound
from ...records.tag_names import stream_name
from ..interface.engine import REBUILT, StoreAddress, StoreEngine
from ..pyramid.cells import CellLayout
from .data_array import DataArray
from .data_array_writer import DataArrayWriter
from .data_stream import DataStream
from .data_stream_writer import DataStreamWriter
from .description import read_description
from .listing import StoreListing
from .mapping import PAGE_BYTES, round_up
from .names import (
    HASHED,
    HASHED_REFERENCE,
    LONGEST_NAME_BYTES,
    directory_name,
    is_made,
    names_in,
    quote,
    reference_of,
    unquote,
)
from .pyramid_writer import LocalPyramidWriter
from .replaced_arrays import Replaced, drop, replaced, set_aside, size_bytes, superseded
from .segmented_writer import DEFAULT_SEGMENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from ..interface.pyramids import PyramidWriter
    from ..interface.readers import ArrayReader

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syncfs.argtypes = (ctypes.c_int,)


class Store(StoreEngine):
    """The engine `local:`: data streams and data arrays by reference, below the directory HOME/store.

    A stream's reference is any text without `:`; an array's is `stream:output`. Directories:

    - `<stream>/stream/`: the data stream, see `DataStream`;
    - `<stream>/arrays/<output>/`: a data array, see `DataArray`; an array that was set aside, because its
      pipeline has changed, is `<output>~1`, `<output>~2`, …

    Names are the references themselves, in any script; `%`, `/`, control characters and a leading dot are
    written as `%` and two hexadecimal digits. A stream whose name would be too long for the file system is
    named `%-` and the SHA-256 of its reference, which is stored in its file `reference`.

    Several processes may read and write a store at once; a single stream or array has one writer at a time.
    """

    mappable: ClassVar[bool] = True

    def __init__(self, root: Path, *, segment_bytes: int | None = None) -> None:
        """Open the store at `root`, made if absent; `segment_bytes` is for the streams and arrays made
        through it: None for `DEFAULT_SEGMENT_BYTES` in streams and `rows_per_segment` in arrays.

        Raises StoreFailed if the directory cannot be created or opened.
        """
        self.root = root
        self._segment_bytes = segment_bytes
        self._failure: str | None = None
        self._failure_kind: type[StoreFailed] = StoreFailed
        try:
            make_directory(root)
            # Kept open: syncfs reports the errors since the descriptor that it is given was opened.
            self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreFailed(
                f"the store {root} cannot be opened: {error.strerror}; check its path"
            ) from error

    @classmethod
    def open(cls, address: StoreAddress) -> Self:
        """Open HOME/store, or make it. Raises ConfigInvalid, and as the constructor."""
        address.require_no_place()
        address.options()
        return cls(address.home / "store", segment_bytes=address.segment_bytes)

    @property
    def address(self) -> StoreAddress:
        """Opens the same store in another process."""
        return StoreAddress("local:", self.root.parent, self._segment_bytes)

    def listing(self) -> StoreListing:
        """The references by pages."""
        return StoreListing(self.root)

    def streams(self) -> list[str]:
        """Give the references of all data streams, sorted."""
        return sorted(
            reference for reference, directory in self._directories() if is_made(directory / "stream")
        )

    def arrays(self, stream: str | None = None) -> list[str]:
        """Give the references of all data arrays, or of those of one stream, sorted."""
        directories = self._directories() if stream is None else [(stream, self._stream_directory(stream))]
        return sorted(
            f"{reference}:{unquote(name)}"
            for reference, directory in directories
            for name in names_in(directory / "arrays")
            if is_made(directory / "arrays" / name)
        )

    def stream_directories(self) -> dict[str, Path]:
        """The path of each data stream, also of damaged ones; a stream can have arrays and no directory."""
        return {reference: directory / "stream" for reference, directory in sorted(self._directories())}

    def array_directories(self, stream: str) -> dict[str, Path]:
        """The path of each data array of a stream, also of damaged ones, by reference."""
        arrays = self._stream_directory(stream) / "arrays"
        return {f"{stream}:{unquote(name)}": arrays / name for name in sorted(names_in(arrays))}

    def stream(self, reference: str) -> DataStream:
        """Open a data stream for reading. Raises StreamNotFound."""
        try:
            return DataStream(self._stream_directory(reference) / "stream", reference)
        except (FileNotFoundError, ValueError):
            raise StreamNotFound(
                f"there is no data stream {reference!r} in {self.root}; "
                f"{self.advice_on_missing(reference)}`windvane ls streams` shows what there is"
            ) from None

    def array(self, reference: str) -> DataArray:
        """Open a data array for reading. Raises ArrayNotFound."""
        try:
            return DataArray(self.array_directory(reference), reference)
        except (FileNotFoundError, ValueError):
            raise ArrayNotFound(
                f"there is no data array {reference!r} in {self.root}; references are `stream:output`, and "
                f"{self.advice_on_missing(reference)}`windvane ls arrays` shows what there is"
            ) from None

    def advice_on_missing(self, reference: str) -> str:
        r"""Names the stream or array of the tag that reads like `reference`, if it is spelt otherwise here.

        "" if there is none. `\xff` in the text of a tag is spelt `\x5cxff` (`stream_name`).
        """
        stream, colon, output = reference.partition(":")
        spelt = stream_name(stream.encode(errors="surrogateescape"))
        if spelt == stream or not self._stream_directory(spelt).is_dir():
            return ""
        if colon and (not output or not is_made(self.array_directory(spelt + colon + output))):
            return ""
        return f"that of the tag {stream} has the reference '{spelt}{colon}{output}'; "

    def stream_writer(self, reference: str, *, attrs: Mapping[str, Any]) -> DataStreamWriter:
        """Open a data stream for appending, or make it; resume it before use (`DataStreamWriter`)."""
        self._require_working()
        directory = self._stream_directory(reference)
        self._keep_hashed_reference(directory, reference)
        return DataStreamWriter(
            directory / "stream",
            reference,
            attrs=attrs,
            segment_bytes=round_up(self._segment_bytes or DEFAULT_SEGMENT_BYTES, PAGE_BYTES),
        )

    def array_writer(
        self,
        reference: str,
        *,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        attrs: Mapping[str, Any],
        rate_hz: float = 0.0,
    ) -> DataArrayWriter:
        """Open a data array for appending, or make it; resume it before use (`DataArrayWriter`).

        `rate_hz` is the expected number of rows per second, 0.0 if it is unknown.
        """
        self._require_working()
        directory = self.array_directory(reference)
        self._keep_hashed_reference(directory.parent.parent, reference.partition(":")[0])
        return DataArrayWriter(
            directory,
            reference,
            dtype=dtype,
            row_shape=row_shape,
            attrs=attrs,
            rate_hz=rate_hz,
            segment_bytes=self._segment_bytes,
            zarr_root=self.root,
        )

    def pyramid_writer(
        self, array: ArrayReader, *, committed_rows: int, complete: Sequence[int] = ()
    ) -> PyramidWriter | None:
        """Open the pyramid of an array, or create it; None if its rows have no numbers."""
        self._require_working()
        layout = CellLayout.of(array.dtype, array.row_shape)
        if layout is None or not isinstance(array, DataArray):
            return None
        return LocalPyramidWriter(array, layout, committed_rows=committed_rows, complete=complete)

    def put_rebuilt_in_place(self, reference: str, uid: bytes) -> None:
        """Rename the array `reference~rebuilt` to `reference` if it has this uid.

        The array that has the name is set aside (`~1`). If there is none of that uid,
        it has its place already. The caller must have the lock of the stream.
        """
        if self.is_rebuilt(reference, uid):
            directory = self.array_directory(reference)
            set_aside(directory, by="reprocess")
            os.rename(self.array_directory(reference + REBUILT), directory)

    def replaced(self, stream: str | None = None) -> dict[str, Replaced]:
        """Give the arrays that were set aside, by reference: all, or those of one stream."""
        directories = self._directories() if stream is None else [(stream, self._stream_directory(stream))]
        return {
            f"{reference}:{unquote(each.directory.name)}": each
            for reference, directory in sorted(directories)
            for each in replaced(directory / "arrays")
        }

    def drop_superseded(self, reference: str) -> list[str]:
        """Drop the replaced arrays of `reference` that a later one has superseded; return their
        references.

        The caller must have the lock of the stream, and must have made the latest one durable (`sync`).
        """
        directory = self.array_directory(reference)
        stream = reference.partition(":")[0]
        dropped = []
        for each in superseded(directory.parent, directory.name):
            drop(each.directory)
            dropped.append(f"{stream}:{unquote(each.directory.name)}")
        return dropped

    def drop_array(self, reference: str) -> None:
        """Drop an array, its rows and times. Raises ArrayNotFound, StoreLocked while it is being written."""
        self.array(reference).close()
        drop(self.array_directory(reference))

    def is_rebuilt(self, reference: str, uid: bytes) -> bool:
        """Whether `reference~rebuilt` is the array of this uid."""
        return self.array_uid(reference + REBUILT) == uid

    def array_uid(self, reference: str) -> bytes | None:
        """The uid of an array, None if there is none of that reference."""
        found = read_description(self.array_directory(reference))
        return None if found is None else bytes.fromhex(found["uid"])

    def array_bytes(self, reference: str) -> int:
        """The size of an array on disk."""
        return size_bytes(self.array_directory(reference))

    def sync(self) -> None:
        """Make all that was appended, cut or made below `root` durable: one syncfs(2) of its file system.

        Raises StoreFailed if the kernel could not write something since the store was opened, and from then
        on: the state of the disk is unknown then, so reopen the store and cut back to a known
        length.
        """
        self._require_working()
        if _libc.syncfs(self._descriptor):
            code = ctypes.get_errno()
            cause = f"syncing {self.root} failed ({os.strerror(code)}), so this store has stopped"
            if code in (errno.ENOSPC, errno.EDQUOT):
                self._failure_kind = DiskFull
                advice = "Make room on the file system; the worker continues from its last checkpoint"
            else:
                advice = "Check the disk, then restart the worker: it continues from its last checkpoint"
            self._failure = f"{cause}. {advice}"
            raise self._failure_kind(self._failure)

    def seal(self, reference: str) -> int:
        """As `StoreEngine.seal`."""
        with self.array(reference) as array:
            return array.seal(zarr_root=self.root)

    def close(self) -> None:
        """Close the directory; streams and arrays that were opened stay open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()

    def _require_working(self) -> None:
        if self._failure is not None:
            raise self._failure_kind(self._failure)

    def _directories(self) -> list[tuple[str, Path]]:
        found = ((reference_of(self.root / name), self.root / name) for name in names_in(self.root))
        return [(reference, directory) for reference, directory in found if reference is not None]

    def _stream_directory(self, reference: str) -> Path:
        if not reference or ":" in reference:
            raise ValueError(
                f"{reference!r} cannot name a data stream: it must not be empty, nor contain ':'"
            )
        return self.root / directory_name(reference)

    def array_directory(self, reference: str) -> Path:
        """Give the directory that a data array has, or would have. Raises ValueError for no such name."""
        stream, colon, output = reference.partition(":")
        name = quote(output)
        if not colon or not output or len(name.encode()) > LONGEST_NAME_BYTES:
            raise ValueError(
                f"{reference!r} cannot name a data array: it must be `stream:output`, with an output of 1 to "
                f"{LONGEST_NAME_BYTES} bytes"
            )
        return self._stream_directory(stream) / "arrays" / name

    def _keep_hashed_reference(self, directory: Path, reference: str) -> None:
        if not directory.name.startswith(HASHED):
            return
        # After a power failure right after it was made it can be there without its content.
        if reference_of(directory) != reference:
            directory.mkdir(parents=True, exist_ok=True)
            draft = directory / f"{HASHED_REFERENCE}.new"
            draft.write_text(reference, encoding="utf-8")
            os.replace(draft, directory / HASHED_REFERENCE)
