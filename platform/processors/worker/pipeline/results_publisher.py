"""Publishes a worker's results to the bus: the pipelines' threads enqueue them, the event loop sends them.

Results of one stream are on their topic in the order of their numbers, even if a publish fails and is
retried: each stream and topic has one message in flight, and later results go into the next message. So a
consumer that stores the next expected number, and drops lower ones, receives everything exactly once. A
stream's checkpoint waits until all results that it covers are durable (`ResultsPublisher.is_durable`). After
a crash, results beyond the checkpoint are republished under the same numbers.
"""

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from ....bus.interface import Bus, Producer
from ....bus.messages.results import ResultPart, join
from ....errors import ResultsNotPublished, WindvaneError
from .instrumentation import ResultsDelayed, ResultsPublished
from .telemetry import WorkerTelemetry

MESSAGE_BYTES = 768 * 1024
"""Parts are joined up to this size. Only a single row or record that is larger makes a larger message."""
PART_OVERHEAD_BYTES = 512  # of Python, counted for each part
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0

_log = logging.getLogger("windvane.worker")


TOPIC_SHARE = 0.25
"""The share of one topic in the bound on pending parts, so that a blocked topic does not block the others."""


class _PendingPart(NamedTuple):
    part: ResultPart
    number: int


class _PartQueue:
    """The pending parts of one stream on one topic; one task empties it."""

    def __init__(self) -> None:
        self.waiting: deque[_PendingPart] = deque()

    def take(self, max_bytes: int) -> list[_PendingPart]:
        """Removes and returns the parts of the next message."""
        taken = [self.waiting.popleft()]
        size = taken[0].part.size
        while self.waiting and self.waiting[0].part.continues(taken[-1].part):
            size += self.waiting[0].part.size
            if size > max_bytes:
                break
            taken.append(self.waiting.popleft())
        return taken


