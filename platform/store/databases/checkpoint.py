"""Checkpoints: positions on the bus, states of operations and lengths of outputs, in one transaction.

On start the worker cuts every output back to the length that is recorded here, restores the states of the
operations and reads the bus from the positions. Operations are deterministic, so they write the same rows.
This is exactly-once only if all data of a stream is of the same moment: so a stream is one row, and a
checkpoint is one SQLite transaction.

Streams do not wait for each other, so each keeps its own positions: which messages of a partition are part of
it. The position of a partition is the lowest of its streams; a stream skips what it has seen when it is read
again.

A position belongs to one log. The same topic may be a new log (the topic was deleted and created again, the
bus was changed from embedded to Kafka); its offsets then mean nothing for the old one. So the identity of the
log is part of the key of a position.

Several workers may share the file. Each partition has an epoch, which rises whenever a worker takes the
partition; a commit names the epochs that its worker was given, and is rejected if one has risen since.
So a worker that was stopped for a while changes nothing that others own now.

Chunks that a stream holds back to put them in order are part of the stream, and of its checkpoint
(`stream_order.py`).
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ...errors import PartitionLost
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
from .checkpoint_schema import SCHEMA, UPGRADES, VERSION
from .sqlite_file import SqliteFile
from .stream_order import (
    HeldChunk,
    OrderFigures,
    StreamOrder,
    figures_of,
    held_offsets,
    read_figures,
    read_held,
    write_held,
)

FORMER_KEYS_S = 86_400.0
"""How long chunk keys without a stream, from before version 4, are kept after the upgrade."""


class CheckpointStore:
    """The file of checkpoints; thread-safe, and several processes may each commit the partitions they have.

    A stream is one row: its states and outputs as msgpack. Size on disk is bounded by the states, by
    `window` chunk keys per partition, and by the messages that stay in the outbox. A killed process leaves
    the last commit that had returned, or the one that was running, whole. A failed commit (StoreFailed:
    disk full, fsync failed) leaves the one before it, unless the disk kept what it reported as failed: read
    the positions from the file before you continue.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises StoreFailed."""
        self._file = SqliteFile(path, version=VERSION, schema=SCHEMA, upgrades=UPGRADES)
        with self._file.reading("read its identity") as database:
            (self.database_id,) = database.execute("SELECT database_id FROM identity").fetchone()

    database_id: bytes
    """16 random bytes, made with the file: an output knows by it which database its checkpoints are in."""

    def positions(self) -> dict[Partition, int]:
        """(topic, partition) → the offset of the next message to read, in the log that was read last."""
        with self._file.reading("read the positions") as database:
            rows = database.execute(
                "SELECT topic, partition, next_offset FROM positions WHERE next_offset >= 0 ORDER BY taken"
            ).fetchall()
        return {(topic, partition): next_offset for topic, partition, next_offset in rows}

    def logs(self) -> dict[str, dict[Partition, int]]:
        """The committed positions by log: former logs may still have messages."""
        with self._file.reading("read the positions") as database:
            rows = database.execute(
                "SELECT log, topic, partition, next_offset FROM positions WHERE next_offset >= 0"
            ).fetchall()
        logs: dict[str, dict[Partition, int]] = {}
        for log, topic, partition, next_offset in rows:
            logs.setdefault(log, {})[topic, partition] = next_offset
        return logs

    def streams(self) -> list[str]:
        """The references of all streams that have a checkpoint, sorted."""
        with self._file.reading("list the streams") as database:
            return [row[0] for row in database.execute("SELECT reference FROM streams ORDER BY reference")]

    def stream(self, reference: str) -> StreamCheckpoint | None:
        """The checkpoint of one stream; None if it has none yet.

        If its row is lost and its held chunks are not, the checkpoint has these alone.
        """
        with self._file.reading(f"read the checkpoint of {reference}") as database:
            row = database.execute(
                "SELECT checkpoint FROM streams WHERE reference = ?", (reference,)
            ).fetchone()
            if row is None:
                held = read_held(database, reference)
                return _of_held(held) if held else None
            checkpoint = decode_checkpoint(row[0])
            if checkpoint.order is None or not checkpoint.order.next_sequence:
                return checkpoint
            return replace(checkpoint, held=read_held(database, reference))

    def holds_chunks(self, reference: str) -> bool:
        """Whether the stream holds chunks back to put them in order."""
        with self._file.reading(f"read what {reference} holds") as database:
            return bool(
                database.execute("SELECT 1 FROM held_chunks WHERE reference = ?", (reference,)).fetchone()
            )

    def orders(self, partitions: Iterable[Partition]) -> list[OrderFigures]:
        """The streams of these partitions that hold chunks or have figures about their order."""
        with self._file.reading("read which streams hold chunks") as database:
            return list(read_figures(database, partitions))

    def held_suspects(self, log: str, partition: Partition) -> dict[int, str]:
        """The held messages that ended a worker: offset → stream."""
        with self._file.reading("read which messages ended workers") as database:
            return held_offsets(database, log, partition)

    def chunk_keys(self, topic: str, partition: int) -> list[bytes]:
        """The keys of the chunks last seen on a partition, oldest first; at most the window of its commit."""
        with self._file.reading(f"read the chunk keys of {topic}/{partition}") as database:
            return _chunk_keys(database, (topic, partition))

    def keys_elsewhere(self, reference: str, partition: Partition) -> list[bytes]:
        """The keys of a stream's chunks that came by other partitions than this one."""
        with self._file.reading(f"read the chunk keys of {reference}") as database:
            return [
                row[0]
                for row in database.execute(
                    "SELECT key FROM chunk_keys WHERE reference = ? AND NOT (topic = ? AND partition = ?)",
                    (reference, *partition),
                )
            ]

    def take(
        self, partitions: Iterable[Partition], *, owner: str, logs: Mapping[str, str] = MappingProxyType({})
    ) -> dict[Partition, Taken]:
        """Make `owner` the owner of these partitions, and return what was committed of each.

        This is one transaction: it returns the last commit of the former owner, whose later commits fail.
        `owner` is the name of a worker, for messages. `logs` has the identity of each topic's present log.
        Raises StoreFailed.
        """
        with self._file.transaction("take partitions") as database:
            database.execute(
                "DELETE FROM chunk_keys WHERE reference = ''"
                " AND (SELECT upgraded_s FROM identity) < unixepoch() - ?",
                (FORMER_KEYS_S,),
            )
            wanted = [(partition, logs.get(partition[0], UNKNOWN_LOG)) for partition in partitions]
            # Before any is taken: all partitions of a topic that was never read are new together.
            read_before = {
                topic: frozenset(
                    row[0]
                    for row in database.execute(
                        "SELECT partition FROM positions"
                        " WHERE topic = ? AND log = ? AND next_offset IS NOT NULL",
                        (topic, log),
                    )
                )
                for (topic, _), log in wanted
            }
            return {
                partition: _take(database, partition, owner, log, read_before[partition[0]])
                for partition, log in wanted
            }

    def open_added(self, log: str, partition: Partition) -> None:
        """A partition that was added to its topic may be read now: the earlier partitions have been."""
        with self._file.transaction("open an added partition") as database:
            database.execute(
                "UPDATE positions SET next_offset = ?"
                " WHERE topic = ? AND partition = ? AND log = ? AND next_offset IS NULL",
                (AT_BEGINNING, *partition, log),
            )

    def owner(self, partition: Partition) -> str | None:
        """The name of the worker that took the partition last; None if it was never taken."""
        with self._file.reading("read who has a partition") as database:
            return _owner(database, partition)

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
        """Record all of it in one transaction; durable on return.

        Args:
            positions: The next offset to read, for the partitions that moved.
            streams: The streams that changed; each replaces its whole row.
            chunk_keys: The new keys with the stream of each, oldest first.
            window: How many keys a partition keeps; the oldest leave.
            epochs: What `take` returned for the partitions that all this came from.
            logs: The log of each partition.

        Raises PartitionLost if other workers have taken some of the partitions since, and StoreFailed; then
        nothing is recorded.
        """
        if window < 0:
            raise ValueError(f"window must be at least 0 (got {window}): the number of chunk keys")
        # Encoded before the transaction begins: other processes wait only while this one writes.
        stream_rows = [
            (reference, encode_checkpoint(replace(checkpoint, alarms=(), held=())))
            for reference, checkpoint in streams.items()
        ]
        outgoing = [(message,) for checkpoint in streams.values() for message in checkpoint.alarms]
        position_rows = [
            (*partition, logs.get(partition, UNKNOWN_LOG), next_offset, epochs.get(partition, 0))
            for partition, next_offset in positions.items()
        ]
        with self._file.transaction("commit a checkpoint") as database:
            _check_epochs(database, epochs)
            database.executemany(
                "INSERT INTO positions VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset, taken = excluded.taken",
                position_rows,
            )
            database.executemany(
                "INSERT INTO streams VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET checkpoint = excluded.checkpoint",
                stream_rows,
            )
            for reference, checkpoint in streams.items():
                if (order := checkpoint.order) is not None and (order.next_sequence or order.inversions):
                    held = checkpoint.held
                    figures = figures_of(reference, checkpoint.partition, order, len(held))
                    write_held(database, reference, figures, held)
            database.executemany("INSERT INTO outbox (message) VALUES (?)", outgoing)
            for partition, keys in chunk_keys.items():
                _add_keys(database, partition, keys, window)

    def holes(self, log: str, partition: Partition) -> list[Hole]:
        """The messages of a partition that an operator chose to skip, lowest first."""
        with self._file.reading("read which messages were given up") as database:
            rows = database.execute(
                "SELECT first, resume_at FROM decisions"
                " WHERE topic = ? AND partition = ? AND log = ? ORDER BY resume_at",
                (*partition, log),
            ).fetchall()
        return [Hole(log, *partition, *row) for row in rows]

    def skip(self, hole: Hole) -> None:
        """Record that reading resumes after the hole: its messages are given up."""
        with self._file.transaction("record which messages are given up") as database:
            database.execute(
                "INSERT INTO decisions VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (hole.topic, hole.partition, hole.log, hole.resume_at, hole.first),
            )

    def blame(self, log: str, partition: Partition, offsets: Iterable[int], reason: str) -> None:
        """A worker ended while it worked on these messages: count that for each."""
        with self._file.transaction("record which messages ended a worker") as database:
            database.executemany(
                "INSERT INTO suspects VALUES (?, ?, ?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET deaths = deaths + 1, reason = excluded.reason",
                [(*partition, log, offset, reason) for offset in offsets],
            )

    def suspects(self, log: str, partition: Partition) -> dict[int, tuple[int, str]]:
        """The messages that ended a worker: offset → how often, and how it ended the last time."""
        with self._file.reading("read which messages ended workers") as database:
            rows = database.execute(
                "SELECT message, deaths, reason FROM suspects WHERE topic = ? AND partition = ? AND log = ?",
                (*partition, log),
            ).fetchall()
        return {offset: (deaths, reason) for offset, deaths, reason in rows}

    def outbox(self, *, limit: int = 100) -> list[tuple[int, bytes]]:
        """The oldest committed messages that are still in the outbox, with their numbers."""
        with self._file.reading("read the outbox") as database:
            return database.execute(
                "SELECT number, message FROM outbox ORDER BY number LIMIT ?", (limit,)
            ).fetchall()

    def take_out(self, numbers: Iterable[int]) -> None:
        """Remove messages that have arrived; numbers that are removed already are ignored."""
        with self._file.transaction("empty the outbox") as database:
            database.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._file.close()


