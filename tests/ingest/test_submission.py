"""What a submission holds is released exactly once, whatever ends it, and however often that is tried."""

import asyncio
from collections.abc import Callable

import pytest
from windvane.errors import BusUnavailable, ChunkRejected
from windvane.ingest.chunk import CHUNK_OVERHEAD_BYTES, IncomingChunk
from windvane.ingest.limits.off_loop import Turns, give_way
from windvane.ingest.limits.pending_budget import PendingBudget
from windvane.ingest.recent_chunks import RecentChunks
from windvane.ingest.submission import Submission
from windvane.records.events import chunk_key

CHUNK = IncomingChunk(sender="10.7.0.1", tag="t", payload=b"\x92\x01\x80", chunk_id=b"id")
KEY = chunk_key(CHUNK.sender, CHUNK.tag, b"id")
ENDS: dict[str, Callable[[Submission], None]] = {
    "it is durable": Submission.succeed,
    "the bus fails": lambda submission: submission.fail(BusUnavailable("the disk is full")),
    "it is rejected": lambda submission: submission.fail(ChunkRejected("schema", "no")),
}


class Site:
    def __init__(self) -> None:
        self.budget, self.turns = PendingBudget(1_000_000), Turns()
        self.recent: RecentChunks[Submission] = RecentChunks()

    def submission(self) -> Submission:
        return Submission(CHUNK, self.budget, self.turns.turn(CHUNK.tag))


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("then", ENDS)
async def test_its_first_end_counts_and_releases_everything_once(first: str, then: str) -> None:
    site, ended = Site(), list[Submission]()
    other = site.submission()
    submission = site.submission()
    submission.charge(1000)
    submission.remember(KEY, site.recent)
    submission.turn.keep()
    submission.add_done_callback(ended.append)
    ENDS[first](submission)
    error = submission.exception()
    ENDS[then](submission)
    submission.decided()
    submission.decided()
    submission.charge(1000)
    assert submission.exception() is error
    assert ended == [submission]
    assert site.budget.used_bytes == len(CHUNK.payload) + 2 + CHUNK_OVERHEAD_BYTES  # that of `other`
    assert site.recent.pending(KEY) is None
    assert site.recent.is_stored(KEY) is (first == "it is durable")
    other.succeed()
    assert not site.budget.used_bytes
    await asyncio.wait_for(site.turns.turn(CHUNK.tag).come(), 5)


async def test_a_later_chunk_of_its_tag_waits_for_its_decision_and_not_for_its_end() -> None:
    site, order = Site(), list[str]()
    first = site.submission()
    first.turn.keep()
    second = site.submission()

    async def come() -> None:
        await second.turn.come()
        order.append("second")

    coming = asyncio.create_task(come())
    first.when_decided(lambda: order.append("decided"))
    for _ in range(5):
        await give_way()
    assert not order
    first.decided()
    await asyncio.wait_for(coming, 5)
    assert sorted(order) == ["decided", "second"]
    assert not first.done()


async def test_who_stops_waiting_takes_nothing_back() -> None:
    site = Site()
    submission = site.submission()
    submission.remember(KEY, site.recent)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(submission, 0.01)
    assert site.recent.pending(KEY) is submission
    assert site.budget.used_bytes
    submission.succeed()
    await submission
    assert site.recent.is_stored(KEY)
    assert not site.budget.used_bytes


async def test_a_whole_ends_with_the_first_error_once_its_parts_have_ended() -> None:
    site = Site()
    whole = site.submission()
    parts = [whole.part(CHUNK), whole.part(CHUNK), whole.part(CHUNK)]
    whole.end_with(parts)
    parts[2].fail(ChunkRejected("schema", "the last"))
    parts[1].fail(ChunkRejected("schema", "the one in the middle"))
    assert not whole.done()
    parts[0].succeed()
    assert str(whole.exception()) == "the one in the middle"
    assert not site.budget.used_bytes
