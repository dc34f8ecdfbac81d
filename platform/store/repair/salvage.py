"""Checks SQLite databases, and copies the readable rows of a damaged one to a new one."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .set_aside import SetAside

SIDE_FILES = ("-wal", "-shm")
_MOST_PROBLEMS = 20
_PAGE_BYTES = 16
"""The offset of the page size in the header of an SQLite file: two bytes."""
_SKIPS_A_TABLE = 10_000
_HEADER_BYTES = 100
_MOST_MISSING_BYTES = 1024 * 1024 * 1024


class Saved(NamedTuple):
    """The result for one table: the rows copied, and whether some could not be read."""

    table: str
    rows: int
    is_whole: bool


def check_database(path: Path, *, expected: bool = False) -> Iterator[tuple[int, str]]:
    """The problems of the database: (offset in the file, problem). None if it does not exist, unless it
    is `expected`. Only reads; tiers may be running.
    """
    if not path.exists():
        if expected:
            yield 0, "the file is missing"
        return
    if path.stat().st_size == 0:
        yield 0, "the file is empty"
        return
    try:
        with closing(_open(path)) as database:
            for (problem,) in database.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})"):
                if problem != "ok":
                    yield _place(path, problem), str(problem)
            for row in database.execute("PRAGMA foreign_key_check"):
                yield 0, f"row {row[1]} of {row[0]} names a row of {row[2]} that is not there"
            if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                yield 0, "it has no tables"
    except sqlite3.Error as error:
        yield 0, str(error)


def salvage(
    path: Path, aside: SetAside, make_new: Callable[[Path], None], *, tables: Sequence[str] = ()
) -> list[Saved]:
    """Set the damaged database aside; make a new one in its place with every row that can be read.

    `make_new` makes the new one with its tables. `tables` are those to fill, in order; by default all that
    both have. No process may have the file open. The new one takes the name last, so that a crash before
    leaves the damaged one in place.
    """
    draft = path.with_name(f"{path.name}.salvage")
    for suffix in ("", *SIDE_FILES):
        Path(f"{draft}{suffix}").unlink(missing_ok=True)
    make_new(draft)
    saved: list[Saved] = []
    source = path.with_name(f"{path.name}.damaged")
    _copy_of(path, source, header=draft.read_bytes()[:_HEADER_BYTES])
    with closing(sqlite3.connect(draft, isolation_level=None)) as new:
        new.execute("PRAGMA journal_mode = DELETE")
        new.execute("PRAGMA synchronous = FULL")
        names = tables or [
            name
            for (name,) in new.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        new.execute("BEGIN IMMEDIATE")
        saved += [_save_table(source, new, table) for table in names]
        new.execute("COMMIT")
    for suffix in ("", *SIDE_FILES):
        Path(f"{source}{suffix}").unlink(missing_ok=True)
        if (part := Path(f"{path}{suffix}")).exists():
            aside.move(part)
    os.rename(draft, path)
    with suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return saved


def _copy_of(path: Path, target: Path, *, header: bytes) -> None:
    """Copy the database, with its log, so that SQLite agrees to read it; opening it could change it.

    A damaged header becomes that of a new database of the same kind. One that was cut short gets pages of
    zeros at its end, as many as its header says, since SQLite gives nothing of a file that lacks some.
    """
    for suffix in ("", *SIDE_FILES):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    content = bytearray(path.read_bytes() if path.exists() else b"")
    page = int.from_bytes(header[16:18], "big")
    if len(content) > _HEADER_BYTES:
        if content[:18] != header[:18]:
            content[:_HEADER_BYTES] = header
            content[28:40] = (len(content) // page).to_bytes(4, "big") + bytes(8)  # pages; none is free
        wanted = int.from_bytes(content[28:32], "big") * page
        if wanted <= len(content) + _MOST_MISSING_BYTES:
            content.extend(bytes(max(0, wanted - len(content))))
    target.write_bytes(content)
    if (log := Path(f"{path}-wal")).exists():
        Path(f"{target}-wal").write_bytes(log.read_bytes())


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
    database.execute("PRAGMA query_only = 1")
    return database


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _place(path: Path, problem: str) -> int:
    """The byte at which the page begins that the problem names, else 0."""
    words = problem.replace(":", " ").split()
    with suppress(ValueError, IndexError, OSError):
        number = int(words[words.index("page") + 1])
        with path.open("rb") as file:
            file.seek(_PAGE_BYTES)
            size = int.from_bytes(file.read(2), "big")
        return (number - 1) * (65536 if size == 1 else size)
    return 0


def _save_table(source: Path, new: sqlite3.Connection, table: str) -> Saved:
    """Copy the rows from both ends up to the unreadable ones, then try each row number between."""
    columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    is_whole = True
    try:
        with closing(sqlite3.connect(source, isolation_level=None)) as old:
            old.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            there = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
            shared = [name for name in columns if name in there]
            if not shared:
                raise sqlite3.DatabaseError(f"no table {table}")
            is_whole = _read(old, table, shared, found)
    except sqlite3.Error:
        is_whole = False
        shared = columns
    marks = ", ".join("?" * len(shared))
    count = 0
    for row in found.values():
        with suppress(sqlite3.Error, UnicodeError, OverflowError):
            insert = f"INSERT OR IGNORE INTO {table} ({', '.join(shared)}) VALUES ({marks})"
            cursor = new.execute(insert, row)
            count += cursor.rowcount
    return Saved(table, count, is_whole)


def _read(
    old: sqlite3.Connection, table: str, columns: list[str], found: dict[tuple[Any, ...], tuple[Any, ...]]
) -> bool:
    has_rowid = True
    try:
        old.execute(f"SELECT rowid FROM {table} LIMIT 0")
    except sqlite3.OperationalError:
        has_rowid = False
    key = ["rowid"] if has_rowid else []
    order = "rowid" if has_rowid else ", ".join(f'"{name}"' for name in _primary_key(old, table))
    wanted = ", ".join([*key, *columns])
    broken = False
    for direction in ("ASC", "DESC"):
        ordered = ", ".join(f"{name} {direction}" for name in order.split(", "))
        try:
            for row in old.execute(f"SELECT {wanted} FROM {table} ORDER BY {ordered}"):
                found[row[: len(key)] or row] = row[len(key) :]
            if direction == "ASC":
                return True
        except sqlite3.Error:
            broken = True
    if has_rowid:
        _read_between(old, table, columns, found)
    return not broken


def _read_between(
    old: sqlite3.Connection, table: str, columns: list[str], found: dict[tuple[Any, ...], tuple[Any, ...]]
) -> None:
    numbers = {key[0] for key in found}
    low, high = min(numbers, default=0), max(numbers, default=_SKIPS_A_TABLE)
    tried = 0
    for number in range(low, high + 1):
        if number in numbers:
            continue
        tried += 1
        if tried > _SKIPS_A_TABLE:
            return
        with suppress(sqlite3.Error):
            row = old.execute(
                f"SELECT {', '.join(columns)} FROM {table} WHERE rowid = ?", (number,)
            ).fetchone()
            if row is not None:
                found[(number,)] = row


def _primary_key(old: sqlite3.Connection, table: str) -> list[str]:
    rows = old.execute(f"PRAGMA table_info({table})").fetchall()
    return [row[1] for row in sorted((row for row in rows if row[5]), key=lambda row: row[5])] or ["rowid"]
