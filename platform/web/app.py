"""The application: every route of the web tier, and what stands before all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from ..runtime.announcements import forward_addresses
from ..runtime.disk_space import DiskWatch, disk_space, watch_disk
from ..store.catalog.catalog import Catalog
from ..store.catalog.policy import Policy
from ..store.databases.dead_letters import DeadLetters
from ..store.files.store import Store
from .answers import DeadLetterTotals, DiskStatus, Installation, Status
from .api.alarms import AlarmRoutes
from .api.arrays import ArrayRoutes
from .api.documents import DeadLetterRoutes, SearchRoutes
from .api.health import HealthCheck
from .api.listings import Listings
from .api.policies import PolicyRoutes
from .api.streams import StreamRoutes
from .auth import SHOWS_TOKEN, AccessRule, access_middleware
from .live.feed import LiveFeed, LiveLimits
from .open_alarms import OpenAlarms
from .openapi import describe_api
from .pages import json_response
from .problems import RequestRefused, mark_answering, problem_middleware
from .static import UiRoutes, set_security_headers
from .telemetry import WebTelemetry, counting_middleware, merged_metrics
from .tier_client import ACCESS_HEADER, TIERS, TierClient, together
from .worker_delays import WorkerDelays

API = "/api/v1"
MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of bodies that are read whole, such as policies; what is ingested is handed on, and bounded there."""


def create_app(
    store: Store,
    catalog: Catalog,
    *,
    check_policy: Callable[[Policy], None],
    dead_letters: DeadLetters,
    tiers: TierClient,
    disk: DiskWatch,
    token: str | None,
    ui: Path,
    open_on_loopback: bool = False,
    live_limits: LiveLimits | None = None,
    telemetry: WebTelemetry | None = None,
    checkpoint_file: Path | None = None,
) -> web.Application:
    """The web tier over one store and one catalog; `checkpoint_file` is the worker's, if it can be read here.

    `check_policy` raises PolicyInvalid for a pipeline that cannot run. `ui` is the folder of the built
    interface; it need not exist. Without `open_on_loopback`, which is for servers bound to loopback alone,
    every request needs `token`.
    """
    telemetry = telemetry or WebTelemetry()
    rule = AccessRule(token=token, open_on_loopback=open_on_loopback)
    interface = UiRoutes(ui)
    app = web.Application(
        middlewares=[
            counting_middleware(telemetry),
            problem_middleware,
            _plain_bodies,
            access_middleware(rule, interface.get_as_stranger, judges_itself=_is_ingest),
        ],
        client_max_size=MAX_BODY_BYTES,
    )
    app.on_response_prepare.append(mark_answering)
    app.on_response_prepare.append(set_security_headers)
    live = LiveFeed(store, telemetry, live_limits or LiveLimits())
    app.cleanup_ctx.append(live.running)
    app.cleanup_ctx.append(tiers.closing)
    app.on_shutdown.append(live.close)

    own = _OwnRoutes(telemetry, tiers, dead_letters, disk)
    app.cleanup_ctx.append(own.watching)
    listings = Listings(store, telemetry)
    app.cleanup_ctx.append(listings.closing)
    streams = StreamRoutes(
        store,
        telemetry,
        listings,
        WorkerDelays(tiers),
        OpenAlarms(catalog),
        checkpoint_file=checkpoint_file,
    )
    arrays = ArrayRoutes(store, telemetry, listings)
    policies = PolicyRoutes(catalog, check_policy, f"{API}/policies")
    letters = DeadLetterRoutes(dead_letters, tiers)
    alarms = AlarmRoutes(catalog)
    # A reference may hold anything but "/" as it is; aiohttp's own pattern would refuse braces too.
    ref = "{ref:[^/]+}"
    app.add_routes(
        [
            web.get(f"{API}/health", own.health),
            web.get(f"{API}/status", own.status),
            web.get(f"{API}/policies", policies.list),
            web.post(f"{API}/policies", policies.create),
            web.get(f"{API}/policies/{ref}", policies.get),
            web.put(f"{API}/policies/{ref}", policies.replace),
            web.delete(f"{API}/policies/{ref}", policies.delete),
            web.get(f"{API}/streams", streams.list),
            web.get(f"{API}/streams/{ref}", streams.get),
            web.get(f"{API}/streams/{ref}/data", streams.data),
            web.get(f"{API}/arrays", arrays.list),
            web.get(f"{API}/arrays/{ref}", arrays.get),
            web.get(f"{API}/arrays/{ref}/data", arrays.data),
            web.get(f"{API}/arrays/{ref}/times", arrays.times),
            web.get(f"{API}/search", SearchRoutes(catalog).search),
            web.get(f"{API}/alarms", alarms.list),
            web.get(f"{API}/alarms/{ref}", alarms.get),
            web.post(f"{API}/alarms/{ref}/acknowledge", alarms.acknowledge),
            web.post(f"{API}/alarms/{ref}/comment", alarms.comment),
            web.post(f"{API}/alarms/{ref}/shelve", alarms.shelve),
            web.post(f"{API}/alarms/{ref}/unshelve", alarms.unshelve),
            web.post(f"{API}/alarms/{ref}/clear", alarms.clear),
            web.get(f"{API}/dead-letters", letters.list),
            web.get(f"{API}/dead-letters/{{id}}", letters.get),
            web.delete(f"{API}/dead-letters/{{id}}", letters.drop),
            web.get(f"{API}/dead-letters/{{id}}/payload", letters.payload),
            web.post(f"{API}/dead-letters/{{id}}/replay", letters.replay),
            web.get(f"{API}/live", live.serve, allow_head=False),
            web.get("/metrics", own.metrics),
            web.get("/openapi.json", own.openapi),
            web.post("/ingest/{policy}", own.ingest),
            web.post("/ingest/{policy}/{tag:.+}", own.ingest),
            web.post("/erp5/portal_ingestion_policies/{policy}/ingest", own.ingest),
            # What is not there below these is a problem, not a page.
            web.get("/{path:(?!(?:api|ingest|erp5)(?:/|$)).*}", interface.get),
        ]
    )
    return app


