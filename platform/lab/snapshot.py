"""One consistent state of a data stream and its arrays, at a checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ArrayNotFound, StreamDamaged, StreamNotFound
from ..store.databases.committed import committed_checkpoint
from ..store.databases.database import Place
from ..store.interface import ArrayReader, StoreEngine, StreamReader
from ..store.selection.first_rows import FirstRowsOfArray
from ..store.snapshot import SnapshotLengths, snapshot_lengths
from .array import Array
from .describe import readable_bytes, table

_ATTEMPTS = 10
"""How often the checkpoint is read again if arrays were replaced meanwhile."""


class Snapshot(Mapping[str, Array]):
    """The arrays of a stream, by reference or by name, and its bytes, as they were at one checkpoint.

    The rows were computed from these bytes, and from no others. The lengths stay as they are while the
    platform continues to append; nothing is copied. If retention drops bytes or rows, reading them raises
    RangeGone.

    Attributes:
        reference: of the stream.
        size: bytes of the stream: the offset after the last one.
        chunks: number of chunks that brought them.
    """

    def __init__(
        self, lengths: SnapshotLengths, stream: StreamReader, arrays: Mapping[str, ArrayReader]
    ) -> None:
        self.reference = lengths.reference
        self.size = lengths.size
        self.chunks = lengths.chunks
        self._stream = stream
        self._arrays = {reference: Array(array) for reference, array in arrays.items()}

    @property
    def start(self) -> int:
        """Offset of the first byte kept, now."""
        return self._stream.start

    def read_range(self, offset: int, length: int) -> bytes:
        """The `length` bytes from `offset`; fewer at the end of the snapshot, none past it.

        Raises RangeGone below `start`, ValueError if one of them is negative.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"offset and length must be at least 0 (got {offset} and {length})")
        return self._stream.read(offset, max(0, min(length, self.size - offset)))

    def __getitem__(self, reference: str) -> Array:
        try:
            return self._arrays[reference if ":" in reference else f"{self.reference}:{reference}"]
        except KeyError:
            there = ", ".join(self._arrays) or "none"
            raise ArrayNotFound(
                f"the snapshot of {self.reference} has no array {reference!r}; there is {there}"
            ) from None

    def __contains__(self, reference: object) -> bool:
        return reference in self._arrays or f"{self.reference}:{reference}" in self._arrays

    def get(self, reference: str, /, default: Any = None) -> Any:
        """The array, or `default`."""
        try:
            return self[reference]
        except ArrayNotFound:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        lines = [f"snapshot of {self.reference}: {readable_bytes(self.size)} in {self.chunks:,} chunks"]
        return "\n".join([*lines, *table([array.row_of_table() for array in self._arrays.values()])])


def open_snapshot(store: StoreEngine, checkpoints: Place, reference: str) -> Snapshot:
    """The state of the stream at its last checkpoint.

    Raises StreamNotFound if there is no such stream, or no checkpoint of it, and StreamDamaged if files are
    shorter than the checkpoint says.
    """
    for _ in range(_ATTEMPTS):
        lengths = snapshot_lengths(reference, committed_checkpoint(checkpoints, reference))
        stream = store.stream(reference)
        arrays = {each.reference: _array(store, each.reference, each.uid) for each in lengths.arrays}
        if stream.uid.hex() == lengths.uid and None not in arrays.values():
            break
        stream.close()  # replaced since the checkpoint was read: another one has come, or comes at once
    else:
        raise StreamNotFound(f"the outputs of {reference} are being replaced; try again")
    found: dict[str, ArrayReader] = {}
    for each in lengths.arrays:
        array = arrays[each.reference]
        assert array is not None
        found[each.reference] = FirstRowsOfArray(array, each.rows)
        if len(found[each.reference]) < each.rows:
            raise _shorter(each.reference, f"{each.rows} rows", f"{len(array)}")
    if stream.size < lengths.size:
        raise _shorter(reference, f"{lengths.size} bytes", f"{stream.size}")
    return Snapshot(lengths, stream, found)


def _array(store: StoreEngine, reference: str, uid: str) -> ArrayReader | None:
    try:
        array = store.array(reference)
    except ArrayNotFound:
        return None
    return array if array.uid.hex() == uid else None


def _shorter(reference: str, wanted: str, found: str) -> StreamDamaged:
    return StreamDamaged(
        f"{reference}: the checkpoint says {wanted}, and {found} are there; `windvane verify {reference}` "
        "shows what is damaged"
    )
