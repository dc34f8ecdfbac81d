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

from ...errors import PartitionLost
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
from .database import Place, open_database
from .interfaces import CheckpointDatabase
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
            return _chunk_keys(connection, (topic, partition))

    def keys_elsewhere(self, reference: str, partition: Partition) -> list[bytes]:
        """See `CheckpointDatabase`."""
        by_this_partition = sa.and_(*_of(tables.chunk_keys, partition))
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
            wanted = [(partition, logs.get(partition[0], UNKNOWN_LOG)) for partition in partitions]
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
                partition: self._take(connection, partition, owner, log, read_before[partition[0]])
                for partition, log in wanted
            }

    def _take(
        self,
        connection: sa.Connection,
        partition: Partition,
        owner: str,
        log: str,
        read_before: frozenset[int],
    ) -> Taken:
        before = _owner(connection, partition)
        topic, number = partition
        taking = self._database.insert(tables.owners).values(
            topic=topic, partition=number, epoch=1, owner=owner
        )
        epoch = connection.execute(
            taking.on_conflict_do_update(
                index_elements=["topic", "partition"],
                set_={"epoch": tables.owners.c.epoch + 1, "owner": taking.excluded.owner},
            ).returning(tables.owners.c.epoch)
        ).scalar_one()
        logs = sa.select(tables.positions.c.log, tables.positions.c.next_offset).where(
            *_of(tables.positions, partition)
        )
        rows = dict(connection.execute(logs.order_by(tables.positions.c.taken)).all())
        if UNKNOWN_LOG in rows and log not in rows:
            # Committed before logs had identities: what is read first since is taken for the same log.
            connection.execute(
                sa.update(tables.positions)
                .where(*_of(tables.positions, partition), tables.positions.c.log == UNKNOWN_LOG)
                .values(log=log)
            )
            rows[log] = rows.pop(UNKNOWN_LOG)
        position = rows.get(log)
        added_to = read_before - {number} if position is None else frozenset()
        first = self._database.insert(tables.positions).values(
            topic=topic,
            partition=number,
            log=log,
            next_offset=None if added_to else AT_BEGINNING,
            taken=epoch,
        )
        connection.execute(
            first.on_conflict_do_update(
                index_elements=["topic", "partition", "log"], set_={"taken": first.excluded.taken}
            )
        )
        return Taken(
            position=None if position == AT_BEGINNING else position,
            chunk_keys=_chunk_keys(connection, partition),
            epoch=epoch,
            before=before,
            other_logs=[other for other, at in rows.items() if other != log and (at or 0) > 0],
            added_to=added_to,
        )

    def open_added(self, log: str, partition: Partition) -> None:
        """See `CheckpointDatabase`."""
        waiting = (tables.positions.c.log == log, tables.positions.c.next_offset.is_(None))
        with self._database.transaction("open an added partition") as connection:
            connection.execute(
                sa.update(tables.positions)
                .where(*_of(tables.positions, partition), *waiting)
                .values(next_offset=AT_BEGINNING)
            )

    def owner(self, partition: Partition) -> str | None:
        """See `CheckpointDatabase`."""
        with self._database.reading("read who has a partition") as connection:
            return _owner(connection, partition)

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
            _check_epochs(connection, epochs)
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
                _add_keys(connection, partition, keys, window)

    def holes(self, log: str, partition: Partition) -> list[Hole]:
        """See `CheckpointDatabase`."""
        chosen = sa.select(tables.decisions.c.first, tables.decisions.c.resume_at).where(
            *_of(tables.decisions, partition), tables.decisions.c.log == log
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
            *_of(suspects, partition), suspects.c.log == log
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


def _of(table: sa.Table, partition: Partition) -> tuple[sa.ColumnElement[bool], ...]:
    return (table.c.topic == partition[0], table.c.partition == partition[1])


_CHECKPOINT = sa.select(tables.streams.c.checkpoint).where(
    tables.streams.c.reference == sa.bindparam("stream")
)
_PUT_OUT = sa.insert(tables.outbox)
_TAKE_OUT = sa.delete(tables.outbox).where(tables.outbox.c.number == sa.bindparam("at"))
_PUT_KEYS = sa.insert(tables.chunk_keys)
_LAST_KEY = sa.select(sa.func.coalesce(sa.func.max(tables.chunk_keys.c.sequence), 0)).where(
    tables.chunk_keys.c.topic == sa.bindparam("topic"),
    tables.chunk_keys.c.partition == sa.bindparam("partition"),
)
_DROP_KEYS = sa.delete(tables.chunk_keys).where(
    tables.chunk_keys.c.topic == sa.bindparam("of_topic"),
    tables.chunk_keys.c.partition == sa.bindparam("of_partition"),
    tables.chunk_keys.c.sequence <= sa.bindparam("last"),
)


def _add_keys(
    connection: sa.Connection, partition: Partition, keys: Sequence[tuple[str, bytes]], window: int
) -> None:
    topic, number = partition
    last = connection.execute(_LAST_KEY, {"topic": topic, "partition": number}).scalar_one()
    newest = last + len(keys)
    kept = keys[max(0, len(keys) - window) :]
    if kept:
        connection.execute(
            _PUT_KEYS,
            [
                {"topic": topic, "partition": number, "sequence": at, "key": key, "reference": reference}
                for at, (reference, key) in enumerate(kept, newest - len(kept) + 1)
            ],
        )
    connection.execute(_DROP_KEYS, {"of_topic": topic, "of_partition": number, "last": newest - window})


def _chunk_keys(connection: sa.Connection, partition: Partition) -> list[bytes]:
    keys = sa.select(tables.chunk_keys.c.key).where(*_of(tables.chunk_keys, partition))
    return list(connection.scalars(keys.order_by(tables.chunk_keys.c.sequence)))


def _owner(connection: sa.Connection, partition: Partition) -> str | None:
    return connection.scalar(sa.select(tables.owners.c.owner).where(*_of(tables.owners, partition)))


_OWNER = (
    sa.select(tables.owners.c.epoch, tables.owners.c.owner)
    .where(
        tables.owners.c.topic == sa.bindparam("topic"), tables.owners.c.partition == sa.bindparam("partition")
    )
    # Until this transaction has ended no worker takes the partition. SQLite has one writer and needs no lock.
    .with_for_update()
)


def _check_epochs(connection: sa.Connection, epochs: Mapping[Partition, int]) -> None:
    lost: dict[Partition, str] = {}
    # In one order, so that two commits that meet on PostgreSQL cannot wait for each other.
    for partition, epoch in sorted(epochs.items()):
        row = connection.execute(_OWNER, {"topic": partition[0], "partition": partition[1]}).first()
        if row is None or row.epoch != epoch:
            lost[partition] = "no worker" if row is None else row.owner
    if lost:
        raise PartitionLost(lost)
