"""Metrics of Fluent Bit: each sample an event, once; what no policy takes costs one letter a source."""

import asyncio
import gzip
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.errors import ChunkRejected
from windvane.ingest.bodies.body_events import BodyBounds
from windvane.ingest.bodies.metrics import events_of_metrics
from windvane.ingest.dead_letter_queue import SAMPLE_BYTES
from windvane.records.events import iterate_events

from tests.ingest.bodies.cmetrics_encoder import (
    COUNTER,
    EXPONENTIAL,
    GAUGE,
    HISTOGRAM,
    SUMMARY,
    UNTYPED,
    bits,
    context,
    message,
    metric,
)
from tests.ingest.test_gateway import Site, packed, read_ack, site

__all__ = ["site"]

AT_NS = 1_796_076_599_958_713_057
BOUNDS = BodyBounds(payload_bytes=1 << 20, events=10_000)
CAPTURED = Path(__file__).parents[4] / "shared/wire/fluent-bit-metrics.bin"


def decode(payload: bytes, *, bounds: BodyBounds = BOUNDS, decoded_bytes: int = 1 << 24) -> list[Any]:
    steps = events_of_metrics(payload, bounds, decoded_bytes=decoded_bytes)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return [(time_ns, plain(record)) for time_ns, record in iterate_events(end.value)]


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return {plain(key): plain(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def row(name: str, value: float, type: str = "gauge", **labels: str) -> tuple[int, dict[str, Any]]:
    return AT_NS, {"name": name, "type": type, "labels": labels, "value": value}


def test_counters_gauges_and_untyped_are_a_row_a_sample() -> None:
    scrape = context(
        metric(COUNTER, "uptime", {"ts": AT_NS, "value": 1.5, "labels": ["vm"]}, labels=["hostname"]),
        metric(GAUGE, "load1", {"ts": AT_NS, "value": 0.25}, ns="node", ss="load"),
        metric(
            UNTYPED,
            "x",
            {"ts": AT_NS, "value": -1.0, "labels": ["", None, "ü"]},
            labels=["a", "b", "c"],
            ns="",
        ),
        metric(GAUGE, "big", {"ts": AT_NS, "value": 1e19, "value_type": 2, "value_uint64": 2**64 - 1}),
        metric(GAUGE, "small", {"ts": AT_NS, "value": 0.0, "value_type": 1, "value_int64": -(2**63)}),
        metric(COUNTER, "nothing"),
        static_labels={"site": "north", "hostname": "other"},
    )
    site = {"site": "north"}
    other = {**site, "hostname": "other"}
    expected = [
        row("fluentbit_uptime", 1.5, "counter", **site, hostname="vm"),
        row("node_load_load1", 0.25, **other),
        row("x", -1.0, "untyped", **other, c="ü"),
        row("fluentbit_big", 2**64 - 1, **other),
        row("fluentbit_small", -(2**63), **other),
    ]
    assert decode(scrape) == expected
    assert decode(scrape + scrape) == expected * 2


def test_a_histogram_and_a_summary_are_rows_as_prometheus_has_them() -> None:
    histogram = {"buckets": [1, 4, 9], "sum": 12.5, "count": 9}
    summary = {"quantiles_set": 1, "quantiles": [bits(0.1), bits(2.0)], "sum": bits(7.5), "count": 3}
    unset = {**summary, "quantiles_set": 0}
    found = decode(
        context(
            metric(HISTOGRAM, "h", {"ts": AT_NS, "histogram": histogram}, buckets=[0.5, 10.0]),
            metric(SUMMARY, "s", {"ts": AT_NS, "summary": summary}, quantiles=[0.5, 0.99]),
            metric(
                SUMMARY,
                "t",
                {"ts": AT_NS, "summary": unset, "labels": ["1"]},
                quantiles=[0.5, 0.99],
                labels=["a"],
            ),
        )
    )
    assert found == [
        row("fluentbit_h_bucket", 1, "histogram", le="0.5"),
        row("fluentbit_h_bucket", 4, "histogram", le="10.0"),
        row("fluentbit_h_bucket", 9, "histogram", le="+Inf"),
        row("fluentbit_h_sum", 12.5, "histogram"),
        row("fluentbit_h_count", 9, "histogram"),
        row("fluentbit_s", 0.1, "summary", quantile="0.5"),
        row("fluentbit_s", 2.0, "summary", quantile="0.99"),
        row("fluentbit_s_sum", 7.5, "summary"),
        row("fluentbit_s_count", 3, "summary"),
        row("fluentbit_t_sum", 7.5, "summary", a="1"),
        row("fluentbit_t_count", 3, "summary", a="1"),
    ]


@given(
    st.lists(st.floats(-1000, 1000), max_size=60),
    st.integers(-2, 3),
    st.sampled_from([0.0, 0.001]),
)
def test_an_exponential_histogram_counts_what_is_at_most_each_bound(
    values: list[float], scale: int, threshold: float
) -> None:
    base = 2 ** (2.0**-scale)

    def buckets(found: list[float]) -> tuple[int, list[int]]:
        places = []
        for value in found:
            place = -100
            while base ** (place + 1) < value:
                place += 1
            places.append(place)
        if not places:
            return 0, []
        first = min(places)
        return first, [places.count(place) for place in range(first, max(places) + 1)]

    about_zero = [value for value in values if abs(value) <= threshold or abs(value) < 1e-6]
    others = [value for value in values if value not in about_zero]
    positive_offset, positive = buckets([value for value in others if value > 0])
    negative_offset, negative = buckets([-value for value in others if value < 0])
    encoded = {
        "scale": scale,
        "zero_count": len(about_zero),
        "zero_threshold": threshold,
        "positive_offset": positive_offset,
        "positive_buckets": positive,
        "negative_offset": negative_offset,
        "negative_buckets": negative,
        "count": len(values),
        "sum_set": 1,
        "sum": bits(sum(values)),
    }
    found = decode(context(metric(EXPONENTIAL, "e", {"ts": AT_NS, "exp_histogram": encoded})))
    rows = [record for _, record in found if record["name"].endswith("_bucket")]
    bounds = [float(record["labels"]["le"]) for record in rows]
    assert bounds == sorted(bounds)
    for record, bound in zip(rows, bounds, strict=True):
        if bound > threshold:
            assert record["value"] == sum(value <= bound or value in about_zero for value in values)
    assert found[-2:] == [
        row("fluentbit_e_sum", sum(values), "histogram"),
        row("fluentbit_e_count", len(values), "histogram"),
    ]


def broken() -> Iterator[tuple[str, bytes]]:
    sample = {"ts": AT_NS, "value": 1.0}
    whole = context(metric(GAUGE, "g", sample))
    yield "malformed", whole[:-1]
    yield "malformed", whole + b"\xc1"
    yield "malformed", b"\x80\x92"
    yield "malformed", b"\x92\x00\x80"
    yield "malformed", b"\x01"
    yield "malformed", b"\x91" * 100_000 + b"\x00"
    yield "malformed", msgpack.packb({"metrics": [metric(GAUGE, "g", sample)]})
    yield "malformed", msgpack.packb({"meta": {}, "metrics": {}})
    yield "malformed", context({"meta": 1})
    yield "malformed", context(metric(GAUGE, "g", {"ts": AT_NS}))
    yield "malformed", context(metric(GAUGE, "g", {"ts": "now", "value": 1.0}))
    yield "malformed", context(metric(GAUGE, "g", {"ts": AT_NS, "value": "1"}))
    yield "malformed", context(metric(GAUGE, "g", {**sample, "labels": ["a"]}))
    yield "malformed", msgpack.packb({"a": 1})
    yield "malformed", msgpack.packb({})
    yield "malformed", msgpack.packb({"meta": {}})
    yield "malformed", context(metric(GAUGE, "g", sample)) + msgpack.packb({"a": 1})
    histogram = {"buckets": [1], "sum": 1.0, "count": 1}
    yield "malformed", context(metric(HISTOGRAM, "h", {"ts": AT_NS, "histogram": histogram}, buckets=[1.0]))
    exponential = {"scale": -200, "zero_count": 0, "zero_threshold": 0.0, "count": 1, "sum_set": 0, "sum": 0}
    buckets = {"positive_offset": 9, "positive_buckets": [1], "negative_offset": 0, "negative_buckets": []}
    yield (
        "malformed",
        context(metric(EXPONENTIAL, "e", {"ts": AT_NS, "exp_histogram": {**exponential, **buckets}})),
    )
    yield "bad-time", context(metric(GAUGE, "g", {"ts": 2**64 - 1, "value": 1.0}))
    yield "too-many-events", context(metric(GAUGE, "g", *[sample] * 10_001))
    yield "too-large", context(metric(GAUGE, "g" * 1000, *[sample] * 2000))
    yield "too-large-decoded", b"\x81\x00" + b"\xdd\x00\x04\x00\x00" + b"\x90" * (1 << 18)


@pytest.mark.parametrize(
    ("code", "payload"), [pytest.param(*case, id=f"{i} {case[0]}") for i, case in enumerate(broken())]
)
def test_invalid_metrics_are_rejected_with_the_reason(code: str, payload: bytes) -> None:
    with pytest.raises(ChunkRejected) as rejected:
        decode(payload)
    assert rejected.value.code == code


def test_a_scrape_without_a_metric_has_no_events() -> None:
    assert decode(context()) == []


async def test_a_map_that_is_not_a_context_is_a_dead_letter(site: Site) -> None:
    await site.policy("m", tags=["fbm.**"], signals=["metrics"])
    assert await site.send(message("fbm.junk", msgpack.packb({"a": 1}), chunk="j")) == ["j"]
    letter = await site.kept_letter()
    assert (letter.code, letter.payload) == ("malformed", msgpack.packb({"a": 1}))


async def test_metrics_without_a_policy_and_an_ack_are_said_to_be_gone_but_for_a_sample(site: Site) -> None:
    scrape = context(metric(GAUGE, "g" * 2000, {"ts": AT_NS, "value": 1.0}))
    async with site.connected() as (_, writer):
        writer.write(message("new.m", scrape))
        letter = await site.kept_letter()
    assert letter.kept_bytes == SAMPLE_BYTES < letter.size
    assert "replay" not in letter.reason
    assert "a sample alone is kept" in letter.reason
    assert letter.obstacle is not None
    assert "it is a sample" in letter.obstacle
    assert "limit" not in letter.obstacle


@given(st.integers(0, 400), st.binary(max_size=4))
def test_damaged_metrics_are_rejected_or_decoded(place: int, new: bytes) -> None:
    payload = context(
        metric(COUNTER, "uptime", {"ts": AT_NS, "value": 1.5, "labels": ["vm"]}, labels=["hostname"]),
        metric(
            HISTOGRAM,
            "h",
            {"ts": AT_NS, "histogram": {"buckets": [1, 2], "sum": 1.0, "count": 2}},
            buckets=[1.0],
        ),
    )
    damaged = payload[: place % len(payload)] + new + payload[place % len(payload) + len(new) :]
    with suppress(ChunkRejected):
        decode(damaged)


SCRAPE = context(metric(COUNTER, "up", {"ts": AT_NS, "value": 1.0, "labels": ["vm"]}, labels=["host"]))
LARGE = context(*(metric(GAUGE, f"g{i}", {"ts": AT_NS + i, "value": float(i)}) for i in range(5000)))


@pytest.mark.parametrize("compressed", ["", "gzip"])
@pytest.mark.parametrize(
    ("payload", "events"), [(SCRAPE, 1), (LARGE, 5000), (context(), 0)], ids=["small", "large", "none"]
)
async def test_a_policy_that_takes_metrics_stores_each_sample_once(
    site: Site, payload: bytes, events: int, compressed: str
) -> None:
    await site.policy("metrics", tags=["m.**"], signals=["metrics"])
    option = {"chunk": "id", "size": 3} | ({"compressed": compressed} if compressed else {})
    sent = message("m.fb", gzip.compress(payload) if compressed else payload, **option)
    assert await site.send(sent, sent, acks=2) == ["id", "id"]
    assert await site.send(sent) == ["id"]
    assert site.letters().list() == []
    chunks = await site.chunks("metrics")
    assert sum(chunk.events for chunk in chunks) == events
    found = [event for chunk in chunks for event in iterate_events(chunk.payload)]
    assert [(time_ns, plain(record)) for time_ns, record in found] == decode(payload)


async def test_one_policy_may_take_logs_and_metrics_of_a_tag(site: Site) -> None:
    await site.policy("both", tags=["t"], signals=["logs", "metrics"])
    logs = packed("t", msgpack.packb([1, {"a": 1}]), chunk="logs")
    assert sorted(await site.send(logs, message("t", SCRAPE, chunk="metrics"), acks=2)) == ["logs", "metrics"]
    assert [chunk.events for chunk in await site.chunks("both")] == [1, 1]


@pytest.mark.parametrize("signal", [1, 2, 7])
async def test_what_no_policy_takes_costs_one_small_letter_a_source_and_is_acked(
    site: Site, signal: int
) -> None:
    await site.policy("logs", tags=["t", "u"])
    scrapes = [
        context(metric(GAUGE, "g" * 2000, {"ts": AT_NS, "value": 1.0}), static_labels={"scrape": str(number)})
        for number in range(5)
    ]
    messages = [
        message(tag, scrape, chunk=f"{tag}{number}", fluent_signal=signal)
        for number, scrape in enumerate(scrapes)
        for tag in ("t", "u")
    ]
    assert len(await site.send(*messages, acks=10)) == 10
    letters = site.letters().list()
    assert sorted((letter.code, letter.tag, letter.times) for letter in letters) == [
        ("not-logs", "t", 5),
        ("not-logs", "u", 5),
    ]
    for letter in letters:
        assert (letter.kept_bytes, letter.size) == (SAMPLE_BYTES, len(scrapes[0]))
        assert 'signals = ["metrics"]' in str(letter.obstacle)
    assert await site.chunks("logs") == []


async def test_metrics_without_any_policy_are_the_senders_till_there_is_one(site: Site) -> None:
    scrapes = [
        message("new.m", context(metric(GAUGE, "g", {"ts": at, "value": 1.0})), chunk=f"{at}")
        for at in range(3)
    ]
    async with site.connected() as (_, writer):
        writer.write(b"".join(scrapes))
        async with asyncio.timeout(30):
            while sum(letter.times for letter in site.letters().list()) < 3:
                await asyncio.sleep(0.01)
    [letter] = site.letters().list()
    assert (letter.code, letter.times) == ("no-policy", 3)
    await site.policy("new", tags=["new.**"], signals=["metrics"])
    async with site.connected() as (reader, writer):
        writer.write(scrapes[0])
        assert await read_ack(reader) == "0"


async def test_logs_do_not_enter_a_policy_of_metrics_alone(site: Site) -> None:
    await site.policy("metrics", tags=["t"], signals=["metrics"])
    event = msgpack.packb([1, {"a": 1}])
    assert await site.send(packed("t", event, chunk="id")) == ["id"]
    letter = await site.kept_letter()
    assert (letter.code, letter.payload) == ("not-metrics", event)


@pytest.mark.skipif(not CAPTURED.exists(), reason="the captured message is not here")
def test_a_captured_scrape_of_fluent_bit_is_read() -> None:
    tag, payload, option = msgpack.unpackb(CAPTURED.read_bytes())
    assert (tag, option) == ("demo.metrics", {"fluent_signal": 1})
    found = decode(payload)
    assert len(found) == 46
    assert found[0] == (
        AT_NS,
        {"name": "fluentbit_uptime", "type": "counter", "labels": {"hostname": "vm"}, "value": 0.0},
    )
    # The own encoder says what Fluent Bit says.
    metrics = msgpack.unpackb(payload, strict_map_key=False)["metrics"]
    assert metrics[0] == {
        **metric(COUNTER, "uptime", {"ts": AT_NS, "value": 0.0, "labels": ["vm"]}, labels=["hostname"]),
        "meta": metrics[0]["meta"],
        "values": metrics[0]["values"],
    }
    own = metric(COUNTER, "uptime", labels=["hostname"])["meta"]
    assert {**own, "opts": {**own["opts"], "desc": metrics[0]["meta"]["opts"]["desc"]}} == metrics[0]["meta"]
