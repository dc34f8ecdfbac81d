"""A store, and the interface that a package implements to add an engine.

A package registers its engine under the scheme of its URLs, as Windvane does for its own (pyproject.toml):

    [project.entry-points."windvane.stores"]
    memory = "windvane_memory_store:MemoryStore"
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from ...engine_addresses import EngineAddress
from ...errors import ArrayNotSealable
from .closing import Closing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from .listing import Listing
    from .pyramids import PyramidWriter
    from .readers import ArrayReader, StreamReader
    from .writers import ArrayWriter, StreamWriter

REBUILT = "~rebuilt"
"""Ends the reference of an array that is being recomputed next to the one without this suffix."""


class StoreAddress(EngineAddress, frozen=True):
    """The address of a store: its URL, and the home directory of the installation.

    `segment_bytes` is the wanted size of the segments of new outputs; None lets the engine choose.
    """

    kind: ClassVar[str] = "store"

    segment_bytes: int | None = None


class ReplacedArray(Protocol):
    """An array that was set aside because another one has taken its reference."""

    @property
    def name(self) -> str:
        """The output that it was, without `~1`."""

    @property
    def replaced_ns(self) -> int:
        """When, in ns since the epoch, UTC."""

    @property
    def by(self) -> str | None:
        """`reprocess`, or `layout` for a change of dtype, shape or attrs; None if that was not recorded."""


class StoreEngine(Closing):
    """A store: data streams and data arrays by reference. Thread-safe; each writer belongs to one thread.

    A stream's reference is any text without `:`; an array's is `stream:output`, with an output of 1 to 240
    bytes. Other references raise ValueError. Several processes may read and write a store at once.
    """

    mappable: ClassVar[bool]
    """Whether arrays are views on mapped files: without a copy, and as cheap as the pages that are read."""

    @classmethod
    @abstractmethod
    def open(cls, address: StoreAddress) -> Self:
        """Open the store at this address, or make it. Raises ConfigInvalid and StoreFailed."""

    @property
    @abstractmethod
    def address(self) -> StoreAddress:
        """Opens the same store in another process."""

    @abstractmethod
    def streams(self) -> list[str]:
        """The references of all data streams, sorted. A stream exists since its first `resume`."""

    @abstractmethod
    def arrays(self, stream: str | None = None) -> list[str]:
        """The references of all data arrays, or of those of one stream, sorted; also of replaced ones."""

    @abstractmethod
    def listing(self) -> Listing:
        """The same by pages; keep it, since it may cache what it has read."""

    @abstractmethod
    def stream(self, reference: str) -> StreamReader:
        """Open a data stream for reading. Raises StreamNotFound."""

    @abstractmethod
    def array(self, reference: str) -> ArrayReader:
        """Open a data array for reading. Raises ArrayNotFound."""

    @abstractmethod
    def stream_writer(self, reference: str, *, attrs: Mapping[str, Any]) -> StreamWriter:
        """Open a data stream for appending, or make it; resume it before use. New `attrs` replace the others.

        Raises StoreLocked while another writer has it, in this process or in another, StreamDamaged, and
        ValueError for attrs that are not JSON (as NaN is not).
        """

    @abstractmethod
    def array_writer(
        self,
        reference: str,
        *,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        attrs: Mapping[str, Any],
        rate_hz: float = 0.0,
    ) -> ArrayWriter:
        """Open a data array for appending, or make it; resume it before use.

        `rate_hz` is the expected number of rows per second, 0.0 if it is unknown; it has no effect on the
        content. Raises as `stream_writer`, and ValueError for a dtype with Python objects, without a fixed
        size or with a shape of its own, and for a row shape with extents below 1.
        """

    def pyramid_writer(
        self, array: ArrayReader, *, committed_rows: int, complete: Sequence[int] = ()
    ) -> PyramidWriter | None:
        """Open the pyramid of an array of this store, or create it; None if the array cannot have one.

        `committed_rows` of the array are covered by a checkpoint. `complete` has the `lengths` of an earlier
        writer of this process: cells that are kept though they are not known to be durable.

        Raises StoreLocked while another writer has it.
        """
        return None

    @abstractmethod
    def sync(self) -> None:
        """Make durable all that was appended, cut or made in this store by this process.

        Raises StoreFailed or DiskFull if that is not certain, and from then on: reopen the store, and resume
        its outputs at their last checkpoint.
        """

    @abstractmethod
    def array_uid(self, reference: str) -> bytes | None:
        """The uid of an array, None if there is none of that reference."""

    @abstractmethod
    def array_bytes(self, reference: str) -> int:
        """The bytes of storage that an array takes, 0 if there is none of that reference."""

    @abstractmethod
    def is_rebuilt(self, reference: str, uid: bytes) -> bool:
        """Whether `reference~rebuilt` is the array of this uid."""

    @abstractmethod
    def put_rebuilt_in_place(self, reference: str, uid: bytes) -> None:
        """Rename the array `reference~rebuilt` to `reference` if it has this uid; else do nothing.

        The array that has the name is set aside (`~1`, …). The caller must have the writer of the stream.
        """

    @abstractmethod
    def replaced(self, stream: str | None = None) -> Mapping[str, ReplacedArray]:
        """The arrays that were set aside, by reference: all, or those of one stream."""

    @abstractmethod
    def drop_superseded(self, reference: str) -> list[str]:
        """Drop the replaced arrays of `reference` but the latest of each cause; return their references.

        The caller must have the writer of the stream, and must have made the latest one durable (`sync`).
        """

    @abstractmethod
    def drop_array(self, reference: str) -> None:
        """Drop an array, its rows and times. Raises ArrayNotFound, StoreLocked while it is being written."""

    def seal(self, reference: str) -> int:
        """Show all committed rows of an array to other programs, at `zarr_path`; return their number.

        The worker may be writing the array. Raises ArrayNotFound, and ArrayNotSealable for an array that
        other programs cannot read, or of which nothing is committed.
        """
        raise ArrayNotSealable(f"the store of {reference} has no files that other programs can read")

    @abstractmethod
    def close(self) -> None:
        """Close the store; streams and arrays that were opened stay open. Closing twice is allowed."""
