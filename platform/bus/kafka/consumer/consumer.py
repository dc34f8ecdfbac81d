"""The consumer of the interface: a poll takes fetched messages, and moves partitions in between.

aiokafka joins the group, sends heartbeats and fetches ahead in the background. This package adds the other
guarantees of the interface: the listener is called within a poll, one call at a time; partitions move one by
one (`assignor.py`) while the others are read; a poll divides its bytes equally.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress

from ....errors import BusUnavailable, PartitionHalted
from ...interface import DEFAULT_POLL_BYTES, AssignmentListener, BusMessage, Consumer, TopicPartition
from ..background_tasks import BackgroundErrors
from ..connection import KafkaConnection
from ..installation import KafkaInstallation
from .assigned_logs import AssignedLogs
from .assignment import Assignment
from .fetcher import Fetcher
from .group_client import GroupClient
from .group_positions import GroupPositions
from .handover import Handover
from .partition_reads import PartitionReads


class KafkaConsumer(Consumer):
    """A member of a group on the cluster; see `Consumer`.

    A consumer that does not answer for `session_timeout_s` loses its partitions to others. Once it is
    connected again, it calls `revoked`; until then its commits fail. Its writes to other systems need a fence
    of their own. Memory: about three times `fetch_bytes`.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        group: str,
        listener: AssignmentListener,
        installation: KafkaInstallation,
        *,
        positions_of: str | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        BackgroundErrors.watch(self._loop)
        self._assignment = Assignment()
        self._client = GroupClient(
            connection, group, installation, self._assignment, on_grant=self._follow_grant
        )
        self._reads = PartitionReads(self._client)
        self._logs = AssignedLogs(self._client, self._reads)
        self._positions = GroupPositions(self._client, positions_of=positions_of)
        self._handover = Handover(self._client, self._reads, self._logs, self._positions, listener)
        self._fetcher = Fetcher(self._client, self._reads, self._logs)
        self._fetching: asyncio.Task[None] | None = None
        self._polling = asyncio.Lock()
        self._topics: frozenset[str] = frozenset()
        self._closing = False

    @property
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        """See `Consumer.halted`."""
        return dict(self._reads.halted)

    @property
    def log_ids(self) -> Mapping[str, str]:
        """The logs that are being read: messages of any other log are not returned."""
        return self._logs.ids

    def subscribe(self, topics: Collection[str]) -> None:
        """See `Consumer.subscribe`."""
        if (wanted := frozenset(topics)) != self._topics:
            self._topics = wanted
            self._reads.poll_due.set()

    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        """See `Consumer.poll`."""
        deadline_s = self._loop.time() + timeout_s
        async with self._polling:
            halted = set(self._reads.halted)
            if self._closing:
                raise BusUnavailable("the consumer is closed; create another one")
            while not self._closing:
                self._reads.poll_due.clear()
                self._follow_subscription()
                await self._handover.complete()
                if (messages := self._reads.take(max_bytes, self._topics)) or (
                    self._reads.halted.keys() - halted
                ):
                    return messages
                remaining_s = deadline_s - self._loop.time()
                if remaining_s <= 0:
                    await self._client.check_alive()
                    return []
                with suppress(TimeoutError):
                    async with asyncio.timeout(remaining_s):
                        await self._reads.poll_due.wait()
            return []

    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        self._assignment.check_held([topic_partition])
        self._reads.seek(topic_partition, offset)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        self._assignment.check_held(partitions)
        for partition in partitions:
            self._reads.pause(partition)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        for partition in self._reads.paused & set(partitions):
            self._reads.resume(partition)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        self._assignment.check_held(positions)
        if positions:
            await self._positions.commit(positions)

    async def lag(self) -> dict[TopicPartition, int]:
        """See `Consumer.lag`; reads the ends of paused and not yet fetched partitions from the brokers."""
        if self._client.current is None:
            return {}
        ends = await self._positions.ends(self._assignment.held, paused=self._reads.paused)
        return {
            partition: max(0, ends.get(partition, 0) - self._reads.next_offset(partition))
            for partition in sorted(self._assignment.held)
            if self._reads.fetched_to(partition) is not None
        }

    async def close(self) -> None:
        """See `Consumer.close`."""
        if self._closing:
            return
        self._closing = True
        self._handover.begin_closing()
        self._reads.poll_due.set()
        async with self._polling:
            try:
                await self._handover.release_all()
            finally:
                if self._fetching is not None:
                    self._fetching.cancel()
                    await asyncio.wait([self._fetching])
                await self._client.stop()

    def refresh_topics(self) -> None:
        """Find new topics and partitions at once."""
        self._client.refresh_topics()

    def _follow_subscription(self) -> None:
        if self._fetching is None and self._topics:
            self._fetching = self._loop.create_task(self._fetcher.run())
        self._client.subscribe(self._topics)

    def _follow_grant(self) -> None:
        for partition in self._assignment.granted:
            self._reads.restart_fetch(partition)
        self._reads.poll_due.set()
