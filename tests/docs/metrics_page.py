"""docs/metrics.md, from the declarations of the events and readings of all tiers."""

import importlib
import logging
import pkgutil
from collections.abc import Iterator

import windvane
from windvane.ingest.telemetry import GatewayTelemetry
from windvane.processors.worker.pipeline.state_losses import StateLosses
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.runtime.event_counters import EventCounters
from windvane.runtime.health_conditions import HealthConditions
from windvane.runtime.http_connections import ConnectionGuard
from windvane.runtime.instrumentation import Event
from windvane.web.telemetry import WebTelemetry

_TIERS: tuple[tuple[str, type[EventCounters]], ...] = (
    ("each", HealthConditions),
    ("each", ConnectionGuard),
    ("gateway", GatewayTelemetry),
    ("worker", WorkerTelemetry),
    ("worker", StateLosses),
    ("web", WebTelemetry),
)
_ROOMS = {
    "commands": "each",
    "ingest": "gateway",
    "processors": "worker",
    "runtime": "each",
    "web": "web",
}
"""The tier that logs the events of a room."""

_HEAD = """\
# Metrics and log events

<!-- Generated from the declarations of events and readings by `make docs`. -->

## Metrics

`GET /metrics` of the web tier has the metrics of all tiers of an installation, in Prometheus' text
format. Each sample has the label `tier`, and those of an instance with a name `tier_instance`. Counters
start at 0 when the process starts, and a series of a labelled counter appears with its first event. The
web tier also has the `process_…` metrics of the Prometheus client.

| metric | type | labels | tier | meaning |
| --- | --- | --- | --- | --- |
"""

_EVENTS_HEAD = """
## Log events

Tiers log to standard error. `--log-format json` (setting `log_format`, environment variable
`WINDVANE_LOG_FORMAT`) logs a JSON object per line, with `time`, `level`, `process`, `logger` and
`message`. The start of `windvane up` and errors that end a tier are such objects too. The events below
also have their code as `event`, and their fields. `suppressed` is the number of similar lines that were
suppressed before, and `exception` the traceback of an error.

A limited event is logged at most once a minute for each value of the fields in its last column.

| event | level | tier | meaning | limited by |
| --- | --- | --- | --- | --- |
"""


def metrics_page() -> str:
    """The text of the page."""
    metrics = sorted(set(_metrics()))
    events = sorted(set(_events()))
    return _HEAD + "\n".join(metrics) + "\n" + _EVENTS_HEAD + "\n".join(events) + "\n"


def _metrics() -> Iterator[str]:
    for tier, counters in _TIERS:
        for event in counters.events:
            for count in event.counts:
                yield _row(
                    f"{count.metric}_total", "counter", ", ".join(count.labels or ()), tier, count.help
                )
            for each in event.distributions:
                yield _row(each.metric, "histogram", "", tier, each.help)
        for reading in counters.readings:
            name = f"{reading.metric}_total" if reading.kind == "counter" else reading.metric
            yield _row(name, reading.kind, reading.label or "", tier, reading.help)


def _events() -> Iterator[str]:
    for module in pkgutil.walk_packages(windvane.__path__, "windvane."):
        if module.name.rpartition(".")[2] in ("instrumentation", "logs", "supervisor", "health_conditions"):
            importlib.import_module(module.name)
    for event in Event.__subclasses__():
        line = event.line
        room = event.__module__.split(".")
        if line is None or room[0] != "windvane":
            continue
        meaning = " ".join((event.__doc__ or "").split())
        limit = "" if line.key is None else ", ".join(line.key) or "the event"
        yield _row(
            event.event_code(), logging.getLevelName(line.level).lower(), _ROOMS[room[1]], meaning, limit
        )


def _row(name: str, *cells: str) -> str:
    return f"| `{name}` | " + " | ".join(cells) + " |"
