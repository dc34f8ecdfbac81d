"""What every database of dead letters must do: `DeadLetterConformance`.

A test module subclasses it and gives the fixture `open_letters`:

    class TestDeadLetters(DeadLetterConformance):
        @pytest.fixture
        def open_letters(self, tmp_path: Path) -> OpenLetters:
            return lambda max_bytes: SqlDeadLetters(tmp_path / "dead-letters.sqlite", max_bytes=max_bytes)
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..errors import DeadLetterNotFound
from ..store.databases.dead_letter import DeadLetter
from ..store.databases.dead_letters import LETTER_OVERHEAD_BYTES, MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES
from ..store.databases.interfaces import DeadLetters

__all__ = ["LETTER", "DeadLetterConformance", "OpenLetters", "cost_bytes"]

OpenLetters: TypeAlias = Callable[[int], DeadLetters]
"""Opens the database of the test, which is empty at first, with a bound in bytes."""

LETTER = DeadLetter(
    code="malformed",
    reason="no policy takes the tag",
    tag="turbine.t07",
    sender="10.0.0.7",
    policy=None,
    payload=b"\x92\x00\x80",
    time_ns=1_000,
)
WAIT_S = 60.0
_ROOMY_BYTES = 256 * 1024 * 1024
_TEXT_BYTES = len("malformed" + "no policy takes the tag" + "turbine.t07" + "10.0.0.7")
_any_input = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def cost_bytes(payload_bytes: int) -> int:
    """What a letter like LETTER with such a payload costs."""
    return LETTER_OVERHEAD_BYTES + _TEXT_BYTES + payload_bytes


class DeadLetterConformance:
    """Letters come back unchanged, equal ones are counted, and what is kept stays within the bound."""

    @pytest.fixture
    def open_letters(self) -> OpenLetters:
        """Give a function that opens the database of this test."""
        raise NotImplementedError("the subclass gives the fixture open_letters")

    @pytest.fixture
    def letters(self, open_letters: OpenLetters) -> DeadLetters:
        """The database of this test, with room for all letters."""
        return open_letters(_ROOMY_BYTES)

    @_any_input
    @given(
        payload=st.binary(max_size=300),
        tag=st.text(max_size=20),
        chunk_id=st.none() | st.binary(min_size=1, max_size=20),
    )
    def test_a_letter_comes_back_unchanged(
        self, letters: DeadLetters, payload: bytes, tag: str, chunk_id: bytes | None
    ) -> None:
        letter = replace(
            LETTER,
            tag=tag,
            payload=payload,
            chunk_id=chunk_id,
            policy="wind",
            detail="Traceback …\n",
            signal=1,
        )
        letter = replace(letter, compression="gzip", format="json", identity="edge-7")
        kept = letters.get(letters.add(letter))
        assert kept.tag == tag.replace("\0", r"\x00")
        for name in ("code", "reason", "sender", "policy", "payload", "detail", "chunk_id", "signal"):
            assert getattr(kept, name) == getattr(letter, name)
        assert (kept.compression, kept.format, kept.identity) == ("gzip", "json", "edge-7")
        assert (kept.size, kept.kept_bytes, kept.time_ns) == (len(payload), len(payload), 1_000)

    def test_text_that_is_not_utf_8_is_escaped_and_long_text_is_cut(self, letters: DeadLetters) -> None:
        tag = b"\xff\xfe".decode("utf-8", "surrogateescape")
        kept = letters.get(letters.add(replace(LETTER, tag=tag, detail="ü" * MAX_TEXT_BYTES)))
        assert (kept.tag, kept.detail) == (r"\udcff\udcfe", "ü" * (MAX_TEXT_BYTES // 2))

    def test_another_process_reads_it(self, open_letters: OpenLetters) -> None:
        id = open_letters(_ROOMY_BYTES).add(LETTER)
        reader = open_letters(_ROOMY_BYTES)
        assert reader.get(id).payload == LETTER.payload
        assert reader.statistics().count == 1

    def test_an_equal_letter_is_counted(self, letters: DeadLetters) -> None:
        id = letters.add(LETTER)
        before = letters.statistics()
        assert letters.add(replace(LETTER, time_ns=5_000, reason="in other words", detail="more")) == id
        assert letters.add_all([replace(LETTER, time_ns=3_000), LETTER]) == [id, id]
        kept = letters.get(id)
        assert (kept.times, kept.time_ns, kept.last_time_ns) == (4, 1_000, 5_000)
        assert kept.reason == LETTER.reason
        assert letters.statistics() == before

    @pytest.mark.parametrize(
        "other",
        [
            replace(LETTER, code="bad-time"),
            replace(LETTER, tag="turbine.t08"),
            replace(LETTER, sender="10.0.0.8"),
            replace(LETTER, payload=b"\x92\x00\x81"),
            replace(LETTER, chunk_id=b"id"),
            replace(LETTER, occurrence=b"2"),
            # The same characters, split differently between tag and sender.
            replace(LETTER, tag="turbine.t0", sender="710.0.0.7"),
        ],
    )
    def test_a_letter_that_differs_is_another(self, letters: DeadLetters, other: DeadLetter) -> None:
        assert letters.add(LETTER) != letters.add(other)
        assert letters.statistics().count == 2

    def test_the_list_is_newest_first_by_pages_and_by_code(self, letters: DeadLetters) -> None:
        ids = letters.add_all(
            [
                replace(LETTER, payload=b"%d" % n, time_ns=n, code="schema" if n % 2 else "bad-time")
                for n in range(7)
            ]
        )
        first = letters.list(limit=3)
        assert [each.id for each in first] == list(ids[:3:-1])
        assert [each.time_ns for each in letters.list(limit=3, before=first[-1].id)] == [3, 2, 1]
        assert [each.time_ns for each in letters.list(code="schema", limit=2)] == [5, 3]
        assert letters.list(code="none") == []

    def test_a_dropped_letter_leaves_its_room_and_its_id_is_never_reused(self, letters: DeadLetters) -> None:
        empty = letters.statistics()
        id = letters.add(LETTER)
        letters.drop(id)
        assert letters.statistics() == empty
        for again in (letters.get, letters.drop):
            with pytest.raises(DeadLetterNotFound, match=str(id)):
                again(id)
        assert letters.add(LETTER) > id

    def test_only_letters_that_are_kept_count_as_dropped(self, letters: DeadLetters) -> None:
        ids = letters.add_all([replace(LETTER, payload=b"%d" % n) for n in range(4)])
        assert letters.drop_all([ids[0], ids[2], ids[0], 10_000]) == 2
        assert [each.id for each in letters.list()] == [ids[3], ids[1]]
        assert letters.drop_all(ids) == 2
        assert letters.statistics().bytes == 0

    def test_the_oldest_are_evicted_and_counted(self, open_letters: OpenLetters) -> None:
        letters = open_letters(3 * cost_bytes(1000))
        ids = [letters.add(replace(LETTER, payload=b"%d" % i * 1000)) for i in range(5)]
        assert [each.id for each in letters.list()] == ids[:1:-1]
        statistics = letters.statistics()
        assert (statistics.count, statistics.bytes, statistics.evicted) == (3, 3 * cost_bytes(1000), 2)
        with pytest.raises(DeadLetterNotFound):
            letters.get(ids[1])
        # Evicted, and sent a second time: it is new.
        assert letters.get(letters.add(replace(LETTER, payload=b"0" * 1000))).times == 1

    @_any_input
    @given(sizes=st.lists(st.integers(min_value=0, max_value=4000), min_size=1, max_size=15))
    def test_the_bound_holds_after_every_letter(self, open_letters: OpenLetters, sizes: list[int]) -> None:
        bound_bytes = 5000
        letters = open_letters(bound_bytes)
        letters.drop_all([each.id for each in letters.list(limit=1000)])
        evicted = letters.statistics().evicted
        for i, size in enumerate(sizes):
            letters.add(replace(LETTER, payload=b"%04d" % i + b"x" * size))
            statistics = letters.statistics()
            kept = letters.list()
            assert statistics.bytes == sum(cost_bytes(each.size) for each in kept) <= bound_bytes
            assert statistics.count == len(kept) == i + 1 - (statistics.evicted - evicted)
            assert kept[0].size == 4 + size
        letters.close()

    def test_letters_of_one_code_evict_no_others(self, open_letters: OpenLetters) -> None:
        letters = open_letters(160_000)
        others = letters.add_all([replace(LETTER, payload=b"%d" % i) for i in range(20)])
        for i in range(100):
            letters.add(replace(LETTER, code="sender-not-allowed", payload=b"%04d" % i * 500))
        kept = [each.id for each in letters.list(limit=1000, code=LETTER.code)]
        assert kept == list(reversed(others))
        assert letters.statistics().evicted > 0

    def test_a_payload_without_room_is_kept_cut(self, open_letters: OpenLetters) -> None:
        letters = open_letters(2000)
        kept = letters.get(letters.add(replace(LETTER, payload=b"x" * 5000)))
        assert (kept.size, kept.payload) == (5000, b"x" * (2000 - cost_bytes(0)))
        assert letters.statistics().bytes == 2000

    def test_a_payload_over_the_limit_is_kept_cut_with_its_size(self, letters: DeadLetters) -> None:
        payload = bytes(MAX_PAYLOAD_BYTES) + b"tail"
        id = letters.add(replace(LETTER, payload=payload))
        kept = letters.get(id)
        assert (kept.size, kept.payload) == (len(payload), bytes(MAX_PAYLOAD_BYTES))
        # Letters that differ only after the cut are different letters.
        assert letters.add(replace(LETTER, payload=payload[:-1])) != id

    def test_processes_and_threads_add_at_once(self, open_letters: OpenLetters) -> None:
        shared = open_letters(_ROOMY_BYTES)

        def add(letters: DeadLetters, name: str) -> None:
            for i in range(15):
                letters.add(replace(LETTER, sender=name, payload=b"%d" % i))
                letters.add(LETTER)

        places = [(shared, "a"), (shared, "b"), (open_letters(_ROOMY_BYTES), "c")]
        threads = [threading.Thread(target=add, args=place, daemon=True) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        assert shared.statistics().count == 46
        assert [each.times for each in shared.list() if each.sender == LETTER.sender] == [45]
