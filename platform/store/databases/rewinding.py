"""Rewinds checkpoints: one stream is rebuilt from the bus, and nothing else is stored twice."""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from .checkpoint_records import (
    AT_BEGINNING,
    Partition,
    StreamPosition,
    decode_checkpoint,
    encode_checkpoint,
)
from .checkpoint_schema import chunk_keys, positions, streams
from .stream_order_rows import forget_order


def rewind_stream(connection: sa.Connection, reference: str, partitions: Sequence[Partition]) -> None:
    """In a transaction: see `CheckpointDatabase.rewind`."""
    former = [
        StreamPosition(log, topic, number, next_offset)
        for topic, number in partitions
        for log, next_offset in connection.execute(
            sa.select(positions.c.log, positions.c.next_offset).where(*_read(topic, number))
        )
    ]
    others = sa.select(streams.c.reference, streams.c.checkpoint).where(streams.c.reference != reference)
    for other, row in connection.execute(others).all():
        checkpoint = decode_checkpoint(row)
        known = {position[:3] for position in checkpoint.positions}
        added = tuple(position for position in former if position[:3] not in known)
        if added:
            marked = replace(checkpoint, positions=(*checkpoint.positions, *added))
            connection.execute(
                sa.update(streams)
                .where(streams.c.reference == other)
                .values(checkpoint=encode_checkpoint(marked))
            )
    connection.execute(sa.delete(streams).where(streams.c.reference == reference))
    forget_order(connection, reference)
    for topic, number in partitions:
        connection.execute(sa.update(positions).where(*_read(topic, number)).values(next_offset=AT_BEGINNING))
        connection.execute(
            sa.delete(chunk_keys).where(
                chunk_keys.c.topic == topic,
                chunk_keys.c.partition == number,
                chunk_keys.c.reference.in_([reference, ""]),
            )
        )


def _read(topic: str, partition: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        positions.c.topic == topic,
        positions.c.partition == partition,
        positions.c.next_offset.is_not(None),
    )
