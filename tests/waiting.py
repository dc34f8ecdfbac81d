"""Waiting for what a test started: in a coroutine with `until`; of other processes, see `tests.processes`."""

import asyncio
import itertools
from collections.abc import Callable

UNTIL_S = 60.0
_LOOK_S = 0.005
_LOOKS_WITHOUT_PAUSE = 100


async def until(holds: Callable[[], object], *, timeout_s: float = UNTIL_S) -> None:
    """Waits until `holds()` is true, and lets the event loop run meanwhile. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        for look in itertools.count():
            if holds():
                return
            await asyncio.sleep(0 if look < _LOOKS_WITHOUT_PAUSE else _LOOK_S)
