"""Checkpoints: how far the bus is read, what operations know, how long outputs are, in one transaction.

On start the worker cuts every output back to the length that is recorded here, gives the operations their
state and reads the bus on from the positions: since operations are deterministic, the same rows are written
again. For this to be exactly-once all of it must be of the same moment, so it is one SQLite transaction.

Several workers may share the file. Each partition has an epoch, which rises whenever a worker takes the
partition up; a commit names the epochs that its worker was given, and is refused where one has risen since.
So a worker that was stopped for a while changes nothing of what others have taken up meanwhile.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from ..errors import PartitionLost
from .sqlite_file import SqliteFile

Partition: TypeAlias = tuple[str, int]
"""A topic of the bus, and the number of one of its partitions."""


@dataclass(frozen=True, slots=True)
class OutputLength:
    """How long an output was at the checkpoint.

    `uid` tells the output from another of the same reference made before or after it; `length` counts bytes
    of a data stream, rows of a data array; `chunks` the arrivals of a data stream, 0 for arrays.
    """

    uid: bytes
    length: int
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class StreamCheckpoint:
    """What is known of one data stream: operation states by step name, output lengths by reference.

    `partition` is the one that had brought the last chunk: who owns it writes the stream. `alarm_state` is
    what is known of the stream's alarms. `alarms` are messages that are to leave with this checkpoint: a
    commit puts them into the outbox, not into the row of the stream, so what is read back has none.
    """

    states: Mapping[str, bytes] = field(default_factory=dict)
    outputs: Mapping[str, OutputLength] = field(default_factory=dict)
    partition: Partition | None = None
    alarm_state: bytes | None = None
    alarms: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """A partition as its new owner finds it.

    `position` is the offset of the next message to read, None where nothing was committed yet; `chunk_keys`
    those of the chunks last seen, oldest first; `epoch` is what the owner's commits must name; `before` is
    who had it before, by name.
    """

    position: int | None
    chunk_keys: Sequence[bytes]
    epoch: int
    before: str | None


_VERSION = 3

_OWNERS = """
CREATE TABLE owners (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID
"""

# Numbers are never given twice, so that a message is taken out by whoever has seen it, and by nobody else.
_OUTBOX = "CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB NOT NULL)"

# chunk_keys is a queue per partition: `sequence` rises by one, the window is a range at its end. Without row
# ids a partition's keys lie side by side, so adding and dropping touch the two ends alone.
_SCHEMA = f"""
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE streams (reference TEXT PRIMARY KEY, checkpoint BLOB NOT NULL);
CREATE TABLE chunk_keys (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, sequence INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (topic, partition, sequence)
) WITHOUT ROWID;
{_OWNERS};
{_OUTBOX}
"""
_UPGRADES = {1: _OWNERS, 2: _OUTBOX}

# msgspec writes dict and dataclass; any other Mapping goes through dict.
_encode = msgspec.msgpack.Encoder(enc_hook=dict).encode
_decode = msgspec.msgpack.Decoder(StreamCheckpoint).decode


class CheckpointStore:
    """The file of checkpoints; thread-safe, and several processes may each commit the partitions they have.

    A stream is one row: its states and outputs as msgpack. Size on disk is bounded by the states, by
    `window` chunk keys per partition, and by what of the outbox nobody takes out. A killed process leaves the
    last commit that had returned, or the one that was running, whole; a failed commit (StoreFailed: disk
    full, fsync failed) leaves the one before it, unless the disk kept what it said it had not: then read the
    positions anew before going on.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises StoreFailed."""
        self._file = SqliteFile(path, version=_VERSION, schema=_SCHEMA, upgrades=_UPGRADES)

    def positions(self) -> dict[Partition, int]:
        """(topic, partition) → the offset of the next message to read."""
        with self._file.reading("read the positions") as database:
            rows = database.execute("SELECT topic, partition, next_offset FROM positions").fetchall()
        return {(topic, partition): next_offset for topic, partition, next_offset in rows}

    def streams(self) -> list[str]:
        """The references of all streams that have a checkpoint, sorted."""
        with self._file.reading("list the streams") as database:
            return [row[0] for row in database.execute("SELECT reference FROM streams ORDER BY reference")]

    def stream(self, reference: str) -> StreamCheckpoint | None:
        """The checkpoint of one stream, None where it has none yet."""
        with self._file.reading(f"read the checkpoint of {reference}") as database:
            row = database.execute(
                "SELECT checkpoint FROM streams WHERE reference = ?", (reference,)
            ).fetchone()
        return None if row is None else _decode(row[0])

    def chunk_keys(self, topic: str, partition: int) -> list[bytes]:
        """The keys of the chunks last seen on a partition, oldest first; at most the window of its commit."""
        with self._file.reading(f"read the chunk keys of {topic}/{partition}") as database:
            return _chunk_keys(database, (topic, partition))

    def take(self, partitions: Iterable[Partition], *, owner: str) -> dict[Partition, Taken]:
        """Make `owner` the one who may commit these partitions, and give what was committed of each.

        All in one transaction: what comes back is what the owner before has left, and nothing of that one's
        is committed any more. `owner` is for people: the name of a worker. Raises StoreFailed.
        """
        with self._file.transaction("take partitions up") as database:
            taken = {}
            for partition in partitions:
                before = _owner(database, partition)
                (epoch,) = database.execute(
                    "INSERT INTO owners VALUES (?, ?, 1, ?)"
                    " ON CONFLICT DO UPDATE SET epoch = epoch + 1, owner = excluded.owner RETURNING epoch",
                    (*partition, owner),
                ).fetchone()
                position = database.execute(
                    "SELECT next_offset FROM positions WHERE topic = ? AND partition = ?", partition
                ).fetchone()
                taken[partition] = Taken(
                    position=None if position is None else position[0],
                    chunk_keys=_chunk_keys(database, partition),
                    epoch=epoch,
                    before=before,
                )
            return taken

    def owner(self, partition: Partition) -> str | None:
        """Who took the partition up last, by name; None where nobody ever did."""
        with self._file.reading("read who has a partition") as database:
            return _owner(database, partition)

    def commit(
        self,
        *,
        positions: Mapping[Partition, int],
        streams: Mapping[str, StreamCheckpoint],
        chunk_keys: Mapping[Partition, Sequence[bytes]],
        window: int,
        epochs: Mapping[Partition, int] = MappingProxyType({}),
    ) -> None:
        """Record all of it in one transaction; durable on return.

        `positions`: the next offset to read, for the partitions that moved. `streams`: those that changed;
        each replaces its states and outputs whole. `chunk_keys`: the new ones, oldest first; on a partition
        that is named the oldest beyond `window` (number of keys kept) leave. `epochs`: what `take` gave for
        the partitions that all this came from.

        Raises PartitionLost where others have taken up some of them since, and StoreFailed; then nothing is
        recorded.
        """
        if window < 0:
            raise ValueError(f"window is a number of chunk keys to keep, not {window}")
        # Encoded before the transaction begins: the lock of the file is held for writing alone.
        stream_rows = [
            (reference, _encode(replace(checkpoint, alarms=()))) for reference, checkpoint in streams.items()
        ]
        outgoing = [(message,) for checkpoint in streams.values() for message in checkpoint.alarms]
        position_rows = [(*partition, next_offset) for partition, next_offset in positions.items()]
        with self._file.transaction("commit a checkpoint") as database:
            _check_epochs(database, epochs)
            database.executemany(
                "INSERT INTO positions VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                position_rows,
            )
            database.executemany(
                "INSERT INTO streams VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET checkpoint = excluded.checkpoint",
                stream_rows,
            )
            database.executemany("INSERT INTO outbox (message) VALUES (?)", outgoing)
            for (topic, partition), keys in chunk_keys.items():
                (last,) = database.execute(
                    "SELECT coalesce(max(sequence), 0) FROM chunk_keys WHERE topic = ? AND partition = ?",
                    (topic, partition),
                ).fetchone()
                newest = last + len(keys)
                kept = keys[max(0, len(keys) - window) :]
                database.executemany(
                    "INSERT INTO chunk_keys VALUES (?, ?, ?, ?)",
                    ((topic, partition, newest - len(kept) + i, key) for i, key in enumerate(kept, 1)),
                )
                database.execute(
                    "DELETE FROM chunk_keys WHERE topic = ? AND partition = ? AND sequence <= ?",
                    (topic, partition, newest - window),
                )

    def outbox(self, *, limit: int = 100) -> list[tuple[int, bytes]]:
        """The oldest messages that were committed and not taken out yet, with their numbers."""
        with self._file.reading("read the outbox") as database:
            return database.execute(
                "SELECT number, message FROM outbox ORDER BY number LIMIT ?", (limit,)
            ).fetchall()

    def take_out(self, numbers: Iterable[int]) -> None:
        """Remove messages that have arrived; those that are gone already are no mistake."""
        with self._file.transaction("empty the outbox") as database:
            database.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])

    def close(self) -> None:
        """Let go of the file; closing twice is allowed."""
        self._file.close()


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
            lost[partition] = "nobody" if row is None else row[1]
    if lost:
        raise PartitionLost(lost)
