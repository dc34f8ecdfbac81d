"""Dead letters: refused input, kept with the reason until somebody has looked at it.

The gateway, the web tier and the workers all add to one file; the oldest letters leave when it is full, and
are counted. What is sent again and again is kept once, and counted too.
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ..errors import DeadLetterNotFound
from .sqlite_file import SqliteFile

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
MAX_PAYLOAD_BYTES = 32 * 1024 * 1024
"""A longer payload is kept cut to this."""
MAX_TEXT_BYTES = 64 * 1024
"""A longer tag, reason, detail, … (bytes of UTF-8) is kept cut to this."""
LETTER_OVERHEAD_BYTES = 256
"""What a letter is taken to cost beside its payload and texts, so that empty ones are bounded too."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Input that was refused.

    `code` is the stable name of the reason, `reason` the sentence for people, `sender` who sent it,
    `policy` the policy it was measured against if there was one, `time_ns` when it was refused, `detail`
    more than fits a line, such as a traceback.
    """

    code: str
    reason: str
    tag: str
    sender: str
    policy: str | None
    payload: bytes = field(repr=False)
    time_ns: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """A kept letter without its payload.

    `size` is that of the payload as it was refused, in bytes; `times` how often it came, first at `time_ns`,
    last at `last_time_ns`.
    """

    id: int
    code: str
    reason: str
    tag: str
    sender: str
    policy: str | None
    size: int
    time_ns: int
    last_time_ns: int
    times: int


@dataclass(frozen=True, slots=True)
class KeptDeadLetter(DeadLetterSummary):
    """A kept letter, whole. `payload` is shorter than `size` where it was over MAX_PAYLOAD_BYTES."""

    detail: str
    payload: bytes = field(repr=False)


Summaries: TypeAlias = list[DeadLetterSummary]
"""`DeadLetters.list` hides the built-in name in its own class."""


@dataclass(frozen=True, slots=True)
class DeadLetterStatistics:
    """`count` and `bytes` of what is kept, as they count against the bound; `evicted` letters so far."""

    count: int
    bytes: int
    evicted: int


_VERSION = 1

# What is long lies in a table of its own: SQLite writes a whole row anew to count in it. The totals are kept
# by the same transactions that change the letters; a sum over the table would cost each refusal a walk
# through all that went before.
_SCHEMA = """
CREATE TABLE letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint BLOB NOT NULL UNIQUE, cost_bytes INTEGER NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, tag TEXT NOT NULL, sender TEXT NOT NULL, policy TEXT,
    size INTEGER NOT NULL, time_ns INTEGER NOT NULL, last_time_ns INTEGER NOT NULL, times INTEGER NOT NULL
);
CREATE TABLE contents (id INTEGER PRIMARY KEY, detail TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE totals (letters INTEGER NOT NULL, cost_bytes INTEGER NOT NULL, evicted INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0)
"""

_AFTER_ALL = 2**63 - 1
_SUMMARY = "id, code, reason, tag, sender, policy, size, time_ns, last_time_ns, times"


def _text(value: str) -> str:
    # A tag that was no UTF-8 may hold lone surrogates, which SQLite does not take: they are spelt out.
    return value.encode("utf-8", "backslashreplace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def _fingerprint(letter: DeadLetter) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (letter.code, letter.tag, letter.sender):
        encoded = part.encode("utf-8", "surrogatepass")
        # The lengths keep ("ab", "c") apart from ("a", "bc").
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    digest.update(letter.payload)
    return digest.digest()


class DeadLetters:
    """The file of dead letters; several processes may add at once, and any thread may call every method.

    What is kept never costs more than `max_bytes` (payloads, texts and LETTER_OVERHEAD_BYTES a letter); the
    file is a little larger than that. A payload that alone is over the bound is kept cut.

    A letter is durable when `add` returns: one short transaction and one fdatasync, so on an event loop call
    it from a worker thread, and where many come at once give them to `add_all` together.
    """

    def __init__(self, path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open or make the file. Raises StoreFailed."""
        if max_bytes <= 0:
            raise ValueError(f"max_bytes is how much to keep, not {max_bytes}")
        self._max_bytes = max_bytes
        self._file = SqliteFile(path, version=_VERSION, schema=_SCHEMA)

    def add(self, letter: DeadLetter) -> int:
        """Keep a letter and give its number; one that is kept already is only counted. StoreFailed.

        The same means equal code, tag, sender and payload: `times` rises and `last_time_ns` moves, the rest
        stays as it was the first time.
        """
        return self.add_all((letter,))[0]

    def add_all(self, letters: Sequence[DeadLetter]) -> Sequence[int]:
        """Keep several for the price of one, all or none; gives their numbers, in order. StoreFailed."""
        if not letters:
            return ()
        # Hashed before the transaction begins: other processes wait for writing alone.
        fingerprinted = [(letter, _fingerprint(letter)) for letter in letters]
        with self._file.transaction("keep dead letters") as database:
            numbers = [
                self._count_again(database, letter, fingerprint)
                or self._insert(database, letter, fingerprint)
                for letter, fingerprint in fingerprinted
            ]
            self._evict(database)
        return numbers

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
        policy = None if letter.policy is None else _text(letter.policy)
        detail = _text(letter.detail)
        cost_bytes = LETTER_OVERHEAD_BYTES + sum(
            len(text.encode()) for text in (*texts, policy or "", detail)
        )
        kept_bytes = min(len(letter.payload), MAX_PAYLOAD_BYTES, max(0, self._max_bytes - cost_bytes))
        cost_bytes += kept_bytes
        # A slice of the whole is the payload itself, not a copy.
        payload = letter.payload[:kept_bytes]
        moments = (letter.time_ns, letter.time_ns)
        cursor = database.execute(
            "INSERT INTO letters (fingerprint, cost_bytes, code, reason, tag, sender, policy, size,"
            " time_ns, last_time_ns, times) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
            (fingerprint, cost_bytes, *texts, policy, len(letter.payload), *moments),
        )
        assert cursor.lastrowid is not None
        database.execute("INSERT INTO contents VALUES (?, ?, ?)", (cursor.lastrowid, detail, payload))
        database.execute(
            "UPDATE totals SET letters = letters + 1, cost_bytes = cost_bytes + ?", (cost_bytes,)
        )
        return cursor.lastrowid

    def _evict(self, database: sqlite3.Connection) -> None:
        (surplus,) = database.execute("SELECT cost_bytes - ? FROM totals", (self._max_bytes,)).fetchone()
        freed = evicted = last = 0
        oldest = database.execute("SELECT id, cost_bytes FROM letters ORDER BY id")
        while freed < surplus:
            last, cost_bytes = oldest.fetchone()
            freed += cost_bytes
            evicted += 1
        oldest.close()
        if evicted:
            database.execute("DELETE FROM letters WHERE id <= ?", (last,))
            database.execute("DELETE FROM contents WHERE id <= ?", (last,))
            database.execute(
                "UPDATE totals SET letters = letters - ?, cost_bytes = cost_bytes - ?, evicted = evicted + ?",
                (evicted, freed, evicted),
            )

    def get(self, id: int) -> KeptDeadLetter:
        """One letter, whole. Raises DeadLetterNotFound."""
        with self._file.reading(f"read dead letter {id}") as database:
            row = database.execute(
                f"SELECT {_SUMMARY}, detail, payload FROM letters JOIN contents USING (id) WHERE id = ?",
                (id,),
            ).fetchone()
        if row is None:
            raise self._not_found(id)
        return KeptDeadLetter(*row)

    def drop(self, id: int) -> None:
        """Remove one letter; not counted as evicted. Raises DeadLetterNotFound."""
        with self._file.transaction(f"drop dead letter {id}") as database:
            row = database.execute("DELETE FROM letters WHERE id = ? RETURNING cost_bytes", (id,)).fetchone()
            if row is None:
                raise self._not_found(id)
            database.execute("DELETE FROM contents WHERE id = ?", (id,))
            database.execute("UPDATE totals SET letters = letters - 1, cost_bytes = cost_bytes - ?", row)

    def _not_found(self, id: int) -> DeadLetterNotFound:
        return DeadLetterNotFound(
            f"dead letter {id} is not kept: it was dropped, had to leave for newer ones, or never was; "
            "the list shows those that are"
        )

    def statistics(self) -> DeadLetterStatistics:
        """How many letters are kept, what they cost in bytes, how many had to leave since the file began."""
        with self._file.reading("count the dead letters") as database:
            row = database.execute("SELECT letters, cost_bytes, evicted FROM totals").fetchone()
        return DeadLetterStatistics(*row)

    def close(self) -> None:
        """Let go of the file; closing twice is allowed."""
        self._file.close()

    def list(self, *, limit: int = 100, before: int | None = None) -> Summaries:
        """The newest first, at most `limit`; `before` is the number that the page before ended on."""
        with self._file.reading("list the dead letters") as database:
            rows = database.execute(
                f"SELECT {_SUMMARY} FROM letters WHERE id < ? ORDER BY id DESC LIMIT ?",
                (_AFTER_ALL if before is None else before, max(0, limit)),
            ).fetchall()
        return [DeadLetterSummary(*row) for row in rows]
