"""The embedded bus's producer: messages published during one fdatasync share the next one.

`EmbeddedProducer.publish` only puts a message into the queue of its partition. Each partition has a
`GroupCommit` that takes all queued messages, writes and syncs them in a thread, and resolves the futures on
the event loop. So the loop never waits for a disk, and several partitions sync concurrently. A group without
a message of durability "fsync" is only written; the next sync, or one after `SYNC_DELAY_S`, covers it.
"""

import asyncio
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress

import msgspec

from ...errors import BusCorrupt, BusUnavailable, WindvaneError
from ..interface import MAKE_TOPICS, Buffer, Durability, Producer, TopicPartition
from .bus_directory import BusDirectory
from .record_format import MAX_MESSAGE_BYTES
from .segment_log import LogWriter

GROUP_BYTES = 16 * 1024 * 1024
GROUP_MESSAGES = 4096
"""Bounds on the messages of one fdatasync, so that a long queue is acknowledged in several steps."""

SYNC_DELAY_S = 0.05
"""How long written messages wait for fdatasync at most."""

OPEN_AGAIN_S = 5.0
"""Minimum time between attempts to open a damaged log: it may have been repaired."""

PENDING_BYTES = 256 * 1024 * 1024
"""Bound on the messages that a producer holds; callers should stop long before, by `pending_bytes`."""


_log = logging.getLogger(__name__)


