"""The installation as a whole over HTTP: health, status, metrics, and the description of the API."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from ...runtime.announcements import forward_addresses
from ...runtime.disk_space import DiskWatch, disk_space, watch_disk
from ...runtime.statuses import GatewayStatus, WorkerStatus
from ...store.databases.interfaces import DeadLetters
from ..answers import DeadLetterTotals, DiskStatus, Health, Installation, Status
from ..pages import json_response
from ..reported_status import ReportedStatus, read_status
from ..route import API, JSON, Answer, json_answer, route
from ..telemetry import WebTelemetry, merged_metrics
from ..tier_client import TIERS, TierClient, together
from .health import HealthCheck

TAG = "platform"


class PlatformRoutes:
    """What the web tier reports of itself, of the other tiers, and of its API."""

    def __init__(
        self,
        telemetry: WebTelemetry,
        tiers: TierClient,
        dead_letters: DeadLetters,
        disk: DiskWatch,
        *,
        version: str,
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        """`describe` gives the description of the API."""
        self._telemetry = telemetry
        self._tiers = tiers
        self._dead_letters = dead_letters
        self._disk = disk
        self._describe = describe
        self._health = HealthCheck(tiers, telemetry.health, version=version)

    async def watching(self, _app: web.Application) -> AsyncIterator[None]:
        """A cleanup context of the application, during which the disk is watched."""
        watching = asyncio.create_task(watch_disk(self._disk, self._telemetry.health))
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    @route(
        "GET",
        f"{API}/health",
        tag=TAG,
        answers=[
            json_answer(Health, "It is healthy."),
            json_answer(Health, "It is not, for these reasons.", status=HTTPStatus.SERVICE_UNAVAILABLE),
        ],
    )
    async def health(self, _request: web.Request) -> web.Response:
        """Say whether the installation is healthy."""
        health = await self._health.health()
        status = HTTPStatus.SERVICE_UNAVAILABLE if health.reasons else HTTPStatus.OK
        return json_response(health, status=status)

    @route("GET", f"{API}/status", tag=TAG, answers=[json_answer(Status, "The status.")])
    async def status(self, _request: web.Request) -> web.Response:
        """Get the status of each tier."""
        health, gateways, workers = await asyncio.gather(
            self._health.health(), *(self._tiers.status(tier) for tier in TIERS)
        )
        return json_response(
            Status(
                installation=await asyncio.to_thread(self._installation),
                health=health,
                gateway=_together(GatewayStatus, gateways),
                worker=_together(WorkerStatus, workers),
                gateways={name: read_status(GatewayStatus, each) for name, each in gateways.items()},
                workers={name: read_status(WorkerStatus, each) for name, each in workers.items()},
                web=self._telemetry.status(),
                tiers=await asyncio.to_thread(self._health.tier_states),
                disk=await asyncio.to_thread(self._disk_status),
                dead_letters=await self._dead_letter_totals(),
            )
        )

    @route(
        "GET",
        "/metrics",
        tag=TAG,
        answers=[
            Answer(
                HTTPStatus.OK,
                "Prometheus text format 0.0.4; the label `tier` names the tier of a sample.",
                {"text/plain": {"type": "string"}},
            )
        ],
    )
    async def metrics(self, _request: web.Request) -> web.Response:
        """Get the metrics of all tiers in one scrape."""
        self._telemetry.dead_letters = await self._dead_letter_totals()
        self._telemetry.disk = await asyncio.to_thread(self._disk_status)
        self._telemetry.tiers = await asyncio.to_thread(self._health.tier_states)
        pages = await asyncio.gather(*(self._tiers.metrics(tier) for tier in TIERS))
        others = dict(zip(TIERS, pages, strict=True))
        body = merged_metrics(self._telemetry, others)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    @route(
        "GET",
        "/openapi.json",
        tag=TAG,
        answers=[Answer(HTTPStatus.OK, "An OpenAPI 3.1 document.", {JSON: {"type": "object"}})],
    )
    async def openapi(self, _request: web.Request) -> web.Response:
        """Get this description of the API."""
        return json_response(await asyncio.to_thread(self._describe))

    def _installation(self) -> Installation:
        home = self._disk.home.resolve()
        return Installation(str(home), list(dict.fromkeys(forward_addresses(self._tiers.run_dir))))

    def _disk_status(self) -> DiskStatus | None:
        try:
            space = disk_space(self._disk.home)
        except OSError:
            return None
        return DiskStatus(space.free_bytes, space.size_bytes, self._disk.reserve_bytes(space))

    async def _dead_letter_totals(self) -> DeadLetterTotals:
        found = await asyncio.to_thread(self._dead_letters.statistics)
        return DeadLetterTotals(found.count, found.bytes, found.max_bytes, found.evicted)


def _together(kind: type[ReportedStatus], reported: Mapping[str, Mapping[str, Any]]) -> ReportedStatus | None:
    """One status of all instances of a tier; None if there are none."""
    status = together(reported)
    return None if status is None else read_status(kind, status)
