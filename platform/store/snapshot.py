"""The lengths of a stream and its arrays that belong together: those of one checkpoint."""

from msgspec import Struct

from ..errors import StreamNotFound
from .databases.checkpoint_records import StreamCheckpoint


class ArrayLength(Struct, frozen=True):
    """The rows of a data array; `uid` tells two arrays apart that had the same reference."""

    reference: str
    uid: str
    rows: int


class SnapshotLengths(Struct, frozen=True):
    """One state of a stream: `size` in bytes, its chunks, and its arrays in the order of their references."""

    reference: str
    uid: str
    size: int
    chunks: int
    arrays: list[ArrayLength]


def snapshot_lengths(reference: str, committed: StreamCheckpoint | None) -> SnapshotLengths:
    """The lengths at a checkpoint. Raises StreamNotFound if it has none."""
    outputs = {} if committed is None else dict(committed.outputs)
    stream = outputs.pop(reference, None)
    if stream is None:
        raise StreamNotFound(
            f"{reference} has no checkpoint yet; a worker makes it a few seconds after its first chunk"
        )
    arrays = [ArrayLength(name, each.uid.hex(), each.length) for name, each in sorted(outputs.items())]
    return SnapshotLengths(reference, stream.uid.hex(), stream.length, stream.chunks, arrays)
