"""The Kafka engine: a bus on a cluster of brokers, with aiokafka.

A topic `pydata` of the bus is the Kafka topic `windvane.pydata`, a group `windvane-worker` the group
`windvane.windvane-worker`: every name has the prefix of the installation (`kafka.topic_prefix`), and `topics`
lists only those. The parts: `connection` (addresses, security, error texts), `producer/`, `consumer/`,
`installation` (whose topics they are), `metadata` (the identity of topics), `topics` (their administration).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import InvalidPartitionsError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from ...config import KafkaSettings
from ...errors import BusUnavailable, ConfigInvalid
from ..embedded.bus_directory import check_name
from ..interface import AssignmentListener, Bus, Consumer, Producer, TopicPartition
from ..topic_setup import MESSAGE_BYTES
from .connection import KafkaConnection, split_server
from .consumer.consumer import KafkaConsumer
from .installation import KafkaInstallation
from .metadata import log_ids
from .producer.partitioning import partition_of
from .producer.producer import KafkaProducer
from .topic_creation import create_topic, topic_message_bytes

TOPICS_AGE_S = 0.5
"""Age of the cached list of topics; it may lack those that other processes have created since."""

_VISIBLE_S = 10.0
_RETRY_S = 0.05
_LATEST = -1  # as a time, in ListOffsets of the Kafka protocol

_Result = TypeVar("_Result")


class KafkaBus(Bus):
    """The topics of one installation on a Kafka cluster; see `Bus`. Belongs to one event loop.

    Kafka knows a group by its committed positions, and only the topics' retention determines what the brokers
    keep: a group that falls behind it loses messages, which its consumer reports (`RangeGone`).
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._installation = KafkaInstallation(connection)
        self._admin: AIOKafkaAdminClient | None = None
        self._administering = asyncio.Lock()
        self._producers: list[KafkaProducer] = []
        self._consumers: list[KafkaConsumer] = []
        self._topics: dict[str, int] = {}
        self._topics_at_s = float("-inf")
        self._closed = False

    async def ensure_topic(self, topic: str, *, partitions: int) -> None:
        """See `Bus.ensure_topic`.

        An existing topic keeps its settings; a new one accepts messages of `kafka.max_message_bytes` and has
        the cluster's defaults otherwise.
        """
        check_name("topic", topic)
        if partitions < 1:
            raise ConfigInvalid(f"topic {topic!r} cannot have {partitions} partitions; it needs at least 1")
        if (await self.topics()).get(topic, 0) >= partitions:
            return
        async with self._administering:
            try:
                await self._make(topic, partitions)
                await self._wait_until_visible(topic, partitions)
            except (KafkaError, OSError, TimeoutError) as error:
                raise await self._connection.find_reason(error, topic) from error
        for producer in self._producers:
            await producer.refresh_topics()
        for consumer in self._consumers:
            consumer.refresh_topics()

    async def topics(self) -> dict[str, int]:
        """See `Bus.topics`; up to half a second old."""
        self._check_open()
        if time.monotonic() - self._topics_at_s > TOPICS_AGE_S:
            async with self._administering:
                try:
                    await self._read_topics()
                except (KafkaError, OSError, TimeoutError) as error:
                    raise await self._connection.find_reason(error) from error
        return dict(self._topics)

    async def log_ids(self, topics: Collection[str]) -> dict[str, str]:
        """See `Bus.log_ids`. For topics that a consumer of this bus reads, it is the log that it reads."""
        names = {self._connection.to_kafka(topic): topic for topic in topics}

        async def ask(client: AIOKafkaClient) -> dict[str, str]:
            by_leader: dict[int, set[str]] = {}
            for (name, _), leader in (await _leaders(client, names)).items():
                by_leader.setdefault(leader, set()).add(name)
            found: dict[str, str] = {}
            for leader, theirs in by_leader.items():
                found.update(await log_ids(client, leader, theirs))
            return found

        found = {names[name]: log_id for name, log_id in (await self._asked(ask)).items()}
        for consumer in self._consumers:
            found.update({topic: at for topic, at in consumer.log_ids.items() if topic in topics})
        return found

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """See `Bus.ends`."""
        names = {self._connection.to_kafka(topic): topic for topic in topics}

        async def ask(client: AIOKafkaClient) -> dict[KafkaPartition, int]:
            by_leader: dict[int, dict[str, list[tuple[int, int]]]] = {}
            for (name, number), leader in (await _leaders(client, names)).items():
                by_leader.setdefault(leader, {}).setdefault(name, []).append((number, _LATEST))
            found = {}
            for leader, wanted in by_leader.items():
                answer = await client.send(leader, OffsetRequest(-1, 0, list(wanted.items())))
                for name, parts in answer.topics:
                    found.update({KafkaPartition(name, part[0]): part[3] for part in parts if part[1] == 0})
            return found

        return {TopicPartition(names[name], at): end for (name, at), end in (await self._asked(ask)).items()}

    def partition_of(self, key: bytes, partitions: int) -> int:
        """See `Bus.partition_of`."""
        return partition_of(key, partitions)

    async def prepare(self, *, groups: Collection[str]) -> None:
        """Checks that the cluster is reachable, accepts the login, and has no topics of another installation.

        There is nothing to recover. What `groups` have not read is kept as long as the topics' retention
        says.
        """
        self._check_open()
        await self._connection.check()
        await self._installation.claim()

    def producer(self) -> Producer:
        """See `Bus.producer`."""
        self._check_open()
        producer = KafkaProducer(self._connection)
        self._producers.append(producer)
        return producer

    def consumer(
        self, group: str, listener: AssignmentListener, *, positions_of: str | None = None
    ) -> Consumer:
        """See `Bus.consumer`."""
        self._check_open()
        check_name("consumer group", group)
        consumer = KafkaConsumer(
            self._connection, group, listener, self._installation, positions_of=positions_of
        )
        self._consumers.append(consumer)
        return consumer

    async def close(self) -> None:
        """See `Bus.close`."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(producer.close() for producer in self._producers))
        for consumer in self._consumers:
            await consumer.close()
        async with self._administering:
            if self._admin is not None:
                await self._admin.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BusUnavailable("the bus is closed; open it again")

    async def _client(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            self._admin = await self._connection.start_admin()
        return self._admin

    async def _asked(self, ask: Callable[[AIOKafkaClient], Awaitable[_Result]]) -> _Result:
        self._check_open()
        async with self._administering:
            try:
                return await ask((await self._client())._client)
            except (KafkaError, OSError, TimeoutError) as error:
                raise await self._connection.find_reason(error) from error

    async def _make(self, topic: str, partitions: int) -> None:
        admin = await self._client()
        settings = self._connection.settings
        name = self._connection.to_kafka(topic)
        limit = {MESSAGE_BYTES: str(topic_message_bytes(settings))}
        if await create_topic(admin, name, partitions, settings, configs=limit):
            return
        # Kafka rejects it if another process has already added as many partitions, or more.
        with suppress(InvalidPartitionsError):
            await admin.create_partitions({name: NewPartitions(partitions)})

    async def _wait_until_visible(self, topic: str, partitions: int) -> None:
        """Wait for the broker's metadata: it has a new topic a moment after the controller creates it."""
        async with asyncio.timeout(_VISIBLE_S):
            while True:
                await self._read_topics()
                if self._topics.get(topic, 0) >= partitions:
                    return
                await asyncio.sleep(_RETRY_S)

    async def _read_topics(self) -> None:
        admin = await self._client()
        found = {}
        for described in await admin.describe_topics():
            topic = self._connection.from_kafka(described["topic"])
            if topic is not None and described["error_code"] == 0:
                found[topic] = len(described["partitions"])
        self._topics = dict(sorted(found.items()))
        self._topics_at_s = time.monotonic()


