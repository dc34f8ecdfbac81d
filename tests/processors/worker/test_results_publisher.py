"""Publishes results to a real bus: in order and without loss, also if the bus is unavailable."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest
from windvane.bus import Bus, TopicPartition, open_bus
from windvane.bus.messages.results import ROWS_SCHEMA, ResultPart, join, rows_head, rows_parts
from windvane.errors import ResultsNotPublished
from windvane.processors.worker.pipeline.results_publisher import (
    PART_OVERHEAD_BYTES,
    TOPIC_SHARE,
    ResultsPublisher,
)
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.testing.bus import Assignments

TOPIC = "park..rows.features"
SCHEMA = fastavro.parse_schema(ROWS_SCHEMA)


def parts(stream: str, first: int, count: int, *, width: int = 3, array: bytes = b"a") -> list[ResultPart]:
    """Rows whose values are their number."""
    rows = np.repeat(np.arange(first, first + count, dtype=np.float64)[:, None], width, axis=1)
    head = rows_head(
        stream=stream, output="features", array=array, dtype="<f8", row_shape=(width,), columns=()
    )
    return list(
        rows_parts(
            rows,
            np.arange(first, first + count),
            topic=TOPIC,
            stream=stream,
            head=head,
            first_row=first,
            partitions=2,
            part_bytes=10_000,
            max_bytes=1_000_000,
        )
    )


class Consumed:
    """Returns the messages of the topic, as an independent consumer reads them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}
        self.messages = 0
        self.repeated = 0

    def take(self, value: bytes) -> None:
        message: Any = fastavro.schemaless_reader(io.BytesIO(value[10:]), SCHEMA, None)
        seen = self.rows.setdefault(message["stream"], [])
        numbers = message["values"][:: message["row_shape"][0]]
        assert message["first_row"] <= len(seen), "a row is missing"
        assert numbers == list(range(message["first_row"], message["first_row"] + len(numbers)))
        self.messages += 1
        self.repeated += min(len(numbers), len(seen) - message["first_row"])
        seen += numbers[len(seen) - message["first_row"] :]


async def consumed(bus: Bus, rows: int) -> Consumed:
    """Returns all messages, once they have `rows` rows."""
    consumer = bus.consumer("others", Assignments())
    consumer.subscribe([TOPIC])
    found = Consumed()
    async with asyncio.timeout(30):
        while sum(map(len, found.rows.values())) < rows:
            for message in await consumer.poll(timeout_s=1):
                found.take(message.value)
    await consumer.close()
    return found


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    opened = open_bus("embedded:", tmp_path)
    yield opened
    await opened.close()


async def durable(publisher: ResultsPublisher) -> None:
    """Waits until all parts are on the bus."""
    async with asyncio.timeout(30):
        while publisher.pending_bytes:
            await publisher.wait_for_progress(0.05)


def put_all(publisher: ResultsPublisher, batches: Iterable[Sequence[ResultPart]]) -> None:
    for batch in batches:
        publisher.put(batch)


async def in_threads(publisher: ResultsPublisher, *work: Iterable[Sequence[ResultPart]]) -> None:
    """Runs each of `work` in its own thread, as pipelines do."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(work)) as threads:
        await asyncio.gather(*(loop.run_in_executor(threads, put_all, publisher, each) for each in work))


async def test_rows_of_a_stream_are_in_order_and_small_parts_share_messages(bus: Bus) -> None:
    publisher = ResultsPublisher(bus, WorkerTelemetry(), max_pending_bytes=1 << 20)
    streams = [f"t{i}" for i in range(4)]
    await in_threads(publisher, *([parts(stream, first, 1) for first in range(2000)] for stream in streams))
    await durable(publisher)
    assert publisher.pending_bytes == 0
    found = await consumed(bus, 8000)
    assert found.rows == {stream: list(range(2000)) for stream in streams}
    assert found.repeated == 0
    assert found.messages < 8000
    assert (await bus.topics())[TOPIC] == 2
    await publisher.close()


async def test_pipelines_wait_for_a_slow_bus(bus: Bus, tmp_path: Path) -> None:
    await bus.ensure_topic(TOPIC, partitions=2)
    other = open_bus("embedded:", tmp_path)
    await hold(other)
    bound = 20 * (PART_OVERHEAD_BYTES + parts("t", 0, 1)[0].size)
    publisher = ResultsPublisher(bus, WorkerTelemetry(), max_pending_bytes=round(bound / TOPIC_SHARE))
    made: list[int] = []

    def batches() -> Iterable[Sequence[ResultPart]]:
        for first in range(100):
            made.append(first)
            yield parts("t", first, 1)

    working = asyncio.ensure_future(in_threads(publisher, batches()))
    async with asyncio.timeout(30):
        while publisher.pending_bytes < bound:
            await asyncio.sleep(0.01)
    mark = publisher.mark("t")
    await asyncio.wait([working], timeout=0.3)
    assert not publisher.is_durable("t", mark), "a checkpoint would cover what is not on the bus"
    assert not working.done()
    assert len(made) <= 21
    await other.close()  # the bus is back
    await durable(publisher)
    await working
    await durable(publisher)
    found = await consumed(bus, 100)
    assert (found.rows, found.repeated) == ({"t": list(range(100))}, 0)
    await publisher.close()


async def hold(other: Bus) -> None:
    """Another process writes the topic's partitions: a publisher has to wait until it ends."""
    producer = other.producer()
    [await producer.publish(TOPIC, str(key).encode(), empty()) for key in range(8)]


