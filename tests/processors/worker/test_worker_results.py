"""The results that a worker publishes in addition to its outputs: the same rows and numbers, and the
records.
"""

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fastavro
import msgpack
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.bus.messages.results import ROWS_SCHEMA, records_schema
from windvane.bus.topic_names import records_topic, rows_topic
from windvane.processors.worker import worker
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.testing.bus import Assignments

from tests.processors.worker.test_worker import PCM, SPECTRUM, Home

POWER: dict[str, Any] = {
    "type": "record",
    "name": "Power",
    "fields": [{"name": "kw", "type": "double"}, {"name": "note", "type": "string", "default": "-"}],
}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


async def messages(home: Home, topic: str, schema: dict[str, Any]) -> list[Any]:
    """All that is on the topic now, decoded by fastavro alone."""
    bus = open_bus("embedded:", home.path)
    consumer = bus.consumer("others", Assignments())
    consumer.subscribe([topic])
    found: list[Any] = []
    while polled := await consumer.poll(timeout_s=0.3):
        found += [
            fastavro.schemaless_reader(io.BytesIO(m.value[10:]), fastavro.parse_schema(schema), None)
            for m in polled
            if m.key == b"t"
        ]
    await bus.close()
    return found


def samples(count: int) -> Any:
    return (np.random.default_rng(1).normal(size=count) * 1000).astype("<i2")


async def test_rows_go_out_as_they_are_stored_with_their_numbers(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, {**SPECTRUM, "publish": True}])
    sent = samples(5000)
    for start in range(0, 5000, 500):
        await home.publish("p", sent[start : start + 500].tobytes())
    async with home.working():
        await home.until_stored(10)
    array = home.store.array("t:spectrum")
    found = await messages(home, rows_topic("p", "spectrum"), ROWS_SCHEMA)
    assert [m["first_row"] for m in found] == np.cumsum([0] + [len(m["times"]) for m in found[:-1]]).tolist()
    values = np.concatenate([np.reshape(m["values"], (-1, *m["row_shape"])) for m in found])
    assert np.array_equal(values, array[:])
    assert [t for m in found for t in m["times"]] == array.times_ns[:].tolist()
    assert {(m["stream"], m["output"], m["array"], m["dtype"]) for m in found} == {
        ("t", "spectrum", array.uid, "<f8")
    }
    assert set(await home.bus.topics()) == {"p", "p..rows.spectrum"}


async def test_rows_beyond_the_last_checkpoint_are_republished_under_the_same_numbers(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, {**SPECTRUM, "publish": True}])
    sent = samples(3000)
    await home.publish("p", sent[:1000].tobytes())
    async with home.working():
        await home.until_stored(1)
    await home.publish("p", sent[1000:2000].tobytes())
    async with home.working(dies=True):
        await home.until_stored(1)
        async with asyncio.timeout(30):
            while not home.telemetry.published_total:
                await asyncio.sleep(0.01)
    await home.publish("p", sent[2000:].tobytes())
    async with home.working():
        await home.until_stored(2)
    next_row = repeated = 0
    rows = []
    for m in await messages(home, rows_topic("p", "spectrum"), ROWS_SCHEMA):
        assert m["first_row"] <= next_row
        block = np.reshape(m["values"], (-1, *m["row_shape"]))
        known = next_row - m["first_row"]
        repeated += known
        rows.append(block[known:])
        next_row = max(next_row, m["first_row"] + len(block))
    assert repeated > 0
    assert np.array_equal(np.concatenate(rows), home.store.array("t:spectrum")[:])


