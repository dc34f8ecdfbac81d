"""Moves partitions to and from a consumer: calls its listener, and starts to read at the right positions."""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from ....errors import WindvaneError
from ...interface import AssignmentListener, TopicPartition
from .assigned_logs import AssignedLogs
from .group_client import GroupClient
from .group_positions import GroupPositions
from .partition_reads import PartitionReads


class Handover:
    """Adapts the held partitions to the granted ones, with one call of the listener at a time."""

    def __init__(
        self,
        client: GroupClient,
        reads: PartitionReads,
        logs: AssignedLogs,
        positions: GroupPositions,
        listener: AssignmentListener,
    ) -> None:
        self._client = client
        self._assignment = client.assignment
        self._reads = reads
        self._logs = logs
        self._positions = positions
        self._listener = listener
        self._running: asyncio.Task[None] | None = None
        self._closing = False

    async def complete(self) -> None:
        """Revoke what was lost and start to read what is new; the next call completes a cancelled one.

        Raises what the listener raises, or `WindvaneError`.
        """
        await self._end_running()
        while not self._assignment.is_settled:
            lost = self._assignment.lost
            step = self._revoke(lost) if lost else self._start_reading(self._assignment.new)
            self._running = asyncio.get_running_loop().create_task(step)
            await self._end_running()

    def begin_closing(self) -> None:
        """From now on the group does not have to learn what is revoked: the client leaves it."""
        self._closing = True

    async def release_all(self) -> None:
        """Revoke all partitions. Raises what the listener raises."""
        with suppress(WindvaneError):
            await self._end_running()
        if self._assignment.held:
            await self._revoke(self._assignment.held)

    async def _end_running(self) -> None:
        if self._running is not None:
            await asyncio.wait([self._running])
            ended, self._running = self._running, None
            ended.result()

    async def _revoke(self, lost: Collection[TopicPartition]) -> None:
        gone = sorted(lost)
        for partition in gone:
            self._reads.drop_messages(partition)
        await self._listener.revoked(gone)
        self._assignment.release(gone)
        for partition in gone:
            self._reads.end(partition)
        self._logs.retain({partition.topic for partition in self._assignment.held})
        if not self._closing:
            self._client.rejoin()  # now the leader can assign them to others, or back

    async def _start_reading(self, new: Collection[TopicPartition]) -> None:
        wanted = sorted(new)
        self._assignment.held.update(wanted)
        try:
            # Before the call, so that the listener's offsets cannot belong to an earlier log.
            await self._logs.add({partition.topic for partition in wanted})
            starts = dict(await self._listener.assigned(wanted))
            unknown = [partition for partition in wanted if starts.get(partition) is None]
            starts.update(await self._positions.starts(unknown))
        except BaseException:
            self._assignment.held.difference_update(wanted)
            raise
        for partition in wanted:
            start = starts[partition]
            assert start is not None
            self._reads.start(partition, start)
