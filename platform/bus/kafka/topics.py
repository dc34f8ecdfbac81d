"""Administration of the topics on a Kafka cluster; see `topic_setup.py`."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, KafkaError

from ..topic_setup import MESSAGE_BYTES, RETENTION_BYTES, RETENTION_MS, TopicAdmin, TopicState
from .connection import KafkaConnection
from .installation import KafkaInstallation
from .topic_creation import check_code, create_topic, topic_message_bytes

_PLANNED_SETTINGS = (RETENTION_MS, RETENTION_BYTES, MESSAGE_BYTES)
_SET_FOR_TOPIC = 1  # source of a setting, in DescribeConfigs of the Kafka protocol

_Result = TypeVar("_Result")


class KafkaTopics(TopicAdmin):
    """The topics with the installation's prefix, which are changed only if the installation owns them.

    New topics have the replication factor of `[kafka]`, or the cluster's default.

    A change includes all earlier settings of the topic, since the request that aiokafka implements replaces
    all of them. It may overwrite a simultaneous change by another client.
    """

    knows_retention = True

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._installation = KafkaInstallation(connection)
        self._admin: AIOKafkaAdminClient | None = None
        self.min_message_bytes = topic_message_bytes(connection.settings)

    async def topics(self) -> dict[str, TopicState]:
        """See `TopicAdmin.topics`."""
        return await self._asked(self._topics)

    async def make(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> None:
        """See `TopicAdmin.make`."""

        async def make(admin: AIOKafkaAdminClient) -> None:
            # It exists if a gateway was faster.
            name = self._connection.to_kafka(topic)
            await create_topic(admin, name, partitions, self._connection.settings, configs=settings)

        await self._installation.claim()
        await self._asked(make, topic)

    async def grow(self, topic: str, *, partitions: int) -> None:
        """See `TopicAdmin.grow`."""

        async def grow(admin: AIOKafkaAdminClient) -> None:
            name = self._connection.to_kafka(topic)
            with suppress(InvalidPartitionsError):  # another process has added them
                answer = await admin.create_partitions({name: NewPartitions(partitions)})
                check_code(*answer.topic_errors[0][1:])

        await self._installation.claim()
        await self._asked(grow, topic)

    async def change(self, topic: str, settings: Mapping[str, str]) -> None:
        """See `TopicAdmin.change`."""

        async def change(admin: AIOKafkaAdminClient) -> None:
            name = self._connection.to_kafka(topic)
            kept = {
                entry[0]: entry[1]
                for entry in (await _settings_of(admin, [name]))[name]
                if entry[3] == _SET_FOR_TOPIC and entry[1] is not None
            }
            resource = ConfigResource(ConfigResourceType.TOPIC, name, {**kept, **settings})
            for answer in await admin.alter_configs([resource]):
                for code, message, *_ in answer.resources:
                    check_code(code, message)

        await self._installation.claim()
        await self._asked(change, topic)

    async def close(self) -> None:
        """See `TopicAdmin.close`."""
        if self._admin is not None:
            await self._admin.close()

    async def _topics(self, admin: AIOKafkaAdminClient) -> dict[str, TopicState]:
        described = {
            topic["topic"]: topic["partitions"]
            for topic in await admin.describe_topics()
            if topic["error_code"] == 0 and self._connection.from_kafka(topic["topic"]) is not None
        }
        settings = await _settings_of(admin, sorted(described))
        found = {}
        for name, partitions in sorted(described.items()):
            topic = self._connection.from_kafka(name)
            assert topic is not None
            found[topic] = TopicState(
                partitions=len(partitions),
                replicas=min(len(partition["replicas"]) for partition in partitions),
                settings={entry[0]: entry[1] for entry in settings[name] if entry[0] in _PLANNED_SETTINGS},
            )
        return found

    async def _asked(
        self, ask: Callable[[AIOKafkaAdminClient], Awaitable[_Result]], topic: str | None = None
    ) -> _Result:
        """The cluster's answer. Raises BusUnavailable or ConfigInvalid with the reason."""
        try:
            if self._admin is None:
                self._admin = await self._connection.start_admin()
            return await ask(self._admin)
        except (KafkaError, OSError, TimeoutError) as error:
            raise await self._connection.find_reason(error, topic) from error


async def _settings_of(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, list[Any]]:
    """For each topic its entries (name, value, read only, source, …)."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            check_code(code, message)
            found[name] = entries
    return found