async def _leaders(client: AIOKafkaClient, names: Collection[str]) -> dict[KafkaPartition, int]:
    """The broker that leads each partition of these topics; leaderless partitions are missing."""
    if not names:
        return {}
    request = MetadataRequest(sorted(names), allow_auto_topic_creation=False)
    answer = await client.send(client.get_random_node(), request)
    return {
        KafkaPartition(name, number): leader
        for error, name, _, parts in answer.topics
        for _, number, leader, *_ in parts
        if error == 0 and leader >= 0
    }


def open_kafka(url: str, home: Path, settings: KafkaSettings) -> KafkaBus:
    """The bus of `kafka://HOST:PORT,HOST:PORT`; see `windvane.bus.open_bus`. Raises `ConfigInvalid`."""
    return KafkaBus(connection_to(url, home, settings))


def connection_to(url: str, home: Path, settings: KafkaSettings) -> KafkaConnection:
    """The connection to the cluster of `kafka://HOST:PORT,HOST:PORT`. Raises `ConfigInvalid`."""
    parts = urlsplit(url)
    if "@" in parts.netloc:  # it may be a password, so the error does not repeat it
        raise ConfigInvalid(
            "the URL kafka://… must not have a user or a password; set kafka.username and kafka.password_file"
        )
    servers = [server for server in parts.netloc.split(",") if server]
    if parts.path or parts.query or parts.fragment or not servers:
        raise ConfigInvalid(
            f"{url!r} is not a valid bus URL; write kafka://HOST:PORT,HOST:PORT and set all else in [kafka]"
        )
    try:
        for server in servers:
            split_server(server)
    except ValueError as error:
        raise ConfigInvalid(f"the bus {url!r}: {error}; write kafka://HOST:PORT,HOST:PORT") from None
    return KafkaConnection(servers, settings, home)
