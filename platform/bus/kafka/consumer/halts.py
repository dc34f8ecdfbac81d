"""Finds the reason that a partition on Kafka cannot be read, by querying its brokers.

Each function returns the error for `Consumer.halted`, or None if the partition can be read after all: another
replica has become the leader, or the queried one lagged.
"""

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from ....errors import LogReplaced, MessagesDamaged, MessagesGone, PartitionUnreadable
from ...interface import TopicPartition
from ..connection import KafkaConnection
from ..metadata import find_hole


def log_replaced(partition: TopicPartition, offset: int, *, first: int) -> LogReplaced:
    """The topic was deleted and recreated; `first` is the first offset of the new log."""
    topic, number = partition
    return LogReplaced(
        f"the topic {topic} was deleted and recreated: the next message was {offset} of {topic}/{number}, in "
        "the deleted log",
        topic=topic,
        partition=number,
        offset=offset,
        resume_at=first,
        missing=None,
    )


def not_permitted(
    connection: KafkaConnection, partition: TopicPartition, offset: int, error: KafkaError
) -> PartitionUnreadable:
    """The account has no permission to read the topic."""
    return PartitionUnreadable(
        f"{connection.explain(error, partition.topic)}; the read is retried",
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        resume_at=None,
        missing=None,
    )


async def outside_log(
    client: AIOKafkaConsumer, at: KafkaPartition, partition: TopicPartition, offset: int
) -> MessagesGone | None:
    """The brokers report that `offset` is outside the log. Raises KafkaError."""
    first = (await client.beginning_offsets([at]))[at]
    end = (await client.end_offsets([at]))[at]
    if first <= offset <= end:
        return None
    name = f"{partition.topic}/{partition.partition}"
    if offset < first:
        reason = (
            f"messages {offset} to {first - 1} of {name} ({first - offset}) are no longer kept: the "
            "topic's retention has dropped them"
        )
    else:
        reason = (
            f"message {offset} of {name} was never written, or was lost: the log ends at {end}. Check the "
            "brokers (an unclean leader election, a restored disk?)"
        )
    return MessagesGone(
        reason,
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        # If a log lost its end, it is not known which of its current messages were read.
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
        "whole: check the brokers",
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        resume_at=hole.resume_at,
        missing=hole.resume_at - offset,
    )
