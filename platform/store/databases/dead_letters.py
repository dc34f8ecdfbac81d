"""Keeps dead letters: rejected input with the reason, until an operator replays or removes it.

The gateway, the web tier and the workers add to one file. Letters leave when it is full, and are counted.
Input that is resent is kept once, and counted.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import DatabaseDamaged, DeadLetterNotFound
from .dead_letter import DeadLetter, DeadLetterStatistics, DeadLetterSummary, KeptDeadLetter, Summaries
from .dead_letter_shares import DeadLetterShares
from .sqlite_file import SqliteFile

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
MAX_PAYLOAD_BYTES = 32 * 1024 * 1024
"""A longer payload is kept cut to this."""
MAX_TEXT_BYTES = 64 * 1024
"""A longer tag, reason, detail, … (bytes of UTF-8) is kept cut to this."""
REOPEN_S = 5.0
"""How long a damaged file is not reopened."""
LETTER_OVERHEAD_BYTES = 256
"""The cost of a letter in addition to payload and texts, so that empty letters are bounded too."""


VERSION = 3

# Long values have a table of their own: SQLite rewrites a whole row to change a count in it. The
# transactions that change the letters update the totals too; a sum over the table would take longer with
# each letter.
_SCHEMA = """
CREATE TABLE letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint BLOB NOT NULL UNIQUE, cost_bytes INTEGER NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, tag TEXT NOT NULL, sender TEXT NOT NULL, policy TEXT,
    size INTEGER NOT NULL, time_ns INTEGER NOT NULL, last_time_ns INTEGER NOT NULL, times INTEGER NOT NULL,
    chunk_id BLOB, compression TEXT NOT NULL DEFAULT 'text', signal INTEGER NOT NULL DEFAULT 0,
    format TEXT NOT NULL DEFAULT '', identity TEXT
);
CREATE TABLE contents (id INTEGER PRIMARY KEY, detail TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE totals (letters INTEGER NOT NULL, cost_bytes INTEGER NOT NULL, evicted INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
"""

# Triggers keep the totals, so that a process of the former version, which lacks this table, updates them too.
_COST_BY_CODE = """
CREATE TABLE code_totals (code TEXT PRIMARY KEY, cost_bytes INTEGER NOT NULL);
INSERT INTO code_totals SELECT code, sum(cost_bytes) FROM letters GROUP BY code;
CREATE INDEX letters_by_code ON letters (code, id);
CREATE TRIGGER letter_came AFTER INSERT ON letters BEGIN
    INSERT INTO code_totals VALUES (new.code, new.cost_bytes)
    ON CONFLICT (code) DO UPDATE SET cost_bytes = cost_bytes + excluded.cost_bytes;
END;
CREATE TRIGGER letter_went AFTER DELETE ON letters BEGIN
    UPDATE code_totals SET cost_bytes = cost_bytes - old.cost_bytes WHERE code = old.code;
END
"""

# A process of the former version may have the file open: its statements must still work.
_UPGRADES = {
    1: """
ALTER TABLE letters ADD COLUMN chunk_id BLOB;
ALTER TABLE letters ADD COLUMN compression TEXT NOT NULL DEFAULT 'text';
ALTER TABLE letters ADD COLUMN signal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE letters ADD COLUMN format TEXT NOT NULL DEFAULT '';
ALTER TABLE letters ADD COLUMN identity TEXT
""",
    2: _COST_BY_CODE,
}

_AFTER_ALL = 2**63 - 1
# SQLite has the length of a payload in the head of its row, and does not read the payload for it.
_SUMMARY = (
    "id, code, reason, tag, sender, policy, size, time_ns, last_time_ns, times, length(payload), chunk_id,"
    " signal"
)
_WHOLE = f"{_SUMMARY}, detail, compression, format, identity, payload"


def _text(value: str) -> str:
    # A tag that is not UTF-8 may have lone surrogates, which SQLite does not store: they are escaped.
    return value.encode("utf-8", "backslashreplace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def _fingerprint(letter: DeadLetter) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (letter.code, letter.tag, letter.sender):
        encoded = part.encode("utf-8", "surrogatepass")
        # The lengths distinguish ("ab", "c") from ("a", "bc").
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    if letter.sample_of:
        digest.update(b"sample of " + letter.sample_of.encode())
    else:
        digest.update(letter.payload)
        # A sender that resends a chunk reuses its ID: other IDs are other chunks.
        for name, part_of_it in ((b"id", letter.chunk_id), (b"occurrence", letter.occurrence)):
            if part_of_it:
                digest.update(name + len(part_of_it).to_bytes(8, "little") + part_of_it)
    return digest.digest()


class DeadLetters:
    """The file of dead letters; several processes may add at once, and any thread may call every method.

    What is kept never costs more than `max_bytes` (payloads, texts and LETTER_OVERHEAD_BYTES a letter); the
    file is a little larger. Each code has a share of that (`DeadLetterShares`), so that letters of one code
    never evict those that others are guaranteed. A payload that has no room in its share is kept cut.

    A letter is durable when `add` returns: one short transaction and one fdatasync, so on an event loop call
    it from a worker thread. If many letters arrive at once, pass them to `add_all` together.
    """

    def __init__(self, path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open or create the file. Raises StoreFailed, but not for a damaged one.

        A tier runs without its dead letters: for a damaged file every method raises DatabaseDamaged, and
        retries after `REOPEN_S`, so that a repaired file works without a restart.
        """
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be at least 1 (got {max_bytes})")
        self._path = path
        self._max_bytes = max_bytes
        self._shares = DeadLetterShares(max_bytes)
        self._opening = threading.Lock()
        self._opened: SqliteFile | None = None
        self._broken: DatabaseDamaged | None = None
        self._look_again_s = float("-inf")
        with suppress(DatabaseDamaged):
            self._file  # noqa: B018  (opens it)

    @property
    def _file(self) -> SqliteFile:
        with self._opening:
            if self._opened is None:
                if self._broken is not None and time.monotonic() < self._look_again_s:
                    raise self._broken
                self._look_again_s = time.monotonic() + REOPEN_S
                try:
                    self._opened = SqliteFile(
                        self._path, version=VERSION, schema=_SCHEMA + _COST_BY_CODE, upgrades=_UPGRADES
                    )
                except DatabaseDamaged as error:
                    self._broken = error
                    raise
            return self._opened

    def add(self, letter: DeadLetter) -> int:
        """Keep a letter and return its ID; a letter that is kept already is only counted. StoreFailed.

        Letters are the same if code, tag, sender, payload, chunk ID and occurrence are equal: then `times`
        and `last_time_ns` change, and the rest stays as it was the first time.
        """
        return self.add_all((letter,))[0]

    def add_all(self, letters: Sequence[DeadLetter]) -> Sequence[int]:
        """Keep several letters in one transaction; returns their IDs, in order. StoreFailed."""
        if not letters:
            return ()
        # Hashed before the transaction begins: other processes wait only while this one writes.
        fingerprinted = [(letter, _fingerprint(letter)) for letter in letters]
        with self._file.transaction("keep dead letters") as database:
            return [
                self._count_again(database, letter, fingerprint)
                or self._insert(database, letter, fingerprint)
                for letter, fingerprint in fingerprinted
            ]

    def _count_again(
        self, database: sqlite3.Connection, letter: DeadLetter, fingerprint: bytes
    ) -> int | None:
        row = database.execute(
            "UPDATE letters SET times = times + 1, last_time_ns = max(last_time_ns, ?)"
            " WHERE fingerprint = ? RETURNING id",
            (letter.time_ns, fingerprint),
        ).fetchone()
        return None if row is None else int(row[0])

    def _insert(self, database: sqlite3.Connection, letter: DeadLetter, fingerprint: bytes) -> int:
        texts = [_text(text) for text in (letter.code, letter.reason, letter.tag, letter.sender)]
        policy, identity = (
            None if text is None else _text(text) for text in (letter.policy, letter.identity)
        )
        detail = _text(letter.detail)
        format, compression = _text(letter.format), _text(letter.compression)
        # A cut ID would be another ID; without one, a replay makes one.
        chunk_id = letter.chunk_id if len(letter.chunk_id or b"") <= MAX_TEXT_BYTES else None
        cost_bytes = LETTER_OVERHEAD_BYTES + len(chunk_id or b"")
        for text in (*texts, policy or "", identity or "", detail, format):
            cost_bytes += len(text.encode())
        room_bytes = self._shares.room_bytes(database, texts[0]) - cost_bytes
        kept_bytes = min(len(letter.payload), MAX_PAYLOAD_BYTES, max(0, room_bytes))
        cost_bytes += kept_bytes
        # A slice of the whole is the payload itself, not a copy.
        payload = letter.payload[:kept_bytes]
        moments = (letter.time_ns, letter.time_ns)
        cursor = database.execute(
            "INSERT INTO letters (fingerprint, cost_bytes, code, reason, tag, sender, policy, size,"
            " time_ns, last_time_ns, times, chunk_id, compression, signal, format, identity)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)",
            (
                *(fingerprint, cost_bytes, *texts, policy, letter.size or len(letter.payload), *moments),
                *(chunk_id, compression, letter.signal, format, identity),
            ),
        )
        assert cursor.lastrowid is not None
        database.execute("INSERT INTO contents VALUES (?, ?, ?)", (cursor.lastrowid, detail, payload))
        database.execute(
            "UPDATE totals SET letters = letters + 1, cost_bytes = cost_bytes + ?", (cost_bytes,)
        )
        self._shares.evict(database, texts[0], newest=cursor.lastrowid)
        return cursor.lastrowid

    def get(self, id: int) -> KeptDeadLetter:
        """One letter with its payload. Raises DeadLetterNotFound."""
        with self._file.reading(f"read dead letter {id}") as database:
            row = database.execute(
                f"SELECT {_WHOLE} FROM letters JOIN contents USING (id) WHERE id = ?",
                (id,),
            ).fetchone()
        if row is None:
            raise self._not_found(id)
        return KeptDeadLetter(*row)

    def drop(self, id: int) -> None:
        """Remove one letter permanently; it does not count as evicted. Raises DeadLetterNotFound."""
        with self._file.transaction(f"drop dead letter {id}") as database:
            row = database.execute("DELETE FROM letters WHERE id = ? RETURNING cost_bytes", (id,)).fetchone()
            if row is None:
                raise self._not_found(id)
            database.execute("DELETE FROM contents WHERE id = ?", (id,))
            database.execute("UPDATE totals SET letters = letters - 1, cost_bytes = cost_bytes - ?", row)

    def drop_all(self, ids: Sequence[int]) -> int:
        """Remove the letters that are still kept, in one transaction; returns how many there were."""
        with self._file.transaction("drop dead letters") as database:
            costs = []
            for id in ids:
                row = database.execute(
                    "DELETE FROM letters WHERE id = ? RETURNING cost_bytes", (id,)
                ).fetchone()
                if row is not None:
                    costs.append(row[0])
                    database.execute("DELETE FROM contents WHERE id = ?", (id,))
            database.execute(
                "UPDATE totals SET letters = letters - ?, cost_bytes = cost_bytes - ?",
                (len(costs), sum(costs)),
            )
        return len(costs)

    def _not_found(self, id: int) -> DeadLetterNotFound:
        return DeadLetterNotFound(
            f"dead letter {id} does not exist: it was removed, was evicted, or never existed; "
            "the list shows all letters"
        )

    def statistics(self) -> DeadLetterStatistics:
        """How many letters are kept, their cost in bytes, and how many were evicted since the file exists."""
        with self._file.reading("count the dead letters") as database:
            count, size, evicted = database.execute(
                "SELECT letters, cost_bytes, evicted FROM totals"
            ).fetchone()
        return DeadLetterStatistics(count, size, evicted, self._max_bytes)

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        with self._opening:
            if self._opened is not None:
                self._opened.close()

    def list(self, *, limit: int = 100, before: int | None = None, code: str | None = None) -> Summaries:
        """The newest first, at most `limit`; `before` is the last ID of the previous page.

        With `code`, only letters of this code.
        """
        with self._file.reading("list the dead letters") as database:
            rows = database.execute(
                f"SELECT {_SUMMARY} FROM letters JOIN contents USING (id)"
                " WHERE id < ? AND (? IS NULL OR code = ?) ORDER BY id DESC LIMIT ?",
                (_AFTER_ALL if before is None else before, code, code, max(0, limit)),
            ).fetchall()
        return [DeadLetterSummary(*row) for row in rows]
