"""The part of a checkpoint about the order of a stream's events, and the chunks held back to sort them.

A policy with `reorder_s` holds chunks back (`processors/reorder_buffer.py`). A chunk that is held is part of
the stream: the stream's position is after it, and its ID is known. So it must survive a crash with them,
and is a row of `held_chunks`, written in the transaction that records the position. A commit inserts the rows
that are new and deletes those whose chunk has left. The part of a chunk that has left already is in
`StreamOrder.left`; if an edit has made the rest of it one unit, its row is rewritten with that rest.

`stream_orders` has the figures of each stream for readers that want no more than them.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class HeldChunk(NamedTuple):
    """A chunk that waits for earlier ones, and its place on the bus.

    `sequence` counts the chunks that a stream has held, from 0. `payload` has its events by rising time.
    """

    sequence: int
    log: str
    topic: str
    partition: int
    offset: int
    sender: str
    chunk_id: bytes | None
    received_ns: int
    events: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """Times are event times in ns since the epoch, UTC; None before the first event.

    `latest_ns` is the latest that was seen while `reorder_s` was set. What is older than `watermark_ns` comes
    too late to be put in order: `late_events` of them did. `early_events` left before their time because the
    chunks that were held had too many bytes. `left` has (sequence, events) of held chunks whose first events
    have left. `last_ns` is the time of the last event of the last chunk of a raw stream that is not put in
    order; `inversions` counts the chunks of such a stream that began before it, the last of them at
    `inverted_ns` (arrival). `is_sorting` says whether `reorder_s` was set.
    """

    watermark_ns: int | None = None
    latest_ns: int | None = None
    next_sequence: int = 0
    left: tuple[tuple[int, int], ...] = ()
    late_events: int = 0
    early_events: int = 0
    last_ns: int | None = None
    inversions: int = 0
    inverted_ns: int = 0
    is_sorting: bool = False


class OrderFigures(NamedTuple):
    """Figures about a stream's order: see `StreamOrder`. `policy` is that of its last chunk.

    `latest_ns` is None while nothing is held.
    """

    reference: str
    policy: str = ""
    partition: int = 0
    held_chunks: int = 0
    latest_ns: int | None = None
    late_events: int = 0
    early_events: int = 0
    inversions: int = 0
    inverted_ns: int = 0
    is_sorting: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.held_chunks or self.late_events or self.early_events or self.inversions)

    @property
    def warning(self) -> str | None:
        """The warning about samples that arrived out of order; None if there were none."""
        if not self.inversions or self.is_sorting:
            return None
        chunks = "1 chunk" if self.inversions == 1 else f"{self.inversions} chunks"
        return (
            f"{chunks} of samples have times before those of the chunk before, and are stored as they "
            f"arrived. Set reorder_s in policy {self.policy!r}, or let the sender keep the order: "
            "docs/policies.md, reorder_s"
        )


TABLES = """
CREATE TABLE held_chunks (
    reference TEXT NOT NULL, sequence INTEGER NOT NULL, log TEXT NOT NULL, topic TEXT NOT NULL,
    partition INTEGER NOT NULL, message INTEGER NOT NULL, sender TEXT NOT NULL, chunk_id BLOB,
    received_ns INTEGER NOT NULL, events INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (reference, sequence)
);
CREATE TABLE stream_orders (
    reference TEXT PRIMARY KEY, policy TEXT NOT NULL, partition INTEGER NOT NULL,
    held_chunks INTEGER NOT NULL, latest_ns INTEGER, late_events INTEGER NOT NULL,
    early_events INTEGER NOT NULL, inversions INTEGER NOT NULL, inverted_ns INTEGER NOT NULL,
    is_sorting INTEGER NOT NULL
) WITHOUT ROWID
"""

_FIGURES = f"SELECT {', '.join(OrderFigures._fields)} FROM stream_orders"
_READ_AT_ONCE = 500
_ID_BYTES = 32


def figures_of(
    reference: str, partition: tuple[str, int] | None, order: StreamOrder, held_chunks: int
) -> OrderFigures:
    """The figures of a stream whose last chunk came by `partition`."""
    topic, number = partition or ("", 0)
    return OrderFigures(
        reference=reference,
        policy=topic,
        partition=number,
        held_chunks=held_chunks,
        latest_ns=order.latest_ns if held_chunks else None,
        late_events=order.late_events,
        early_events=order.early_events,
        inversions=order.inversions,
        inverted_ns=order.inverted_ns,
        is_sorting=order.is_sorting,
    )


def write_held(
    database: sqlite3.Connection, reference: str, figures: OrderFigures, held: Sequence[HeldChunk]
) -> None:
    """Within a transaction: `held` is all that the stream holds from now on."""
    there = dict(
        database.execute("SELECT sequence, events FROM held_chunks WHERE reference = ?", (reference,))
    )
    wanted = {chunk.sequence for chunk in held}
    database.executemany(
        "DELETE FROM held_chunks WHERE reference = ? AND sequence = ?",
        [(reference, sequence) for sequence in there.keys() - wanted],
    )
    database.executemany(
        f"INSERT OR REPLACE INTO held_chunks VALUES (?{', ?' * len(HeldChunk._fields)})",
        [(reference, *chunk) for chunk in held if there.get(chunk.sequence) != chunk.events],
    )
    if figures.is_plain:
        database.execute("DELETE FROM stream_orders WHERE reference = ?", (reference,))
    else:
        marks = ", ".join("?" * len(OrderFigures._fields))
        database.execute(f"INSERT OR REPLACE INTO stream_orders VALUES ({marks})", figures)


def read_held(database: sqlite3.Connection, reference: str) -> tuple[HeldChunk, ...]:
    """What the stream holds, oldest first."""
    rows = database.execute(
        "SELECT sequence, log, topic, partition, message, sender, chunk_id, received_ns, events, payload"
        " FROM held_chunks WHERE reference = ? ORDER BY sequence",
        (reference,),
    )
    return tuple(HeldChunk(*row) for row in rows)


def held_offsets(database: sqlite3.Connection, log: str, partition: tuple[str, int]) -> dict[int, str]:
    """The offsets of the messages of this partition that ended workers, and the streams that hold them."""
    rows = database.execute(
        "SELECT message, reference FROM suspects JOIN held_chunks USING (log, topic, partition, message)"
        " WHERE topic = ? AND partition = ? AND log = ?",
        (*partition, log),
    )
    return dict(rows)


def read_figures(
    database: sqlite3.Connection, partitions: Iterable[tuple[str, int]]
) -> Iterator[OrderFigures]:
    """Of the streams whose last chunk came by one of these partitions, if there is something to report."""
    wanted = set(partitions)
    for row in database.execute(_FIGURES):
        figures = OrderFigures(*row)
        if (figures.policy, figures.partition) in wanted:
            yield figures


def forget_order(database: sqlite3.Connection, reference: str) -> None:
    """Call within a transaction: the stream is rebuilt from the bus."""
    database.execute("DELETE FROM held_chunks WHERE reference = ?", (reference,))
    database.execute("DELETE FROM stream_orders WHERE reference = ?", (reference,))


def held_chunk_ids(path: Path, reference: str) -> list[bytes]:
    """The IDs, at most 32 bytes each, of the chunks that the stream holds; b"" for one without.

    Empty if the database cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT chunk_id FROM held_chunks WHERE reference = ?", (reference,))
            return [(row[0] or b"")[:_ID_BYTES] for row in rows]
    except sqlite3.Error:
        return []


def committed_figures(path: Path, references: Collection[str]) -> Mapping[str, OrderFigures] | None:
    """The figures of the last checkpoints of these streams, for a reader in another process.

    Changes nothing. A stream without figures is missing; None if the database does not exist,
    cannot be read, or is of another version.
    """
    found: dict[str, OrderFigures] = {}
    names = list(references)
    try:
        if not path.exists():
            return None
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            for first in range(0, len(names), _READ_AT_ONCE):
                some = names[first : first + _READ_AT_ONCE]
                marks = ", ".join("?" * len(some))
                for row in database.execute(f"{_FIGURES} WHERE reference IN ({marks})", some):
                    figures = OrderFigures(*row)
                    found[figures.reference] = figures
    except (sqlite3.Error, OSError, TypeError):
        return None
    return found
