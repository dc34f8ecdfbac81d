"""What the web tier counts, and how the metrics of all tiers become one page for Prometheus."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ..runtime.health_conditions import HealthConditions
from .answers import DeadLetterTotals, DiskStatus, TierState, WebStatus

logger = logging.getLogger(__name__)


class WebTelemetry:
    """The web tier's counters, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "windvane_web_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "windvane_web_request_seconds",
            "Time until the answer was complete.",
            buckets=(0.002, 0.01, 0.05, 0.2, 1, 5, 30),
            registry=self.registry,
        )
        self._sent_bytes = Counter(
            "windvane_web_sent_bytes", "Bytes of streams and arrays sent.", registry=self.registry
        )
        self._connections = Gauge("windvane_web_live_connections", "Open WebSockets.", registry=self.registry)
        self._subscriptions = Gauge(
            "windvane_web_live_subscriptions", "Arrays that somebody watches.", registry=self.registry
        )
        self._rows_sent = Counter(
            "windvane_web_live_rows_sent", "Rows sent to subscribers.", registry=self.registry
        )
        self._rows_skipped = Counter(
            "windvane_web_live_rows_skipped",
            "Rows left out for subscribers that are slow or want fewer.",
            registry=self.registry,
        )
        self._listed = Counter(
            "windvane_web_listed", "Streams and arrays opened for pages of lists.", registry=self.registry
        )
        self._looks = Counter(
            "windvane_web_live_looks",
            "Looks for arrays of live subscriptions: at names, opened, directories read.",
            ["kind"],
            registry=self.registry,
        )
        self.looks_by_kind: dict[str, int] = {"name": 0, "open": 0, "directory": 0}
        self._dead_letters = _DeadLetterMetrics()
        self.registry.register(self._dead_letters)
        self._platform = _PlatformMetrics()
        self.registry.register(self._platform)
        self.health = HealthConditions(logging.getLogger("windvane.web"))
        self.registry.register(self.health)
        self._requests_total = 0
        self._rows_sent_total = 0
        self._rows_skipped_total = 0
        self._live_connections = 0
        self._live_subscriptions = 0

    def answered(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests_total += 1
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.observe(seconds)

    def sent(self, *, size: int) -> None:
        """Bytes of a stream or an array went out."""
        self._sent_bytes.inc(size)

    def connected(self, change: int) -> None:
        """A live connection was opened (+1) or closed (-1)."""
        self._live_connections += change
        self._connections.inc(change)

    def subscribed(self, change: int) -> None:
        """Somebody subscribed to an array (+1) or left it (-1)."""
        self._live_subscriptions += change
        self._subscriptions.inc(change)

    def rows(self, *, sent: int, skipped: int) -> None:
        """Rows went out on a live connection."""
        self._rows_sent_total += sent
        self._rows_skipped_total += skipped
        self._rows_sent.inc(sent)
        self._rows_skipped.inc(skipped)

    def listed(self, *, opened: int) -> None:
        """Streams or arrays were opened for a page of a list. Called in several threads."""
        self._listed.inc(opened)

    @property
    def listed_total(self) -> int:
        """Streams and arrays that were opened for pages of lists."""
        return int(sum(sample.value for sample in next(iter(self._listed.collect())).samples[:1]))

    def looked(self, *, looks: int, opened: int, directories: int) -> None:
        """The live feed looked for arrays: so many, of which so many were opened. Called in one thread."""
        for kind, count in (("name", looks), ("open", opened), ("directory", directories)):
            self.looks_by_kind[kind] += count
            self._looks.labels(kind).inc(count)

    def dead_letters(self, totals: DeadLetterTotals) -> None:
        """What is kept now; said again before each scrape."""
        self._dead_letters.totals = totals

    def platform(self, disk: DiskStatus | None, tiers: Mapping[str, TierState]) -> None:
        """The disk and the supervised tiers as they are now; said again before each scrape."""
        self._platform.disk, self._platform.tiers = disk, tiers

    def status(self) -> WebStatus:
        """For `GET /api/v1/status`."""
        return WebStatus(
            requests_total=self._requests_total,
            live_connections=self._live_connections,
            live_subscriptions=self._live_subscriptions,
            rows_sent_total=self._rows_sent_total,
            rows_skipped_total=self._rows_skipped_total,
            time_ns=time.time_ns(),
            troubles=self.health.as_json(),
        )


def counting_middleware(telemetry: WebTelemetry) -> Middleware:
    """Counts every answer by its route, not by its path: the number of series stays bounded."""

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
            telemetry.answered(
                method=request.method if request.method in _METHODS else "other",
                route=resource.canonical if resource is not None else "none",
                status=status,
                seconds=time.perf_counter() - began_s,
            )

    return count


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class _DeadLetterMetrics(Collector):
    def __init__(self) -> None:
        self.totals: DeadLetterTotals | None = None

    def collect(self) -> Iterator[Metric]:
        if self.totals is None:
            return
        yield GaugeMetricFamily("windvane_dead_letters", "Dead letters kept", value=self.totals.count)
        yield GaugeMetricFamily(
            "windvane_dead_letter_bytes", "What they cost of the bound", value=self.totals.bytes
        )
        yield CounterMetricFamily(
            "windvane_dead_letters_evicted",
            "Dead letters that had to leave for newer ones",
            value=self.totals.evicted,
        )


class _PlatformMetrics(Collector):
    def __init__(self) -> None:
        self.disk: DiskStatus | None = None
        self.tiers: Mapping[str, TierState] = {}

    def collect(self) -> Iterator[Metric]:
        if self.disk is not None:
            for name, text, value in (
                ("free", "Free bytes on the file system of the home", self.disk.free_bytes),
                ("size", "Size of that file system", self.disk.size_bytes),
                ("reserve", "Below so many free bytes nothing is acked or stored", self.disk.reserve_bytes),
            ):
                yield GaugeMetricFamily(f"windvane_disk_{name}_bytes", text, value=value)
        restarts = CounterMetricFamily(
            "windvane_tier_restarts", "Restarts since `windvane up` started", labels=["process"]
        )
        for name, state in self.tiers.items():
            restarts.add_metric([name], state.restarts)
        yield restarts


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
                logger.warning("the metrics page of the %s %s cannot be read, is left out", tier, instance)
    return generate_latest(_Merged(families.values()))


def _add(families: dict[str, Metric], found: Iterable[Metric], added: Mapping[str, str]) -> None:
    for family in found:
        target = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        if target.type != family.type:
            continue
        for sample in family.samples:
            labels = {**sample.labels, **added}
            target.samples.append(sample._replace(labels=labels))
