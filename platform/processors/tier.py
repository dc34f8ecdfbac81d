"""The worker as a process."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

from aiohttp import web

from ..bus import open_bus
from ..config import Settings
from ..store.catalog import Catalog
from ..store.checkpoint import CheckpointStore
from ..store.dead_letters import DeadLetters
from ..store.model_files import ModelFiles
from ..store.store import Store
from ..telemetry import add_status_routes, serve_on_socket
from .catalog_link import CatalogLink
from .telemetry import WorkerTelemetry
from .worker import Worker


async def serve(settings: Settings, *, ready: Callable[[dict[str, str]], None], stop: asyncio.Event) -> None:
    """Runs the worker until `stop` is set, then makes a last checkpoint and leaves."""
    telemetry = WorkerTelemetry()
    async with AsyncExitStack() as cleanup:
        catalog = await Catalog.open(settings.catalog_url)
        cleanup.push_async_callback(catalog.close)
        link = CatalogLink(catalog)
        await link.refresh()
        bus = open_bus(settings.bus, settings.home)
        cleanup.push_async_callback(bus.close)
        checkpoints = CheckpointStore(settings.checkpoint_file)
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
        )
        app = web.Application()
        add_status_routes(app, status=telemetry.status, registry=telemetry.registry)
        runner = await serve_on_socket(app, settings.run_dir / "worker.sock")
        cleanup.push_async_callback(runner.cleanup)
        following = asyncio.get_running_loop().create_task(link.follow())
        cleanup.push_async_callback(_cancel, following)
        ready({})
        await worker.run(stop)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
