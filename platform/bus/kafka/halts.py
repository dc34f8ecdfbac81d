"""Why a partition on Kafka cannot be read on, found out by asking its brokers.

Each function gives the error for `Consumer.halted`, or None if the partition can be read after all: another
replica leads by now, or the one that was asked was behind.
"""

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from ...errors import LogReplaced, MessagesDamaged, MessagesGone, PartitionUnreadable
from ..interface import TopicPartition
from .connection import KafkaConnection
from .metadata import find_hole


def log_replaced(partition: TopicPartition, offset: int, *, first: int) -> LogReplaced:
    """The topic was deleted and made again; `first` is the first offset of the new log."""
    topic, number = partition
    return LogReplaced(
        f"the topic {topic} was deleted and made again: message {offset} of {topic}/{number} was due, of a "
        "log that is gone",
        topic=topic,
        partition=number,
        offset=offset,
        resume_at=first,
        missing=None,
    )


def not_permitted(
    connection: KafkaConnection, partition: TopicPartition, offset: int, error: KafkaError
) -> PartitionUnreadable:
    """The account may not read the topic."""
    return PartitionUnreadable(
        f"{connection.explain(error, partition.topic)}; it is tried again",
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        resume_at=None,
        missing=None,
    )


async def outside_log(
    client: AIOKafkaConsumer, at: KafkaPartition, partition: TopicPartition, offset: int
) -> MessagesGone | None:
    """The brokers say that the log does not have `offset`. Raises KafkaError."""
    first = (await client.beginning_offsets([at]))[at]
    end = (await client.end_offsets([at]))[at]
    if first <= offset <= end:
        return None
    name = f"{partition.topic}/{partition.partition}"
    if offset < first:
        reason = (
            f"messages {offset} to {first - 1} of {name} ({first - offset}) are not kept any more: the "
            "topic's retention has dropped them"
        )
    else:
        reason = (
            f"message {offset} of {name} was never written, or was lost: the log ends at {end}. Look at the "
            "brokers (an unclean leader election, a restored disk?)"
        )
    return MessagesGone(
        reason,
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        # Of a log that lost its end, nobody knows which of its messages were read.
        resume_at=first,
        missing=first - offset if offset < first else None,
    )


async def damaged(
    client: AIOKafkaConsumer,
    connection: KafkaConnection,
    at: KafkaPartition,
    partition: TopicPartition,
    offset: int,
) -> MessagesDamaged | None:
    """The message at `offset` could not be decoded. Raises KafkaError."""
    end = (await client.end_offsets([at]))[at]
    hole = await find_hole(client._client, at, offset, end)
    if hole is None:
        return None
    return MessagesDamaged(
        f"{connection.where}: messages {offset} to {hole.resume_at - 1} of "
        f"{partition.topic}/{partition.partition} cannot be read: {hole.reason}. Another replica may be "
        "whole: look at the brokers",
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        resume_at=hole.resume_at,
        missing=hole.resume_at - offset,
    )
