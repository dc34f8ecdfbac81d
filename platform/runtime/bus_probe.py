"""Whether the bus answers: asked regularly, so that an idle tier knows too."""

import asyncio
from collections.abc import Awaitable, Callable

from .health_conditions import HealthConditions, code_of

LOOK_S = 2.0
"""How often a tier asks the bus."""

ANSWER_BOUND_S = 15.0
"""A bus that has not answered for so long is away."""

BUS = "bus"
"""The key of the health condition."""


async def watch_bus(topics: Callable[[], Awaitable[object]], health: HealthConditions) -> None:
    """Report and clear the health condition of the bus until cancelled; `topics` is a cheap request."""
    asking: asyncio.Future[object] | None = None
    try:
        while True:
            if asking is None:
                asking = asyncio.ensure_future(topics())
            # A slow question is not cancelled: it would only be asked again.
            await asyncio.wait([asking], timeout=ANSWER_BOUND_S)
            if not asking.done():
                health.report(
                    BUS, "bus-away", f"the bus has not answered for {ANSWER_BOUND_S:g} s; check its brokers"
                )
                continue
            try:
                asking.result()
            except Exception as error:
                health.report(BUS, code_of(error) or "bus-away", str(error) or type(error).__name__)
            else:
                health.clear(BUS)
            asking = None
            await asyncio.sleep(LOOK_S)
    finally:
        if asking is not None:
            asking.cancel()