async def test_records_go_out_in_the_schema_of_the_policy(home: Home) -> None:
    await home.policy("p", tags=["t"], schema=POWER, encoding="avro")
    await home.publish("p", {"kw": 1.5}, {"kw": 2, "note": "ü"})
    await home.publish("p", {"kw": 3.0})
    await home.publish("p", {"kw": 3.0}, chunk_id=b"1")
    await home.publish("p", {"kw": 3.0}, chunk_id=b"1")  # resent
    async with home.working():
        await home.until_stored(4)
    found = await messages(home, records_topic("p"), records_schema(POWER))
    events = [event for m in found for event in m["events"]]
    assert [event["record"] for event in events] == [
        {"kw": 1.5, "note": "-"},
        {"kw": 2.0, "note": "ü"},
        {"kw": 3.0, "note": "-"},
        {"kw": 3.0, "note": "-"},
    ]
    assert {event["time"] for event in events} == {1_790_000_000_000_000_000}
    assert found[0]["first_event"] == 0
    assert found[-1]["first_event"] + len(found[-1]["events"]) == home.store.stream("t").events == 4
    assert {m["archive"] for m in found} == {home.store.stream("t").uid}


async def test_a_chunk_with_a_record_that_no_longer_fits_is_stored_but_not_published(home: Home) -> None:
    await home.policy("p", tags=["t"], schema=POWER, encoding="avro")
    await home.publish("p", {"kw": 1.0})
    await home.publish("p", {"kw": "much"}, {"kw": 2.0})
    await home.publish("p", {"kw": 3.0})
    async with home.working():
        await home.until_stored(3)
    found = await messages(home, records_topic("p"), records_schema(POWER))
    assert [(m["first_event"] + i, e["record"]["kw"]) for m in found for i, e in enumerate(m["events"])] == [
        (0, 1.0),
        (3, 3.0),
    ]
    [letter] = home.letters.list()
    assert (letter.code, letter.tag) == ("not-published", "t")
    assert "does not fit the schema of policy 'p'" in letter.reason
    assert letter.obstacle is not None
    assert home.store.stream("t").events == 4


async def test_bytes_that_forwarders_type_as_text_go_out_as_bytes(home: Home) -> None:
    schema = {"type": "record", "name": "Blob", "fields": [{"name": "data", "type": "bytes"}]}
    await home.policy("p", tags=["t"], schema=schema, encoding="avro")
    time = msgpack.ExtType(0, struct.pack(">II", 1, 0))
    binary = b"\xff\xfe not UTF-8"
    packer = msgpack.Packer(use_bin_type=False)
    await home.publish("p", None, payload=packer.pack([time, {b"data": binary}]))
    async with home.working():
        await home.until_stored(1)
    [message] = await messages(home, records_topic("p"), records_schema(schema))
    assert message["events"][0]["record"] == {"data": binary}


async def test_a_checkpoint_waits_for_the_results(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", partitions=1, pipeline=[{**PCM, "publish": True}])
    topic = rows_topic("p", "samples")
    await home.bus.ensure_topic(topic, partitions=1)
    other = open_bus("embedded:", home.path)
    await other.producer().publish(topic, b"other", b"x")  # and writes it until it closes
    await home.publish("p", samples(100).tobytes())
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    async with home.working(checkpoint_interval_s=0.05):
        await home.until_stored(1)
        await asyncio.sleep(0.3)  # six times as long as a failure takes
        assert not checkpoints.positions().get(("p", 0)), "a checkpoint covers rows that are not on the bus"
        assert checkpoints.stream("t") is None
        await other.close()
        async with asyncio.timeout(30):
            while checkpoints.positions() != {("p", 0): 1}:
                await asyncio.sleep(0.01)
        assert home.telemetry.published_total == 100
    checkpoints.close()


async def test_a_worker_that_stops_while_the_bus_is_unavailable_ends_without_a_checkpoint(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RESULTS_TIMEOUT_S", 0.1)
    await home.policy("p", tags=["t"], format="raw", partitions=1, pipeline=[{**PCM, "publish": True}])
    topic = rows_topic("p", "samples")
    await home.bus.ensure_topic(topic, partitions=1)
    other = open_bus("embedded:", home.path)
    await other.producer().publish(topic, b"other", b"x")
    sent = samples(100)
    await home.publish("p", sent.tobytes())
    async with home.working():
        await home.until_stored(1)
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        assert checkpoints.stream("t") is None
    await other.close()
    async with home.working():
        await home.until_stored(1)
    found = await messages(home, topic, ROWS_SCHEMA)
    assert [(m["first_row"], m["values"]) for m in found] == [(0, sent.astype(float).tolist())]
    assert home.stream() == sent.tobytes()