def _of_held(held: Sequence[HeldChunk]) -> StreamCheckpoint:
    last = held[-1]
    return StreamCheckpoint(
        partition=(last.topic, last.partition),
        order=StreamOrder(next_sequence=last.sequence + 1),
        held=tuple(held),
    )


def _take(
    database: sqlite3.Connection, partition: Partition, owner: str, log: str, read_before: frozenset[int]
) -> Taken:
    before = _owner(database, partition)
    (epoch,) = database.execute(
        "INSERT INTO owners VALUES (?, ?, 1, ?)"
        " ON CONFLICT DO UPDATE SET epoch = epoch + 1, owner = excluded.owner RETURNING epoch",
        (*partition, owner),
    ).fetchone()
    rows = dict(
        database.execute(
            "SELECT log, next_offset FROM positions WHERE topic = ? AND partition = ? ORDER BY taken",
            partition,
        ).fetchall()
    )
    if UNKNOWN_LOG in rows and log not in rows:
        # Committed before logs had identities: what is read first since is taken for the same log.
        database.execute(
            "UPDATE positions SET log = ? WHERE topic = ? AND partition = ? AND log = ?",
            (log, *partition, UNKNOWN_LOG),
        )
        rows[log] = rows.pop(UNKNOWN_LOG)
    position = rows.get(log)
    added_to = read_before - {partition[1]} if position is None else frozenset()
    database.execute(
        "INSERT INTO positions VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET taken = excluded.taken",
        (*partition, log, None if added_to else AT_BEGINNING, epoch),
    )
    return Taken(
        position=None if position == AT_BEGINNING else position,
        chunk_keys=_chunk_keys(database, partition),
        epoch=epoch,
        before=before,
        other_logs=[other for other, at in rows.items() if other != log and (at or 0) > 0],
        added_to=added_to,
    )


