"""Values of another process that many requests share, refreshed in the background at most once a second."""

import asyncio
import math
from collections.abc import Awaitable, Callable

FRESH_S = 1.0
"""A run starts at most so often, however many requests there are."""

WAIT_S = 0.5
"""A request waits so long for a source that does not answer; then it uses the value from before."""


class SharedRefresh:
    """Runs `refresh` for all requests that need its result: one run at a time, at most one in `FRESH_S`."""

    def __init__(self, refresh: Callable[[], Awaitable[None]]) -> None:
        self._refresh = refresh
        self._started_s = -math.inf
        self._running: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Returns when the result is fresh, or after `WAIT_S`. Cancelled, it runs on for others."""
        now_s = asyncio.get_running_loop().time()
        if self._running is None and now_s - self._started_s >= FRESH_S:
            self._started_s = now_s
            self._running = asyncio.create_task(self._run())
        if self._running is not None:
            await asyncio.wait([self._running], timeout=WAIT_S)

    async def _run(self) -> None:
        try:
            await self._refresh()
        finally:
            self._running = None
