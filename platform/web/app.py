"""The application: the routes of the web tier, and the middlewares before all of them."""

from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ..runtime.disk_space import DiskWatch
from ..store.catalog.catalog import Catalog
from ..store.catalog.policy import Policy
from ..store.databases.database import Place
from ..store.databases.interfaces import DeadLetters
from ..store.interface import StoreEngine
from .api.alarms import AlarmRoutes
from .api.arrays import ArrayRoutes
from .api.document_routes import DocumentRoutes
from .api.document_type_routes import document_type_routes
from .api.documents import DeadLetterRoutes, SearchRoutes
from .api.exports import ExportRoutes
from .api.ingest import IngestRoutes
from .api.listings import Listings
from .api.overviews import OverviewRoutes
from .api.platform import PlatformRoutes
from .api.policies import PolicyRoutes
from .api.provenance import ProvenanceRoutes
from .api.streams import StreamRoutes
from .auth import AccessRule, access_middleware
from .live.feed import LiveFeed
from .live.subscriptions import LiveLimits
from .open_alarms import OpenAlarms
from .openapi import describe_api
from .problems import RequestRejected, mark_answering, problem_middleware
from .route import API, Access, access_of, declared_routes, route_definitions
from .row_origins import RowOrigins
from .static import UiRoutes, set_security_headers
from .telemetry import WebTelemetry, counting_middleware
from .tier_client import TierClient
from .worker_delays import WorkerDelays

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of bodies that are read whole, such as policies; chunks are passed on, and bounded by the gateway."""

RESOURCES: tuple[type, ...] = (
    PlatformRoutes,
    PolicyRoutes,
    StreamRoutes,
    ArrayRoutes,
    OverviewRoutes,
    ProvenanceRoutes,
    ExportRoutes,
    SearchRoutes,
    DocumentRoutes,
    AlarmRoutes,
    DeadLetterRoutes,
    LiveFeed,
    IngestRoutes,
)
"""The classes whose methods are the routes of the API."""


@cache
def api_description() -> dict[str, Any]:
    """What `/openapi.json` answers. Owned by this module: not to be changed."""
    routes = [route for resource in RESOURCES for route in declared_routes(resource)]
    routes += document_type_routes()
    return describe_api(routes, version=version("windvane"))


def create_app(
    store: StoreEngine,
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
    checkpoints: Place | None = None,
    origins: RowOrigins | None = None,
) -> web.Application:
    """The web tier over one store and one catalog; `checkpoints` and `origins` are the worker's, if known.

    `check_policy` raises PolicyInvalid for a pipeline that cannot run; the folder `ui` need not exist.
    Without `open_on_loopback`, which is for servers bound to loopback alone, every request needs `token`.
    """
    telemetry = telemetry or WebTelemetry()
    rule = AccessRule(token=token, open_on_loopback=open_on_loopback)
    interface = UiRoutes(ui)
    app = _without_routes(telemetry, rule, interface)
    live, listings = LiveFeed(store, telemetry, live_limits or LiveLimits()), Listings(store, telemetry)
    app.on_shutdown.append(live.close)
    platform = PlatformRoutes(
        telemetry, tiers, dead_letters, disk, version=version("windvane"), describe=api_description
    )
    app.cleanup_ctx.extend([live.running, tiers.closing, platform.watching, listings.closing])
    delays, alarms = WorkerDelays(tiers), OpenAlarms(catalog)
    for resource in (
        platform,
        PolicyRoutes(catalog, check_policy, f"{API}/policies"),
        StreamRoutes(store, telemetry, listings, delays, alarms, checkpoints=checkpoints),
        ArrayRoutes(store, telemetry, listings),
        OverviewRoutes(store),
        ProvenanceRoutes(store, origins, checkpoints=checkpoints),
        ExportRoutes(store, telemetry),
        SearchRoutes(catalog),
        AlarmRoutes(catalog),
        DeadLetterRoutes(dead_letters, tiers),
        live,
        IngestRoutes(tiers),
    ):
        assert type(resource) in RESOURCES
        app.add_routes(route_definitions(resource))
    app.add_routes(DocumentRoutes(catalog, check_policy).definitions())
    # What is not found below these is a problem, not a page.
    app.router.add_get("/{path:(?!(?:api|ingest|erp5)(?:/|$)).*}", interface.get)
    return app


def _without_routes(telemetry: WebTelemetry, rule: AccessRule, interface: UiRoutes) -> web.Application:
    app = web.Application(
        middlewares=[
            counting_middleware(telemetry),
            problem_middleware,
            _reject_compressed_bodies,
            access_middleware(rule, interface.get_unauthenticated, judges_itself=_admits_senders),
        ],
        client_max_size=MAX_BODY_BYTES,
    )
    app.on_response_prepare.extend([mark_answering, set_security_headers])
    return app


@web.middleware
async def _reject_compressed_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Bodies that are not passed on are small, so that none is ever decompressed here."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity" and request.path.startswith(f"{API}/"):
        raise RequestRejected(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The API does not support Content-Encoding {encoding[:40]}; send the body uncompressed.",
        )
    return await handler(request)


def _admits_senders(request: web.Request) -> bool:
    return access_of(request) is Access.SENDER
