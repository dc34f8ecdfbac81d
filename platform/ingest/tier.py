"""The gateway as a process."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial

from aiohttp import web

from ..addresses import parse_address
from ..bus import WORKER_GROUP, open_bus, takes_many_gateways
from ..config import Settings
from ..errors import ConfigInvalid
from ..runtime.bus_probe import watch_bus
from ..runtime.disk_space import DiskWatch, look_at_disk, wait_for_room, watch_disk
from ..runtime.process_memory import collect_garbage_rarely, keep_freed_memory
from ..runtime.telemetry import add_status_routes, serve_on_socket
from ..store.catalog.catalog import Catalog
from ..store.databases.dead_letters import SqlDeadLetters
from .forward.listeners import ForwardServer
from .gateway import Gateway
from .guarded_producer import GuardedProducer
from .http.flushes import add_flush_route
from .http.replay import add_replay_routes
from .http.routes import add_ingest_routes
from .instrumentation import SettingNotApplied
from .policy_book import PolicyBook
from .rejections import add_rejection_routes
from .security.settings import SecurityFile, require_guarded_port
from .security.tls import TlsFiles
from .telemetry import GatewayTelemetry

DRAIN_S = 10.0


async def serve(
    settings: Settings,
    *,
    ready: Callable[[dict[str, str]], None],
    stop: asyncio.Event,
    shares_port: bool = False,
) -> None:
    """Runs the gateway until `stop` is set, then acks the received chunks and returns.

    Calls `ready({"forward": "host:port"})` when both ports are open. The forward port stays shut while its
    secrets or certificates are unusable; the report then also contains "shut". With `shares_port` other
    gateways may open the same port.
    """
    keep_freed_memory()
    collect_garbage_rarely()
    telemetry = GatewayTelemetry()
    telemetry.disk = disk = DiskWatch(settings.home, reserve_bytes=settings.disk_reserve_bytes)
    security = _security_file(settings, telemetry)
    async with AsyncExitStack() as cleanup:
        if takes_many_gateways(settings.bus):
            await look_at_disk(disk, telemetry.health)
        elif not await wait_for_room(disk, telemetry.health, stop):
            return
        catalog = await Catalog.open(settings.catalog_url, copy=settings.policy_copy_file)
        cleanup.push_async_callback(catalog.close)
        bus = open_bus(settings.bus, settings.home, settings.kafka)
        cleanup.push_async_callback(bus.close)
        await bus.prepare(groups=[WORKER_GROUP])
        policies = PolicyBook(catalog, bus, telemetry)
        await policies.refresh()
        following = _start(cleanup, policies.follow())
        producer = bus.producer()
        cleanup.push_async_callback(producer.close)
        if not takes_many_gateways(settings.bus):  # its log is on this disk
            producer = GuardedProducer(producer, disk)
        _start(cleanup, watch_disk(disk, telemetry.health))
        _start(cleanup, watch_bus(bus.topics, telemetry.health))
        dead_letters = SqlDeadLetters(settings.dead_letter_place, max_bytes=settings.dead_letter_bytes)
        gateway = Gateway(
            producer=producer,
            policies=policies,
            dead_letters=dead_letters,
            telemetry=telemetry,
            settings=settings.gateway,
        )
        cleanup.push_async_callback(gateway.close)
        app = _application(settings, gateway, security)
        add_replay_routes(app, gateway, policies, dead_letters)
        add_flush_route(app, producer)
        socket = settings.run_dir / f"{settings.tier_name('gateway')}.sock"
        http = await serve_on_socket(app, socket, limits=settings.http, registry=telemetry.registry)
        cleanup.push_async_callback(http.cleanup)
        require_guarded_port(settings)
        forward, bound = await _listen(settings, gateway, security, shares_port=shares_port)
        ready({"forward": bound, **({} if forward.is_open else {"shut": "true"})})
        await _until(stop, following)
        gateway.stop_holding()
        await forward.close(timeout_s=DRAIN_S)


def _security_file(settings: Settings, telemetry: GatewayTelemetry) -> SecurityFile:
    return SecurityFile(
        settings.forward_security_file,
        on_broken=partial(telemetry.file_broken, "secrets"),
        on_repaired=partial(telemetry.file_repaired, "secrets"),
    )


def _start(cleanup: AsyncExitStack, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Runs `work` until `cleanup` cancels it."""
    task = asyncio.get_running_loop().create_task(work)
    cleanup.push_async_callback(_cancel, task)
    return task


def _application(settings: Settings, gateway: Gateway, security: SecurityFile) -> web.Application:
    """The routes for senders, for the rejections of their chunks, and for the status."""
    telemetry = gateway.telemetry
    app = web.Application(client_max_size=settings.gateway.max_message_bytes)
    add_status_routes(
        app,
        status=telemetry.status,
        registry=telemetry.registry,
        health=telemetry.health,
    )
    add_ingest_routes(app, gateway, security)
    add_rejection_routes(app, gateway.rejections)
    return app


async def _listen(
    settings: Settings, gateway: Gateway, security: SecurityFile, *, shares_port: bool
) -> tuple[ForwardServer, str]:
    """Opens the forward port, the Unix socket and UDP heartbeats; gives the `host:port` that was bound."""
    telemetry = gateway.telemetry
    forward = ForwardServer(
        gateway,
        security=security,
        tls=TlsFiles.of(
            settings,
            on_broken=partial(telemetry.file_broken, "certificates"),
            on_repaired=partial(telemetry.file_repaired, "certificates"),
        ),
    )
    try:
        bound = await forward.listen(*parse_address(settings.forward), shares_port=shares_port)
    except OSError as error:
        raise ConfigInvalid(
            f"forward: {settings.forward} cannot be bound: {error.strerror or error}; "
            "choose another address with --forward HOST:PORT, port 0 takes any free one"
        ) from error
    await forward.listen_on_socket(settings.forward_socket, mode=int(settings.gateway.forward_socket_mode, 8))
    if settings.gateway.udp_heartbeat:
        try:
            await forward.answer_heartbeats(*parse_address(bound), shares_port=shares_port)
        except OSError as error:
            telemetry.emit(
                SettingNotApplied(f"gateway.udp_heartbeat: {bound} cannot be bound for UDP: {error.strerror}")
            )
    return forward, bound


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
