"""The metrics of the web tier, and the merging of all tiers' metrics into one page for Prometheus."""

import logging
import time
from collections import Counter as CounterByLabels
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ..runtime.instrumentation import Reading
from ..runtime.telemetry import Telemetry
from .answers import DeadLetterTotals, DiskStatus, TierState, WebStatus
from .instrumentation import COUNTED_EVENTS, ArraysLookedUp, RequestAnswered, TierMetricsInvalid


def _dead_letters(kind: Literal["gauge", "counter"], metric: str, help: str, field: str) -> Reading:
    return Reading(
        kind,
        metric,
        help,
        lambda web: None if web.dead_letters is None else getattr(web.dead_letters, field),
    )


def _disk(metric: str, help: str, field: str) -> Reading:
    return Reading("gauge", metric, help, lambda web: None if web.disk is None else getattr(web.disk, field))


class WebTelemetry(Telemetry):
    """Counts and logs the events of the web tier. Any thread may call."""

    events = COUNTED_EVENTS
    readings = (
        Reading(
            "gauge",
            "windvane_web_live_connections",
            "Open WebSockets.",
            lambda telemetry: telemetry.live_connections,
        ),
        Reading(
            "gauge",
            "windvane_web_live_subscriptions",
            "Arrays to which a client has subscribed.",
            lambda telemetry: telemetry.live_subscriptions,
        ),
        _dead_letters("gauge", "windvane_dead_letters", "Dead letters kept", "count"),
        _dead_letters("gauge", "windvane_dead_letter_bytes", "Their share of dead_letter_bytes", "bytes"),
        _dead_letters(
            "counter",
            "windvane_dead_letters_evicted",
            "Dead letters dropped for newer ones",
            "evicted",
        ),
        _disk("windvane_disk_free_bytes", "Free bytes on the file system of the home", "free_bytes"),
        _disk("windvane_disk_size_bytes", "Size of the file system of the home", "size_bytes"),
        _disk(
            "windvane_disk_reserve_bytes",
            "Below so many free bytes nothing is acked or stored",
            "reserve_bytes",
        ),
        Reading(
            "counter",
            "windvane_tier_restarts",
            "Restarts since `windvane up` started",
            lambda telemetry: {name: state.restarts for name, state in telemetry.tiers.items()},
            label="process",
        ),
    )
    requests_by_route: CounterByLabels[tuple[str, str, str]]
    request_seconds: Histogram
    sent_bytes_total: int
    rows_sent_total: int
    rows_skipped_total: int
    listed_total: int
    looks_by_kind: CounterByLabels[str]

    def __init__(self) -> None:
        super().__init__(logging.getLogger("windvane.web"))
        self.registry.register(self.health)
        ProcessCollector(registry=self.registry)
        self.live_connections = 0
        self.live_subscriptions = 0
        self.dead_letters: DeadLetterTotals | None = None
        """The dead letters that are kept now; set before each scrape, as the next two."""
        self.disk: DiskStatus | None = None
        self.tiers: Mapping[str, TierState] = {}

    def connected(self, change: int) -> None:
        """A live connection was opened (+1) or closed (-1)."""
        self.live_connections += change

    def subscribed(self, change: int) -> None:
        """A client subscribed to an array (+1) or left it (-1)."""
        self.live_subscriptions += change

    def looked(self, *, looks: int, opened: int, directories: int) -> None:
        """The live feed looked up so many arrays, opened some of them, and read directories."""
        for kind, number in (("name", looks), ("open", opened), ("directory", directories)):
            self.emit(ArraysLookedUp(kind, number))

    def status(self) -> WebStatus:
        """For `GET /api/v1/status`."""
        return WebStatus(
            requests_total=self.requests_by_route.total(),
            live_connections=self.live_connections,
            live_subscriptions=self.live_subscriptions,
            rows_sent_total=self.rows_sent_total,
            rows_skipped_total=self.rows_skipped_total,
            time_ns=time.time_ns(),
            troubles=self.health.listed(),
        )


def counting_middleware(telemetry: WebTelemetry) -> Middleware:
    """Counts every response by its route, not by its path: the number of series stays bounded."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        began_s = time.perf_counter()
        status = 500
        try:
            answer = await handler(request)
            status = answer.status
            return answer
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            resource = request.match_info.route.resource
            telemetry.emit(
                RequestAnswered(
                    method=request.method if request.method in _METHODS else "other",
                    route=resource.canonical if resource is not None else "none",
                    status=status,
                    duration_s=time.perf_counter() - began_s,
                )
            )

    return count


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class _Merged(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def merged_metrics(own: WebTelemetry, others: Mapping[str, Mapping[str, str]]) -> bytes:
    """One page in Prometheus' text format: the web tier's metrics and the pages of `others`, by tier and
    instance.

    Every sample gets the label `tier`, and that of an instance with a name `tier_instance`; families of one
    name are one family. A page that cannot be read is left out and logged: it must not spoil the others.
    """
    families: dict[str, Metric] = {}
    _add(families, own.registry.collect(), {"tier": "web"})
    for tier, pages in others.items():
        for instance, page in pages.items():
            labels = {"tier": tier, "tier_instance": instance} if instance else {"tier": tier}
            try:
                _add(families, list(text_string_to_metric_families(page)), labels)
            except ValueError:
                own.emit(TierMetricsInvalid(tier, instance))
    return generate_latest(_Merged(families.values()))


def _add(families: dict[str, Metric], found: Iterable[Metric], added: Mapping[str, str]) -> None:
    for family in found:
        target = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        if target.type != family.type:
            continue
        for sample in family.samples:
            labels = {**sample.labels, **added}
            target.samples.append(sample._replace(labels=labels))
