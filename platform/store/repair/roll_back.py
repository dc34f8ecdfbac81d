"""Cuts the copy of an output back to the checkpoint that was copied with it."""

from ..databases.checkpoint_records import OutputLength
from ..files.store import Store


def roll_back(store: Store, reference: str, length: OutputLength, *, database_id: bytes) -> None:
    """Make a stream or an array end at `length`, which is of its uid.

    Its head may be a later one, which marks more as committed than the checkpoint covers. Raises
    StreamDamaged if something is missing that the checkpoint covers.
    """
    if ":" not in reference:
        with store.stream(reference) as stream:
            attrs = stream.attrs
        with store.stream_writer(reference, attrs=attrs) as writer:
            writer.roll_back(length, database_id=database_id)
        return
    with store.array(reference) as array:
        dtype, row_shape, attrs = array.dtype, array.row_shape, array.attrs
    with store.array_writer(reference, dtype=dtype, row_shape=row_shape, attrs=attrs) as rows:
        rows.roll_back(length, database_id=database_id)
