"""Work that would keep the event loop from all other connections: in threads, in slices, in order.

What a library does without the interpreter's lock (inflating, hashing) goes to a thread. What is Python runs
on the loop in slices, since a thread would make the loop wait for the lock at each of its own steps.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 2

T = TypeVar("T")


async def give_way() -> None:
    """Lets everybody else go on first."""
    await asyncio.sleep(0)


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
    """Two threads, and one turn for slices: whoever has large chunks shares these with the others like him.

    Memory: what is given to it; the callers bound that.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="unpack")
        self._slicing = asyncio.Lock()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What `work` gives, or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def in_slices(self, slices: Generator[None, None, T], *, on_long: Callable[[], None]) -> T:
        """What `slices` returns; the first slice runs at once, each other in a turn of the loop of its own.

        One at a time over all callers. `on_long` is called where there is more than one slice.
        """
        try:
            next(slices)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        on_long()
        await give_way()
        async with self._slicing:
            while True:
                try:
                    next(slices)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                await give_way()

    async def close(self) -> None:
        """Waits for what runs."""
        await asyncio.to_thread(self._threads.shutdown)


class Turns:
    """Chunks of one tag are decided in the order in which they came, also where one of them takes long.

    Memory: one entry for each tag that has a chunk which takes long.
    """

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Future[None]] = {}

    def turn(self, tag: str) -> "Turn":
        """The turn of a chunk that has just come; `end` must be called."""
        return Turn(self._last, tag)


class Turn:
    """Of one chunk among those of its tag."""

    __slots__ = ("_before", "_done", "_last", "_tag")

    def __init__(self, last: dict[str, asyncio.Future[None]], tag: str) -> None:
        self._last = last
        self._tag = tag
        self._before = last.get(tag)
        self._done: asyncio.Future[None] | None = None

    async def come(self) -> None:
        """Waits for those before it."""
        if self._before is not None:
            self.keep()
            await give_way()
            await asyncio.shield(self._before)

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
