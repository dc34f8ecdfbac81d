"""What a repetition is known by, while its chunk is on its way and afterwards."""

import random
import tracemalloc

from windvane.ingest.recent_chunks import REMEMBERED_CHUNKS, RecentChunks
from windvane.key_table import KeyTable
from windvane.records.events import chunk_key


def key_of(number: int) -> bytes:
    return chunk_key("127.0.0.1", "tag", b"%d" % number)


def test_a_pending_chunk_is_found_by_its_key() -> None:
    recent = RecentChunks[str]()
    recent.add_pending(key_of(1), "first")
    assert recent.pending(key_of(1)) == "first"
    assert not recent.is_stored(key_of(1))
    assert recent.pending(key_of(2)) is None


def test_a_chunk_that_became_durable_is_known_and_is_let_go() -> None:
    recent = RecentChunks[str]()
    recent.add_pending(key_of(1), "first")
    recent.remove_pending(key_of(1), "first", is_stored=True)
    assert recent.is_stored(key_of(1))
    assert recent.pending(key_of(1)) is None


def test_a_chunk_that_failed_is_new_at_its_retry() -> None:
    recent, first, retry = RecentChunks[object](), object(), object()
    recent.add_pending(key_of(1), first)
    recent.remove_pending(key_of(1), first, is_stored=False)
    assert recent.pending(key_of(1)) is None
    assert not recent.is_stored(key_of(1))
    recent.add_pending(key_of(1), retry)
    recent.remove_pending(key_of(1), first, is_stored=False)  # must not take the retry's place
    assert recent.pending(key_of(1)) is retry


def test_the_last_hundred_thousand_are_known() -> None:
    stored = KeyTable(REMEMBERED_CHUNKS)
    count = 5 * REMEMBERED_CHUNKS
    for number in range(count):
        stored.add(key_of(number))
    unknown = sum(key_of(number) not in stored for number in range(count - REMEMBERED_CHUNKS, count))
    assert unknown <= 3  # one in a million is expected
    assert not any(key_of(number) in stored for number in range(count, count + 1000))


def test_a_key_across_two_others_is_unknown() -> None:
    stored = KeyTable(REMEMBERED_CHUNKS)
    first, second = (b"\0\0\0\0" + random.Random(seed).randbytes(12) for seed in (1, 2))
    stored.add(first)
    stored.add(second)
    across = first[8:] + second[:8]
    assert across not in stored
    in_the_same_bucket = b"\0\0\0\0" + second[4:]
    assert in_the_same_bucket in stored


def test_adding_keys_takes_no_memory() -> None:
    stored = KeyTable(REMEMBERED_CHUNKS)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            stored.add(key_of(number))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096
