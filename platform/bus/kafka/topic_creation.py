"""Creates topics on a Kafka cluster: with the replication and the message limit of `[kafka]`."""

from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from ...config import KafkaSettings

_CLUSTER_DEFAULT = -1


async def create_topic(
    admin: AIOKafkaAdminClient,
    name: str,
    partitions: int,
    settings: KafkaSettings,
    *,
    configs: Mapping[str, str],
) -> bool:
    """Create a topic, by its name on the cluster; returns False if it exists already. Raises KafkaError."""
    new = NewTopic(name, partitions, settings.replication_factor or 1, topic_configs=dict(configs))
    if settings.replication_factor is None:
        new.replication_factor = _CLUSTER_DEFAULT  # NewTopic accepts it only with a placement
    ((_, code, *message),) = (await admin.create_topics([new])).topic_errors
    if code == TopicAlreadyExistsError.errno:
        return False
    check_code(code, *message)
    return True


def check_code(code: int, message: str | None = None, *_: object) -> None:
    """Raises the KafkaError of an error code in an answer of the cluster."""
    if code:
        error = for_code(code)
        raise error(message or error.__name__)


def topic_message_bytes(settings: KafkaSettings) -> int:
    """The max.message.bytes that a topic needs, so that every message of `max_message_bytes` fits.

    Kafka applies the limit to batches as they are written: with headers, and compressed, which makes
    incompressible bytes a little longer.
    """
    return settings.max_message_bytes + settings.max_message_bytes // 128 + 4096
