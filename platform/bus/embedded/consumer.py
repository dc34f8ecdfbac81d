"""The embedded bus's consumer: its assignment, fair reading of its partitions, and waiting."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from ...errors import (
    BusCorrupt,
    BusUnavailable,
    MessagesDamaged,
    PartitionHalted,
    PartitionUnreadable,
    WindvaneError,
)
from ..interface import (
    BEGINNING,
    DEFAULT_POLL_BYTES,
    AssignmentListener,
    BusMessage,
    Consumer,
    TopicPartition,
)
from .bus_directory import BusDirectory
from .group_positions import GroupPositions
from .log_reader import LogReader
from .notification import Listener

STANDBY_INTERVAL_S = 0.1
"""How often a standby consumer checks whether the group's active consumer has ended."""

READ_AGAIN_S = 5.0
"""How long to wait before reading a partition again whose files the disk could not read."""

_Result = TypeVar("_Result")
_Batch: TypeAlias = list[tuple[LogReader, "list[BusMessage] | PartitionHalted"]]

_log = logging.getLogger(__name__)


class EmbeddedConsumer(Consumer):
    """Reads the logs of the bus's directory; see `Consumer`.

    One consumer of a group reads all partitions; the others, in any process, are on standby and take over
    when it closes or its process ends. All blocking calls run in the consumer's one thread.
    Memory: the messages of one poll.
    """

    def __init__(
        self,
        directory: BusDirectory,
        group: str,
        listener: AssignmentListener,
        *,
        positions_of: str | None = None,
    ) -> None:
        self._directory = directory
        self._doorbell = directory.doorbell
        self._bell = Listener(directory.doorbell)
        self._positions = GroupPositions(directory.group_path(group), positions_of=positions_of)
        self._listener = listener
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"bus-{group}")
        self._polling = asyncio.Lock()
        self._reads_for_group = False
        self._topics: frozenset[str] = frozenset()
        self._assigned_for: tuple[frozenset[str], int] | None = None
        self._readers: dict[TopicPartition, LogReader] = {}
        self._paused: set[TopicPartition] = set()
        self._halted: dict[TopicPartition, PartitionHalted] = {}
        self._read_again_s: dict[TopicPartition, float] = {}  # of those halted by a read error of the disk
        self._log_ids: dict[str, str] = {}
        self._reading: asyncio.Future[_Batch] | None = None
        self._turn = 0
        self._closing = False

    @property
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        """See `Consumer.halted`."""
        return dict(self._halted)

    def subscribe(self, topics: Collection[str]) -> None:
        """See `Consumer.subscribe`."""
        self._topics = frozenset(topics)
        self._bell.wake()

    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        """See `Consumer.poll`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with self._polling:
            if self._closing:
                raise BusUnavailable("the consumer is closed; create another one")
            while not self._closing:
                rung = self._doorbell.rung
                halted = len(self._halted)
                await self._update_assignment()
                self._end_unreadable_halts()
                messages = await self._read(max_bytes)
                if messages or len(self._halted) > halted or not await self._wait(rung, deadline):
                    return messages
            return []

    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        self._check_assigned([topic_partition])
        # A new reader, since a read of a cancelled poll may still use the old one.
        before = self._readers.pop(topic_partition, None)
        self._halted.pop(topic_partition, None)
        self._start(topic_partition, offset)
        if before is not None:
            self._thread.submit(before.close)
        self._bell.wake()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        self._check_assigned(partitions)
        self._paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        self._paused.difference_update(partitions)
        self._bell.wake()

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        self._check_assigned(positions)
        if positions:
            await self._in_thread(self._positions.put, dict(positions))

    async def lag(self) -> dict[TopicPartition, int]:
        """See `Consumer.lag`."""
        return {partition: max(0, reader.behind) for partition, reader in self._readers.items()} | {
            partition: 0 for partition in self._halted if partition not in self._readers
        }

    async def close(self) -> None:
        """See `Consumer.close`."""
        if self._closing:
            return
        self._closing = True
        self._bell.wake()
        async with self._polling:
            if self._reading is not None:
                await asyncio.wait([self._reading])
                self._reading.exception()
            try:
                if held := self._held():
                    await self._listener.revoked(sorted(held))
            finally:
                for reader in self._readers.values():
                    self._thread.submit(reader.close)
                self._readers.clear()
                await self._in_thread(self._positions.close)
                self._thread.shutdown(wait=False)
                self._bell.close()

    def _held(self) -> set[TopicPartition]:
        """The assigned partitions: those being read, and those that could not be opened."""
        return self._readers.keys() | self._halted.keys()

    def _start(self, partition: TopicPartition, offset: int | None) -> None:
        """Read the partition from `offset` on; halts it if its log is too damaged to open."""
        try:
            self._readers[partition] = LogReader(
                self._directory.log_path(partition), partition, None if offset == BEGINNING else offset
            )
        except BusCorrupt as error:
            self._halt(
                partition,
                MessagesDamaged(
                    f"{partition.topic}/{partition.partition} cannot be read: {error}",
                    topic=partition.topic,
                    partition=partition.partition,
                    offset=max(offset or 0, 0),
                    resume_at=None,
                    missing=None,
                ),
            )
        except OSError as error:
            raise BusUnavailable(
                f"cannot read {partition.topic}/{partition.partition} in {self._directory.path}: {error}"
            ) from error

    def _end_unreadable_halts(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for partition in [at for at, due_s in self._read_again_s.items() if due_s <= now_s]:
            del self._read_again_s[partition]
            if isinstance(self._halted.get(partition), PartitionUnreadable):
                del self._halted[partition]

    def _halt(self, partition: TopicPartition, error: PartitionHalted) -> None:
        self._halted[partition] = error
        if isinstance(error, PartitionUnreadable):
            self._read_again_s[partition] = asyncio.get_running_loop().time() + READ_AGAIN_S
        _log.error("reading of %s/%d has halted: %s", partition.topic, partition.partition, error)

    def _check_assigned(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            if partition not in self._readers and partition not in self._halted:
                raise BusUnavailable(
                    f"{partition.topic}/{partition.partition} is not (or no longer) assigned to this consumer"
                )

    async def _update_assignment(self) -> None:
        """Adapt the assignment to the subscription and to the existing partitions."""
        if not self._reads_for_group:
            self._reads_for_group = await self._in_thread(self._positions.take)
            if not self._reads_for_group:
                return
        aim = self._topics, self._doorbell.topics_changed
        if aim == self._assigned_for:
            return
        wanted = await self._in_thread(self._directory.partitions, sorted(self._topics))
        log_ids = await self._in_thread(self._directory.log_ids, self._topics)
        if gone := sorted(self._held() - set(wanted)):
            await self._listener.revoked(gone)
            self._paused.difference_update(gone)
            for partition in gone:
                self._halted.pop(partition, None)
                if (reader := self._readers.pop(partition, None)) is not None:
                    self._thread.submit(reader.close)
        for partition in self._held():
            if log_ids.get(partition.topic) != self._log_ids.get(partition.topic):
                self._replace(partition)
        self._log_ids = log_ids
        if new := [partition for partition in wanted if partition not in self._held()]:
            starts = await self._listener.assigned(new)
            known = {partition: self._positions.get(partition) for partition in new}
            # Position 0 (nothing was read) makes the group known to retention before it reads.
            unknown = [partition for partition, offset in known.items() if offset is None]
            first_positions = {partition: max(starts.get(partition) or 0, 0) for partition in unknown}
            await self._in_thread(self._positions.put, first_positions)
            for partition in new:
                start = starts.get(partition)
                self._start(partition, (known[partition] or None) if start is None else start)
        self._assigned_for = aim

    def _replace(self, partition: TopicPartition) -> None:
        """The topic was deleted and recreated: halt until `seek` gives a position in the new log."""
        before = self._readers.pop(partition, None)
        if before is None:
            return
        self._start(partition, BEGINNING)
        self._halt(partition, before.replaced())
        self._thread.submit(before.close)

    async def _read(self, max_bytes: int) -> list[BusMessage]:
        """The messages that are available now."""
        while True:
            if self._reading is None:
                ready = [
                    reader
                    for partition, reader in self._readers.items()
                    if reader.behind and partition not in self._paused and partition not in self._halted
                ]
                if not ready:
                    return []
                self._turn += 1
                first = self._turn % len(ready)
                self._reading = self._future(_read_fairly, ready[first:] + ready[:first], max_bytes)
            # The next poll completes the read of a cancelled one.
            await asyncio.wait([self._reading])
            reading, self._reading = self._reading, None
            messages: list[BusMessage] = []
            halted = len(self._halted)
            for reader, read in reading.result():
                # Discarded if the partition was revoked or a seek replaced its reader in the meantime.
                if self._readers.get(reader.topic_partition) is not reader:
                    continue
                if isinstance(read, PartitionHalted):
                    self._halt(reader.topic_partition, read)
                else:
                    messages += read
            if messages or len(self._halted) > halted:
                return messages

    async def _wait(self, rung: int, deadline: float) -> bool:
        """Wait until something may have changed (True) or until the deadline (False)."""
        remaining = deadline - asyncio.get_running_loop().time()
        if self._closing or remaining <= 0:
            return False
        if not self._reads_for_group:
            await self._bell.wait(rung, min(STANDBY_INTERVAL_S, remaining))
        elif self._assigned_for is not None and self._assigned_for[0] == self._topics:
            await self._bell.wait(rung, remaining)
        return True

    def _future(self, function: Callable[..., _Result], *arguments: object) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        try:
            return await self._future(function, *arguments)
        except WindvaneError:
            raise
        except OSError as error:
            raise BusUnavailable(f"the bus in {self._directory.path} cannot be used: {error}") from error


def _read_fairly(readers: Sequence[LogReader], max_bytes: int) -> _Batch:
    """Read from all readers in turn: each gets an equal share of what its predecessors have left.

    The first one returns at least one message. The entry of a halted partition is its error instead of
    messages. Any other error of a later reader is ignored until that reader is first.
    """
    batch: _Batch = []
    remaining = max_bytes
    for place, reader in enumerate(readers):
        if batch and remaining <= 0:
            break
        try:
            messages, size = reader.read(
                remaining // (len(readers) - place), first_bytes=remaining if batch else None
            )
        except PartitionHalted as error:
            batch.append((reader, error))
            continue
        except WindvaneError:
            if batch:
                break
            raise
        if messages:
            batch.append((reader, messages))
            remaining -= size
    return batch
