"""Letters of one code never evict the guaranteed letters of other codes, within the same total bound."""

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.rejections import ONLY_COPY, OTHER_VERSIONS, REJECTIONS, RejectionCode
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.databases.interfaces import DeadLetters

BOUND_BYTES = 640_000
LETTER = DeadLetter("malformed", "why", "machine.a", "10.0.0.7", None, b"", time_ns=1)
CODES = tuple(kind.code for kind in REJECTIONS.values())


def kept(letters: DeadLetters) -> dict[str, list[int]]:
    """The IDs by code, the oldest first."""
    found: dict[str, list[int]] = {}
    for letter in reversed(letters.list(limit=10_000)):
        found.setdefault(letter.code, []).append(letter.id)
    return found


def costs(path: Path) -> Counter[str]:
    with closing(sqlite3.connect(path)) as database:
        return Counter(dict(database.execute("SELECT code, sum(cost_bytes) FROM letters GROUP BY code")))


@pytest.mark.parametrize("flooding", CODES)
def test_a_flood_of_a_code_leaves_the_letters_of_every_other_code(
    tmp_path: Path, flooding: RejectionCode
) -> None:
    path = tmp_path / "dead-letters.sqlite"
    letters = SqlDeadLetters(path, max_bytes=BOUND_BYTES)
    others = {
        code: list(letters.add_all([replace(LETTER, code=code, payload=b"%d" % i * 2_000) for i in range(4)]))
        for code in CODES
        if code != flooding
    }
    for start in range(0, 300, 50):
        letters.add_all(
            [replace(LETTER, code=flooding, payload=b"%07d" % i * 1_000) for i in range(start, start + 50)]
        )
    found, share = kept(letters), REJECTIONS[flooding].share
    newest = found.pop(flooding)
    assert found == others
    assert newest == list(range(newest[-1] - len(newest) + 1, newest[-1] + 1))
    assert newest[-1] == letters.list(limit=1)[0].id
    assert share.guaranteed * BOUND_BYTES - 7_500 < costs(path)[flooding] <= share.at_most * BOUND_BYTES
    statistics = letters.statistics()
    assert statistics.bytes == costs(path).total() <= BOUND_BYTES
    assert statistics.evicted == 300 - len(newest)


def test_free_room_is_lent_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters.sqlite"
    letters = SqlDeadLetters(path, max_bytes=BOUND_BYTES)
    for i in range(100):
        letters.add(replace(LETTER, code="schema", payload=b"%07d" % i * 1_000))
    assert costs(path)["schema"] > 0.98 * BOUND_BYTES
    for i in range(100):
        letters.add(replace(LETTER, code="not-archived", payload=b"%07d" % i * 1_000))
    found = costs(path)
    over = {code: found[code] - REJECTIONS[code].share.guaranteed * BOUND_BYTES for code in found}
    assert over.keys() == {"schema", "not-archived"}
    assert abs(over["schema"] - over["not-archived"]) < 10_000
    assert 0.98 * BOUND_BYTES < found.total() <= BOUND_BYTES


