"""The producer of the interface: queues messages by partition, and sends each queue in a task of its own.

aiokafka's own `send` waits if its buffer is full, and has one request in flight to each broker. So messages
queue here, and a batch is built (`record_batches.py`) with its request.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from ....errors import BusUnavailable, WindvaneError
from ...interface import Buffer, Durability, Producer
from ..background_tasks import BackgroundErrors
from ..connection import KafkaConnection
from .links import Links
from .outage import Outage
from .partition_queue import PartitionQueue, PublishedMessage
from .partitioning import PartitionCounts, partition_of
from .pending_messages import PendingMessages
from .sender import Sender

PENDING_BYTES = 256 * 1024 * 1024
"""Bound on the messages that a producer holds; callers should stop long before, by `pending_bytes`."""

CLOSE_S = 10.0
"""Messages that are not delivered this long after the call of `close` fail."""


class KafkaProducer(Producer):
    """Publishes to the topics of one installation; see `Producer`.

    Idempotent, with acknowledgements of all in-sync replicas, also for `durability="written"`. If brokers are
    unavailable, a message fails `delivery_timeout_s` after it was published. It fails at once if
    `PENDING_BYTES` are pending already. The offset is -1 if the broker does not return it for a batch that it
    had already written (DUPLICATE_SEQUENCE_NUMBER). Memory: the pending messages, and about three copies of
    those in flight, which are at most `in_flight_bytes` or one message.
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self.max_message_bytes = connection.settings.max_message_bytes
        self._loop = asyncio.get_running_loop()
        BackgroundErrors.watch(self._loop)
        self._pending = PendingMessages(delivery_timeout_s=connection.settings.delivery_timeout_s)
        self._outage = Outage(connection, self._pending, self._waiting_topics)
        self._links = Links(connection, self._pending, self._outage)
        self._sender = Sender(connection, self._links, self._pending, self._outage)
        self._counts = PartitionCounts(connection, self._links, self._pending, self._outage)
        self._unresolved: dict[str, deque[PublishedMessage]] = {}
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """See `Producer.publish`."""
        size = len(key)
        for piece in value:
            size += len(piece)
        if size > self.max_message_bytes:
            raise ValueError(
                f"a message of {size} bytes exceeds kafka.max_message_bytes, "
                f"{self.max_message_bytes}; split it"
            )
        future = self._loop.create_future()
        pending = self._pending
        if self._closed:
            future.set_exception(BusUnavailable("the producer is closed; create another one"))
            return future
        if pending.bytes and pending.bytes + size > PENDING_BYTES:
            future.set_exception(
                BusUnavailable(
                    f"{pending.bytes} bytes are already waiting for {self._connection.where}; "
                    "publish more slowly"
                )
            )
            return future
        message = PublishedMessage(key, value, size, future, self._loop.time())
        pending.add(message)
        # A topic's later messages must not overtake those that wait for its number of partitions.
        count = None if topic in self._unresolved else self._counts.known(topic)
        if count is None:
            self._resolve_later(topic, message)
        else:
            self._put(topic, count, message)
        return future

    @property
    def pending_bytes(self) -> int:
        """See `Producer.pending_bytes`."""
        return self._pending.bytes

    async def close(self) -> None:
        """See `Producer.close`; messages that are not delivered within 10 seconds fail."""
        if not self._closed:
            self._closed = True
            self._pending.limit_deadlines(self._loop.time() + CLOSE_S)
        await self._pending.drain()
        await self._outage.close()
        for task in list(self._tasks):
            task.cancel()
            await asyncio.wait([task])
        await self._links.close()

    async def refresh_topics(self) -> None:
        """Find new topics and partitions at once."""
        if self._links.current is not None:
            await self._links.current.producer.client.force_metadata_update()

    def _waiting_topics(self) -> set[str]:
        sending = {queue.topic for queue in self._queues.values() if queue.is_sending}
        return sending | self._unresolved.keys()

    def _resolve_later(self, topic: str, message: PublishedMessage) -> None:
        if (waiting := self._unresolved.get(topic)) is not None:
            waiting.append(message)
        else:
            self._unresolved[topic] = deque([message])
            self._start(self._resolve(topic))

    async def _resolve(self, topic: str) -> None:
        """Read the partition count of a topic, then queue its messages by partition, or fail them."""
        waiting = self._unresolved[topic]
        try:
            count = await self._counts.read(topic, waiting[0])
        except WindvaneError as error:
            del self._unresolved[topic]
            self._pending.fail(waiting, error)
            return
        del self._unresolved[topic]
        for message in waiting:
            self._put(topic, count, message)

    def _put(self, topic: str, count: int, message: PublishedMessage) -> None:
        place = topic, partition_of(message.key, count)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = PartitionQueue(*place)
        queue.messages.append(message)
        if not queue.is_sending:
            queue.is_sending = True
            self._start(self._sender.send_all(queue))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