def empty() -> bytes:
    """A message without rows, which every consumer skips."""
    [part] = parts("t", 0, 1)
    return b"".join(join([part]))[: len(part.head)] + b"\0\0\0"


async def test_a_stopping_worker_stops_waiting_and_reports_it(bus: Bus, tmp_path: Path) -> None:
    await bus.ensure_topic(TOPIC, partitions=2)
    other = open_bus("embedded:", tmp_path)
    await hold(other)
    publisher = ResultsPublisher(bus, WorkerTelemetry(), max_pending_bytes=1)
    publisher.put(parts("t", 0, 1))
    checkpoint = asyncio.ensure_future(durable(publisher))
    waiting = asyncio.ensure_future(asyncio.to_thread(publisher.put, parts("t", 1, 1)))
    await asyncio.wait([waiting, checkpoint], timeout=0.2)
    publisher.give_up()
    with pytest.raises(ResultsNotPublished):
        await waiting
    assert not publisher.is_durable("t", publisher.mark("t"))
    checkpoint.cancel()
    await publisher.close()
    await other.close()


async def test_a_blocked_topic_does_not_delay_others(bus: Bus, tmp_path: Path) -> None:
    await bus.ensure_topic(TOPIC, partitions=2)
    other = open_bus("embedded:", tmp_path)
    await hold(other)
    weight = PART_OVERHEAD_BYTES + parts("t", 0, 1)[0].size
    publisher = ResultsPublisher(bus, WorkerTelemetry(), max_pending_bytes=round(4 * weight / TOPIC_SHARE))
    stuck = asyncio.ensure_future(in_threads(publisher, [parts("t", first, 1) for first in range(100)]))
    async with asyncio.timeout(30):
        while publisher.pending_bytes < 4 * weight:
            await asyncio.sleep(0.01)
    elsewhere = [msgspec.structs.replace(part, topic="elsewhere") for part in parts("u", 0, 1)]
    await asyncio.wait_for(asyncio.to_thread(publisher.put, elsewhere), 30)
    async with asyncio.timeout(30):
        while not publisher.is_durable("u", publisher.mark("u")):
            await publisher.wait_for_progress(0.05)
    assert not publisher.is_durable("t", publisher.mark("t"))
    await other.close()
    await stuck
    await durable(publisher)
    await publisher.close()


async def test_rows_of_another_array_are_not_joined_to_those_before(bus: Bus) -> None:
    publisher = ResultsPublisher(bus, WorkerTelemetry(), max_pending_bytes=1 << 20)
    publisher.put([*parts("t", 0, 5), *parts("t", 0, 5, array=b"b"), *parts("t", 7, 2, array=b"b")])
    await durable(publisher)
    consumer = bus.consumer("others", Assignments())
    consumer.subscribe([TOPIC])
    messages: list[Any] = []
    while len(messages) < 3:
        messages += [
            fastavro.schemaless_reader(io.BytesIO(message.value[10:]), SCHEMA, None)
            for message in await consumer.poll(timeout_s=10)
        ]
    assert [(m["array"], m["first_row"], len(m["times"])) for m in messages] == [
        (b"a", 0, 5),
        (b"b", 0, 5),
        (b"b", 7, 2),
    ]
    await publisher.close()


async def test_a_topic_of_results_keeps_its_bound_though_a_group_is_known(tmp_path: Path) -> None:
    bus = open_bus("embedded:?segment_bytes=16384&retention_bytes=65536", tmp_path)
    await bus.prepare(groups=["windvane-worker"])
    publisher = ResultsPublisher(bus, WorkerTelemetry(), max_pending_bytes=1 << 20)
    for first in range(0, 20_000, 1000):
        await asyncio.to_thread(publisher.put, parts("t", first, 1000))
        await durable(publisher)
    await publisher.close()
    [used] = [
        sum(file.stat().st_size for file in folder.glob("*.log"))
        for folder in (tmp_path / "bus" / TOPIC).iterdir()
        if any(file.stat().st_size for file in folder.glob("*.log"))
    ]
    assert used < 200_000, "and 680,000 were published"
    await bus.close()


async def test_a_gateway_that_prepares_leaves_the_topics_of_results_to_the_workers(tmp_path: Path) -> None:
    gateway, worker = open_bus("embedded:", tmp_path), open_bus("embedded:", tmp_path)
    await gateway.ensure_topic("park", partitions=1)
    await gateway.ensure_topic(TOPIC, partitions=1)
    await gateway.prepare(groups=["windvane-worker"])
    assert await worker.producer().publish(TOPIC, b"t", empty()) == 0
    assert TopicPartition(TOPIC, 0).topic in await gateway.topics()
    await worker.close()
    await gateway.close()