class _Published(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    value: tuple[Buffer, ...]
    size: int
    future: asyncio.Future[int]
    producer: "EmbeddedProducer"
    durability: Durability


class GroupCommit:
    """The queue of one partition, and its log, opened by the first message and reopened after a failure.

    `_commit` runs in a thread, once at a time; everything else runs on the event loop.
    """

    def __init__(
        self, executor: Executor, open_log: Callable[[], LogWriter], ring: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = executor
        self._open_log = open_log
        self._ring = ring
        self._log: LogWriter | None = None
        self._queue: list[_Published] = []
        self._running = False
        self._using_log = threading.Lock()
        self._damage: WindvaneError | None = None
        self._open_again_s = 0.0
        self._sync_due_s: float | None = None  # when written messages have to be synced

    @property
    def damage(self) -> WindvaneError | None:
        """Why the partition rejects messages; None if no damage is known."""
        return self._damage

    def open(self) -> None:
        """Open the log now, which recovers it; blocks. Only before the first `put`."""
        if self._log is None:
            self._open()
            self._ring()

    def _open(self) -> LogWriter:
        """Open the log; a damaged one is not checked again for each message."""
        if self._damage is not None and time.monotonic() < self._open_again_s:
            raise self._damage
        try:
            log = self._open_log()
        except BusCorrupt as error:
            if self._damage is None:
                _log.error("a partition rejects messages: %s", error)
            self._damage = error
            self._open_again_s = time.monotonic() + OPEN_AGAIN_S
            raise
        if self._damage is not None:
            _log.info("a partition accepts messages again; it had rejected them: %s", self._damage)
            self._damage = None
        self._log = log
        return log

    def put(self, message: _Published) -> None:
        """Queue a message."""
        self._queue.append(message)
        if not self._running:
            self._running = True
            # Deferred, so that all messages published in this turn of the loop share the first fdatasync.
            self._loop.call_soon(self._start)

    def close(self) -> None:
        """Sync written messages and close the log; blocks for a short time. Requires an empty queue."""
        self._sync_due_s = None
        with self._using_log:
            if self._log is not None:
                with suppress(BusUnavailable):
                    self._log.sync()
                    self._ring()
                self._log.close()
                self._log = None

    def _start(self) -> None:
        group, self._queue = _first_group(self._queue)
        now_s = self._loop.time()
        is_sync = any(message.durability == "fsync" for message in group) or (
            self._sync_due_s is not None and now_s >= self._sync_due_s
        )
        if is_sync:
            self._sync_due_s = None
        elif self._sync_due_s is None:
            self._sync_due_s = now_s + SYNC_DELAY_S
            self._loop.call_later(SYNC_DELAY_S, self._sync_if_due)
        self._executor.submit(self._commit, group, is_sync=is_sync)

    def _sync_if_due(self) -> None:
        """Sync the written messages, unless a group has synced them."""
        if self._sync_due_s is None or self._running:
            return  # the running group, or the next, checks it too
        self._sync_due_s = None
        self._running = True
        self._executor.submit(self._commit, [], is_sync=True)

    def _commit(self, group: list[_Published], *, is_sync: bool) -> None:
        """Write the group; with `is_sync`, sync it and all that was written before. May be empty."""
        first = 0
        try:
            messages = [(message.key, message.value) for message in group]
            with self._opened_log() as log:
                if not is_sync:
                    first = log.write(messages)
                elif group:
                    first = log.append(messages)
                else:
                    log.sync()
            if is_sync:
                self._ring()
        except BaseException as error:  # whatever it is, senders wait for the group
            self._loop.call_soon_threadsafe(self._finish, group, first, error)
        else:
            # Not by a future of the thread, which would take one more turn of the loop.
            self._loop.call_soon_threadsafe(self._finish, group, first, None)

    @contextmanager
    def _opened_log(self) -> Iterator[LogWriter]:
        with self._using_log:
            if self._log is not None and not self._log.is_in_place:
                self._log.close()
                self._log = None
            log = self._open() if self._log is None else self._log
            try:
                yield log
            finally:
                if not log.usable:
                    log.close()
                    self._log = None

    def _start_next(self) -> None:
        if self._queue:
            self._start()
        else:
            self._running = False
            if self._sync_due_s is not None and self._loop.time() >= self._sync_due_s:
                self._sync_if_due()

    def _finish(self, group: list[_Published], first: int, error: BaseException | None) -> None:
        self._start_next()
        if error is not None and not group:
            _log.error("messages that were acknowledged as written are not durable: %s", error)
        for place, message in enumerate(group):
            message.producer.settle(message.size)
            if message.future.done():
                continue
            if error is None:
                message.future.set_result(first + place)
            else:
                kind = type(error) if isinstance(error, BusUnavailable) else BusUnavailable
                message.future.set_exception(kind(str(error)))


def partition_of(key: bytes, partitions: int) -> int:
    """See `Bus.partition_of`."""
    return zlib.crc32(key) % partitions


def _first_group(queue: list[_Published]) -> tuple[list[_Published], list[_Published]]:
    size = 0
    for count, message in enumerate(queue[:GROUP_MESSAGES]):
        size += message.size
        if size > GROUP_BYTES and count:
            return queue[:count], queue[count:]
    return queue[:GROUP_MESSAGES], queue[GROUP_MESSAGES:]


class EmbeddedProducer(Producer):
    """Publishes into the logs of this process; see `Producer`.

    Holds at most `PENDING_BYTES` of messages (and always takes one): over it, publishing fails with
    BusUnavailable.
    """

    max_message_bytes = MAX_MESSAGE_BYTES

    def __init__(self, directory: BusDirectory, commit_of: Callable[[TopicPartition], GroupCommit]) -> None:
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._doorbell = directory.doorbell
        self._commit_of = commit_of
        self._topics: dict[str, list[GroupCommit]] = {}
        self._topics_changed = self._doorbell.topics_changed
        self._pending_bytes = 0
        self._pending_messages = 0
        self._drained: asyncio.Future[None] | None = None
        self._closed = False

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """See `Producer.publish`."""
        size = len(key)
        for piece in value:
            size += len(piece)
        if size > MAX_MESSAGE_BYTES:
            raise ValueError(
                f"a message of {size} bytes exceeds the bus's limit of {MAX_MESSAGE_BYTES}; split it"
            )
        future = self._loop.create_future()
        try:
            commits = self._commits(topic, size)
        except BusUnavailable as error:
            future.set_exception(error)
            return future
        self._pending_bytes += size
        self._pending_messages += 1
        commits[partition_of(key, len(commits))].put(_Published(key, value, size, future, self, durability))
        return future

    @property
    def pending_bytes(self) -> int:
        """See `Producer.pending_bytes`."""
        return self._pending_bytes

    def settle(self, size: int) -> None:
        """A message of `size` bytes is durable or has failed."""
        self._pending_bytes -= size
        self._pending_messages -= 1
        if self._drained is not None and not self._pending_messages and not self._drained.done():
            self._drained.set_result(None)

    async def close(self) -> None:
        """See `Producer.close`."""
        self._closed = True
        while self._pending_messages:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def _commits(self, topic: str, size: int) -> list[GroupCommit]:
        """The partitions of the topic. Raises BusUnavailable if a message of `size` bytes is not accepted."""
        if self._closed:
            raise BusUnavailable("the producer is closed; create another one")
        if self._pending_bytes and self._pending_bytes + size > PENDING_BYTES:
            raise BusUnavailable(
                f"{self._pending_bytes} bytes are already waiting for the disk; publish more slowly"
            )
        if self._doorbell.topics_changed != self._topics_changed:
            self._topics_changed = self._doorbell.topics_changed
            self._topics.clear()
        commits = self._topics.get(topic)
        if commits is None:
            commits = [self._commit_of(partition) for partition in self._directory.partitions([topic])]
            if not commits:
                raise BusUnavailable(f"there is no topic {topic!r} on the bus; {MAKE_TOPICS}")
            self._topics[topic] = commits
        return commits
