"""Publishes to Kafka: in order, each message once, and without blocking the caller.

aiokafka's own `send` waits if its buffer is full, and has one request in flight to each broker. So messages
queue here, by partition. Messages that queue while a batch is in flight become the next batch. There is no
linger time: a single message is sent at once. A batch is built (`record_batches.py`) with its request.

The partition is murmur2 of the key, as in Kafka's own clients: streams of other producers that use the same
keys can be joined by partition.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownProducerId,
)
from aiokafka.partitioner import murmur2

from ...errors import BusUnavailable, WindvaneError
from ..interface import MAKE_TOPICS, Buffer, Durability, Producer
from .background_tasks import BackgroundErrors
from .connection import KafkaConnection
from .record_batches import RecordBatch

PENDING_BYTES = 256 * 1024 * 1024
"""Bound on the messages that a producer holds; callers should stop long before, by `pending_bytes`."""

CLOSE_S = 10.0
"""Messages that are not delivered this long after the call of `close` fail."""

SILENCE_S = 5.0
"""After this long without an answer, the producer finds the reason and logs it."""

TOPIC_TRIES = 5
"""Attempts to find a topic: brokers learn of a new one at different times."""

_RETRY_S = 0.2
_TICK_S = 1.0

# The broker has not written the batch, and would reject the next one with the same producer ID too.
_NEEDS_NEW_ID = (OutOfOrderSequenceNumber, ProducerFenced, UnknownProducerId)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

_log = logging.getLogger(__name__)


class _Published(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    value: tuple[Buffer, ...]
    size: int
    future: asyncio.Future[int]
    at_s: float


class _Batch:
    """Messages of one partition that are sent together."""

    def __init__(self, compression: str) -> None:
        self.records = RecordBatch(compression)
        self.messages: list[_Published] = []
        self.size = 0

    def add(self, message: _Published) -> None:
        self.records.add(message.key, message.value)
        self.messages.append(message)
        self.size += message.size


class _Partition:
    """The queue of one partition."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.queue: deque[_Published] = deque()
        self.running = False
        self.max_messages: int | None = None  # of a batch, if the topic rejected larger ones


