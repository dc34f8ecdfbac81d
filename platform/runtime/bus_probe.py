"""Whether the bus answers: a regular request, so that an idle tier knows too."""

import asyncio
from collections.abc import Awaitable, Callable

from .health_conditions import HealthConditions, code_of

LOOK_S = 2.0
"""The interval of the requests."""

ANSWER_BOUND_S = 15.0
"""A bus that has not answered for so long is unavailable."""

BUS = "bus"
"""The key of the health condition."""


async def watch_bus(topics: Callable[[], Awaitable[object]], health: HealthConditions) -> None:
    """Report and clear the health condition of the bus until cancelled; `topics` is a cheap request."""
    request: asyncio.Future[object] | None = None
    try:
        while True:
            if request is None:
                request = asyncio.ensure_future(topics())
            # A slow request is not cancelled: the next one would only repeat it.
            await asyncio.wait([request], timeout=ANSWER_BOUND_S)
            if not request.done():
                health.report(
                    BUS, "bus-away", f"the bus has not answered for {ANSWER_BOUND_S:g} s; check its brokers"
                )
                continue
            try:
                request.result()
            except Exception as error:
                health.report(BUS, code_of(error) or "bus-away", str(error) or type(error).__name__)
            else:
                health.clear(BUS)
            request = None
            await asyncio.sleep(LOOK_S)
    finally:
        if request is not None:
            request.cancel()
