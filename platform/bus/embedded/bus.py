"""The embedded engine: a bus in a directory of this machine, with no server.

One process writes to a partition at a time (the first that publishes to it, until it closes its bus or ends);
any number of processes read. The parts: `bus_directory` (paths, topics and the doorbell), `group_commit`
(the producer), `consumer`, `segment_log` and `log_reader` (a partition's log), `record_format` (its bytes).
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from ...errors import BusCorrupt, BusLocked, BusUnavailable, WindvaneError
from ..interface import AssignmentListener, Bus, Consumer, Producer, TopicPartition
from ..topic_names import is_chunk_topic
from .bus_directory import BusDirectory
from .consumer import EmbeddedConsumer
from .group_commit import EmbeddedProducer, GroupCommit, partition_of
from .group_positions import first_needed, make_group
from .segment_log import DEFAULT_RETENTION_BYTES, DEFAULT_SEGMENT_BYTES, LogWriter

COMMIT_THREADS = 16
"""How many partitions write and sync concurrently."""

RESULTS_RETENTION_BYTES = 256 * 1024 * 1024
"""What a partition of a result topic keeps, plus one segment, whether or not it was read."""
_RESULTS_SEGMENT_BYTES = 16 * 1024 * 1024

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


class EmbeddedBus(Bus):
    """The bus in `path`; see `Bus`. Belongs to one event loop.

    Disk: each partition keeps the last `retention_bytes` and one segment, plus the messages that a known
    consumer group has not committed, in every topic. A group is known from `prepare` or its first assignment
    until its folder `@groups/<group>` is removed. While no group is known, retention drops older segments
    unread. If a group lags permanently, the disk fills, and publishing fails with BusUnavailable until the
    group catches up.

    Result topics (`topic_names.py`) keep the last `RESULTS_RETENTION_BYTES` and one segment, and no more,
    since they may have no consumers: a consumer that is too late finds the rows in the store.
    """

    def __init__(
        self,
        path: Path,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        retention_bytes: int = DEFAULT_RETENTION_BYTES,
    ) -> None:
        self._directory = BusDirectory(path)
        self._segment_bytes = segment_bytes
        self._retention_bytes = retention_bytes
        self._threads = ThreadPoolExecutor(COMMIT_THREADS, thread_name_prefix="bus-commit")
        self._commits: dict[TopicPartition, GroupCommit] = {}
        self._producers: list[EmbeddedProducer] = []
        self._consumers: list[EmbeddedConsumer] = []
        self._closed = False

    @property
    def damaged_partitions(self) -> Mapping[TopicPartition, WindvaneError]:
        """See `Bus.damaged_partitions`."""
        return {at: commit.damage for at, commit in self._commits.items() if commit.damage is not None}

    async def ensure_topic(self, topic: str, *, partitions: int) -> None:
        """See `Bus.ensure_topic`."""
        await self._in_thread(self._directory.ensure_topic, topic, partitions)

    async def topics(self) -> dict[str, int]:
        """See `Bus.topics`."""
        return await self._in_thread(self._directory.topics)

    async def log_ids(self, topics: Collection[str]) -> dict[str, str]:
        """See `Bus.log_ids`."""
        return await self._in_thread(self._directory.log_ids, topics)

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """See `Bus.ends`."""
        return await self._in_thread(self._directory.ends, topics)

    def partition_of(self, key: bytes, partitions: int) -> int:
        """See `Bus.partition_of`."""
        return partition_of(key, partitions)

    async def prepare(self, *, groups: Collection[str]) -> None:
        """See `Bus.prepare`."""
        for group in groups:
            await self._in_thread(make_group, self._directory.group_path(group))
        for topic, partitions in (await self.topics()).items():
            if not is_chunk_topic(topic):
                continue  # a worker is its writer
            for partition in range(partitions):
                try:
                    await self._in_thread(self._commit_of(TopicPartition(topic, partition)).open)
                except BusLocked:
                    raise
                except (BusCorrupt, BusUnavailable) as error:
                    _log.error("%s/%d: %s", topic, partition, error)  # the other partitions still work

    def producer(self) -> Producer:
        """See `Bus.producer`."""
        self._check_open()
        producer = EmbeddedProducer(self._directory, self._commit_of)
        self._producers.append(producer)
        return producer

    def consumer(
        self, group: str, listener: AssignmentListener, *, positions_of: str | None = None
    ) -> Consumer:
        """See `Bus.consumer`."""
        self._check_open()
        consumer = EmbeddedConsumer(self._directory, group, listener, positions_of=positions_of)
        self._consumers.append(consumer)
        return consumer

    async def close(self) -> None:
        """See `Bus.close`."""
        if self._closed:
            return
        self._closed = True
        for producer in self._producers:
            await producer.close()
        for consumer in self._consumers:
            await consumer.close()
        for commit in self._commits.values():
            commit.close()
        self._threads.shutdown(wait=False)
        self._directory.doorbell.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BusUnavailable("the bus is closed; open it again")

    def _commit_of(self, partition: TopicPartition) -> GroupCommit:
        commit = self._commits.get(partition)
        if commit is None:
            if is_chunk_topic(partition.topic):
                open_log = partial(
                    LogWriter,
                    self._directory.log_path(partition),
                    segment_bytes=self._segment_bytes,
                    retention_bytes=self._retention_bytes,
                    first_needed=partial(first_needed, self._directory.groups, partition),
                )
            else:
                open_log = partial(
                    LogWriter,
                    self._directory.log_path(partition),
                    segment_bytes=min(self._segment_bytes, _RESULTS_SEGMENT_BYTES),
                    retention_bytes=min(self._retention_bytes, RESULTS_RETENTION_BYTES),
                )
            commit = self._commits[partition] = GroupCommit(
                self._threads, open_log, self._directory.doorbell.ring
            )
        return commit

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        self._check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        except WindvaneError:
            raise
        except OSError as error:
            raise BusUnavailable(f"the bus in {self._directory.path} cannot be used: {error}") from error
