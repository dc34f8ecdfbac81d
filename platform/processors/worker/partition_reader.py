"""Reads a worker's partitions: seeks, pauses and halts them."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from ...bus.interface import BEGINNING, Bus, BusMessage, Consumer, TopicPartition
from ...bus.messages.chunks import ChunkMessage, decode_chunk
from ...bus.topic_names import is_chunk_topic
from ...config import WorkerSettings
from ...errors import BusUnavailable, EnvelopeInvalid, LogReplaced, PartitionHalted, WindvaneError
from ...store.databases.interfaces import CheckpointDatabase
from .checkpointing import Checkpointing
from .chunk_dead_letters import ChunkDeadLetters
from .instrumentation import DeadLetterNotWritten
from .open_streams import OpenStreams
from .order_watch import OrderWatch
from .pipeline.telemetry import WorkerTelemetry
from .progress.instrumentation import BusUnreachable, MessagesGivenUp
from .progress.ownership import OwnedPartition, Ownership

PARTITION_BACKLOG = 4
"""A partition waits when its streams together have this many times the backlog of one stream."""
RESUME_SHARE = 0.5
"""The share of the backlog below which reading of a paused partition resumes."""
_POLL_S = 0.25
_HALTED_CHECK_S = 1.0
_RETRY_S = 5.0

_Decoded = tuple[OwnedPartition, int, ChunkMessage | None]


class PartitionReader:
    """Polls the bus for one worker, and adds chunks to the queues of their streams.

    A partition is paused while one of its streams, or all of them together, have too many queued bytes.
    Meanwhile its messages stay on the bus. A halted partition (messages are damaged or gone) does not affect
    the others; it resumes after an operator has decided to skip the messages. If its topic was recreated, a
    partition is read from its beginning.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        consumer: Consumer,
        checkpoints: CheckpointDatabase,
        owned: Ownership,
        streams: OpenStreams,
        checkpointing: Checkpointing,
        dead_letters: ChunkDeadLetters,
        before_batch: Callable[[], None],
        orders: OrderWatch,
        settings: WorkerSettings,
        telemetry: WorkerTelemetry,
    ) -> None:
        self._bus = bus
        self._consumer = consumer
        self._checkpoints = checkpoints
        self._owned = owned
        self._streams = streams
        self._checkpointing = checkpointing
        self._dead_letters = dead_letters
        self._before_batch = before_batch
        self._orders = orders
        self._settings = settings
        self._telemetry = telemetry
        self._topics_read_s = float("-inf")
        self._lag_read_s = float("-inf")
        self._halted_checked_s = float("-inf")

    async def run(self) -> None:
        """Reads until cancelled."""
        while True:
            try:
                # Before a poll, since a poll in progress may still return messages from before the seek.
                await self._retake_lost()
                self._rewind()
                await self._check_halted()
                await self._open_added_partitions()
                await self._subscribe()
                self._pause_and_resume()
                messages = await self._consumer.poll(max_bytes=self._settings.poll_bytes, timeout_s=_POLL_S)
            except BusUnavailable as error:
                self._telemetry.emit(BusUnreachable.of(error))
                await asyncio.sleep(_POLL_S)
                continue
            await self._enqueue_messages(messages)
            await self._read_lag()

    async def take(self, keys: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Takes partitions that the bus has assigned; returns the start offset of each."""
        try:
            async with self._checkpointing.lock:
                self._checkpointing.check()
                # If the bus did not report that they were revoked in between, uncommitted chunks are
                # reprocessed.
                if still_owned := [each for key in keys if (each := self._owned.get(key)) is not None]:
                    await self._checkpointing.release(still_owned)
                return await self._take(keys)
        except BusUnavailable:
            raise
        except BaseException as error:
            self._checkpointing.fail(error)
            raise

    async def _take(self, keys: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]:
        topics = {key.topic for key in keys}
        logs = await self._bus.log_ids(topics)
        if missing := topics - logs.keys():
            raise BusUnavailable(f"topic {sorted(missing)[0]!r} does not exist; reading resumes when it does")
        taken = await asyncio.to_thread(self._owned.take, keys, logs)
        added = {partition.key.topic for partition, found in taken if found.added_to}
        ends = await self._bus.ends(added) if added else {}
        starts: dict[TopicPartition, int | None] = {}
        for partition, found in taken:
            # Tags move when partitions are added: their chunks on the old partition come first.
            partition.read_after = {
                key: end
                for key, end in ends.items()
                if key.topic == partition.key.topic and key.partition in found.added_to
            }
            self._owned.add(partition)
            starts[partition.key] = BEGINNING if found.position is None else found.position
            if found.position is None and found.other_logs:
                self._telemetry.log_is_new(partition.key, log=partition.log, former=found.other_logs)
        self._orders.add_committed(await asyncio.to_thread(self._checkpoints.orders, keys))
        self._telemetry.partitions_taken(keys, owned=len(self._owned))
        return starts

    async def _open_added_partitions(self) -> None:
        waiting = [partition for partition in self._owned if partition.read_after]
        if not waiting:
            return
        committed = await asyncio.to_thread(self._checkpoints.positions)
        for partition in waiting:
            partition.read_after = {
                key: end
                for key, end in partition.read_after.items()
                if end > 0 and committed.get(key, 0) < end and key not in self._consumer.halted
            }
            if not partition.read_after:
                await asyncio.to_thread(self._checkpoints.open_added, partition.log, partition.key)

    async def _retake_lost(self) -> None:
        """Retakes partitions that a late worker took after the bus had assigned them to this one."""
        for key in self._owned.to_retake():
            async with self._checkpointing.lock:
                self._owned.drop([key])
                await self._start_over(key)

    async def _start_over(self, key: TopicPartition) -> None:
        """Takes a partition that the bus has assigned already; under its lock."""
        try:
            self._consumer.pause([key])
            starts = await self._take([key])
            start = starts[key]
            assert start is not None
            self._consumer.seek(key, start)
            self._consumer.resume([key])
        except BusUnavailable as error:  # another worker has it now, or its topic is unavailable
            self._owned.lose([key])  # it is retaken later, unless it is revoked
            self._telemetry.emit(BusUnreachable.of(error))

    def _rewind(self) -> None:
        for partition, at in self._streams.take_rewinds().items():
            # A seek would end the halt, and read another log at an offset of the old one.
            is_replaced = isinstance(self._consumer.halted.get(partition.key), LogReplaced)
            if self._owned.get(partition.key) is partition and not is_replaced:
                with suppress(BusUnavailable):  # it is being revoked, and its next owner reads it
                    self._consumer.seek(partition.key, at)

    async def _check_halted(self) -> None:
        halted = {
            key: error for key, error in self._consumer.halted.items() if self._owned.get(key) is not None
        }
        self._telemetry.partitions_halted(halted)
        if not halted or time.monotonic() - self._halted_checked_s < _HALTED_CHECK_S:
            return
        self._halted_checked_s = time.monotonic()
        for key, error in halted.items():
            partition = self._owned.get(key)
            if partition is None:
                continue
            if isinstance(error, LogReplaced):
                await self._switch_log(partition)
            else:
                await self._skip_hole(partition, error)

    async def _switch_log(self, partition: OwnedPartition) -> None:
        """Chunks polled from the old log are processed and committed; then reading starts in the new one."""
        if partition.queued_bytes:
            return
        async with self._checkpointing.lock:
            await self._checkpointing.commit()
            if self._streams.has_uncommitted(partition):
                return  # at the next check
            # Chunks of the old log that stopped streams did not read were deleted with its topic.
            await self._checkpointing.release([partition])
            await self._start_over(partition.key)

    async def _skip_hole(self, partition: OwnedPartition, error: PartitionHalted) -> None:
        """Skips the missing messages if an operator has decided so (`windvane recover skip-hole`)."""
        holes = await asyncio.to_thread(self._checkpoints.holes, partition.log, partition.key)
        skipped = [hole for hole in holes if hole.first <= error.offset < hole.resume_at]
        if skipped:
            partition.holes = tuple(holes)
            partition.frontier = skipped[-1].resume_at
            self._consumer.seek(partition.key, skipped[-1].resume_at)
            self._telemetry.emit(
                MessagesGivenUp(*partition.key, resume_at=skipped[-1].resume_at, first=skipped[-1].first)
            )

    def _pause_and_resume(self) -> None:
        full = self._full_partitions()
        for partition in self._owned:
            must_pause = (
                partition in full or bool(partition.read_after) or partition.paused_until_s > time.monotonic()
            )
            if partition.paused != must_pause and not partition.released:
                with suppress(BusUnavailable):  # it is being revoked
                    (self._consumer.pause if must_pause else self._consumer.resume)([partition.key])
                    partition.paused = must_pause

    def _full_partitions(self) -> set[OwnedPartition]:
        bound = self._settings.stream_backlog_bytes
        full = {
            partition
            for partition in self._owned
            if partition.queued_bytes
            > bound * PARTITION_BACKLOG * (RESUME_SHARE if partition.paused else 1.0)
        }
        # A stream can only exceed its bound if its partition has as many bytes.
        if any(partition.queued_bytes > bound * RESUME_SHARE for partition in self._owned):
            full |= self._streams.full_partitions(bound, resume_share=RESUME_SHARE)
        return full

    async def _enqueue_messages(self, messages: Collection[BusMessage]) -> None:
        batch = []
        now_s = time.monotonic()
        for message in messages:
            partition = self._owned.get(message.topic_partition)
            if partition is not None:  # else another worker has it, though the bus does not know yet
                partition.polled_s = now_s
                batch.append((partition, message))
        if batch:
            self._before_batch()
            decoded = await asyncio.to_thread(self._decode, batch)
            self._streams.put(decoded)

    def _decode(self, batch: Sequence[tuple[OwnedPartition, BusMessage]]) -> list[_Decoded]:
        decoded: list[_Decoded] = []
        not_stored: dict[OwnedPartition, int] = {}
        for partition, message in batch:
            if partition in not_stored:
                continue
            chunk = None
            try:
                chunk = decode_chunk(message.value)
            except EnvelopeInvalid as error:
                try:
                    self._reject_message(partition, message, error)
                except WindvaneError as failure:  # no other copy is stored, so the partition waits before it
                    not_stored[partition] = message.offset
                    self._telemetry.emit(DeadLetterNotWritten(str(failure)))
                    continue
            decoded.append((partition, message.offset, chunk))
        for partition, offset in not_stored.items():
            partition.paused_until_s = time.monotonic() + _RETRY_S
            self._streams.rewind(partition, offset)
        return decoded

    def _reject_message(self, partition: OwnedPartition, message: BusMessage, error: EnvelopeInvalid) -> None:
        """Writes bytes that are not a chunk to the dead letters: another program published them."""
        if partition.released:
            return
        chunk = ChunkMessage(
            tag="", sender="bus", chunk_id=None, received_ns=time.time_ns(), events=0, payload=message.value
        )
        self._dead_letters.add(chunk, "bad-envelope", str(error), policy=partition.key.topic)

    async def _read_lag(self) -> None:
        if time.monotonic() - self._lag_read_s < _POLL_S:
            return
        try:
            behind = sum((await self._consumer.lag()).values())
        except BusUnavailable as error:
            self._telemetry.emit(BusUnreachable.of(error))
        else:
            self._telemetry.lag_messages = behind + self._streams.queued_chunks
        self._lag_read_s = time.monotonic()

    async def _subscribe(self) -> None:
        if time.monotonic() - self._topics_read_s >= _POLL_S:
            topics = await self._bus.topics()
            ours = {topic: count for topic, count in topics.items() if is_chunk_topic(topic)}
            self._topics_read_s = time.monotonic()
            self._consumer.subscribe(ours)
            self._checkpointing.is_shared = len(self._owned) < sum(ours.values())

    async def report(self, positions: Mapping[TopicPartition, int], *, timeout_s: float) -> None:
        """Commits the positions to the bus too, for external monitoring of lag and for retention; the
        checkpoint is authoritative.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._consumer.commit({key: at for key, at in positions.items() if key in self._owned})
        except (BusUnavailable, TimeoutError) as error:
            self._telemetry.emit(BusUnreachable.of(error))
