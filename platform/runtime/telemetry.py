"""What the tiers have in common in reporting on themselves: events, health conditions, a status socket.

Each tier counts in plain integers, on the hot path too, and turns them into Prometheus metrics only
when it is scraped.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from ..config import HttpSettings
from .event_counters import EventCounters
from .health_conditions import HealthConditions
from .http_connections import ConnectionGuard
from .instrumentation import Event, EventLog
from .statuses import TierStatus

SHUTDOWN_S = 5.0
"""Requests that are being answered when a tier stops have this long to end."""


class Telemetry(EventCounters):
    """What a tier reports: `emit` counts an event and logs its line, `health` has its health conditions.

    `registry` has the metrics of the tier.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.health = HealthConditions(logger)
        self._log = EventLog(logger)

    def emit(self, event: Event) -> None:
        """Counts the event and logs its line. Any thread may call."""
        self.count(event)
        self._log.emit(event)


def add_status_routes(
    app: web.Application,
    *,
    status: Callable[[], TierStatus],
    registry: CollectorRegistry,
    health: HealthConditions | None = None,
) -> None:
    """GET /status (JSON) and GET /metrics (Prometheus text), the same in every tier.

    The status lists the health conditions that hold now as its `troubles`, and the metrics count them.
    """
    if health is not None:
        registry.register(health)

    async def get_status(_request: web.Request) -> web.Response:
        answer = status()
        answer.troubles = [] if health is None else health.listed()
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def get_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    app.router.add_get("/status", get_status)
    app.router.add_get("/metrics", get_metrics)


async def serve_on_socket(
    app: web.Application,
    path: Path,
    *,
    limits: HttpSettings | None = None,
    registry: CollectorRegistry | None = None,
) -> web.AppRunner:
    """Serves `app` on a Unix socket that only this user can open; `cleanup()` of what comes back ends it.

    `registry` gets the metrics of its connections.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    guard = ConnectionGuard(limits or HttpSettings(), limits_addresses=False)
    if registry is not None:
        registry.register(guard)
    # A body stays compressed: its reader bounds the decompressed size.
    # When the tier stops, it waits no longer than this for the rest of a body that it has rejected.
    runner = web.AppRunner(
        app, access_log=None, auto_decompress=False, lingering_time=2.0, shutdown_timeout=SHUTDOWN_S
    )
    await guard.serve_unix(runner, path)
    path.chmod(0o600)
    return runner
