"""Typed events: one class describes a fact, its log line and its counters, so that these cannot disagree.

    class HandshakeFailed(Event, frozen=True):
        \"\"\"A peer failed to authenticate.\"\"\"

        line = LogLine(logging.WARNING, "rejected {sender}: {detail}", key=("cause", "sender"))
        counts = (Count("handshakes_failed_total", "windvane_gateway_handshakes_failed", "…"),)

        sender: str
        cause: str
        detail: str

    telemetry.emit(HandshakeFailed(sender="10.0.0.7", cause="wrong key", detail="…"))

The `Telemetry` of a tier keeps the totals (`event_counters.py`); an `EventLog` is for code that logs and does
not count. The reference of metrics and events (docs/metrics.md) is generated from these declarations.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec

from .rate_limited_log import RateLimitedLog

EVENT_ATTRIBUTE = "windvane_event"
"""The attribute of a log record that holds its event."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """How an event is logged. `template` names fields and properties of the event in braces.

    `key` names those that make up the rate-limit key, in addition to the event's code: one line a minute for
    each key. None: the line is never suppressed, which is for events that no input can cause. `source` names
    the field that the sender of the input cannot invent, such as its address.
    """

    level: int
    template: str
    key: tuple[str, ...] | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """A Prometheus counter of an event.

    `total` is the attribute of the telemetry that holds the total: an int, or with `labels` a
    `collections.Counter` by label value (by tuple of label values if there are several). `labels` maps each
    label to the event's field. `amount` names the field to add; by default 1 is added.
    """

    total: str
    metric: str
    help: str
    labels: Mapping[str, str] | None = None
    amount: str | None = None


@dataclass(frozen=True, slots=True)
class Distribution:
    """A Prometheus histogram of an event's `field`, held in the attribute `total` of the telemetry."""

    total: str
    metric: str
    help: str
    field: str
    buckets: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric that is read from the telemetry on each scrape.

    With `label`, `read` gives a value by label. If `read` gives None, the metric is omitted.
    """

    kind: Literal["gauge", "counter"]
    metric: str
    help: str
    read: Callable[[Any], float | Mapping[str, float] | None]
    label: str | None = None


class Event(msgspec.Struct, frozen=True):
    """A fact about a tier. Subclasses declare its fields, its log line and its counters."""

    line: ClassVar[LogLine | None] = None
    counts: ClassVar[tuple[Count, ...]] = ()
    distributions: ClassVar[tuple[Distribution, ...]] = ()

    @classmethod
    def event_code(cls) -> str:
        """The stable code in JSON logs: the name of the class, as `handshake-failed`."""
        return re.sub("(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    def message(self) -> str:
        """The text of the log line; "" for an event that has none."""
        return "" if self.line is None else self.line.template.format_map(_Attributes(self))

    def fields(self) -> dict[str, Any]:
        """The fields by name, for JSON logs."""
        return msgspec.structs.asdict(self)


class _Attributes(dict[str, Any]):
    """The fields and properties of an event, for `str.format_map`."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self._event = event

    def __missing__(self, name: str) -> Any:
        return getattr(self._event, name)


class EventLog:
    """Writes the log lines of events, within their rate limits. Any thread may call."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._limited = RateLimitedLog(logger)

    def emit(self, event: Event) -> None:
        """Logs the event's line, if it has one and its rate limit allows it."""
        line = event.line
        if line is None:
            return
        if line.key is None:
            self._logger.log(line.level, "%s", event.message(), extra={EVENT_ATTRIBUTE: event})
            return
        self._limited.write(
            (type(event), *[getattr(event, name) for name in line.key]),
            event.message,
            level=line.level,
            source=None if line.source is None else getattr(event, line.source),
            extra={EVENT_ATTRIBUTE: event},
        )