def _add_keys(
    database: sqlite3.Connection, partition: Partition, keys: Sequence[tuple[str, bytes]], window: int
) -> None:
    (last,) = database.execute(
        "SELECT coalesce(max(sequence), 0) FROM chunk_keys WHERE topic = ? AND partition = ?", partition
    ).fetchone()
    newest = last + len(keys)
    kept = keys[max(0, len(keys) - window) :]
    database.executemany(
        "INSERT INTO chunk_keys VALUES (?, ?, ?, ?, ?)",
        ((*partition, newest - len(kept) + i, key, reference) for i, (reference, key) in enumerate(kept, 1)),
    )
    database.execute(
        "DELETE FROM chunk_keys WHERE topic = ? AND partition = ? AND sequence <= ?",
        (*partition, newest - window),
    )


def _chunk_keys(database: sqlite3.Connection, partition: Partition) -> list[bytes]:
    rows = database.execute(
        "SELECT key FROM chunk_keys WHERE topic = ? AND partition = ? ORDER BY sequence", partition
    )
    return [row[0] for row in rows]


def _owner(database: sqlite3.Connection, partition: Partition) -> str | None:
    row = database.execute("SELECT owner FROM owners WHERE topic = ? AND partition = ?", partition).fetchone()
    return None if row is None else row[0]


def _check_epochs(database: sqlite3.Connection, epochs: Mapping[Partition, int]) -> None:
    lost: dict[Partition, str] = {}
    for partition, epoch in epochs.items():
        row = database.execute(
            "SELECT epoch, owner FROM owners WHERE topic = ? AND partition = ?", partition
        ).fetchone()
        if row is None or row[0] != epoch:
            lost[partition] = "no worker" if row is None else row[1]
    if lost:
        raise PartitionLost(lost)
