"""The queue of deliveries to a webhook, on disk."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...store.databases.sqlite_file import SqliteFile

_SCHEMA = """
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, begun_ns INTEGER NOT NULL
);
CREATE TABLE told (reference TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE waiting (
    position INTEGER PRIMARY KEY AUTOINCREMENT, reference TEXT NOT NULL, number INTEGER NOT NULL,
    body BLOB NOT NULL, due_ns INTEGER NOT NULL, attempts INTEGER NOT NULL, refusals INTEGER NOT NULL
);
"""


class Delivery(NamedTuple):
    """One entry of an alarm's history to deliver, not before `due_ns` (ns since the epoch, UTC)."""

    position: int
    reference: str
    number: int
    body: bytes
    due_ns: int
    attempts: int
    rejections: int


class WebhookQueue:
    """Deliveries in sending order. Any number of processes may open the queue.

    Bounds: `max_waiting` deliveries, and for each alarm the number of its last entry. Every method raises
    StoreFailed, and may be called from any thread. Call `begin` first.
    """

    def __init__(self, path: Path, *, max_waiting: int) -> None:
        self._file = SqliteFile(path, version=1, schema=_SCHEMA)
        self._max_waiting = max_waiting

    def begin(self, *, revision: int, now_ns: int) -> None:
        """Starts a new queue after this revision of the catalog and this time; else does nothing."""
        with self._file.transaction("begin") as database:
            database.execute("INSERT OR IGNORE INTO progress VALUES (1, ?, ?)", (revision, now_ns))

    def progress(self) -> tuple[int, int]:
        """Returns the last revision of the catalog that was read, and the start time (ns since the epoch)."""
        with self._file.reading("read the progress") as database:
            found: tuple[int, int] = database.execute("SELECT revision, begun_ns FROM progress").fetchone()
        return found

    def put(self, entries: Sequence[tuple[str, int, bytes]], *, revision: int) -> int:
        """Adds the entries (reference, number, body) that were never added before, in order.

        Returns the number of the oldest deliveries that were dropped to make room.
        """
        with self._file.transaction("put deliveries") as database:
            for reference, number, body in entries:
                if number > _told(database, reference):
                    database.execute(
                        "INSERT INTO waiting (reference, number, body, due_ns, attempts, refusals)"
                        " VALUES (?, ?, ?, 0, 0, 0)",
                        (reference, number, body),
                    )
                    database.execute(
                        "INSERT INTO told VALUES (?, ?) ON CONFLICT DO UPDATE SET number = excluded.number",
                        (reference, number),
                    )
            database.execute("UPDATE progress SET revision = max(revision, ?)", (revision,))
            (waiting,) = database.execute("SELECT count(*) FROM waiting").fetchone()
            surplus = max(0, waiting - self._max_waiting)
            if surplus:
                database.execute(
                    "DELETE FROM waiting WHERE position IN"
                    " (SELECT position FROM waiting ORDER BY position LIMIT ?)",
                    (surplus,),
                )
            return int(surplus)

    def first(self) -> Delivery | None:
        """Returns the next delivery; None if the queue is empty."""
        with self._file.reading("read the next delivery") as database:
            row = database.execute(
                "SELECT position, reference, number, body, due_ns, attempts, refusals FROM waiting"
                " ORDER BY position LIMIT 1"
            ).fetchone()
        return None if row is None else Delivery(*row)

    def delivered(self, delivery: Delivery) -> None:
        """Removes a delivery that was delivered or given up."""
        with self._file.transaction("remove a delivery") as database:
            database.execute("DELETE FROM waiting WHERE position = ?", (delivery.position,))

    def failed(self, delivery: Delivery, *, due_ns: int, rejections: int) -> None:
        """Schedules the retry of a failed delivery at `due_ns`."""
        with self._file.transaction("reschedule a delivery") as database:
            database.execute(
                "UPDATE waiting SET due_ns = ?, attempts = attempts + 1, refusals = ? WHERE position = ?",
                (due_ns, rejections, delivery.position),
            )

    def close(self) -> None:
        """Closes the file; closing twice is allowed."""
        self._file.close()


def _told(database: sqlite3.Connection, reference: str) -> int:
    row = database.execute("SELECT number FROM told WHERE reference = ?", (reference,)).fetchone()
    return -1 if row is None else int(row[0])
