"""What the tiers have in common in speaking of themselves: a log that cannot be flooded, a status socket.

Each tier counts in plain integers, on the hot path too, and turns them into Prometheus metrics only
when it is asked.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from ..config import HttpSettings
from .health_conditions import HealthConditions
from .http_connections import ConnectionGuard
from .rate_limited_log import RateLimitedLog

__all__ = ["SHUTDOWN_S", "RateLimitedLog", "add_status_routes", "serve_on_socket"]

SHUTDOWN_S = 5.0
"""Requests that are being answered when a tier stops get this long."""


def add_status_routes(
    app: web.Application,
    *,
    status: Callable[[], dict[str, Any]],
    registry: CollectorRegistry,
    health: HealthConditions | None = None,
) -> None:
    """GET /status (JSON) and GET /metrics (Prometheus text), the same in every tier.

    The status has the `troubles` that hold now, and the metrics count them.
    """
    if health is not None:
        registry.register(health)

    async def get_status(_request: web.Request) -> web.Response:
        listed = [] if health is None else health.as_json()
        return web.json_response({**status(), "troubles": listed}, dumps=json.dumps)

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
    # A body stays as compressed as it came: who reads it bounds what it may become.
    # The rest of one that was refused before its end is waited for no longer than this when the tier stops.
    runner = web.AppRunner(
        app, access_log=None, auto_decompress=False, lingering_time=2.0, shutdown_timeout=SHUTDOWN_S
    )
    await guard.serve_unix(runner, path)
    path.chmod(0o600)
    return runner
