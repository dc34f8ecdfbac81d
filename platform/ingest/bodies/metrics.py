"""Metrics of Fluent Bit as events: one for each sample, named and labelled as Prometheus does it.

Their payload is one map after the other, each a context of cmetrics in its msgpack encoding, version 2:

    {"meta": {"processing": {"static_labels": [[key, value], …]}, …},
     "metrics": [{"meta": {"type", "opts": {"ns", "ss", "name"}, "labels": [key, …], "buckets" | "quantiles"},
                  "values": [{"ts", "labels": [value, …], "value" | "histogram" | "summary" | …}, …]}, …]}

Times are ns since the epoch. Some numbers are the 64 bits of a double typed as an integer. Source:
fluent/cmetrics, cmt_encode_msgpack.c for the encoding, cmt_encode_prometheus.c and cmt_exp_histogram.c for
what a histogram and a summary become.
"""

import math
import struct
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import msgpack
import msgspec

from ...errors import ChunkRejected
from ...records.decoded_size import measuring
from .body_events import RECORDS_A_STEP, BodyBounds, event_head

_MAX_TIME_NS = (1 << 32) * 1_000_000_000  # EventTime has 32 bits for the seconds
_TYPES = ("counter", "gauge", "histogram", "summary", "untyped", "histogram")

Payload = bytes | bytearray | memoryview
Labels = dict[str, str]


class _Options(msgspec.Struct):
    name: str
    ns: str = ""
    ss: str = ""


class _Header(msgspec.Struct):
    type: int
    opts: _Options
    labels: list[str] = []
    buckets: list[float] = []
    quantiles: list[float] = []


class _Histogram(msgspec.Struct):
    """`buckets` count what is at most each bound, the last one all: they are cumulative."""

    buckets: list[int]
    sum: float
    count: int


class _Summary(msgspec.Struct):
    quantiles_set: int
    quantiles: list[int | float]
    sum: int | float
    count: int


class _ExponentialHistogram(msgspec.Struct):
    """Bucket i counts what is over base^i and at most base^(i+1), where base is 2^(2^-scale)."""

    scale: int
    zero_count: int
    zero_threshold: float
    positive_offset: int
    positive_buckets: list[int]
    negative_offset: int
    negative_buckets: list[int]
    count: int
    sum_set: int
    sum: int | float


class _Sample(msgspec.Struct):
    ts: int
    labels: list[str | None] = []
    value: float | None = None
    value_int64: int | None = None
    value_uint64: int | None = None
    histogram: _Histogram | None = None
    summary: _Summary | None = None
    exp_histogram: _ExponentialHistogram | None = None


class _Metric(msgspec.Struct):
    meta: _Header
    values: list[_Sample]


class _Processing(msgspec.Struct, frozen=True):
    static_labels: list[tuple[str, str]] = []


class _ContextHeader(msgspec.Struct):
    processing: _Processing = _Processing()


class _Row(NamedTuple):
    suffix: str
    labels: Labels
    value: float


def events_of_metrics(
    payload: Payload, bounds: BodyBounds, *, decoded_bytes: int
) -> Generator[None, None, bytes]:
    """An event `[EventTime, {"name", "type", "labels", "value"}]` for each sample; yields now and then.

    A histogram is several, in the manner of Prometheus: `_bucket` for each bound `le`, `_sum`, `_count`; a
    summary one for each `quantile`, `_sum`, `_count`. `value` is an integer where cmetrics counts in
    integers. Raises ChunkRejected: "malformed", "bad-time", "too-large-decoded", or as BodyBounds does.

    Memory: `decoded_bytes` at most of one metric with all its samples, and the events.
    """
    _check_well_formed(payload)
    used_bytes = yield from measuring(payload, 1, limit_bytes=decoded_bytes)
    if used_bytes > decoded_bytes:
        raise ChunkRejected(
            "too-large-decoded",
            f"the {len(payload)} bytes of metrics take more than {decoded_bytes} bytes of memory once they "
            "are decoded; send smaller chunks, or raise limits.decoded_bytes",
        )
    packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")
    events: list[bytes] = []
    size = 0
    try:
        for static_labels, metric in _metrics(payload):
            for time_ns, record in _records(metric, static_labels):
                events.append(event_head(time_ns) + packer.pack(record))
                size += len(events[-1])
                bounds.check(len(events), size)
                if len(events) % RECORDS_A_STEP == 0:
                    yield
    except ChunkRejected:
        raise
    except (msgspec.ValidationError, msgpack.UnpackException, ValueError, TypeError, OverflowError) as error:
        reason = str(error) or type(error).__name__
        raise ChunkRejected(
            "malformed",
            f"the payload of metrics is not encoded as cmetrics does it ({reason}); check the sender",
        ) from error
    return b"".join(events)


