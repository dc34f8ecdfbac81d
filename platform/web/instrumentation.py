"""What the web tier reports: each event with its log line and its counters."""

import logging

from ..runtime.instrumentation import Count, Distribution, Event, LogLine


class RequestAnswered(Event, frozen=True):
    """A request was answered. `route` is the route, not the path, so that the number of series is bounded."""

    counts = (
        Count(
            "requests_by_route",
            "windvane_web_requests",
            "Requests answered.",
            labels={"method": "method", "route": "route", "status": "status"},
        ),
    )
    distributions = (
        Distribution(
            "request_seconds",
            "windvane_web_request_seconds",
            "Time until the answer was complete.",
            field="duration_s",
            buckets=(0.002, 0.01, 0.05, 0.2, 1, 5, 30),
        ),
    )

    method: str
    route: str
    status: int
    duration_s: float


class BytesSent(Event, frozen=True):
    """Bytes of a stream or an array were sent."""

    counts = (
        Count(
            "sent_bytes_total",
            "windvane_web_sent_bytes",
            "Bytes of streams and arrays sent.",
            amount="size_bytes",
        ),
    )

    size_bytes: int


class RowsSent(Event, frozen=True):
    """Rows were sent on a live connection, or skipped for it."""

    counts = (
        Count("rows_sent_total", "windvane_web_live_rows_sent", "Rows sent to subscribers.", amount="sent"),
        Count(
            "rows_skipped_total",
            "windvane_web_live_rows_skipped",
            "Rows left out for subscribers that are slow or want fewer.",
            amount="skipped",
        ),
    )

    sent: int
    skipped: int


class OutputsListed(Event, frozen=True):
    """Streams or arrays were opened for a page of a list."""

    counts = (
        Count(
            "listed_total",
            "windvane_web_listed",
            "Streams and arrays opened for pages of lists.",
            amount="opened",
        ),
    )

    opened: int


class ArraysLookedUp(Event, frozen=True):
    """The live feed looked for the arrays of its subscriptions."""

    counts = (
        Count(
            "looks_by_kind",
            "windvane_web_live_looks",
            "Looks for arrays of live subscriptions: at names, opened, directories read.",
            labels={"kind": "kind"},
            amount="number",
        ),
    )

    kind: str
    number: int


class OutputNotListed(Event, frozen=True):
    """A stream or an array cannot be read, and is left out of a list."""

    line = LogLine(logging.WARNING, "{reference} cannot be listed: {reason}", key=("reference",))

    reference: str
    reason: str


class AlarmsNotRefreshed(Event, frozen=True):
    """The catalog cannot be read: lists show the alarms that were known before."""

    line = LogLine(logging.WARNING, "lists show the alarms that were known before: {reason}", key=())

    reason: str


class LivePollFailed(Event, frozen=True):
    """The live feed could not look at one of its arrays; it continues."""

    line = LogLine(logging.WARNING, "the live feed's poller continues after {reason}", key=())

    reason: str


class LiveLookupFailed(Event, frozen=True):
    """The live feed could not look for its arrays; it continues."""

    line = LogLine(logging.WARNING, "the live feed continues after {reason}", key=())

    reason: str


class LiveArrayNotOpened(Event, frozen=True):
    """The live feed cannot open an array; it tries again."""

    line = LogLine(logging.WARNING, "the live feed cannot open {reference}: {reason}", key=("reference",))

    reference: str
    reason: str


class RequestFailed(Event, frozen=True):
    """A request failed for a reason of the installation, such as an unavailable catalog."""

    line = LogLine(logging.WARNING, "{method} {path} failed: {reason}")

    method: str
    path: str
    reason: str


class AnswerBrokenOff(Event, frozen=True):
    """An answer had begun and cannot be completed: the connection was closed."""

    line = LogLine(logging.WARNING, "{method} {path} broke off: {reason}")

    method: str
    path: str
    reason: str


class TierStatusInvalid(Event, frozen=True):
    """A tier answered a status that is not a JSON object."""

    line = LogLine(logging.WARNING, "the status of the {tier} {instance} is not a JSON object")

    tier: str
    instance: str


class TierMetricsInvalid(Event, frozen=True):
    """A tier answered a metrics page that cannot be read; it is left out."""

    line = LogLine(logging.WARNING, "the metrics page of the {tier} {instance} cannot be read, is left out")

    tier: str
    instance: str


COUNTED_EVENTS: tuple[type[Event], ...] = (
    RequestAnswered,
    BytesSent,
    RowsSent,
    OutputsListed,
    ArraysLookedUp,
)
"""Those whose totals are in the telemetry of the web tier."""
