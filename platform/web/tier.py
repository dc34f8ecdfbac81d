"""The web tier as a process: opens the home's store and catalog, binds, serves until told to stop."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from ..addresses import format_address, is_loopback, parse_address
from ..config import Settings
from ..errors import ConfigInvalid
from ..home import ensure_token, make_run_dir
from ..runtime.disk_space import DiskWatch
from ..runtime.http_connections import ConnectionGuard
from ..store.catalog.catalog import Catalog
from ..store.catalog.policy import Policy
from ..store.databases.dead_letters import SqlDeadLetters
from ..store.interface import open_store
from .app import create_app
from .row_origins import RowOrigins
from .telemetry import WebTelemetry
from .tier_client import TierClient

SHUTDOWN_S = 5.0
"""Answers that are being sent when the tier is stopped get this long."""


async def serve(
    settings: Settings,
    *,
    ready: Callable[[dict[str, str]], None],
    stop: asyncio.Event,
    check_policy: Callable[[Policy], None],
) -> None:
    """Serves `settings.web` until `stop` is set; `check_policy` as `create_app` takes it.

    Calls `ready({"web": "http://host:port"})` once bound. Bound to loopback, requests by a loopback name
    need no token; bound elsewhere all need it. Raises ConfigInvalid if the address cannot be bound.
    """
    host, port = parse_address(settings.web)
    async with AsyncExitStack() as cleanup:
        make_run_dir(settings)
        catalog = await Catalog.open(settings.catalog_url, copy=settings.policy_copy_file)
        cleanup.push_async_callback(catalog.close)
        dead_letters = SqlDeadLetters(settings.dead_letter_place, max_bytes=settings.dead_letter_bytes)
        cleanup.callback(dead_letters.close)
        telemetry = WebTelemetry()
        guard = ConnectionGuard(settings.http, limits_addresses=True)
        telemetry.registry.register(guard)
        app = create_app(
            open_store(settings.store, settings.home),
            catalog,
            check_policy=check_policy,
            dead_letters=dead_letters,
            tiers=TierClient(settings.run_dir),
            disk=DiskWatch(settings.home, reserve_bytes=settings.disk_reserve_bytes),
            token=ensure_token(settings),
            ui=Path(__file__).parent / "ui" / "dist",
            open_on_loopback=is_loopback(host),
            telemetry=telemetry,
            checkpoints=settings.checkpoint_place,
            origins=RowOrigins.of(settings),
        )
        # No access log: addresses may hold the token, and the metrics count requests.
        # Bodies stay compressed: the gateway bounds what they may become.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, auto_decompress=False)
        cleanup.push_async_callback(runner.cleanup)
        try:
            await guard.serve_tcp(runner, host, port)
        except OSError as error:
            raise ConfigInvalid(
                f"web: {settings.web} cannot be bound: {error.strerror or error}; "
                "choose another address with --web HOST:PORT, port 0 takes any free one"
            ) from error
        bound = runner.addresses[0]
        ready({"web": f"http://{format_address(bound[0], bound[1])}"})
        await stop.wait()
