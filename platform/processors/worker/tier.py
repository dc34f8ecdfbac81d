"""The worker as a process."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress

from aiohttp import web
from prometheus_client import CollectorRegistry

from ...bus import open_bus, takes_many_gateways
from ...bus.interface import Bus
from ...config import Settings
from ...directories import make_directory
from ...errors import DatabaseDamaged, DatabaseUnavailable, WindvaneError
from ...runtime.bus_probe import watch_bus
from ...runtime.disk_space import DiskWatch, wait_for_room, watch_disk
from ...runtime.health_conditions import HealthConditions
from ...runtime.process_memory import share_arenas
from ...runtime.telemetry import add_status_routes, serve_on_socket
from ...store.catalog.catalog import Catalog
from ...store.databases.checkpoint import SqlCheckpointDatabase
from ...store.databases.checkpoint_records import Partition
from ...store.databases.dead_letters import SqlDeadLetters
from ...store.databases.interfaces import CheckpointDatabase
from ...store.interface import open_store
from ...store.model_files import ModelFiles
from ..alarms.relay import AlarmRelay
from ..alarms.webhook import AlarmWebhook
from ..operations.base.unpickling import states_come_from
from ..operations.base.user_operations import UserOperations
from .checkpoint_watch import watch_checkpoints
from .order_watch import BusFlusher, Flusher, GatewayFlusher
from .pipeline.catalog_link import CatalogLink
from .pipeline.telemetry import WorkerTelemetry
from .progress.former_buses import finish_former_buses
from .progress.in_flight import InFlight, MessagePosition, chunks_at_crash
from .progress.instrumentation import PreviousWorkerDied
from .worker import Worker


async def serve(settings: Settings, *, ready: Callable[[dict[str, str]], None], stop: asyncio.Event) -> None:
    """Runs the worker until `stop` is set, then makes a last checkpoint and returns."""
    share_arenas()
    telemetry = WorkerTelemetry()
    disk = DiskWatch(settings.home, reserve_bytes=settings.disk_reserve_bytes)
    async with AsyncExitStack() as cleanup:
        if not await wait_for_room(disk, telemetry.health, stop, waiting=lambda: ready({})):
            return
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
        states_come_from(settings.checkpoint_place)
        cleanup.callback(checkpoints.close)
        make_directory(settings.store_dir)  # the lab and the web tier expect it
        name = settings.tier_name("worker")
        # For the current bus, even while a former bus is read to its end: buffered chunks are in the
        # checkpoint.
        flusher: Flusher = GatewayFlusher(settings.run_dir)
        if takes_many_gateways(settings.bus):
            flusher = BusFlusher(bus, before=flusher)
        in_flight = _watch_over_chunks(settings, checkpoints, telemetry)
        cleanup.callback(in_flight.close)
        workers = Workers(
            lambda bus: Worker(
                bus=bus,
                store=open_store(settings.store, settings.home, segment_bytes=settings.worker.segment_bytes),
                checkpoints=checkpoints,
                dead_letters=SqlDeadLetters(settings.dead_letter_place, max_bytes=settings.dead_letter_bytes),
                settings=settings.worker,
                catalog=link,
                telemetry=telemetry,
                models=ModelFiles(settings.home / "models"),
                operations=operations,
                in_flight=in_flight,
                flusher=flusher,
                name=f"{name} (process {os.getpid()} on {socket.gethostname()})",
            ),
            disk=disk,
            health=telemetry.health,
        )
        app = web.Application()
        add_release_route(app, workers)
        add_status_routes(app, status=telemetry.status, registry=telemetry.registry, health=telemetry.health)
        runner = await serve_on_socket(
            app, settings.run_dir / f"{name}.sock", limits=settings.http, registry=telemetry.registry
        )
        cleanup.push_async_callback(runner.cleanup)
        following = asyncio.get_running_loop().create_task(link.follow())
        cleanup.push_async_callback(_cancel, following)
        relay = AlarmRelay(checkpoints, catalog, retention_hours=settings.alarms.retention_hours)
        if settings.alarms.webhook_url is not None:
            webhook = AlarmWebhook(settings.alarms, settings.home, catalog)
            cleanup.callback(webhook.close)
            await webhook.begin()
            cleanup.push_async_callback(_cancel, asyncio.create_task(webhook.run()))
        cleanup.push_async_callback(_cancel, asyncio.create_task(relay.run()))
        telemetry.checkpoint_s = time.monotonic()  # until now there was nothing to commit
        for watching in (
            watch_disk(disk, telemetry.health),
            watch_bus(bus.topics, telemetry.health),
            watch_checkpoints(telemetry, interval_s=settings.worker.checkpoint_interval_s),
        ):
            cleanup.push_async_callback(_cancel, asyncio.create_task(watching))
        ready({})
        telemetry.unread_buses = await finish_former_buses(settings, checkpoints, workers.run, stop=stop)
        await workers.run(bus, stop)
        with suppress(WindvaneError):  # else at the next start
            await relay.empty()


def _is_suspected(
    position: MessagePosition,
    checkpoints: CheckpointDatabase,
    committed: Mapping[str, Mapping[Partition, int]],
) -> bool:
    """Whether uncommitted messages of this partition have crashed a worker before."""
    key = (position.topic, position.partition)
    done = committed.get(position.log, {}).get(key, 0)
    return bool(checkpoints.held_suspects(position.log, key)) or any(
        offset >= done for offset in checkpoints.suspects(position.log, key)
    )


def _watch_over_chunks(
    settings: Settings, checkpoints: CheckpointDatabase, telemetry: WorkerTelemetry
) -> InFlight:
    """Records the chunks that may have crashed the previous worker, and starts recording those of this
    one.
    """
    name = settings.tier_name("worker")
    path = settings.run_dir / f"{name}.chunks"
    blamed = chunks_at_crash(path, settings.run_dir / f"{name}.exit.json")
    if blamed is not None:
        positions, reason = blamed
        # If a chunk in progress was a suspect before, the other chunks are not blamed.
        committed = checkpoints.logs()
        positions = [each for each in positions if _is_suspected(each, checkpoints, committed)] or positions
        for position in positions:
            checkpoints.blame(position.log, (position.topic, position.partition), [position.offset], reason)
        telemetry.emit(PreviousWorkerDied(len(positions), reason))
    return InFlight(path)


class Workers:
    """Successive workers in this process: a full disk ends a worker; the next one starts when there is free
    space.
    """

    def __init__(
        self, make_worker: Callable[[Bus], Worker], *, disk: DiskWatch, health: HealthConditions
    ) -> None:
        self._make_worker = make_worker
        self._disk = disk
        self._health = health
        self._running: Worker | None = None

    async def run(self, bus: Bus, stop: asyncio.Event) -> None:
        """Processes the bus until `stop` is set."""
        while not stop.is_set():
            self._running = self._make_worker(bus)
            try:
                return await self._running.run(stop)
            except (WindvaneError, OSError) as error:
                if not self._disk.failed(error):
                    raise
            finally:
                self._running = None
            await wait_for_room(self._disk, self._health, stop)

    async def release(self, reference: str, *, seconds: float) -> None:
        """See `Worker.release`; without a worker the stream has no writer."""
        if self._running is not None:
            await self._running.release(reference, seconds=seconds)


async def _open_checkpoints(
    settings: Settings, telemetry: WorkerTelemetry, stop: asyncio.Event, *, waiting: Callable[[], None]
) -> CheckpointDatabase | None:
    """Opens the database; one that is damaged or away stops this tier only.

    It is not replaced. The worker reports what to do, calls `waiting`, and serves its socket until `stop` is
    set, or the database was repaired or restored, or answers. Returns None if `stop` was set.
    """
    try:
        return SqlCheckpointDatabase(settings.checkpoint_place)
    except (DatabaseDamaged, DatabaseUnavailable) as error:
        telemetry.health.report(
            "checkpoints", "io-error", f"the worker waits until this is repaired: {error}"
        )
    app = web.Application()
    registry = CollectorRegistry()
    add_status_routes(app, status=telemetry.status, registry=registry, health=telemetry.health)
    socket_path = settings.run_dir / f"{settings.tier_name('worker')}.sock"
    runner = await serve_on_socket(app, socket_path, limits=settings.http, registry=registry)
    try:
        waiting()
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REOPEN_S)
            # A missing file is not recreated here: the streams would have no checkpoint.
            is_there = settings.database is not None or settings.checkpoint_file.exists()
            if not stop.is_set() and is_there:
                with suppress(DatabaseDamaged, DatabaseUnavailable):
                    opened = SqlCheckpointDatabase(settings.checkpoint_place)
                    telemetry.health.clear("checkpoints")
                    return opened
        return None
    finally:
        await runner.cleanup()


REOPEN_S = 5.0
"""The interval of attempts to open a damaged database."""

MAX_RELEASE_S = 60.0


def add_release_route(app: web.Application, workers: Workers) -> None:
    """POST /streams/release {"reference": …, "seconds": …}: requests the stream for another process."""

    async def release(request: web.Request) -> web.Response:
        body = await request.json()
        await workers.release(str(body["reference"]), seconds=min(float(body["seconds"]), MAX_RELEASE_S))
        return web.json_response({})

    app.router.add_post("/streams/release", release)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
