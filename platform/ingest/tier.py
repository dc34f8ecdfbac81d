"""The gateway as a process."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

from aiohttp import web

from ..bus import WORKER_GROUP, open_bus
from ..config import Settings, parse_address
from ..errors import ConfigInvalid
from ..store.catalog import Catalog
from ..store.dead_letters import DeadLetters
from ..telemetry import add_status_routes, serve_on_socket
from .forward import ForwardServer
from .gateway import Gateway
from .http import add_ingest_routes
from .policy_book import PolicyBook
from .telemetry import GatewayTelemetry

DRAIN_S = 10.0


async def serve(settings: Settings, *, ready: Callable[[dict[str, str]], None], stop: asyncio.Event) -> None:
    """Runs the gateway until `stop` is set, then acks what it took in and leaves.

    Calls `ready({"forward": "host:port"})` when both doors are open.
    """
    telemetry = GatewayTelemetry()
    async with AsyncExitStack() as cleanup:
        catalog = await Catalog.open(settings.catalog_url)
        cleanup.push_async_callback(catalog.close)
        bus = open_bus(settings.bus, settings.home)
        cleanup.push_async_callback(bus.close)
        await bus.prepare(groups=[WORKER_GROUP])
        policies = PolicyBook(catalog, bus, telemetry)
        await policies.refresh()
        following = asyncio.get_running_loop().create_task(policies.follow())
        cleanup.push_async_callback(_cancel, following)
        producer = bus.producer()
        cleanup.push_async_callback(producer.close)
        gateway = Gateway(
            producer=producer,
            policies=policies,
            dead_letters=DeadLetters(settings.dead_letter_file, max_bytes=settings.dead_letter_bytes),
            telemetry=telemetry,
            settings=settings.gateway,
        )
        cleanup.push_async_callback(gateway.close)

        app = web.Application(client_max_size=settings.gateway.max_message_bytes)
        add_ingest_routes(app, gateway)
        add_status_routes(app, status=lambda: _status(telemetry), registry=telemetry.registry)
        http = await serve_on_socket(app, settings.run_dir / "gateway.sock")
        cleanup.push_async_callback(http.cleanup)

        forward = ForwardServer(gateway)
        try:
            bound = await forward.listen(*parse_address(settings.forward))
        except OSError as error:
            raise ConfigInvalid(
                f"forward: {settings.forward} cannot be bound: {error.strerror or error}; "
                "choose another address with --forward HOST:PORT, port 0 takes any free one"
            ) from error
        ready({"forward": bound})
        await _until(stop, following)
        await forward.close(timeout_s=DRAIN_S)


async def _until(stop: asyncio.Event, following: asyncio.Task[None]) -> None:
    """Waits for `stop`; a task that must not end and did is the gateway's end too."""
    stopping = asyncio.get_running_loop().create_task(stop.wait())
    await asyncio.wait([stopping, following], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if following.done():
        following.result()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _status(telemetry: GatewayTelemetry) -> dict[str, object]:
    return {
        "events_total": telemetry.events_total,
        "bytes_total": telemetry.bytes_total,
        "chunks_total": telemetry.chunks_total,
        "repeated_total": telemetry.repeated_total,
        "refused_total": telemetry.refused_total,
        "refused_by_code": dict(telemetry.refused_by_code),
        "connections": telemetry.connections,
        "pending_bytes": telemetry.pending_bytes(),
        "time_ns": time.time_ns(),
    }
