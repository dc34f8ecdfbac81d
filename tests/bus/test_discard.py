from pathlib import Path

import pytest
from windvane.bus import Bus, open_bus
from windvane.errors import BusUnavailable
from windvane.testing.bus import Assignments


@pytest.fixture
def bus(tmp_path: Path) -> Bus:
    return open_bus("discard:", tmp_path)


async def test_a_message_is_durable_at_once(bus: Bus) -> None:
    await bus.ensure_topic("topic", partitions=2)
    producer = bus.producer()
    futures = [producer.publish("topic", b"key", b"value") for _ in range(3)]
    assert [future.result() for future in futures] == [0, 1, 2]
    assert producer.pending_bytes == 0


async def test_topics_are_listed_and_can_grow(bus: Bus) -> None:
    await bus.ensure_topic("topic", partitions=2)
    await bus.ensure_topic("topic", partitions=1)
    await bus.ensure_topic("topic", partitions=3)
    assert await bus.topics() == {"topic": 3}


async def test_an_unknown_topic_and_a_closed_producer_reject_messages(bus: Bus) -> None:
    producer = bus.producer()
    with pytest.raises(BusUnavailable, match="nowhere"):
        await producer.publish("nowhere", b"key", b"value")
    await bus.ensure_topic("topic", partitions=1)
    await producer.close()
    with pytest.raises(BusUnavailable, match="closed"):
        await producer.publish("topic", b"key", b"value")


async def test_no_message_is_ever_returned(bus: Bus) -> None:
    await bus.ensure_topic("topic", partitions=1)
    await bus.producer().publish("topic", b"key", b"value")
    consumer = bus.consumer("group", Assignments())
    consumer.subscribe(["topic"])
    assert await consumer.poll(timeout_s=0.01) == []
    assert await consumer.lag() == {}
    await bus.close()
    assert await consumer.poll(timeout_s=3600) == []


async def test_it_writes_no_files(bus: Bus, tmp_path: Path) -> None:
    await bus.ensure_topic("topic", partitions=1)
    await bus.producer().publish("topic", b"key", b"value")
    assert list(tmp_path.iterdir()) == []
