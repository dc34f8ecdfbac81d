"""What a repetition is known by, while its chunk is on its way and afterwards."""

import asyncio
import random
import tracemalloc

import pytest
from windvane.errors import BusUnavailable
from windvane.ingest.recent_chunks import REMEMBERED_CHUNKS, RecentChunks
from windvane.key_table import KeyTable
from windvane.records.events import chunk_key


def key_of(number: int) -> bytes:
    return chunk_key("127.0.0.1", "tag", b"%d" % number)


def new_future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_a_repetition_ends_as_the_chunk_that_is_on_its_way() -> None:
    recent, future = RecentChunks(), new_future()
    recent.remember(key_of(1), future)
    assert recent.find(key_of(1)) is future
    assert recent.find(key_of(2)) is None


async def test_a_chunk_that_became_durable_is_known_and_its_future_is_let_go() -> None:
    recent, future = RecentChunks(), new_future()
    recent.remember(key_of(1), future)
    future.set_result(None)
    known = recent.find(key_of(1))
    assert known is not None
    assert known.done()
    await asyncio.sleep(0)  # the callbacks of the future run
    known = recent.find(key_of(1))
    assert known is not None
    assert known is not future
    assert known.result() is None


@pytest.mark.parametrize("callbacks_have_run", [False, True])
@pytest.mark.parametrize("end", ["fails", "is cancelled"])
async def test_a_chunk_that_failed_is_new_when_it_comes_again(callbacks_have_run: bool, end: str) -> None:
    recent, future = RecentChunks(), new_future()
    recent.remember(key_of(1), future)
    if end == "fails":
        future.set_exception(BusUnavailable("the disk is full"))
        assert future.exception() is not None
    else:
        future.cancel()
    if callbacks_have_run:
        await asyncio.sleep(0)
    assert recent.find(key_of(1)) is None
    retry = new_future()
    recent.remember(key_of(1), retry)
    await asyncio.sleep(0)  # the end of the first one must not take the retry's place
    assert recent.find(key_of(1)) is retry


def test_the_last_hundred_thousand_are_known() -> None:
    stored = KeyTable(REMEMBERED_CHUNKS)
    count = 5 * REMEMBERED_CHUNKS
    for number in range(count):
        stored.add(key_of(number))
    unknown = sum(key_of(number) not in stored for number in range(count - REMEMBERED_CHUNKS, count))
    assert unknown <= 3  # one in a million is expected
    assert not any(key_of(number) in stored for number in range(count, count + 1000))


def test_a_key_is_no_part_of_two_others() -> None:
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
