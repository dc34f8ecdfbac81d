"""Sends the queue of each partition, one batch after the other.

Messages that queue while a batch is in flight become the next batch. There is no linger time: a single
message is sent at once. After an error the batch is resent through another link, or its messages fail.
"""

import asyncio
import logging
from collections import deque
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RecordListTooLargeError,
    UnknownProducerId,
)

from ....errors import WindvaneError
from ..connection import KafkaConnection
from .links import TICK_S, Link, Links
from .outage import SILENCE_S, Outage
from .partition_queue import MessageBatch, PartitionQueue
from .pending_messages import PendingMessages
from .record_batches import RecordBatch

# The broker has not written the batch, and would reject the next one with the same producer ID too.
_NEEDS_NEW_ID = (OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

_log = logging.getLogger(__name__)


class InFlightBytes:
    """Bounds the bytes of the batches in flight; waits are served first in, first out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes fit; a larger batch waits until it is alone."""
        while self._bytes and self._bytes + size > self._limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._bytes += size

    def release(self, size: int) -> None:
        """A batch of `size` bytes is not in flight any more."""
        self._bytes -= size
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class Sender:
    """Delivers messages in the order of their partition's queue, or fails them at their deadline."""

    def __init__(
        self, connection: KafkaConnection, links: Links, pending: PendingMessages, outage: Outage
    ) -> None:
        self._connection = connection
        self._settings = connection.settings
        self._links = links
        self._pending = pending
        self._outage = outage
        self._in_flight = InFlightBytes(connection.settings.in_flight_bytes)
        self._loop = asyncio.get_running_loop()

    async def send_all(self, queue: PartitionQueue) -> None:
        """Send the messages of a queue until it is empty."""
        try:
            while queue.messages:
                first = queue.messages[0]
                if self._pending.remaining_s(first) <= 0:
                    self._fail_late(queue)
                    continue
                try:
                    link = await self._links.connect(first)
                except WindvaneError as error:
                    waiting, queue.messages = queue.messages, deque()
                    self._pending.fail(waiting, error)
                    continue
                batch = queue.next_batch(self._settings.batch_bytes, self._settings.compression)
                await self._send(queue, link, batch)
        finally:
            queue.is_sending = False

    def _fail_late(self, queue: PartitionQueue) -> None:
        error = self._outage.timed_out()
        while queue.messages and self._pending.remaining_s(queue.messages[0]) <= 0:
            self._pending.fail([queue.messages.popleft()], error)

    async def _send(self, queue: PartitionQueue, link: Link, batch: MessageBatch) -> None:
        await self._in_flight.acquire(batch.size)
        link.batches_in_flight += 1
        try:
            offset = await self._deliver(queue, link, batch)
        except Exception as error:
            self._links.retire(link)
            await self._restore_or_fail(queue, batch, error)
        else:
            self._pending.deliver(batch, offset)
        finally:
            self._in_flight.release(batch.size)
            self._links.release(link)

    async def _restore_or_fail(self, queue: PartitionQueue, batch: MessageBatch, error: Exception) -> None:
        if isinstance(error, _NEEDS_NEW_ID):
            _log.info("%s restarts with a new producer ID: %s", queue.topic, type(error).__name__)
            queue.restore(batch)
        elif isinstance(error, _TOO_LARGE) and len(batch.messages) > 1:
            queue.send_singly()
            queue.restore(batch)
        elif isinstance(error, KafkaError) and error.retriable:
            # The retries are exhausted: find the cause.
            self._pending.fail(batch.messages, await self._connection.explain_silence([queue.topic]))
        else:
            # An error of Kafka, or an unexpected state of the client.
            self._pending.fail(batch.messages, self._connection.explain(error, queue.topic))

    async def _deliver(self, queue: PartitionQueue, link: Link, batch: MessageBatch) -> int:
        """The offset of the batch's first message, once all in-sync replicas have it.

        If a broker is unavailable, the client resends with the same producer ID and sequence number, so that
        the broker writes the batch once. At the deadline the producer abandons the whole link, with all its
        requests in flight: their results are unknown.
        """
        name = self._connection.to_kafka(queue.topic)
        sending = asyncio.ensure_future(_sent(link.producer, batch.records, name, queue.number))
        began_s = self._loop.time()
        while not sending.done():
            waited: list[asyncio.Future[Any]] = [sending, link.broken]
            await asyncio.wait(waited, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                break
            if link.broken.done() or self._pending.remaining_s(batch.messages[0]) <= 0:
                sending.cancel()
                await asyncio.wait([sending])
                self._links.abandon(link)
                raise self._outage.timed_out()
            if self._loop.time() - began_s >= SILENCE_S:
                self._outage.diagnose()
        self._outage.end()
        return sending.result()


async def _sent(producer: AIOKafkaProducer, records: RecordBatch, topic: str, partition: int) -> int:
    done = await (await producer.send_batch(records, topic, partition=partition))
    offset: int = done.offset
    return offset
