"""Dead letters: kept unchanged, bounded, counted, by several processes at once."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.errors import DeadLetterNotFound, StoreFailed
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import (
    LETTER_OVERHEAD_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_TEXT_BYTES,
    DeadLetters,
)

from tests.processes import started

LETTER = DeadLetter(
    code="malformed",
    reason="no policy takes the tag",
    tag="turbine.t07",
    sender="10.0.0.7",
    policy=None,
    payload=b"\x92\x00\x80",
    time_ns=1_000,
)
TEXT_BYTES = len("malformed" + "no policy takes the tag" + "turbine.t07" + "10.0.0.7")


def cost_bytes(payload_bytes: int) -> int:
    return LETTER_OVERHEAD_BYTES + TEXT_BYTES + payload_bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "dead-letters.sqlite"


@pytest.fixture
def letters(path: Path) -> Iterator[DeadLetters]:
    letters = DeadLetters(path)
    yield letters
    letters.close()


def test_a_letter_comes_back_whole(letters: DeadLetters) -> None:
    letter = replace(LETTER, policy="wind", detail="Traceback …\n", payload=bytes(range(256)) * 3)
    kept = letters.get(letters.add(letter))
    assert kept.payload == bytes(range(256)) * 3
    assert (kept.code, kept.reason, kept.tag, kept.sender) == (
        letter.code,
        letter.reason,
        letter.tag,
        letter.sender,
    )
    assert (kept.policy, kept.detail, kept.size, kept.times) == ("wind", "Traceback …\n", 768, 1)
    assert kept.time_ns == kept.last_time_ns == 1_000


@settings(max_examples=50, deadline=None)
@given(payload=st.binary(max_size=300), tag=st.text(max_size=20))
def test_any_payload_comes_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes, tag: str
) -> None:
    letters = DeadLetters(tmp_path_factory.mktemp("any") / "dead-letters.sqlite")
    kept = letters.get(letters.add(replace(LETTER, tag=tag, payload=payload)))
    assert (kept.payload, kept.tag, kept.size) == (payload, tag, len(payload))
    letters.close()


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
    letters = DeadLetters(path)
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
    again = DeadLetters(path)
    assert again.get(number).chunk_id == b"id"
    assert [letter.id for letter in again.list()] == [number, 5]
    again.close()


def test_a_file_of_a_later_version_is_rejected(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match="format 99"):
        DeadLetters(path)


def test_letters_of_one_code_are_listed_alone(letters: DeadLetters) -> None:
    letters.add_all(
        [replace(LETTER, payload=b"%d" % n, code="schema" if n % 2 else "bad-time") for n in range(6)]
    )
    assert [letter.code for letter in letters.list(code="schema", limit=2)] == ["schema"] * 2
    assert letters.list(code="none") == []


def test_several_are_dropped_together_and_those_that_are_gone_do_not_count(letters: DeadLetters) -> None:
    numbers = letters.add_all([replace(LETTER, payload=b"%d" % n) for n in range(4)])
    assert letters.drop_all([numbers[0], numbers[2], numbers[0], 99]) == 2
    assert [letter.id for letter in letters.list()] == [numbers[3], numbers[1]]
    assert letters.statistics().count == 2
    assert letters.drop_all(numbers) == 2
    assert letters.statistics().bytes == 0


def test_letters_are_there_after_a_restart(letters: DeadLetters, path: Path) -> None:
    number = letters.add(LETTER)
    letters.close()
    again = DeadLetters(path)
    assert again.get(number).payload == LETTER.payload
    assert again.statistics().count == 1


def test_the_same_again_is_only_counted(letters: DeadLetters) -> None:
    number = letters.add(LETTER)
    before = letters.statistics()
    assert letters.add(replace(LETTER, time_ns=5_000, reason="in other words", detail="more")) == number
    assert letters.add(replace(LETTER, time_ns=3_000)) == number
    kept = letters.get(number)
    assert (kept.times, kept.time_ns, kept.last_time_ns) == (3, 1_000, 5_000)
    assert kept.reason == LETTER.reason
    assert letters.statistics() == before


@pytest.mark.parametrize(
    "other",
    [
        replace(LETTER, code="bad-time"),
        replace(LETTER, tag="turbine.t08"),
        replace(LETTER, sender="10.0.0.8"),
        replace(LETTER, payload=b"\x92\x00\x81"),
        # The same characters, split differently between tag and sender.
        replace(LETTER, tag="turbine.t0", sender="710.0.0.7"),
    ],
)
def test_what_differs_in_code_tag_sender_or_payload_is_another_letter(
    letters: DeadLetters, other: DeadLetter
) -> None:
    assert letters.add(LETTER) != letters.add(other)
    assert letters.statistics().count == 2


def test_the_oldest_leave_when_it_is_full_and_are_counted(path: Path) -> None:
    letters = DeadLetters(path, max_bytes=3 * cost_bytes(1000))
    numbers = [letters.add(replace(LETTER, payload=b"%d" % i * 1000)) for i in range(5)]
    assert [summary.id for summary in letters.list()] == numbers[:1:-1]
    statistics = letters.statistics()
    assert (statistics.count, statistics.bytes, statistics.evicted) == (3, 3 * cost_bytes(1000), 2)
    with pytest.raises(DeadLetterNotFound):
        letters.get(numbers[1])


def test_the_file_stays_about_as_large_as_the_bound(path: Path) -> None:
    bound_bytes = 1_000_000
    letters = DeadLetters(path, max_bytes=bound_bytes)
    for i in range(40):
        number = letters.add(replace(LETTER, payload=b"%04d" % i * 25_000))
        if i % 3 == 0:
            letters.drop(number)
    assert letters.statistics().evicted > 0
    letters.close()
    assert path.stat().st_size < 2 * bound_bytes


def test_one_large_letter_makes_several_small_ones_leave(path: Path) -> None:
    letters = DeadLetters(path, max_bytes=4 * cost_bytes(1000))
    for i in range(4):
        letters.add(replace(LETTER, payload=b"%d" % i * 1000))
    large = letters.add(replace(LETTER, payload=b"x" * 2 * cost_bytes(1000)))
    assert [summary.id for summary in letters.list()] == [large, large - 1]
    assert letters.statistics().evicted == 3


def test_a_letter_that_was_repeated_after_it_left_is_new(path: Path) -> None:
    letters = DeadLetters(path, max_bytes=cost_bytes(1000))
    first = letters.add(replace(LETTER, payload=b"a" * 1000))
    letters.add(replace(LETTER, payload=b"b" * 1000))
    again = letters.add(replace(LETTER, payload=b"a" * 1000))
    assert again > first
    assert letters.get(again).times == 1


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(min_value=0, max_value=4000), min_size=1, max_size=25))
def test_the_bound_holds_after_every_letter(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    bound_bytes = 5000
    letters = DeadLetters(tmp_path_factory.mktemp("bound") / "dead-letters.sqlite", max_bytes=bound_bytes)
    for i, size in enumerate(sizes):
        letters.add(replace(LETTER, payload=b"%04d" % i + b"x" * size))
        statistics = letters.statistics()
        kept = letters.list()
        assert statistics.bytes <= bound_bytes
        assert statistics.bytes == sum(cost_bytes(summary.size) for summary in kept)
        assert statistics.count == len(kept) == i + 1 - statistics.evicted
        assert kept[0].size == 4 + size
    letters.close()


def test_a_payload_over_the_limit_is_kept_cut_with_its_true_size(letters: DeadLetters) -> None:
    payload = bytes(MAX_PAYLOAD_BYTES) + b"tail"
    number = letters.add(replace(LETTER, payload=payload))
    kept = letters.get(number)
    assert kept.size == len(payload)
    assert kept.payload == bytes(MAX_PAYLOAD_BYTES)
    # Letters that differ only after the cut are different letters.
    assert letters.add(replace(LETTER, payload=payload[:-1])) != number


def test_a_payload_over_the_bound_is_kept_cut_to_it(path: Path) -> None:
    letters = DeadLetters(path, max_bytes=2000)
    kept = letters.get(letters.add(replace(LETTER, payload=b"x" * 5000)))
    assert kept.size == 5000
    assert kept.payload == b"x" * (2000 - cost_bytes(0))
    assert letters.statistics().bytes == 2000


def test_texts_of_any_length_and_content_are_taken(letters: DeadLetters) -> None:
    tag_of_no_script = b"\xff\xfe".decode("utf-8", "surrogateescape")
    kept = letters.get(letters.add(replace(LETTER, tag=tag_of_no_script, detail="ü" * MAX_TEXT_BYTES)))
    assert kept.tag == r"\udcff\udcfe"
    assert kept.detail == "ü" * (MAX_TEXT_BYTES // 2)


def test_the_list_is_newest_first_and_comes_in_pages(letters: DeadLetters) -> None:
    numbers = letters.add_all([replace(LETTER, payload=b"%d" % i, time_ns=i) for i in range(7)])
    first = letters.list(limit=3)
    assert [summary.id for summary in first] == list(numbers[:3:-1])
    assert [summary.time_ns for summary in first] == [6, 5, 4]
    second = letters.list(limit=3, before=first[-1].id)
    assert [summary.time_ns for summary in second] == [3, 2, 1]
    assert [summary.time_ns for summary in letters.list(before=second[-1].id)] == [0]


def test_several_are_added_together_and_repeats_among_them_are_counted(letters: DeadLetters) -> None:
    other = replace(LETTER, tag="other")
    first, second, third = letters.add_all([LETTER, other, LETTER])
    assert first == third != second
    assert letters.get(first).times == 2
    assert letters.add_all([]) == ()


def test_a_dropped_letter_is_gone_and_its_room_is_free(letters: DeadLetters) -> None:
    empty = letters.statistics()
    number = letters.add(LETTER)
    letters.drop(number)
    assert letters.statistics() == empty
    for again in (letters.get, letters.drop):
        with pytest.raises(DeadLetterNotFound, match=str(number)):
            again(number)
    # An ID is never reused for another letter.
    assert letters.add(LETTER) > number


def test_threads_of_one_process_add_at_once(letters: DeadLetters) -> None:
    def add(name: str) -> None:
        for i in range(25):
            letters.add(replace(LETTER, sender=name, payload=b"%d" % i))
            letters.add(LETTER)

    threads = [threading.Thread(target=add, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert letters.statistics().count == 76
    assert [summary.times for summary in letters.list() if summary.sender == LETTER.sender] == [75]


ADDER = """
import sys
from pathlib import Path
from windvane.store.databases.dead_letters import DeadLetter, DeadLetters

sys.stdin.readline()
letters = DeadLetters(Path(sys.argv[1]))
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
    letters = DeadLetters(path)
    kept = letters.list(limit=1000)
    assert {(summary.sender, letters.get(summary.id).payload, summary.times) for summary in kept} == {
        (sender, b"%d" % i, times)
        for sender, times in (("left", 1), ("right", 1), ("both", 2))
        for i in range(100)
    }
    assert letters.statistics().count == 300


def test_letters_that_any_client_can_cause_evict_only_each_other(path: Path) -> None:
    letters = DeadLetters(path, max_bytes=160_000)
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
