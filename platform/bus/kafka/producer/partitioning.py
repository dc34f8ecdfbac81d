"""The partition of a message: murmur2 of its key modulo the number of the topic's partitions.

That is the formula of Kafka's own clients: streams of other producers that use the same keys can be joined by
partition.
"""

import asyncio
from functools import lru_cache

from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.partitioner import murmur2

from ....errors import BusUnavailable
from ...interface import MAKE_TOPICS
from ..connection import KafkaConnection
from .links import Link, Links
from .outage import Outage
from .partition_queue import PublishedMessage
from .pending_messages import PendingMessages

TOPIC_TRIES = 5
"""Attempts to find a topic: brokers learn of a new one at different times."""

_BETWEEN_TRIES_S = 0.1
_RETRY_S = 0.2


class PartitionCounts:
    """The number of partitions of each topic, from the metadata of the current link."""

    def __init__(
        self, connection: KafkaConnection, links: Links, pending: PendingMessages, outage: Outage
    ) -> None:
        self._connection = connection
        self._links = links
        self._pending = pending
        self._outage = outage
        self._counts: dict[str, int] = {}

    def known(self, topic: str) -> int | None:
        """The number of partitions, if it was read already."""
        if self._links.current is not None:
            cluster = self._links.current.producer.client.cluster
            if known := cluster.partitions_for_topic(self._connection.to_kafka(topic)):
                self._counts[topic] = len(known)
        return self._counts.get(topic)

    async def read(self, topic: str, message: PublishedMessage) -> int:
        """Read the number of partitions from the brokers, until the deadline of `message`.

        Raises `BusUnavailable`, or `ConfigInvalid` if the login or a setting is wrong.
        """
        while True:
            count = await self._query(await self._links.connect(message), topic)
            if count is not None:
                self._counts[topic] = count
                return count
            if self._pending.remaining_s(message) <= 0:
                raise self._outage.timed_out()
            self._outage.diagnose()
            await asyncio.sleep(_RETRY_S)

    async def _query(self, link: Link, topic: str) -> int | None:
        """The number of partitions; None if no broker answers."""
        client, name = link.producer.client, self._connection.to_kafka(topic)
        for _ in range(TOPIC_TRIES):
            client.add_topic(name)
            is_answered = await client.force_metadata_update()
            if known := client.cluster.partitions_for_topic(name):
                return len(known)
            if name in client.cluster.unauthorized_topics:
                client.set_topics(set(client._topics) - {name})
                raise self._connection.explain(TopicAuthorizationFailedError(name), topic)
            if not is_answered:
                return None
            await asyncio.sleep(_BETWEEN_TRIES_S)
        client.set_topics(set(client._topics) - {name})
        raise BusUnavailable(f"there is no topic {topic!r} on the bus; {MAKE_TOPICS}")


@lru_cache(maxsize=65_536)
def _hash(key: bytes) -> int:
    digest: int = murmur2(key)
    return digest & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """See `Bus.partition_of`."""
    return _hash(key) % partitions
