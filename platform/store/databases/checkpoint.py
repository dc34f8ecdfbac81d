"""Checkpoints: positions on the bus, states of operations and lengths of outputs, in one transaction.

On start the worker cuts every output back to the length that is recorded here, restores the states of the
operations and reads the bus from the positions. Operations are deterministic, so they write the same rows.
This is exactly-once only if all data of a stream is of the same moment: so a stream is one row, and a
checkpoint is one transaction of the database.

Streams do not wait for each other, so each keeps its own positions: which messages of a partition are part of
it. The position of a partition is the lowest of its streams; a stream skips what it has seen when it is read
again.

A position belongs to one log. The same topic may be a new log (the topic was deleted and created again, the
bus was changed from embedded to Kafka); its offsets then mean nothing for the old one. So the identity of the
log is part of the key of a position.

Several workers may share the database. Each partition has an epoch, which rises whenever a worker takes the
partition; a commit names the epochs that its worker was given, and is rejected if one has risen since.
So a worker that was stopped for a while changes nothing that others own now.

Chunks that a stream holds back to put them in order are part of the stream, and of its checkpoint
(`stream_order.py`).
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import sqlalchemy as sa

from . import checkpoint_schema as tables
from .checkpoint_records import (
    AT_BEGINNING,
    UNKNOWN_LOG,
    Hole,
    Partition,
    StreamCheckpoint,
    Taken,
    decode_checkpoint,
    encode_checkpoint,
)
from .chunk_key_rows import add_chunk_keys, chunk_keys_of, of_partition
from .database import Place, open_database
from .interfaces import CheckpointDatabase
from .partition_rows import check_epochs, owner_of, take_partition
from .rewinding import rewind_stream
from .stream_order import HeldChunk, OrderFigures, StreamOrder, figures_of
from .stream_order_rows import (
    figures_of_streams,
    held_chunk_ids,
    held_offsets,
    read_figures,
    read_held,
    write_held,
)

FORMER_KEYS_S = 86_400.0
"""How long chunk keys without a stream, from before version 4, are kept after the upgrade."""


_CHECKPOINT = sa.select(tables.streams.c.checkpoint).where(
    tables.streams.c.reference == sa.bindparam("stream")
)
_PUT_OUT = sa.insert(tables.outbox)
_TAKE_OUT = sa.delete(tables.outbox).where(tables.outbox.c.number == sa.bindparam("at"))


class SqlCheckpointDatabase(CheckpointDatabase):
    """Checkpoints in SQLite or PostgreSQL: a stream is one row, its states and outputs as msgpack."""

    def __init__(self, place: Place) -> None:
        """Open or create the database. Raises StoreFailed."""
        self._database = open_database(place, tables.SCHEMA)
        with self._database.reading("read its identity") as connection:
            self.database_id = connection.execute(sa.select(tables.identity.c.database_id)).scalar_one()
        put = self._database.insert(tables.positions)
        self._put_position = put.on_conflict_do_update(
            index_elements=["topic", "partition", "log"],
            set_={"next_offset": put.excluded.next_offset, "taken": put.excluded.taken},
        )
        put = self._database.insert(tables.streams)
        self._put_stream = put.on_conflict_do_update(
            index_elements=["reference"], set_={"checkpoint": put.excluded.checkpoint}
        )

    def positions(self) -> dict[Partition, int]:
        """See `CheckpointDatabase`."""
        columns = sa.select(
            tables.positions.c.topic, tables.positions.c.partition, tables.positions.c.next_offset
        )
        with self._database.reading("read the positions") as connection:
            rows = connection.execute(
                columns.where(tables.positions.c.next_offset >= 0).order_by(tables.positions.c.taken)
            ).all()
        return {(topic, partition): next_offset for topic, partition, next_offset in rows}

    def logs(self) -> dict[str, dict[Partition, int]]:
        """See `CheckpointDatabase`."""
        with self._database.reading("read the positions") as connection:
            rows = connection.execute(
                sa.select(tables.positions).where(tables.positions.c.next_offset >= 0)
            ).all()
        logs: dict[str, dict[Partition, int]] = {}
        for row in rows:
            logs.setdefault(row.log, {})[row.topic, row.partition] = row.next_offset
        return logs

    def streams(self) -> list[str]:
        """See `CheckpointDatabase`."""
        with self._database.reading("list the streams") as connection:
            return list(
                connection.scalars(sa.select(tables.streams.c.reference).order_by(tables.streams.c.reference))
            )

    def stream(self, reference: str) -> StreamCheckpoint | None:
        """See `CheckpointDatabase`."""
        with self._database.reading(f"read the checkpoint of {reference}") as connection:
            row = connection.scalar(_CHECKPOINT, {"stream": reference})
            if row is None:
                held = read_held(connection, reference)
                return _of_held(held) if held else None
            checkpoint = decode_checkpoint(row)
            if checkpoint.order is None or not checkpoint.order.next_sequence:
                return checkpoint
            return replace(checkpoint, held=read_held(connection, reference))

    def holds_chunks(self, reference: str) -> bool:
        """See `CheckpointDatabase`."""
        one = (
            sa.select(tables.held_chunks.c.sequence)
            .where(tables.held_chunks.c.reference == reference)
            .limit(1)
        )
        with self._database.reading(f"read what {reference} holds") as connection:
            return connection.scalar(one) is not None

    def held_chunk_ids(self, reference: str) -> list[bytes]:
        """See `CheckpointDatabase`."""
        with self._database.reading(f"read what {reference} holds") as connection:
            return held_chunk_ids(connection, reference)

    def orders(self, partitions: Iterable[Partition]) -> list[OrderFigures]:
        """See `CheckpointDatabase`."""
        with self._database.reading("read which streams hold chunks") as connection:
            return list(read_figures(connection, partitions))

    def figures(self, references: Sequence[str]) -> dict[str, OrderFigures]:
        """See `CheckpointDatabase`."""
        with self._database.reading("read the figures of streams") as connection:
            return figures_of_streams(connection, references)

    def held_suspects(self, log: str, partition: Partition) -> dict[int, str]:
        """See `CheckpointDatabase`."""
        with self._database.reading("read which messages ended workers") as connection:
            return held_offsets(connection, log, partition)

    def chunk_keys(self, topic: str, partition: int) -> list[bytes]:
        """See `CheckpointDatabase`."""
        with self._database.reading(f"read the chunk keys of {topic}/{partition}") as connection:
            return chunk_keys_of(connection, (topic, partition))

    def keys_elsewhere(self, reference: str, partition: Partition) -> list[bytes]:
        """See `CheckpointDatabase`."""
        by_this_partition = sa.and_(*of_partition(tables.chunk_keys, partition))
        keys = sa.select(tables.chunk_keys.c.key).where(
            tables.chunk_keys.c.reference == reference, ~by_this_partition
        )
        with self._database.reading(f"read the chunk keys of {reference}") as connection:
            return list(connection.scalars(keys))

    def take(
        self, partitions: Iterable[Partition], *, owner: str, logs: Mapping[str, str] = MappingProxyType({})
    ) -> dict[Partition, Taken]:
        """See `CheckpointDatabase`."""
        with self._database.transaction("take partitions") as connection:
            self._database.lock(connection)
            is_old = connection.execute(sa.select(tables.identity.c.upgraded_s)).scalar_one() < (
                time.time() - FORMER_KEYS_S
            )
            if is_old:
                connection.execute(sa.delete(tables.chunk_keys).where(tables.chunk_keys.c.reference == ""))
            # In the order in which commits lock them: neither waits for the other.
            wanted = [(partition, logs.get(partition[0], UNKNOWN_LOG)) for partition in sorted(partitions)]
            # Before any is taken: all partitions of a topic that was never read are new together.
            read_before = {
                topic: frozenset(
                    connection.scalars(
                        sa.select(tables.positions.c.partition).where(
                            tables.positions.c.topic == topic,
                            tables.positions.c.log == log,
                            tables.positions.c.next_offset.is_not(None),
                        )
                    )
                )
                for (topic, _), log in wanted
            }
            return {
                partition: take_partition(
                    self._database, connection, partition, owner, log, read_before[partition[0]]
                )
                for partition, log in wanted
            }

    def open_added(self, log: str, partition: Partition) -> None:
        """See `CheckpointDatabase`."""
        waiting = (tables.positions.c.log == log, tables.positions.c.next_offset.is_(None))
        with self._database.transaction("open an added partition") as connection:
            connection.execute(
                sa.update(tables.positions)
                .where(*of_partition(tables.positions, partition), *waiting)
                .values(next_offset=AT_BEGINNING)
            )

    def owner(self, partition: Partition) -> str | None:
        """See `CheckpointDatabase`."""
        with self._database.reading("read who has a partition") as connection:
            return owner_of(connection, partition)

    def commit(
        self,
        *,
        positions: Mapping[Partition, int],
        streams: Mapping[str, StreamCheckpoint],
        chunk_keys: Mapping[Partition, Sequence[tuple[str, bytes]]],
        window: int,
        epochs: Mapping[Partition, int] = MappingProxyType({}),
        logs: Mapping[Partition, str] = MappingProxyType({}),
    ) -> None:
        """See `CheckpointDatabase`."""
        if window < 0:
            raise ValueError(f"window must be at least 0 (got {window}): the number of chunk keys")
        # Encoded before the transaction begins: other processes wait only while this one writes.
        stream_rows = [
            {
                "reference": reference,
                "checkpoint": encode_checkpoint(replace(checkpoint, alarms=(), held=())),
            }
            for reference, checkpoint in streams.items()
        ]
        outgoing = [{"message": message} for checkpoint in streams.values() for message in checkpoint.alarms]
        position_rows = [
            {
                "topic": partition[0],
                "partition": partition[1],
                "log": logs.get(partition, UNKNOWN_LOG),
                "next_offset": next_offset,
                "taken": epochs.get(partition, 0),
            }
            for partition, next_offset in positions.items()
        ]
        with self._database.transaction("commit a checkpoint") as connection:
            check_epochs(connection, epochs)
            if position_rows:
                connection.execute(self._put_position, position_rows)
            if stream_rows:
                connection.execute(self._put_stream, stream_rows)
            for reference, checkpoint in streams.items():
                if (order := checkpoint.order) is not None and (order.next_sequence or order.inversions):
                    held = checkpoint.held
                    figures = figures_of(reference, checkpoint.partition, order, len(held))
                    write_held(connection, reference, figures, held)
            if outgoing:
                connection.execute(_PUT_OUT, outgoing)
            for partition, keys in chunk_keys.items():
                add_chunk_keys(connection, partition, keys, window)

    def holes(self, log: str, partition: Partition) -> list[Hole]:
        """See `CheckpointDatabase`."""
        chosen = sa.select(tables.decisions.c.first, tables.decisions.c.resume_at).where(
            *of_partition(tables.decisions, partition), tables.decisions.c.log == log
        )
        with self._database.reading("read which messages were given up") as connection:
            rows = connection.execute(chosen.order_by(tables.decisions.c.resume_at)).all()
        return [Hole(log, *partition, *row) for row in rows]

    def skip(self, hole: Hole) -> None:
        """See `CheckpointDatabase`."""
        chosen = self._database.insert(tables.decisions).values(hole._asdict())
        with self._database.transaction("record which messages are given up") as connection:
            connection.execute(chosen.on_conflict_do_nothing())

    def blame(self, log: str, partition: Partition, offsets: Iterable[int], reason: str) -> None:
        """See `CheckpointDatabase`."""
        topic, number = partition
        rows = [
            {"topic": topic, "partition": number, "log": log, "message": at, "deaths": 1, "reason": reason}
            for at in offsets
        ]
        put = self._database.insert(tables.suspects)
        counted = put.on_conflict_do_update(
            index_elements=["topic", "partition", "log", "message"],
            set_={"deaths": tables.suspects.c.deaths + 1, "reason": put.excluded.reason},
        )
        with self._database.transaction("record which messages ended a worker") as connection:
            if rows:
                connection.execute(counted, rows)

    def suspects(self, log: str, partition: Partition) -> dict[int, tuple[int, str]]:
        """See `CheckpointDatabase`."""
        suspects = tables.suspects
        found = sa.select(suspects.c.message, suspects.c.deaths, suspects.c.reason).where(
            *of_partition(suspects, partition), suspects.c.log == log
        )
        with self._database.reading("read which messages ended workers") as connection:
            rows = connection.execute(found).all()
        return {offset: (deaths, reason) for offset, deaths, reason in rows}

    def outbox(self, *, limit: int = 100) -> list[tuple[int, bytes]]:
        """See `CheckpointDatabase`."""
        oldest = sa.select(tables.outbox.c.number, tables.outbox.c.message).order_by(tables.outbox.c.number)
        with self._database.reading("read the outbox") as connection:
            return [(number, message) for number, message in connection.execute(oldest.limit(limit))]

    def take_out(self, numbers: Iterable[int]) -> None:
        """See `CheckpointDatabase`."""
        arrived = [{"at": number} for number in numbers]
        with self._database.transaction("empty the outbox") as connection:
            if arrived:
                connection.execute(_TAKE_OUT, arrived)

    def rewind(self, reference: str, partitions: Sequence[Partition]) -> None:
        """See `CheckpointDatabase`."""
        with self._database.transaction(f"rewind {reference}") as connection:
            self._database.lock(connection)
            rewind_stream(connection, reference, partitions)

    def close(self) -> None:
        """See `CheckpointDatabase`."""
        self._database.close()


def _of_held(held: Sequence[HeldChunk]) -> StreamCheckpoint:
    last = held[-1]
    return StreamCheckpoint(
        partition=(last.topic, last.partition),
        order=StreamOrder(next_sequence=last.sequence + 1),
        held=tuple(held),
    )