@web.middleware
async def _plain_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is not handed on is not decompressed either: it is small, or it is not wanted."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity" and request.path.startswith(f"{API}/"):
        raise RequestRefused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The API takes no body with Content-Encoding {encoding[:40]}; send it as it is.",
        )
    return await handler(request)


class _OwnRoutes:
    """What the web tier says of itself and of the tiers beside it, and what it hands on to them."""

    def __init__(
        self, telemetry: WebTelemetry, tiers: TierClient, dead_letters: DeadLetters, disk: DiskWatch
    ) -> None:
        self._telemetry = telemetry
        self._tiers = tiers
        self._dead_letters = dead_letters
        self._disk = disk
        self._version = version("windvane")
        self._health = HealthCheck(tiers, telemetry.health, version=self._version)

    async def watching(self, _app: web.Application) -> AsyncIterator[None]:
        """A cleanup context of the application: looks at the disk meanwhile."""
        watching = asyncio.create_task(watch_disk(self._disk, self._telemetry.health))
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    async def health(self, _request: web.Request) -> web.Response:
        """200 if all is well, 503 with the reasons if not."""
        health = await self._health.health()
        status = HTTPStatus.SERVICE_UNAVAILABLE if health.reasons else HTTPStatus.OK
        return json_response(health, status=status)

    async def status(self, _request: web.Request) -> web.Response:
        """What each tier says of itself."""
        health, gateways, workers = await asyncio.gather(
            self._health.health(), *(self._tiers.status(tier) for tier in TIERS)
        )
        return json_response(
            Status(
                installation=await asyncio.to_thread(self._installation),
                health=health,
                gateway=together(gateways),
                worker=together(workers),
                gateways=gateways,
                workers=workers,
                web=self._telemetry.status(),
                tiers=await asyncio.to_thread(self._health.tier_states),
                disk=await asyncio.to_thread(self._disk_status),
                dead_letters=await self._dead_letter_totals(),
            )
        )

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

    async def metrics(self, _request: web.Request) -> web.Response:
        """The metrics of all tiers of this home for one scrape."""
        self._telemetry.dead_letters(await self._dead_letter_totals())
        self._telemetry.platform(
            await asyncio.to_thread(self._disk_status), await asyncio.to_thread(self._health.tier_states)
        )
        pages = await asyncio.gather(*(self._tiers.metrics(tier) for tier in TIERS))
        others = dict(zip(TIERS, pages, strict=True))
        body = merged_metrics(self._telemetry, others)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def openapi(self, _request: web.Request) -> web.Response:
        """The description of the API."""
        return json_response(describe_api(self._version))

    async def ingest(self, request: web.Request) -> web.StreamResponse:
        """Handed on to the gateway, which judges it, and knows the credentials of machines."""
        authorization = request.headers.get("Authorization")
        if request[SHOWS_TOKEN]:
            headers = {ACCESS_HEADER: "token"}
        else:
            headers = {} if authorization is None else {"Authorization": authorization}
        return await self._tiers.hand_on(request, "gateway", headers=headers)


def _is_ingest(request: web.Request) -> bool:
    return (
        request.method == "POST"
        and getattr(request.match_info.handler, "__func__", None) is _OwnRoutes.ingest
    )
