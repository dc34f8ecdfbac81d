"""Senders take turns, however much each of them asks for, and slow work leaves room for the others."""

import asyncio
import threading
import time
from collections.abc import Generator
from functools import partial

import pytest
from windvane.errors import ChunkRejected
from windvane.ingest.limits import off_loop
from windvane.ingest.limits.fair_turns import FairTurns
from windvane.ingest.limits.off_loop import OffLoop


async def test_a_sender_with_many_requests_delays_others_by_one_turn() -> None:
    turns, served = FairTurns(1), list[str]()

    async def work(who: str) -> None:
        async with turns.place(who):
            served.append(who)
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(*[work("greedy") for _ in range(6)], *[work("modest") for _ in range(2)])
    assert served == ["greedy", "greedy", "modest", "greedy", "modest", "greedy", "greedy", "greedy"]
    assert turns._waiting == {}
    assert turns.try_take()


async def test_who_is_cancelled_while_it_waits_takes_no_place() -> None:
    turns = FairTurns(1)
    assert turns.try_take()
    waiting = [asyncio.ensure_future(turns.take(who)) for who in ("a", "a", "b")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    turns.give_back()  # and the second is cancelled when it has the place already
    waiting[1].cancel()
    async with asyncio.timeout(30):
        await waiting[2]
    turns.give_back()
    assert turns.try_take()


class Slow:
    """Work that takes CPU until `end` is set."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = threading.Event()

    def __call__(self) -> Generator[None, None, str]:
        self.begun += 1
        while not self.end.is_set():
            sum(range(1000))
            time.sleep(0.0005)
            yield
        return "slow"


def quick() -> Generator[None, None, str]:
    yield
    return "quick"


async def test_slow_work_of_any_number_of_senders_leaves_a_thread_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(off_loop, "QUICK_CPU_S", 0.001)
    threads, slow = OffLoop(), [Slow() for _ in range(4)]
    async with asyncio.timeout(60):
        running = [
            asyncio.ensure_future(threads.in_thread(work, who=f"slow {number}"))
            for number, work in enumerate(slow)
        ]
        while not all(work.begun for work in slow):
            await asyncio.sleep(0.001)
        for number in range(100):
            assert await threads.in_thread(quick, who=f"quick {number % 3}") == "quick"
        assert not any(task.done() for task in running)
        for work in slow:
            work.end.set()
        assert await asyncio.gather(*running) == ["slow"] * 4
    assert sum(work.begun for work in slow) <= 7, "each at most once more, when it has its turn"
    await threads.close()


async def test_work_without_an_end_is_given_up_and_its_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_loop, "QUICK_CPU_S", 0.001)
    monkeypatch.setattr(off_loop, "MAX_CPU_S", 0.02)
    threads = OffLoop()
    async with asyncio.timeout(60):
        found = await asyncio.gather(
            *[threads.in_thread(Slow(), who=who) for who in ("a", "b", "c")], return_exceptions=True
        )
        assert [error.code for error in found if isinstance(error, ChunkRejected)] == ["too-slow"] * 3
        ended = Slow()
        ended.end.set()
        assert await threads.in_thread(ended, who="d") == "slow"
    await threads.close()


async def test_slices_go_sender_by_sender() -> None:
    threads, ended = OffLoop(), list[str]()

    def slices(who: str) -> Generator[None, None, None]:
        yield
        yield
        ended.append(who)

    def ignore() -> None:
        pass

    work = [partial(threads.in_slices, slices(who), who=who, on_long=ignore) for who in "aaab"]
    async with asyncio.timeout(30):
        await asyncio.gather(*(each() for each in work))
    assert ended == ["a", "a", "b", "a"]
    await threads.close()
