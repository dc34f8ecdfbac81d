"""Work that would keep the event loop from all other connections: in threads, in slices, in order.

What a library does without the interpreter's lock (inflating, hashing) goes to a thread. What is Python runs
on the loop in slices, since a thread would make the loop wait for the lock at each of its own steps.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from ...errors import ChunkRejected
from .fair_turns import FairTurns

THREADS = 2
QUICK_CPU_S = 0.05
"""CPU time after which work in a thread is slow. An ordinary chunk of 8 MiB takes 30 ms to unpack."""
MAX_CPU_S = 10.0
"""CPU time after which work in a thread is aborted, and its chunk rejected."""
_PAUSE_S = 0.0002

T = TypeVar("T")


async def give_way() -> None:
    """Yields to all other tasks."""
    await asyncio.sleep(0)


def in_one_step(work: Callable[[], T]) -> Generator[None, None, T]:
    """Work that cannot be cut into steps, for `OffLoop.in_thread`: it has to be short."""
    return work()
    yield


def begin(
    coroutine: Coroutine[None, None, None],
) -> "asyncio.Task[None] | None":
    """Runs `coroutine` at once until it first gives way; the rest, if there is one, is the task.

    Its first await must be `give_way`, or end in it: before that there is no task that could wait for
    anything.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(coroutine)


class OffLoop:
    """Two threads, and one turn for slices; senders take turns at both.

    Work begins in any thread. What has taken `QUICK_CPU_S` is slow: one thread at most has slow work, so
    that there is always one for the others. Slow work that finds another one running is given up, and is
    done again from its beginning in its turn.

    Memory: what is given to it; the callers bound that. No more work than `THREADS` is under way, and work
    that was given up has nothing.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="unpack")
        self._places = FairTurns(THREADS)
        self._slow = FairTurns(THREADS - 1)
        self._slicing = FairTurns(1)

    async def in_thread(
        self,
        begin_work: Callable[[], Generator[None, None, T]],
        *,
        who: str,
        ready: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """What the work returns, or raises.

        It yields every few milliseconds, and may be begun a second time. `who` is the sender, with whom the
        others take turns. `ready` is awaited before the work begins, at its turn.

        Raises ChunkRejected("too-slow") for work that takes more than `MAX_CPU_S`.
        """
        run = _Run(begin_work, self._slow)
        loop = asyncio.get_running_loop()
        try:
            async with self._places.place(who):
                if ready is not None:
                    await ready()
                await loop.run_in_executor(self._threads, run.advance)
            if not run.is_done:
                await self._slow.take(who)
                run.is_slow = True
                async with self._places.place(who):
                    await loop.run_in_executor(self._threads, run.advance)
        finally:
            if run.is_slow:
                self._slow.give_back()
        return run.result

    async def in_slices(
        self, slices: Generator[None, None, T], *, who: str, on_long: Callable[[], None]
    ) -> T:
        """Returns what `slices` returns; the first slice runs at once, each other in its own loop turn.

        One at a time over all callers, sender by sender. `on_long` is called if there is more than one slice.
        """
        try:
            next(slices)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        on_long()
        await give_way()
        async with self._slicing.place(who):
            while True:
                try:
                    next(slices)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                await give_way()

    async def close(self) -> None:
        """Waits for what runs."""
        await asyncio.to_thread(self._threads.shutdown)


class _Run(Generic[T]):
    """Work in a thread, until it is done, or is slow while other slow work runs."""

    result: T

    def __init__(self, begin_work: Callable[[], Generator[None, None, T]], slow: FairTurns) -> None:
        self._begin_work = begin_work
        self._slow = slow
        self.is_slow = False
        """It has the place of slow work."""
        self.is_done = False

    def advance(self) -> None:
        """Runs the work to its end; if it has to be aborted, `is_done` stays False."""
        work = self._begin_work()
        # CPU time of this thread: on a busy machine nothing counts as slow because others are.
        began_s = time.thread_time()
        while True:
            try:
                next(work)
            except StopIteration as end:
                self.result = end.value
                self.is_done = True
                return
            used_s = time.thread_time() - began_s
            if used_s > MAX_CPU_S:
                raise ChunkRejected(
                    "too-slow",
                    f"unpacking the chunk took {used_s:.3g} s of CPU and was not done; the bound is "
                    f"{MAX_CPU_S:g} s. Send smaller chunks, of fewer compressed members",
                )
            if used_s > QUICK_CPU_S and not self.is_slow:
                if not self._slow.try_take():
                    return
                self.is_slow = True
            if self.is_slow:
                time.sleep(_PAUSE_S)  # releases the interpreter lock, for which the event loop may wait


class Turns:
    """Keeps the order of arrival for the decisions on the chunks of one tag, even if one takes long.

    Memory: one entry for each tag with a chunk that takes long.
    """

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Future[None]] = {}

    def turn(self, tag: str) -> "Turn":
        """The turn of a chunk that has just come; `end` must be called."""
        return Turn(self._last, tag)


class Turn:
    """Of one chunk among those of its tag."""

    __slots__ = ("_done", "_last", "_tag", "before")

    def __init__(self, last: dict[str, asyncio.Future[None]], tag: str) -> None:
        self._last = last
        self._tag = tag
        self.before = last.get(tag)
        """What `come` waits for; None: nothing."""
        self._done: asyncio.Future[None] | None = None

    async def come(self) -> None:
        """Waits for those before it."""
        if self.before is not None:
            self.keep()
            await give_way()
            await asyncio.shield(self.before)

    def keep(self) -> None:
        """It takes long: those of its tag that come now wait until its `end`."""
        if self._done is None:
            self._done = self._last[self._tag] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """The next one's turn."""
        if self._done is not None:
            self._done.set_result(None)
            if self._last.get(self._tag) is self._done:
                del self._last[self._tag]