class ResultsPublisher:
    """Publishes parts of results in the order in which they are put. Belongs to one event loop.

    Memory: `max_pending_bytes`, and what each thread puts at once. Beyond that a pipeline waits until the bus
    has accepted some parts. If the bus is unavailable, publishing is retried until `give_up`.
    """

    def __init__(self, bus: Bus, telemetry: WorkerTelemetry, *, max_pending_bytes: int) -> None:
        self._bus = bus
        self._telemetry = telemetry
        self._max_pending_bytes = max_pending_bytes
        self._loop = asyncio.get_running_loop()
        self._producer: Producer = bus.producer()
        self.max_message_bytes = self._producer.max_message_bytes
        self.part_bytes = min(MESSAGE_BYTES, self.max_message_bytes)
        """The recommended maximum size of a part, so that several fit into one message."""
        self._state = threading.Condition()  # guards the next six attributes
        self._pending_bytes = 0
        self._pending_by_topic: Counter[str] = Counter()
        self._given_up = False
        self._new_parts: list[_PendingPart] = []
        self._number = 0
        self._unpublished: dict[bytes, dict[int, None]] = {}  # ascending numbers of parts, by stream
        self._progress = asyncio.Event()  # some were published, or `give_up` was called
        self.broken: Callable[[Exception], None] = lambda _: self.give_up()
        """Called with an unexpected error: that stream publishes nothing more."""
        self._queues: dict[tuple[str, bytes], _PartQueue] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._partitions: dict[str, int] = {}  # of topics that are known to exist

    def put(self, parts: Sequence[ResultPart]) -> None:
        """Enqueues parts; called by threads. Blocks while too many bytes are pending.

        Raises ResultsNotPublished once `give_up` was called.
        """
        if not parts:
            return
        topic = parts[0].topic
        with self._state:
            self._state.wait_for(lambda: self._given_up or self._has_room(topic))
            if self._given_up:
                raise ResultsNotPublished(
                    "the worker ends while the bus does not accept its results; after a restart it "
                    "recomputes what no checkpoint covers"
                )
            is_first = not self._new_parts
            for part in parts:
                self._number += 1
                self._pending_bytes += _weight(part)
                self._pending_by_topic[part.topic] += _weight(part)
                self._unpublished.setdefault(part.key, {})[self._number] = None
                self._new_parts.append(_PendingPart(part, self._number))
        if is_first:
            self._loop.call_soon_threadsafe(self._start_sending)

    def _has_room(self, topic: str) -> bool:
        of_topic = self._pending_by_topic[topic]
        return of_topic < TOPIC_SHARE * self._max_pending_bytes and (
            self._pending_bytes < self._max_pending_bytes or not of_topic
        )

    def mark(self, stream: str) -> int:
        """Returns a mark after all parts of the stream that were put so far; see `is_durable`."""
        with self._state:
            return max(self._unpublished.get(stream.encode(), ()), default=0)

    def is_durable(self, stream: str, mark: int) -> bool:
        """Whether all parts of the stream that were put before `mark` are durable on the bus."""
        with self._state:
            return next(iter(self._unpublished.get(stream.encode(), ())), mark + 1) > mark

    async def wait_for_progress(self, timeout_s: float) -> None:
        """Waits until more parts are durable, or until the timeout."""
        with self._state:
            is_hopeless = self._given_up
            self._progress.clear()
        if is_hopeless:
            await asyncio.sleep(timeout_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._progress.wait()

    def give_up(self) -> None:
        """Ends all waits: the worker ends without a checkpoint of results that are not durable."""
        with self._state:
            self._given_up = True
            self._state.notify_all()
        self._progress.set()

    async def close(self) -> None:
        """Stops, and drops unpublished parts: no checkpoint covers them."""
        self.give_up()
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    @property
    def pending_bytes(self) -> int:
        """The bytes that were put and are not durable yet, as counted against the bound."""
        return self._pending_bytes

    def _start_sending(self) -> None:
        with self._state:
            new_parts, self._new_parts = self._new_parts, []
        for put in new_parts:
            queue = self._queues.get((put.part.topic, put.part.key))
            if queue is None:
                queue = self._queues[put.part.topic, put.part.key] = _PartQueue()
                sending = self._loop.create_task(self._send(put.part.topic, put.part.key, queue))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)
            queue.waiting.append(put)

    async def _send(self, topic: str, key: bytes, queue: _PartQueue) -> None:
        try:
            while queue.waiting:
                message = queue.take(self.part_bytes)
                await self._publish(topic, key, [put.part for put in message])
                self._mark_durable(message)
        except Exception as error:
            _log.exception("results of %r cannot be published on %r", key, topic)
            self.broken(error)
            raise
        del self._queues[topic, key]

    async def _publish(self, topic: str, key: bytes, parts: list[ResultPart]) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if self._partitions.get(topic, 0) < parts[0].partitions:
                    await self._bus.ensure_topic(topic, partitions=parts[0].partitions)
                    self._partitions[topic] = parts[0].partitions
                await self._producer.publish(topic, key, *join(parts))
            except WindvaneError as error:
                self._partitions.pop(topic, None)  # it may have been removed
                self._telemetry.emit(ResultsDelayed(str(error)))
            else:
                self._telemetry.emit(ResultsPublished(sum(part.count for part in parts)))
                return
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)

    def _mark_durable(self, message: list[_PendingPart]) -> None:
        with self._state:
            for put in message:
                self._pending_bytes -= _weight(put.part)
                self._pending_by_topic[put.part.topic] -= _weight(put.part)
                if not self._pending_by_topic[put.part.topic]:
                    del self._pending_by_topic[put.part.topic]
                numbers = self._unpublished[put.part.key]
                del numbers[put.number]
                if not numbers:
                    del self._unpublished[put.part.key]
            self._state.notify_all()
        self._progress.set()


def _weight(part: ResultPart) -> int:
    return part.size + PART_OVERHEAD_BYTES
