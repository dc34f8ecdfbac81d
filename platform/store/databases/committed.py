"""Reads the last checkpoint of a stream, for a process that does not write it."""

from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from .checkpoint_records import StreamCheckpoint, decode_checkpoint
from .checkpoint_schema import SCHEMA, streams
from .database import Place, open_reader


def committed_checkpoint(place: Place, reference: str) -> StreamCheckpoint | None:
    """The checkpoint of the stream without its held chunks; None if it has none. Changes nothing.

    A database file that does not exist has none: no worker has run. Raises StoreFailed if it cannot be read.
    """
    if isinstance(place, Path) and not place.exists():
        return None
    chosen = sa.select(streams.c.checkpoint).where(streams.c.reference == reference)
    with (
        closing(open_reader(place, SCHEMA)) as database,
        database.reading(f"read the checkpoint of {reference}") as connection,
    ):
        row = connection.scalar(chosen)
    return None if row is None else decode_checkpoint(row)
