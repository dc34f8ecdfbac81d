"""The producer's queues: which messages a batch has, how many bytes are in flight, and when messages fail."""

import asyncio

import pytest
from windvane.bus.kafka.producer.partition_queue import PartitionQueue, PublishedMessage
from windvane.bus.kafka.producer.pending_messages import PendingMessages
from windvane.bus.kafka.producer.sender import InFlightBytes
from windvane.errors import BusUnavailable


def published(value: bytes, *, at_s: float = 0.0) -> PublishedMessage:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    return PublishedMessage(b"", (value,), len(value), future, at_s)


def queue_of(*sizes: int) -> PartitionQueue:
    queue = PartitionQueue("t", 0)
    queue.messages.extend(published(bytes(size)) for size in sizes)
    return queue


def sizes_of_batches(queue: PartitionQueue, max_bytes: int) -> list[list[int]]:
    batches = []
    while queue.messages:
        batches.append([message.size for message in queue.next_batch(max_bytes, "none").messages])
    return batches


async def test_a_batch_has_as_many_messages_as_fit_and_at_least_one() -> None:
    assert sizes_of_batches(queue_of(4, 5, 1, 1, 20, 3), 10) == [[4, 5, 1], [1], [20], [3]]


async def test_a_batch_that_was_not_written_returns_to_the_front_of_its_queue() -> None:
    queue = queue_of(4, 5, 6)
    batch = queue.next_batch(9, "none")
    queue.restore(batch)
    assert [message.size for message in queue.messages] == [4, 5, 6]
    queue.send_singly()
    assert sizes_of_batches(queue, 9) == [[4], [5], [6]]


async def test_batches_wait_in_order_until_their_bytes_fit() -> None:
    in_flight = InFlightBytes(10)
    await in_flight.acquire(6)
    began: list[int] = []

    async def send(size: int) -> None:
        await in_flight.acquire(size)
        began.append(size)

    waiting = [asyncio.ensure_future(send(size)) for size in (7, 30)]
    await asyncio.sleep(0)
    assert began == []
    in_flight.release(6)
    await waiting[0]
    assert began == [7]
    in_flight.release(7)
    await waiting[1]
    assert began == [7, 30]


async def test_results_are_counted_and_end_the_drain() -> None:
    pending = PendingMessages(delivery_timeout_s=5.0)
    queue = queue_of(1, 2, 3, 4)
    first, second, third, fourth = queue.messages
    for message in queue.messages:
        pending.add(message)
    assert pending.bytes == 10
    draining = asyncio.ensure_future(pending.drain())
    second.future.cancel()
    pending.deliver(queue.next_batch(3, "none"), 7)
    assert first.future.result() == 7
    assert pending.bytes == 7
    pending.deliver(queue.next_batch(3, "none"), -1)
    assert third.future.result() == -1
    await asyncio.sleep(0)
    assert not draining.done()
    pending.fail(queue.messages, BusUnavailable("too late"))
    with pytest.raises(BusUnavailable, match="too late"):
        fourth.future.result()
    assert pending.bytes == 0
    await draining


async def test_a_deadline_is_brought_forward_but_never_extended() -> None:
    pending = PendingMessages(delivery_timeout_s=50.0)
    now_s = asyncio.get_running_loop().time()
    message = published(b"", at_s=now_s)
    assert 40 < pending.remaining_s(message) <= 50
    pending.limit_deadlines(now_s + 90)
    assert 40 < pending.remaining_s(message) <= 50
    pending.limit_deadlines(now_s - 1)
    assert pending.remaining_s(message) <= -1