def _check_well_formed(payload: Payload) -> None:
    walker = _unpacker(payload)
    try:
        while walker.tell() < len(payload):
            walker.skip()
    except (msgpack.UnpackException, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ChunkRejected(
            "malformed", f"the payload of metrics is not well-formed msgpack ({reason}); check the sender"
        ) from error


def _unpacker(payload: Payload) -> msgpack.Unpacker:
    size = max(len(payload), 1)
    unpacker = msgpack.Unpacker(
        read_size=size, max_buffer_size=size, strict_map_key=False, unicode_errors="surrogateescape"
    )
    unpacker.feed(payload)
    return unpacker


def _metrics(payload: Payload) -> Iterator[tuple[Labels, _Metric]]:
    """Each metric, with the labels that its context gives to all."""
    unpacker = _unpacker(payload)
    while unpacker.tell() < len(payload):
        header = None
        has_metrics = False
        for _ in range(unpacker.read_map_header()):
            key = unpacker.unpack()
            if key == "meta":
                header = msgspec.convert(unpacker.unpack(), _ContextHeader)
            elif key == "metrics":
                # Without its header before it, the labels of all would be lost.
                if header is None:
                    raise ValueError("no meta before the metrics")
                has_metrics = True
                static_labels = dict(header.processing.static_labels)
                for _ in range(unpacker.read_array_header()):
                    yield static_labels, msgspec.convert(unpacker.unpack(), _Metric)
            else:
                unpacker.skip()
        # cmetrics writes the list even if it is empty: a map without it is not from cmetrics.
        if not has_metrics:
            raise ValueError("a context has no metrics")


def _records(metric: _Metric, static_labels: Labels) -> Iterator[tuple[int, dict[str, Any]]]:
    header = metric.meta
    name = "_".join(filter(None, (header.opts.ns, header.opts.ss, header.opts.name)))
    kind = _TYPES[header.type] if 0 <= header.type < len(_TYPES) else f"type {header.type}"
    for sample in metric.values:
        if not 0 <= sample.ts < _MAX_TIME_NS:
            raise ChunkRejected(
                "bad-time",
                f"the metric {name!r:.200} has a sample of {sample.ts} ns, which is not between 1970 and "
                "2106; check the sender's clock",
            )
        if len(sample.labels) > len(header.labels):
            raise ValueError(f"{name!r:.200} has {len(sample.labels)} labels and {len(header.labels)} names")
        # A label that is absent has no text, or an empty one.
        own = {key: text for key, text in zip(header.labels, sample.labels, strict=False) if text}
        for row in _rows(header, sample):
            labels = {**static_labels, **own, **row.labels}
            record = {"name": name + row.suffix, "type": kind, "labels": labels, "value": row.value}
            yield sample.ts, record


def _rows(header: _Header, sample: _Sample) -> Iterator[_Row]:
    if sample.histogram is not None:
        found = sample.histogram
        yield from _bucket_rows(header.buckets, found.buckets)
        yield _Row("_sum", {}, found.sum)
        yield _Row("_count", {}, found.count)
    elif sample.exp_histogram is not None:
        exponential = sample.exp_histogram
        yield from _bucket_rows(*_explicit(exponential))
        if exponential.sum_set:
            yield _Row("_sum", {}, _double(exponential.sum))
        yield _Row("_count", {}, exponential.count)
    elif sample.summary is not None:
        summary = sample.summary
        if summary.quantiles_set:
            for quantile, value in zip(header.quantiles, summary.quantiles, strict=True):
                yield _Row("", {"quantile": _bound(quantile)}, _double(value))
        yield _Row("_sum", {}, _double(summary.sum))
        yield _Row("_count", {}, summary.count)
    else:
        values = (sample.value_int64, sample.value_uint64, sample.value)  # the exact ones first
        given = [value for value in values if value is not None]
        if not given:
            raise ValueError("a sample has no value")
        yield _Row("", {}, given[0])


def _bucket_rows(bounds: list[float], counts: list[int]) -> Iterator[_Row]:
    for bound, count in zip([*bounds, math.inf], counts, strict=True):
        yield _Row("_bucket", {"le": _bound(bound)}, count)


def _explicit(found: _ExponentialHistogram) -> tuple[list[float], list[int]]:
    """Bounds, and how many values are at most each: those below zero, about zero, above it."""
    base = 2.0 ** (2.0**-found.scale)
    bounds, counts, total = [], [], 0
    for index in reversed(range(len(found.negative_buckets))):
        total += found.negative_buckets[index]
        bounds.append(-(base ** (found.negative_offset + index)))
        counts.append(total)
    total += found.zero_count
    bounds.append(found.zero_threshold)
    counts.append(total)
    for index, count in enumerate(found.positive_buckets):
        total += count
        bounds.append(base ** (found.positive_offset + index + 1))
        counts.append(total)
    return bounds, [*counts, found.count]


def _double(value: int | float) -> float:
    """The number whose 64 bits an integer is."""
    if isinstance(value, float):
        return value
    found: float = struct.unpack(">d", struct.pack(">Q", value))[0]
    return found


def _bound(bound: float) -> str:
    """As Prometheus writes it in a label: `0.5`, `10.0`, `+Inf`."""
    return "+Inf" if bound == math.inf else repr(bound)
