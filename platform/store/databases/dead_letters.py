"""Keeps dead letters: rejected input with the reason, until an operator replays or removes it.

The gateway, the web tier and the workers add to one file. Letters leave when it is full, and are counted.
Input that is resent is kept once, and counted.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from ...errors import DatabaseDamaged, DatabaseUnavailable, DeadLetterNotFound, StoreFailed
from .database import Database, Place, open_database
from .dead_letter import DeadLetter, DeadLetterStatistics, DeadLetterSummary, KeptDeadLetter, Summaries
from .dead_letter_schema import SCHEMA, contents, letters, totals
from .dead_letter_shares import DeadLetterShares
from .interfaces import DeadLetters

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
MAX_PAYLOAD_BYTES = 32 * 1024 * 1024
"""A longer payload is kept cut to this."""
MAX_TEXT_BYTES = 64 * 1024
"""A longer tag, reason, detail, … (bytes of UTF-8) is kept cut to this."""
REOPEN_S = 5.0
"""How long a damaged file is not reopened."""
LETTER_OVERHEAD_BYTES = 256
"""The cost of a letter in addition to payload and texts, so that empty letters are bounded too."""


# Both databases know the length of a payload without reading it.
_SUMMARY = (
    *(letters.c[name] for name in ("id", "code", "reason", "tag", "sender", "policy", "size", "time_ns")),
    *(letters.c[name] for name in ("last_time_ns", "times")),
    sa.func.length(contents.c.payload),
    *(letters.c[name] for name in ("chunk_id", "signal")),
)
_WHOLE = (
    *_SUMMARY,
    contents.c.detail,
    *(letters.c[name] for name in ("compression", "format", "identity")),
    contents.c.payload,
)
_JOINED = letters.join(contents, letters.c.id == contents.c.id)
_COUNT_AGAIN = (
    sa.update(letters)
    .where(letters.c.fingerprint == sa.bindparam("of"))
    .values(
        times=letters.c.times + 1,
        last_time_ns=sa.case(
            (letters.c.last_time_ns < sa.bindparam("now_ns"), sa.bindparam("now_ns")),
            else_=letters.c.last_time_ns,
        ),
    )
    .returning(letters.c.id)
)
_INSERT_LETTER = sa.insert(letters).returning(letters.c.id)
_INSERT_CONTENT = sa.insert(contents)
_DELETE_LETTER = sa.delete(letters).where(letters.c.id == sa.bindparam("of")).returning(letters.c.cost_bytes)
_DELETE_CONTENT = sa.delete(contents).where(contents.c.id == sa.bindparam("of"))
_CHANGE_TOTALS = sa.update(totals).values(
    letters=totals.c.letters + sa.bindparam("more"),
    cost_bytes=totals.c.cost_bytes + sa.bindparam("more_bytes"),
)


def _text(value: str) -> str:
    # Neither database stores the lone surrogates of a tag that is not UTF-8, nor PostgreSQL a NUL: they are
    # escaped.
    encoded = value.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    return encoded[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


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


class SqlDeadLetters(DeadLetters):
    """Dead letters in SQLite or PostgreSQL."""

    def __init__(self, place: Place, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open or create the database. Raises StoreFailed, but not for one that is damaged or away.

        A tier runs without its dead letters: for a damaged file every method raises DatabaseDamaged, for a
        server DatabaseUnavailable, and retries after `REOPEN_S`, so that no restart is needed.
        """
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be at least 1 (got {max_bytes})")
        self._place = place
        self._max_bytes = max_bytes
        self._shares = DeadLetterShares(max_bytes)
        self._opening = threading.Lock()
        self._opened: Database | None = None
        self._broken: StoreFailed | None = None
        self._look_again_s = float("-inf")
        with suppress(DatabaseDamaged, DatabaseUnavailable):
            self._database  # noqa: B018  (opens it)

    @property
    def _database(self) -> Database:
        with self._opening:
            if self._opened is None:
                if self._broken is not None and time.monotonic() < self._look_again_s:
                    raise self._broken
                self._look_again_s = time.monotonic() + REOPEN_S
                try:
                    self._opened = open_database(self._place, SCHEMA)
                except (DatabaseDamaged, DatabaseUnavailable) as error:
                    self._broken = error
                    raise
            return self._opened

    def add(self, letter: DeadLetter) -> int:
        """See `DeadLetters`."""
        return self.add_all((letter,))[0]

    def add_all(self, letters: Sequence[DeadLetter]) -> Sequence[int]:
        """See `DeadLetters`."""
        if not letters:
            return ()
        # Hashed before the transaction begins: other processes wait only while this one writes.
        fingerprinted = [(letter, _fingerprint(letter)) for letter in letters]
        with self._changing("keep dead letters") as connection:
            return [
                connection.scalar(_COUNT_AGAIN, {"of": fingerprint, "now_ns": letter.time_ns})
                or self._insert(connection, letter, fingerprint)
                for letter, fingerprint in fingerprinted
            ]

    @contextmanager
    def _changing(self, purpose: str) -> Iterator[sa.Connection]:
        """A transaction that changes the letters; those of all processes follow each other."""
        database = self._database
        with database.transaction(purpose) as connection:
            database.lock(connection)
            yield connection

    def _insert(self, connection: sa.Connection, letter: DeadLetter, fingerprint: bytes) -> int:
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
        room_bytes = self._shares.room_bytes(connection, texts[0]) - cost_bytes
        kept_bytes = min(len(letter.payload), MAX_PAYLOAD_BYTES, max(0, room_bytes))
        cost_bytes += kept_bytes
        # A slice of the whole is the payload itself, not a copy.
        payload = letter.payload[:kept_bytes]
        code, reason, tag, sender = texts
        row = {
            "fingerprint": fingerprint,
            "cost_bytes": cost_bytes,
            "code": code,
            "reason": reason,
            "tag": tag,
            "sender": sender,
            "policy": policy,
            "size": letter.size or len(letter.payload),
            "time_ns": letter.time_ns,
            "last_time_ns": letter.time_ns,
            "times": 1,
            "chunk_id": chunk_id,
            "compression": compression,
            "signal": letter.signal,
            "format": format,
            "identity": identity,
        }
        id: int = connection.execute(_INSERT_LETTER, row).scalar_one()
        connection.execute(_INSERT_CONTENT, {"id": id, "detail": detail, "payload": payload})
        connection.execute(_CHANGE_TOTALS, {"more": 1, "more_bytes": cost_bytes})
        self._shares.evict(connection, code, newest=id)
        return id

    def get(self, id: int) -> KeptDeadLetter:
        """See `DeadLetters`."""
        with self._database.reading(f"read dead letter {id}") as connection:
            row = connection.execute(
                sa.select(*_WHOLE).select_from(_JOINED).where(letters.c.id == id)
            ).first()
        if row is None:
            raise self._not_found(id)
        return KeptDeadLetter(*row)

    def drop(self, id: int) -> None:
        """See `DeadLetters`."""
        if not self.drop_all([id]):
            raise self._not_found(id)

    def drop_all(self, ids: Sequence[int]) -> int:
        """See `DeadLetters`."""
        with self._changing("drop dead letters") as connection:
            costs = []
            for id in ids:
                cost_bytes = connection.scalar(_DELETE_LETTER, {"of": id})
                if cost_bytes is not None:
                    costs.append(cost_bytes)
                    connection.execute(_DELETE_CONTENT, {"of": id})
            connection.execute(_CHANGE_TOTALS, {"more": -len(costs), "more_bytes": -sum(costs)})
        return len(costs)

    def _not_found(self, id: int) -> DeadLetterNotFound:
        return DeadLetterNotFound(
            f"dead letter {id} does not exist: it was removed, was evicted, or never existed; "
            "the list shows all letters"
        )

    def statistics(self) -> DeadLetterStatistics:
        """See `DeadLetters`."""
        with self._database.reading("count the dead letters") as connection:
            count, size, evicted = connection.execute(sa.select(totals)).one()
        return DeadLetterStatistics(count, size, evicted, self._max_bytes)

    def close(self) -> None:
        """See `DeadLetters`."""
        with self._opening:
            if self._opened is not None:
                self._opened.close()

    def list(self, *, limit: int = 100, before: int | None = None, code: str | None = None) -> Summaries:
        """See `DeadLetters`."""
        page = sa.select(*_SUMMARY).select_from(_JOINED).order_by(letters.c.id.desc()).limit(max(0, limit))
        if before is not None:
            page = page.where(letters.c.id < before)
        if code is not None:
            page = page.where(letters.c.code == code)
        with self._database.reading("list the dead letters") as connection:
            rows = connection.execute(page).all()
        return [DeadLetterSummary(*row) for row in rows]
