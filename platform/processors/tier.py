"""The worker as a process."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

from aiohttp import web

from ..bus import open_bus
from ..config import Settings
from ..errors import DatabaseDamaged, WindvaneError
from ..store.catalog import Catalog
from ..store.checkpoint import CheckpointStore
from ..store.dead_letters import DeadLetters
from ..store.model_files import ModelFiles
from ..store.store import Store
from ..telemetry import add_status_routes, serve_on_socket
from .alarm_relay import AlarmRelay
from .catalog_link import CatalogLink
from .telemetry import WorkerTelemetry
from .user_operations import UserOperations
from .webhook import AlarmWebhook
from .worker import Worker


async def serve(settings: Settings, *, ready: Callable[[dict[str, str]], None], stop: asyncio.Event) -> None:
    """Runs the worker until `stop` is set, then makes a last checkpoint and leaves."""
    telemetry = WorkerTelemetry()
    async with AsyncExitStack() as cleanup:
        catalog = await Catalog.open(settings.catalog_url, copy=settings.policy_copy_file)
        cleanup.push_async_callback(catalog.close)
        operations = UserOperations(settings.operations_dir)
        telemetry.operations_loaded(operations.refresh(), broken=operations.broken)
        link = CatalogLink(catalog)
        await link.refresh()
        bus = open_bus(settings.bus, settings.home, settings.kafka)
        cleanup.push_async_callback(bus.close)
        checkpoints = await _open_checkpoints(settings, telemetry, stop, waiting=lambda: ready({}))
        if checkpoints is None:
            return
        cleanup.callback(checkpoints.close)
        worker = Worker(
            bus=bus,
            store=Store(settings.store_dir),
            checkpoints=checkpoints,
            dead_letters=DeadLetters(settings.dead_letter_file, max_bytes=settings.dead_letter_bytes),
            settings=settings.worker,
            catalog=link,
            telemetry=telemetry,
            models=ModelFiles(settings.home / "models"),
            operations=operations,
            name=f"{settings.tier_name('worker')} (process {os.getpid()} on {socket.gethostname()})",
        )
        app = web.Application()
        add_release_route(app, worker)
        add_status_routes(app, status=telemetry.status, registry=telemetry.registry)
        runner = await serve_on_socket(app, settings.run_dir / f"{settings.tier_name('worker')}.sock")
        cleanup.push_async_callback(runner.cleanup)
        following = asyncio.get_running_loop().create_task(link.follow())
        cleanup.push_async_callback(_cancel, following)
        relay = AlarmRelay(checkpoints, catalog)
        if settings.alarms.webhook_url is not None:
            webhook = AlarmWebhook(settings.alarms, settings.home, catalog)
            cleanup.callback(webhook.close)
            await webhook.begin()
            cleanup.push_async_callback(_cancel, asyncio.create_task(webhook.run()))
        cleanup.push_async_callback(_cancel, asyncio.create_task(relay.run()))
        ready({})
        await worker.run(stop)
        with suppress(WindvaneError):  # else at the next start
            await relay.empty()


async def _open_checkpoints(
    settings: Settings, telemetry: WorkerTelemetry, stop: asyncio.Event, *, waiting: Callable[[], None]
) -> CheckpointStore | None:
    """Opens the database; one that is damaged keeps this tier out of work, and no other.

    Then nothing is made in its place: the worker says what to do, calls `waiting`, and answers on its socket
    until `stop` is set, or the database has been repaired or put back. None: `stop` was set.
    """
    try:
        return CheckpointStore(settings.checkpoint_file)
    except DatabaseDamaged as error:
        logging.getLogger("windvane.worker").error(
            "the worker does nothing until this is repaired: %s", error
        )
    app = web.Application()
    add_status_routes(app, status=telemetry.status, registry=telemetry.registry)
    runner = await serve_on_socket(app, settings.run_dir / f"{settings.tier_name('worker')}.sock")
    try:
        waiting()
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REOPEN_S)
            # A file that is gone is not made anew here: the streams would have no checkpoint.
            if not stop.is_set() and settings.checkpoint_file.exists():
                with suppress(DatabaseDamaged):
                    return CheckpointStore(settings.checkpoint_file)
        return None
    finally:
        await runner.cleanup()


REOPEN_S = 5.0
"""How often a damaged database is looked at again."""

MAX_RELEASE_S = 60.0


def add_release_route(app: web.Application, worker: Worker) -> None:
    """POST /streams/release {"reference": …, "seconds": …}: another process is to write the stream."""

    async def release(request: web.Request) -> web.Response:
        asked = await request.json()
        await worker.release(str(asked["reference"]), seconds=min(float(asked["seconds"]), MAX_RELEASE_S))
        return web.json_response({})

    app.router.add_post("/streams/release", release)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
