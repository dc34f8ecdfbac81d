"""What the tiers have in common in speaking of themselves: a log that cannot be flooded, a status socket.

Each tier counts in plain integers, on the hot path too, and turns them into Prometheus metrics only
when it is asked.
"""

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from .config import HttpSettings
from .http_connections import ConnectionGuard

_REPEAT_S = 60.0
_MAX_REMEMBERED = 4096
_MAX_LINES = 200
SHUTDOWN_S = 5.0
"""Requests that are being answered when a tier stops get this long."""


class RateLimitedLog:
    """One line a minute for each key, and 200 in all; the next line says how many were left out.

    Remembers 4,096 keys.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._minute_began_s, self._lines, self._dropped = -_REPEAT_S, 0, 0

    def warning(self, key: tuple[str, ...], message: str) -> None:
        """Logs `message`, or counts it where `key` had its line within the last minute."""
        now = time.monotonic()
        said_at, left_out = self._said.get(key, (-_REPEAT_S, 0))
        if now - said_at < _REPEAT_S:
            self._said[key] = (said_at, left_out + 1)
            return
        if now - self._minute_began_s >= _REPEAT_S:
            if self._dropped:
                self._logger.warning("%d lines of other kinds were left out in a minute", self._dropped)
            self._minute_began_s, self._lines, self._dropped = now, 0, 0
        if self._lines >= _MAX_LINES:  # whoever makes up names makes up keys
            self._dropped += 1
            return
        self._lines += 1
        suffix = f" ({left_out} more like it left out)" if left_out else ""
        self._logger.warning("%s%s", message, suffix)
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        if len(self._said) > _MAX_REMEMBERED:
            self._said.popitem(last=False)


def add_status_routes(
    app: web.Application, *, status: Callable[[], dict[str, Any]], registry: CollectorRegistry
) -> None:
    """GET /status (JSON) and GET /metrics (Prometheus text), the same in every tier."""

    async def get_status(_request: web.Request) -> web.Response:
        return web.json_response(status(), dumps=json.dumps)

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
