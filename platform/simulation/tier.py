"""The wind park as a process: sends each record when it is due, and resends it until it is acked."""

import asyncio
import logging
import time
from collections.abc import Callable

from ..config import Settings
from ..ingest.forward.client import ClientStatistics, ForwardClient, local_address
from ..runtime.announcements import forward_address
from .park import NS_PER_S, Source, wind_park

log = logging.getLogger(__name__)

MAX_UNACKED_CHUNKS = 128  # for each source; memory stays below 1 MB
MAX_BEHIND_S = 60
LAST_ACKS_S = 2.0
LOOK_S = 10.0


async def serve(settings: Settings, *, ready: Callable[[dict[str, str]], None], stop: asyncio.Event) -> None:
    """Send the park to `settings.forward` until `stop` is set; then wait up to 2 s for the last acks.

    Each source has its own connection, so that a rejected one does not delay the others. A source whose
    records are not acked waits, and catches up by at most a minute.
    """
    address = settings.forward
    if address == forward_address(settings):  # this home's own gateway
        address = local_address(settings, address)
    clients = [
        (source, ForwardClient(address, max_unacked_chunks=MAX_UNACKED_CHUNKS)) for source in wind_park()
    ]
    async with asyncio.TaskGroup() as tasks:
        for source, client in clients:
            tasks.create_task(_send(source, client, stop))
        watching = tasks.create_task(_watch(clients))
        log.info("sending as %d tags to %s", len(clients), address)
        ready({})
        await stop.wait()
        watching.cancel()


async def _send(source: Source, client: ForwardClient, stop: asyncio.Event) -> None:
    async with client:
        pacing = asyncio.create_task(_pace(source, client))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({pacing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if pacing.done():
            pacing.result()
        pacing.cancel()
        try:
            async with asyncio.timeout(LAST_ACKS_S):
                await client.drain()
        except TimeoutError:
            await client.close()


async def _pace(source: Source, client: ForwardClient) -> None:
    number = time.time_ns() // source.period_ns
    while True:
        complete_ns = (number + 1) * source.period_ns
        wait_ns = complete_ns - time.time_ns()
        if wait_ns > 0:
            await asyncio.sleep(wait_ns / NS_PER_S)
        elif -wait_ns > MAX_BEHIND_S * NS_PER_S:
            now = time.time_ns() // source.period_ns
            log.warning(
                "%s: %d records were never sent, since none was acked in time", source.tag, now - number
            )
            number = now
            continue
        await client.send_events(source.tag, [(complete_ns, source.record(number))])
        number += 1


async def _watch(clients: list[tuple[Source, ForwardClient]]) -> None:
    """Log once that acks are missing, and once that they have resumed."""
    troubled = False
    while True:
        await asyncio.sleep(LOOK_S)
        waiting = [
            (source.tag, statistics)
            for source, client in clients
            if _silent(statistics := client.statistics())
        ]
        if waiting and not troubled:
            tag, statistics = waiting[0]
            why = statistics.problem or "connected, but not acked; does a policy take the tag?"
            log.warning(
                "%d of %d tags wait for acks, %s among them: %s", len(waiting), len(clients), tag, why
            )
        elif troubled and not waiting:
            log.info("all %d tags are acked again", len(clients))
        troubled = bool(waiting)


def _silent(statistics: ClientStatistics) -> bool:
    return statistics.silent_s > LOOK_S
