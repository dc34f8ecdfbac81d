"""The totals of typed events, and how they become Prometheus metrics."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import ClassVar

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .instrumentation import Count, Distribution, Event, Reading


class EventCounters(Collector):
    """The totals of the events that a class declares, as attributes, and its readings.

    Totals are integers, turned into Prometheus metrics only on a scrape. A hot path may add to them itself,
    from one thread; `count` may be called from any thread.
    """

    events: ClassVar[tuple[type[Event], ...]] = ()
    readings: ClassVar[tuple[Reading, ...]] = ()

    def __init__(self) -> None:
        self._counting = threading.Lock()
        for count in self._counts():
            setattr(self, count.total, Counter() if count.labels else 0)
        for each in self._distributions():
            setattr(self, each.total, Histogram(each.metric, each.help, buckets=each.buckets, registry=None))

    def count(self, event: Event) -> None:
        """Adds the event to its totals."""
        for count in event.counts:
            amount = 1 if count.amount is None else getattr(event, count.amount)
            with self._counting:
                if count.labels is None:
                    setattr(self, count.total, getattr(self, count.total) + amount)
                else:
                    values = [str(getattr(event, field)) for field in count.labels.values()]
                    getattr(self, count.total)[tuple(values) if len(values) > 1 else values[0]] += amount
        for each in event.distributions:
            getattr(self, each.total).observe(getattr(event, each.field))

    def collect(self) -> Iterator[Metric]:
        """Prometheus scrapes."""
        for count in self._counts():
            total = getattr(self, count.total)
            if count.labels is None:
                yield CounterMetricFamily(count.metric, count.help, value=total)
                continue
            family = CounterMetricFamily(count.metric, count.help, labels=list(count.labels))
            for values, value in list(total.items()):
                family.add_metric([values] if isinstance(values, str) else values, value)
            yield family
        for each in self._distributions():
            yield from getattr(self, each.total).collect()
        for reading in self.readings:
            value = reading.read(self)
            if value is not None:
                yield self._family(reading, value)

    @staticmethod
    def _family(reading: Reading, value: float | Mapping[str, float]) -> Metric:
        kind = GaugeMetricFamily if reading.kind == "gauge" else CounterMetricFamily
        family = kind(reading.metric, reading.help, labels=[] if reading.label is None else [reading.label])
        by_label = value if isinstance(value, Mapping) else {"": value}
        for label, each in by_label.items():
            family.add_metric([] if reading.label is None else [label], each)
        return family

    @classmethod
    def _counts(cls) -> Iterator[Count]:
        for event in cls.events:
            yield from event.counts

    @classmethod
    def _distributions(cls) -> Iterator[Distribution]:
        for event in cls.events:
            yield from event.distributions