class _Link:
    """One idempotent producer of aiokafka: its ID and its sequence numbers are valid until an error."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.users = 0
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()


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
        self._settings = connection.settings
        self.max_message_bytes = connection.settings.max_message_bytes
        self._loop = asyncio.get_running_loop()
        BackgroundErrors.watch(self._loop)
        self._counts: dict[str, int] = {}
        self._unresolved: dict[str, deque[_Published]] = {}
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._link: _Link | None = None
        self._linking: asyncio.Task[_Link] | None = None
        self._link_error: WindvaneError | None = None
        self._pending_bytes = 0
        self._pending_messages = 0
        self._in_flight_bytes = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._drained: asyncio.Future[None] | None = None
        self._silent = False
        self._asking: asyncio.Task[None] | None = None
        self._closed = False
        self._closed_at_s = float("inf")

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
        if self._closed:
            future.set_exception(BusUnavailable("the producer is closed; create another one"))
            return future
        if self._pending_bytes and self._pending_bytes + size > PENDING_BYTES:
            future.set_exception(
                BusUnavailable(
                    f"{self._pending_bytes} bytes are already waiting for {self._connection.where}; "
                    "publish more slowly"
                )
            )
            return future
        self._pending_bytes += size
        self._pending_messages += 1
        message = _Published(key, value, size, future, self._loop.time())
        count = self._count_of(topic)
        if count is None:
            self._resolve_later(topic, message)
        else:
            self._put(topic, count, message)
        return future

    @property
    def pending_bytes(self) -> int:
        """See `Producer.pending_bytes`."""
        return self._pending_bytes

    async def close(self) -> None:
        """See `Producer.close`; messages that are not delivered within 10 seconds fail."""
        if not self._closed:
            self._closed = True
            self._closed_at_s = self._loop.time()
        while self._pending_messages:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)
        for task in (self._linking, self._asking, *self._tasks):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
                await asyncio.wait([task])
        if self._link is not None:
            link, self._link = self._link, None
            await _stop(link)

    async def refresh_topics(self) -> None:
        """Find new topics and partitions at once."""
        if self._link is not None:
            await self._link.producer.client.force_metadata_update()

    # Which partition

    def _count_of(self, topic: str) -> int | None:
        if topic in self._unresolved:
            return None  # after the messages that wait already
        if self._link is not None:
            known = self._link.producer.client.cluster.partitions_for_topic(self._connection.to_kafka(topic))
            if known:
                self._counts[topic] = len(known)
        return self._counts.get(topic)

    def _resolve_later(self, topic: str, message: _Published) -> None:
        if topic not in self._unresolved:
            self._unresolved[topic] = deque()
            self._start(self._resolve(topic))
        self._unresolved[topic].append(message)

    async def _resolve(self, topic: str) -> None:
        """Read the partition count of a topic, then queue its messages by partition, or fail them."""
        waiting = self._unresolved[topic]
        try:
            count = await self._ask_count(topic, waiting)
        except WindvaneError as error:
            del self._unresolved[topic]
            for message in waiting:
                self._fail(message, error)
            return
        del self._unresolved[topic]
        for message in waiting:
            self._put(topic, count, message)

    async def _ask_count(self, topic: str, waiting: deque[_Published]) -> int:
        name = self._connection.to_kafka(topic)
        await asyncio.sleep(0)  # until the caller has queued the first message
        while True:
            link = await self._linked(waiting[0])
            client = link.producer.client
            for _ in range(TOPIC_TRIES):
                client.add_topic(name)
                is_asked = await client.force_metadata_update()
                if known := client.cluster.partitions_for_topic(name):
                    self._counts[topic] = len(known)
                    return len(known)
                if name in client.cluster.unauthorized_topics:
                    client.set_topics(set(client._topics) - {name})
                    raise self._connection.explain(TopicAuthorizationFailedError(name), topic)
                if not is_asked:
                    break
                await asyncio.sleep(_RETRY_S / 2)
            else:
                client.set_topics(set(client._topics) - {name})
                raise BusUnavailable(f"there is no topic {topic!r} on the bus; {MAKE_TOPICS}")
            if self._deadline_s(waiting[0]) <= self._loop.time():
                raise self._too_late()
            self._start_diagnosis()
            await asyncio.sleep(_RETRY_S)

    def _put(self, topic: str, count: int, message: _Published) -> None:
        place = topic, partition_of(message.key, count)
        partition = self._partitions.get(place)
        if partition is None:
            partition = self._partitions[place] = _Partition(*place)
        partition.queue.append(message)
        if not partition.running:
            partition.running = True
            self._start(self._send_all(partition))

    # One partition

    async def _send_all(self, partition: _Partition) -> None:
        """Send the queue of a partition, one batch after the other, until it is empty."""
        try:
            while partition.queue:
                first = partition.queue[0]
                if self._deadline_s(first) <= self._loop.time():
                    self._fail_late(partition)
                    continue
                try:
                    link = await self._linked(first)
                except WindvaneError as error:
                    self._fail_all(partition, error)
                    continue
                await self._send(partition, link, self._next_batch(partition))
        finally:
            partition.running = False

    def _next_batch(self, partition: _Partition) -> _Batch:
        """As many of the queued messages as fit, and at least one."""
        batch = _Batch(self._settings.compression)
        queue = partition.queue
        while queue and (
            not batch.messages
            or (
                batch.size + queue[0].size <= self._settings.batch_bytes
                and len(batch.messages) != partition.max_messages
            )
        ):
            batch.add(queue.popleft())
        return batch

    async def _send(self, partition: _Partition, link: _Link, batch: _Batch) -> None:
        await self._take_room(batch.size)
        link.users += 1
        try:
            sent = await self._deliver(partition, link, batch)
        except _NEEDS_NEW_ID as error:
            _log.info("%s restarts with a new producer ID: %s", partition.topic, type(error).__name__)
            self._retire(link)
            partition.queue.extendleft(reversed(batch.messages))
        except _TOO_LARGE as error:
            self._retire(link)
            if len(batch.messages) > 1:
                partition.max_messages = 1
                partition.queue.extendleft(reversed(batch.messages))
            else:
                self._fail_batch(batch, self._connection.explain(error, partition.topic))
        except Exception as error:
            # An error of Kafka, or an unexpected state of the client: the next batch uses a new client.
            self._retire(link)
            reason: WindvaneError = self._connection.explain(error, partition.topic)
            if isinstance(error, KafkaError) and error.retriable:  # the retries are exhausted: find the cause
                reason = await self._connection.explain_silence([partition.topic])
            self._fail_batch(batch, reason)
        else:
            for place, message in enumerate(batch.messages):
                self._settle(message)
                if not message.future.done():
                    message.future.set_result(sent + place if sent >= 0 else -1)
        finally:
            self._give_room(batch.size)
            link.users -= 1
            if not link.users and link is not self._link:
                self._start(_stop(link))

    async def _deliver(self, partition: _Partition, link: _Link, batch: _Batch) -> int:
        """The offset of the batch's first message, once all in-sync replicas have it.

        If a broker is unavailable, the client resends with the same producer ID and sequence number, so that
        the broker writes the batch once. At the deadline the producer abandons the whole link, with all its
        requests in flight: their results are unknown.
        """
        producer, topic = link.producer, self._connection.to_kafka(partition.topic)
        sending = asyncio.ensure_future(_sent(producer, batch.records, topic, partition.number))
        began_s = self._loop.time()
        while not sending.done():
            waited: list[asyncio.Future[Any]] = [sending, link.broken]
            await asyncio.wait(waited, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                break
            now_s = self._loop.time()
            if link.broken.done() or now_s >= self._deadline_s(batch.messages[0]):
                sending.cancel()
                await asyncio.wait([sending])
                self._break(link)
                raise self._too_late()
            if now_s - began_s >= SILENCE_S:
                self._start_diagnosis()
        self._log_recovery()
        return sending.result()

    async def _take_room(self, size: int) -> None:
        """Wait in a FIFO queue until the batch fits into `in_flight_bytes`."""
        while self._in_flight_bytes and self._in_flight_bytes + size > self._settings.in_flight_bytes:
            turn = self._loop.create_future()
            self._room.append(turn)
            await turn
        self._in_flight_bytes += size

    def _give_room(self, size: int) -> None:
        self._in_flight_bytes -= size
        while self._room:
            turn = self._room.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    # Results

    def _deadline_s(self, message: _Published) -> float:
        return min(message.at_s + self._settings.delivery_timeout_s, self._closed_at_s + CLOSE_S)

    def _too_late(self) -> BusUnavailable:
        reason = self._link_error or f"{self._connection.where} does not answer"
        return BusUnavailable(f"{reason} (waited up to {self._settings.delivery_timeout_s:g} s)")

    def _fail_late(self, partition: _Partition) -> None:
        error = self._too_late()
        while partition.queue and self._deadline_s(partition.queue[0]) <= self._loop.time():
            self._fail(partition.queue.popleft(), error)

    def _fail_all(self, partition: _Partition, error: WindvaneError) -> None:
        waiting, partition.queue = partition.queue, deque()
        for message in waiting:
            self._fail(message, error)

    def _fail_batch(self, batch: _Batch, error: WindvaneError) -> None:
        for message in batch.messages:
            self._fail(message, error)

    def _fail(self, message: _Published, error: WindvaneError) -> None:
        self._settle(message)
        if not message.future.done():
            message.future.set_exception(BusUnavailable(str(error)))

    def _settle(self, message: _Published) -> None:
        self._pending_bytes -= message.size
        self._pending_messages -= 1
        if not self._pending_messages and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # The link

    async def _linked(self, first: _Published) -> _Link:
        """The producer of aiokafka; starts one if there is none.

        Raises `ConfigInvalid` if the login or a setting is wrong, `BusUnavailable` at the deadline and if the
        brokers reject the connection.
        """
        while self._link is None:
            if self._linking is None:
                self._linking = self._loop.create_task(self._make_link())
            remaining_s = self._deadline_s(first) - self._loop.time()
            if remaining_s <= 0:
                raise self._too_late()
            await asyncio.wait([self._linking], timeout=min(_TICK_S, remaining_s))
            if self._linking is not None and self._linking.done():
                linking, self._linking = self._linking, None
                self._link = linking.result()
        return self._link

    async def _make_link(self) -> _Link:
        while True:
            producer = AIOKafkaProducer(
                **self._connection.options(),
                enable_idempotence=True,
                acks="all",
                metadata_max_age_ms=10_000,
            )
            try:
                await producer.start()
            except asyncio.CancelledError:
                await _stop(_Link(producer))
                raise
            except (KafkaError, OSError, TimeoutError) as error:
                await _stop(_Link(producer))
                try:
                    await self._connection.check()
                except BusUnavailable as reason:
                    self._link_error = reason
                    self._log_outage(reason)
                else:
                    self._link_error = self._connection.explain(error)
                    if isinstance(error, KafkaError) and not error.retriable:
                        raise self._link_error from error
                await asyncio.sleep(_RETRY_S)
            else:
                self._log_recovery()
                return _Link(producer)

    def _retire(self, link: _Link) -> None:
        """Send no more batches through the link; its requests in flight may finish."""
        if self._link is link:
            self._link = None

    def _break(self, link: _Link) -> None:
        self._retire(link)
        if not link.broken.done():
            link.broken.set_result(None)

    # Logging of outages

    def _start_diagnosis(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = self._loop.create_task(self._diagnose())

    async def _diagnose(self) -> None:
        waiting = {topic for (topic, _), partition in self._partitions.items() if partition.running}
        error = await self._connection.explain_silence(waiting | self._unresolved.keys())
        self._link_error = error
        self._log_outage(error)
        await asyncio.sleep(SILENCE_S)

    def _log_outage(self, error: WindvaneError) -> None:
        if not self._silent:
            self._silent = True
            _log.warning("%s; %d bytes are waiting", error, self._pending_bytes)

    def _log_recovery(self) -> None:
        self._link_error = None
        if self._silent:
            self._silent = False
            _log.info("%s accepts messages again", self._connection.where)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _sent(producer: AIOKafkaProducer, records: RecordBatch, topic: str, partition: int) -> int:
    done = await (await producer.send_batch(records, topic, partition=partition))
    offset: int = done.offset
    return offset


async def _stop(link: _Link) -> None:
    """Close the connections of the link, even if it still tries to deliver abandoned batches."""
    producer = link.producer
    sender = producer._sender
    if sender.sender_task is not None:
        sender.sender_task.cancel()
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await producer.stop()


@lru_cache(maxsize=65_536)
def _hash(key: bytes) -> int:
    digest: int = murmur2(key)
    return digest & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """See `Bus.partition_of`."""
    return _hash(key) % partitions
