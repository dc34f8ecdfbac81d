"""The idempotent producers of aiokafka through which batches are sent, one after the other.

An idempotent producer has an ID and sequence numbers, by which the broker drops what is sent twice. Both are
valid until an error: then the link is retired, and the next batch goes through another one.
"""

import asyncio
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ....errors import BusUnavailable, WindvaneError
from ..connection import KafkaConnection
from .outage import Outage
from .partition_queue import PublishedMessage
from .pending_messages import PendingMessages

STOP_S = 10.0
"""Bound on closing the connections of a link."""

TICK_S = 1.0
"""How often a wait checks for a deadline, which `close` can bring forward."""

_METADATA_AGE_S = 10.0
_RETRY_S = 0.2


class Link:
    """One producer of aiokafka."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.batches_in_flight = 0
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Links:
    """The current link, and those whose last batches are still in flight."""

    def __init__(self, connection: KafkaConnection, pending: PendingMessages, outage: Outage) -> None:
        self.current: Link | None = None
        self._connection = connection
        self._pending = pending
        self._outage = outage
        self._starting: asyncio.Task[Link] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def connect(self, message: PublishedMessage) -> Link:
        """The current link; starts one if there is none, until the deadline of `message`.

        Raises `ConfigInvalid` if the login or a setting is wrong, `BusUnavailable` at the deadline and if the
        brokers reject the connection.
        """
        while self.current is None:
            if self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._start())
            remaining_s = self._pending.remaining_s(message)
            if remaining_s <= 0:
                raise self._outage.timed_out()
            await asyncio.wait([self._starting], timeout=min(TICK_S, remaining_s))
            if self._starting is not None and self._starting.done():
                starting, self._starting = self._starting, None
                self.current = starting.result()
        return self.current

    def retire(self, link: Link) -> None:
        """Send no more batches through the link; its requests in flight may finish."""
        if self.current is link:
            self.current = None

    def abandon(self, link: Link) -> None:
        """Retire the link, with its requests in flight: their results are unknown."""
        self.retire(link)
        if not link.broken.done():
            link.broken.set_result(None)

    def release(self, link: Link) -> None:
        """A batch in flight has its result: a retired link is closed after the last one."""
        link.batches_in_flight -= 1
        if not link.batches_in_flight and link is not self.current:
            task = asyncio.get_running_loop().create_task(_stop(link))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        """Close all links."""
        for task in (self._starting, *self._stopping):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self.current is not None:
            link, self.current = self.current, None
            await _stop(link)

    async def _start(self) -> Link:
        """Connect; retries until the brokers accept the connection, or reject it permanently."""
        while True:
            producer = AIOKafkaProducer(
                **self._connection.options(),
                enable_idempotence=True,
                acks="all",
                metadata_max_age_ms=int(_METADATA_AGE_S * 1000),
            )
            try:
                await producer.start()
            except asyncio.CancelledError:
                await _stop(Link(producer))
                raise
            except (KafkaError, OSError, TimeoutError) as error:
                await _stop(Link(producer))
                await self._report_failed_start(error)
                await asyncio.sleep(_RETRY_S)
            else:
                self._outage.end()
                return Link(producer)

    async def _report_failed_start(self, error: Exception) -> None:
        """Report the reason of a failed start. Raises it if another attempt would fail too."""
        try:
            await self._connection.check()
        except BusUnavailable as reason:
            self._outage.begin(reason)
            return
        explained: WindvaneError = self._connection.explain(error)
        self._outage.begin(explained, is_logged=False)
        if isinstance(error, KafkaError) and not error.retriable:
            raise explained from error


async def _stop(link: Link) -> None:
    """Close the connections of the link, even if it still tries to deliver abandoned batches."""
    producer = link.producer
    sender = producer._sender
    if sender.sender_task is not None:
        sender.sender_task.cancel()
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(STOP_S):
            await producer.stop()
