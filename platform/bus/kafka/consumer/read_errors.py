"""Decides what follows from an error that reading a partition raised: a halt, another attempt, or neither.

The error alone does not tell: brokers may lag, and a damaged batch may be whole on another replica. So each
decision queries the cluster first (`halts.py`).
"""

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from ....errors import PartitionUnreadable
from ...interface import BEGINNING, TopicPartition
from .assigned_logs import AssignedLogs
from .group_client import GroupClient, has_stopped
from .halts import damaged, not_permitted, outside_log
from .partition_reads import PartitionReads

READ_AGAIN_S = 5.0
"""How long to wait before reading a topic again that the account may not read."""

_RETRY_S = 0.2


class ReadErrors:
    """Handles the errors of reading, each of one partition."""

    def __init__(self, client: GroupClient, reads: PartitionReads, logs: AssignedLogs) -> None:
        self._client = client
        self._reads = reads
        self._logs = logs

    async def handle(self, client: AIOKafkaConsumer, partition: TopicPartition, error: Exception) -> None:
        """Halt the partition or fetch again; raises `error` if it does not concern the partition alone."""
        offset = self._reads.fetched_to(partition)
        if isinstance(error, OffsetOutOfRangeError | TopicAuthorizationFailedError):
            if offset is None or offset == BEGINNING or partition in self._reads.halted:
                return
            if isinstance(error, OffsetOutOfRangeError):
                await self._outside_log(client, partition, offset)
            else:
                self._not_permitted(partition, offset, error)
        elif has_stopped(client):
            raise error
        elif offset is not None and partition not in self._reads.halted:
            await self._damaged(client, partition, offset, error)

    def _not_permitted(self, partition: TopicPartition, offset: int, error: KafkaError) -> None:
        self._reads.halt(partition, not_permitted(self._client.connection, partition, offset, error))
        asyncio.get_running_loop().call_later(READ_AGAIN_S, self._read_again, partition)

    def _read_again(self, partition: TopicPartition) -> None:
        if isinstance(self._reads.halted.get(partition), PartitionUnreadable):
            del self._reads.halted[partition]
            self._reads.restart_fetch(partition)

    async def _outside_log(self, client: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> None:
        restarts = self._reads.restarts(partition)
        await self._logs.check({partition.topic})
        reason = await outside_log(client, self._client.kafka_partition(partition), partition, offset)
        if self._reads.restarts(partition) != restarts:
            return
        if reason is None:
            self._reads.restart_fetch(partition)
        else:
            self._reads.halt(partition, reason)

    async def _damaged(
        self, client: AIOKafkaConsumer, partition: TopicPartition, offset: int, error: Exception
    ) -> None:
        restarts = self._reads.restarts(partition)
        at = self._client.kafka_partition(partition)
        reason = await damaged(client, self._client.connection, at, partition, offset)
        if reason is None and isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
            raise error  # an error of the group or the connection
        if self._reads.restarts(partition) != restarts:
            return
        if reason is None:
            self._reads.restart_fetch(partition)
            await asyncio.sleep(_RETRY_S)
        else:
            self._reads.halt(partition, reason)
