"""Rewinds checkpoints: one stream is rebuilt from the bus, and nothing else is stored twice."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec

from ..databases.checkpoint_records import Partition, StreamCheckpoint, StreamPosition
from ..databases.stream_order import forget_order

BEGINNING = -1
"""The position of the first message that a log still has."""

_encode = msgspec.msgpack.Encoder(enc_hook=dict).encode
_decode = msgspec.msgpack.Decoder(StreamCheckpoint).decode


def rewind_stream(path: Path, reference: str, partitions: Sequence[Partition]) -> None:
    """Drop the stream's checkpoint, and rewind these partitions to their beginning; no worker may run.

    In one transaction: every other stream gets the former position of each partition as its own, below which
    it skips messages; the chunk IDs of the stream are dropped, and those without a stream.
    """
    with closing(sqlite3.connect(path, timeout=30.0)) as database, database:
        database.execute("PRAGMA synchronous = FULL")
        former = [
            StreamPosition(log, topic, number, next_offset)
            for topic, number in partitions
            for log, next_offset in database.execute(
                "SELECT log, next_offset FROM positions"
                " WHERE topic = ? AND partition = ? AND next_offset IS NOT NULL",
                (topic, number),
            )
        ]
        for other, row in database.execute(
            "SELECT reference, checkpoint FROM streams WHERE reference != ?", (reference,)
        ).fetchall():
            checkpoint = _decode(row)
            known = {position[:3] for position in checkpoint.positions}
            added = tuple(position for position in former if position[:3] not in known)
            if added:
                marked = replace(checkpoint, positions=(*checkpoint.positions, *added))
                database.execute(
                    "UPDATE streams SET checkpoint = ? WHERE reference = ?", (_encode(marked), other)
                )
        database.execute("DELETE FROM streams WHERE reference = ?", (reference,))
        forget_order(database, reference)
        for topic, number in partitions:
            database.execute(
                "UPDATE positions SET next_offset = ? WHERE topic = ? AND partition = ?"
                " AND next_offset IS NOT NULL",
                (BEGINNING, topic, number),
            )
            database.execute(
                "DELETE FROM chunk_keys WHERE topic = ? AND partition = ? AND reference IN (?, '')",
                (topic, number, reference),
            )
