"""Who goes next where only a few may go at a time: senders take turns, however much each of them asks for."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class FairTurns:
    """A number of places. Those that wait are served sender by sender, and in order for each sender.

    A sender with a thousand requests waits no less than one with a single request, so one sender delays
    another by one turn for each place. Memory: one entry for each request that waits.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._counting = threading.Lock()
        # Senders in the order of their turns; a sender that was served goes to the end.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def try_take(self) -> bool:
        """Takes a place if one is free; may be called from any thread."""
        with self._counting:
            if not self._free:
                return False
            self._free -= 1
            return True

    async def take(self, who: str) -> None:
        """Waits for a place. When cancelled, the caller has none."""
        if self.try_take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            else:
                self._forget(who, turn)
            raise

    def give_back(self) -> None:
        """The place goes to the next that waits, or is free; called on the event loop."""
        while self._waiting:
            who, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            del self._waiting[who]
            if turns:
                self._waiting[who] = turns
            if not turn.done():
                turn.set_result(None)
                return
        with self._counting:
            self._free += 1

    @asynccontextmanager
    async def place(self, who: str) -> AsyncIterator[None]:
        """A place for the length of the block."""
        await self.take(who)
        try:
            yield
        finally:
            self.give_back()

    def _forget(self, who: str, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting.get(who)
        if turns is None:
            return
        with suppress(ValueError):
            turns.remove(turn)
        if not turns:
            del self._waiting[who]
