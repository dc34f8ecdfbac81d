"""Checkpoints: how far the bus is read, what operations know, how long outputs are, in one transaction.

On start the worker cuts every output back to the length that is recorded here, gives the operations their
state and reads the bus on from the positions: since operations are deterministic, the same rows are written
again. For this to be exactly-once all of it must be of the same moment, so it is one SQLite transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .sqlite_file import SqliteFile


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
    """What is known of one data stream: operation states by step name, output lengths by reference."""

    states: Mapping[str, bytes] = field(default_factory=dict)
    outputs: Mapping[str, OutputLength] = field(default_factory=dict)


_VERSION = 1

# chunk_keys is a queue per partition: `sequence` rises by one, the window is a range at its end. Without row
# ids a partition's keys lie side by side, so adding and dropping touch the two ends alone.
_SCHEMA = """
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE streams (reference TEXT PRIMARY KEY, checkpoint BLOB NOT NULL);
CREATE TABLE chunk_keys (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, sequence INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (topic, partition, sequence)
) WITHOUT ROWID
"""

# msgspec writes dict and dataclass; any other Mapping goes through dict.
_encode = msgspec.msgpack.Encoder(enc_hook=dict).encode
_decode = msgspec.msgpack.Decoder(StreamCheckpoint).decode


class CheckpointStore:
    """The file of checkpoints; thread-safe, and several processes may each commit their own partitions.

    A stream is one row: its states and outputs as msgpack. Size on disk is bounded by the states and by
    `window` chunk keys per partition. A killed process leaves the last commit that had returned, or the one
    that was running, whole; a failed commit (StoreFailed: disk full, fsync failed) leaves the one before it,
    unless the disk kept what it said it had not: then read the positions anew before going on.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises StoreFailed."""
        self._file = SqliteFile(path, version=_VERSION, schema=_SCHEMA)

    def positions(self) -> dict[tuple[str, int], int]:
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
            rows = database.execute(
                "SELECT key FROM chunk_keys WHERE topic = ? AND partition = ? ORDER BY sequence",
                (topic, partition),
            )
            return [row[0] for row in rows]

    def commit(
        self,
        *,
        positions: Mapping[tuple[str, int], int],
        streams: Mapping[str, StreamCheckpoint],
        chunk_keys: Mapping[tuple[str, int], Sequence[bytes]],
        window: int,
    ) -> None:
        """Record all of it in one transaction; durable on return.

        `positions`: the next offset to read, for the partitions that moved. `streams`: those that changed;
        each replaces its states and outputs whole. `chunk_keys`: the new ones, oldest first; on a partition
        that is named the oldest beyond `window` (number of keys kept) leave. Raises StoreFailed.
        """
        if window < 0:
            raise ValueError(f"window is a number of chunk keys to keep, not {window}")
        # Encoded before the transaction begins: the lock of the file is held for writing alone.
        stream_rows = [(reference, _encode(checkpoint)) for reference, checkpoint in streams.items()]
        position_rows = [(*partition, next_offset) for partition, next_offset in positions.items()]
        with self._file.transaction("commit a checkpoint") as database:
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

    def close(self) -> None:
        """Let go of the file; closing twice is allowed."""
        self._file.close()
