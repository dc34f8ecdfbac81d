"""Dead letters: kept unchanged, bounded, counted, by several processes at once."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from windvane.errors import StoreFailed
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import MAX_TEXT_BYTES, SqlDeadLetters
from windvane.store.databases.interfaces import DeadLetters
from windvane.testing.dead_letters import LETTER, DeadLetterConformance, OpenLetters, cost_bytes

from tests.processes import started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "dead-letters.sqlite"


@pytest.fixture
def letters(path: Path) -> Iterator[DeadLetters]:
    letters = SqlDeadLetters(path)
    yield letters
    letters.close()


class TestSqlite(DeadLetterConformance):
    @pytest.fixture
    def open_letters(self, path: Path) -> OpenLetters:
        return lambda max_bytes: SqlDeadLetters(path, max_bytes=max_bytes)


def test_what_sending_it_again_needs_comes_back(letters: DeadLetters) -> None:
    given = {
        "chunk_id": b"id\xff\n",
        "compression": "gzip",
        "signal": 2,
        "format": "application/json?time_key=date",
        "identity": "park",
    }
    before = letters.statistics().bytes
    kept = letters.get(letters.add(replace(LETTER, **given)))  # type: ignore[arg-type]
    assert {name: getattr(kept, name) for name in given} == given
    assert letters.statistics().bytes - before == cost_bytes(3) + len(b"id\xff\n" + b"park") + 30
    plain = letters.get(letters.add(replace(LETTER, tag="plain")))
    assert (plain.chunk_id, plain.compression, plain.signal, plain.format) == (None, "text", 0, "")


def test_a_chunk_id_that_is_too_long_is_left_out_and_not_cut(letters: DeadLetters) -> None:
    kept = letters.get(letters.add(replace(LETTER, chunk_id=b"x" * (MAX_TEXT_BYTES + 1))))
    assert kept.chunk_id is None


@pytest.mark.parametrize(
    ("letter", "says"),
    [
        (LETTER, None),
        (replace(LETTER, code="not-archived"), None),
        (replace(LETTER, code="step-failed"), "archived already"),
        (replace(LETTER, code="framing"), "no chunk"),
        (replace(LETTER, size=4), "only the first 3 of its 4 bytes"),
    ],
)
def test_a_letter_says_why_it_cannot_be_replayed(
    letters: DeadLetters, letter: DeadLetter, says: str | None
) -> None:
    number = letters.add(letter)
    [summary] = letters.list()
    assert summary.obstacle == letters.get(number).obstacle
    assert summary.obstacle is None if says is None else says in str(summary.obstacle)


FIRST_VERSION = """
CREATE TABLE letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint BLOB NOT NULL UNIQUE, cost_bytes INTEGER NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, tag TEXT NOT NULL, sender TEXT NOT NULL, policy TEXT,
    size INTEGER NOT NULL, time_ns INTEGER NOT NULL, last_time_ns INTEGER NOT NULL, times INTEGER NOT NULL
);
CREATE TABLE contents (id INTEGER PRIMARY KEY, detail TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE totals (letters INTEGER NOT NULL, cost_bytes INTEGER NOT NULL, evicted INTEGER NOT NULL);
INSERT INTO totals VALUES (1, 300, 7);
INSERT INTO letters VALUES (5, x'00', 300, 'no-policy', 'why', 'old.tag', 'sender', NULL, 3, 1, 2, 9);
INSERT INTO contents VALUES (5, 'detail', x'920080');
PRAGMA user_version = 1
"""


def test_a_file_of_the_first_version_is_upgraded(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(FIRST_VERSION)
    letters = SqlDeadLetters(path)
    old = letters.get(5)
    assert (old.tag, old.payload, old.times, old.detail) == ("old.tag", b"\x92\x00\x80", 9, "detail")
    assert (old.chunk_id, old.compression, old.signal, old.format, old.obstacle) == (
        None,
        "text",
        0,
        "",
        None,
    )
    assert letters.statistics().evicted == 7
    number = letters.add(replace(LETTER, chunk_id=b"id"))
    letters.close()
    again = SqlDeadLetters(path)
    assert again.get(number).chunk_id == b"id"
    assert [letter.id for letter in again.list()] == [number, 5]
    again.close()


def test_a_file_of_a_later_version_is_rejected(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match="format 99"):
        SqlDeadLetters(path)


def test_the_file_stays_about_as_large_as_the_bound(path: Path) -> None:
    bound_bytes = 1_000_000
    letters = SqlDeadLetters(path, max_bytes=bound_bytes)
    for i in range(40):
        number = letters.add(replace(LETTER, payload=b"%04d" % i * 25_000))
        if i % 3 == 0:
            letters.drop(number)
    assert letters.statistics().evicted > 0
    letters.close()
    assert path.stat().st_size < 2 * bound_bytes


ADDER = """
import sys
from pathlib import Path
from windvane.store.databases.dead_letters import DeadLetter, SqlDeadLetters
from windvane.store.databases.interfaces import DeadLetters

sys.stdin.readline()
letters = SqlDeadLetters(Path(sys.argv[1]))
for i in range(100):
    payload = b"%d" % i
    letters.add(DeadLetter("schema", "reason", "tag", sys.argv[2], None, payload, i))
    letters.add(DeadLetter("schema", "reason", "tag", "both", None, payload, i))
"""


@pytest.mark.system
def test_processes_make_the_file_and_add_at_once(path: Path) -> None:
    with ExitStack() as running:
        children = [
            running.enter_context(
                started([sys.executable, "-c", ADDER, str(path), name], stdin=subprocess.PIPE)
            )
            for name in ("left", "right")
        ]
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            child.stdin.flush()
    assert [child.returncode for child in children] == [0, 0]
    letters = SqlDeadLetters(path)
    kept = letters.list(limit=1000)
    assert {(summary.sender, letters.get(summary.id).payload, summary.times) for summary in kept} == {
        (sender, b"%d" % i, times)
        for sender, times in (("left", 1), ("right", 1), ("both", 2))
        for i in range(100)
    }
    assert letters.statistics().count == 300


def test_letters_that_any_client_can_cause_evict_only_each_other(path: Path) -> None:
    letters = SqlDeadLetters(path, max_bytes=160_000)
    others = letters.add_all([replace(LETTER, payload=b"%d" % i) for i in range(20)])
    for i in range(100):
        letters.add(replace(LETTER, code="sender-not-allowed", payload=b"%04d" % i * 500))
    kept = letters.list(limit=1000)
    assert [summary.id for summary in reversed(kept) if summary.code == LETTER.code] == list(others)
    strangers = [letters.get(summary.id) for summary in kept if summary.code == "sender-not-allowed"]
    assert [letter.payload[:4] for letter in strangers] == [b"0099", b"0098", b"0097", b"0096"]
    assert letters.statistics().evicted == 96
    large = letters.get(letters.add(replace(LETTER, code="sender-not-allowed", payload=bytes(50_000))))
    assert 9_000 < large.kept_bytes < 10_000
    assert large.obstacle is not None
    for code in ("malformed", "sender-not-allowed"):
        letters.drop_all([summary.id for summary in letters.list(limit=1000, code=code)])
    assert letters.statistics().bytes == 0
    letters.add(replace(LETTER, code="sender-not-allowed"))
    assert letters.statistics().count == 1