def test_floods_of_many_codes_leave_a_larger_guarantee_alone_and_trim_unknown_codes_together(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dead-letters.sqlite"
    letters = SqlDeadLetters(path, max_bytes=BOUND_BYTES)
    only_copies = [code for code in CODES if REJECTIONS[code].share is ONLY_COPY]
    for code in only_copies:
        letters.add_all([replace(LETTER, code=code, payload=b"%d" % i * 9_000) for i in range(4)])
        assert costs(path)[code] > 0.9 * ONLY_COPY.guaranteed * BOUND_BYTES
    with closing(sqlite3.connect(path)) as database, database:
        for i in range(45):
            add_foreign(database, f"of-others-{i % 5}", cost_bytes=1_000)
    before = kept(letters)
    for i in range(40):
        others = [code for code in CODES if code not in only_copies]
        letters.add_all([replace(LETTER, code=code, payload=b"%04d" % i * 250) for code in others])
    after, found = kept(letters), costs(path)
    assert {code: after[code] for code in only_copies} == {code: before[code] for code in only_copies}
    unknown_bytes = sum(cost_bytes for code, cost_bytes in found.items() if code not in REJECTIONS)
    assert 0 < unknown_bytes < 1.5 * OTHER_VERSIONS.guaranteed * BOUND_BYTES
    assert found.total() <= BOUND_BYTES


def test_a_large_letter_is_cut_to_what_the_others_leave(tmp_path: Path) -> None:
    letters = SqlDeadLetters(tmp_path / "dead-letters.sqlite", max_bytes=BOUND_BYTES)
    for code in CODES:
        letters.add_all([replace(LETTER, code=code, payload=b"%d" % i * 9_000) for i in range(4)])
    before = kept(letters)
    large = letters.get(letters.add(replace(LETTER, code="not-archived", payload=b"x" * BOUND_BYTES)))
    assert large.size == BOUND_BYTES
    assert BOUND_BYTES // 16 < large.kept_bytes < BOUND_BYTES // 2
    after = kept(letters)
    assert all(after[code][-1] == before[code][-1] for code in CODES if code != "not-archived")
    assert letters.statistics().bytes <= BOUND_BYTES


@settings(max_examples=60, deadline=None)
@given(
    adding=st.lists(
        st.tuples(st.sampled_from(CODES), st.integers(0, 9_000), st.integers(1, 4)), min_size=1, max_size=30
    )
)
def test_each_letter_evicts_only_what_is_beyond_a_guarantee(
    tmp_path_factory: pytest.TempPathFactory, adding: list[tuple[RejectionCode, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("shares") / "dead-letters.sqlite"
    bound_bytes = 64_000
    letters = SqlDeadLetters(path, max_bytes=bound_bytes)
    number = 0
    for code, size, times in adding:
        for _ in range(times):
            before, costs_before = kept(letters), costs(path)
            number += 1
            newest = letters.add(replace(LETTER, code=code, payload=b"%04d" % number + b"x" * size))
            after, costs_after = kept(letters), costs(path)
            assert after[code][-1] == newest
            assert costs_after.total() == letters.statistics().bytes <= bound_bytes
            assert costs_after[code] <= REJECTIONS[code].share.at_most * bound_bytes
            for other, ids in before.items():
                left = after.get(other, [])
                assert ids[len(ids) - len([id for id in left if id != newest]) :] == [
                    id for id in left if id != newest
                ], "the oldest leave first"
                guaranteed = REJECTIONS[other].share.guaranteed
                if other != code and costs_before[other] <= guaranteed * bound_bytes:
                    assert left == ids
    letters.close()


def test_letters_of_codes_of_other_versions_are_listed_and_counted_and_share_one_guarantee(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dead-letters.sqlite"
    SqlDeadLetters(path, max_bytes=BOUND_BYTES).close()
    with closing(sqlite3.connect(path)) as database, database:
        for i in range(60):
            add_foreign(database, f"of-others-{i % 2}", cost_bytes=1_000)
    letters = SqlDeadLetters(path, max_bytes=BOUND_BYTES)
    assert len(letters.list(limit=100, code="of-others-1")) == 30
    assert letters.get(1).code == "of-others-0"
    assert letters.get(1).obstacle is None
    assert letters.statistics().count == 60
    flood = [replace(LETTER, code="malformed", payload=b"%07d" % i * 1_000) for i in range(200)]
    letters.add_all(flood)
    left = [letter for letter in letters.list(limit=1_000) if letter.code != "malformed"]
    assert {letter.code for letter in left} == {"of-others-0", "of-others-1"}
    assert [letter.id for letter in reversed(left)] == list(range(61 - len(left), 61))
    assert len(left) >= OTHER_VERSIONS.guaranteed * BOUND_BYTES // 1_000
    assert letters.statistics().bytes <= BOUND_BYTES


def add_foreign(database: sqlite3.Connection, code: str, *, cost_bytes: int) -> None:
    cursor = database.execute(
        "INSERT INTO letters (fingerprint, cost_bytes, code, reason, tag, sender, size,"
        " time_ns, last_time_ns, times)"
        " VALUES (randomblob(16), ?, ?, 'why', 'machine.a', '10.0.0.7', 1, 1, 1, 1)",
        (cost_bytes, code),
    )
    database.execute("INSERT INTO contents VALUES (?, '', x'00')", (cursor.lastrowid,))
    database.execute("UPDATE totals SET letters = letters + 1, cost_bytes = cost_bytes + ?", (cost_bytes,))
