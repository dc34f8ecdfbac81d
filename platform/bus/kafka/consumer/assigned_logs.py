"""The identity of the logs that a consumer reads, and what happens if a topic is deleted and recreated.

aiokafka knows a topic by its name, and would continue at the old position in the new log. So the identity of
each log is compared before records are returned.
"""

import asyncio
from collections.abc import Collection, Mapping

from ....errors import BusUnavailable
from ..metadata import log_ids_by_leaders
from .group_client import METADATA_AGE_S, GroupClient
from .halts import log_replaced
from .partition_reads import PartitionReads


class AssignedLogs:
    """The logs of the held partitions, as they were at the time of the assignment."""

    def __init__(self, client: GroupClient, reads: PartitionReads) -> None:
        self._client = client
        self._reads = reads
        self._ids: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._checked_at_s = float("-inf")

    @property
    def ids(self) -> Mapping[str, str]:
        """The identity of each topic's log."""
        return self._ids

    async def add(self, topics: Collection[str]) -> None:
        """Read the identities of the logs of newly assigned topics. Raises `BusUnavailable`."""
        new = set(topics) - self._ids.keys()
        self._ids.update(await self._client.request(self._read(new), "the topics cannot be read"))
        if without_leader := sorted(new - self._ids.keys()):
            raise BusUnavailable(f"{self._client.connection.where}: {without_leader} have no leaders yet")

    def retain(self, topics: Collection[str]) -> None:
        """Forget the logs of all other topics."""
        self._ids = {topic: log_id for topic, log_id in self._ids.items() if topic in topics}

    async def check_while_idle(self) -> None:
        """Check all logs, if the last check is older than the metadata may be."""
        if self._loop.time() - self._checked_at_s > METADATA_AGE_S:
            await self.check(self._ids)

    async def check(self, topics: Collection[str]) -> set[str]:
        """Halt the partitions of topics that were deleted and recreated since the assignment.

        Returns those of `topics` whose log is unchanged: records fetched before the call belong to this log.
        """
        found = await self._read(topics)
        self._checked_at_s = self._loop.time()
        replaced = {
            topic: log_id for topic, log_id in found.items() if self._ids.get(topic, log_id) != log_id
        }
        for topic, log_id in replaced.items():
            await self._replace(topic, log_id)
        return {
            topic
            for topic, log_id in found.items()
            if topic not in replaced and self._ids.get(topic) == log_id
        }

    async def _replace(self, topic: str, log_id: str) -> None:
        places = {
            partition: self._client.kafka_partition(partition)
            for partition in self._client.assignment.held
            if partition.topic == topic
        }
        firsts = await self._client.require().beginning_offsets(list(places.values()))
        self._ids[topic] = log_id
        for partition, at in places.items():
            offset = self._reads.next_offset(partition)
            self._reads.drop_messages(partition)
            self._reads.halt(partition, log_replaced(partition, offset, first=firsts[at]))

    async def _read(self, topics: Collection[str]) -> dict[str, str]:
        """The identities of these topics' logs, read from the brokers that lead them."""
        names = {self._client.connection.to_kafka(topic): topic for topic in topics}
        found = await log_ids_by_leaders(self._client.require()._client, names)
        return {names[name]: log_id for name, log_id in found.items()}
