"""The identity of topics on a cluster, and the state of their logs, read from the brokers directly.

aiokafka 0.14 implements Metadata up to version 5, which has only the names of topics. Version 12 has the ID
of each topic (KIP-516); a topic that is deleted and recreated under the same name gets a new ID. The
structure is that of "Metadata API (Key: 3)" in the protocol guide of Apache Kafka.
"""

import uuid
from collections.abc import Collection
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as KafkaPartition

_NO_ID = uuid.UUID(int=0)
_UNKNOWN_TOPIC = UnknownTopicOrPartitionError.errno
_LAST_OFFSET_DELTA = slice(23, 27)  # of a record batch, after the base offset (0 to 8)
_BATCH_HEADER_BYTES = 61
_PROBE_BYTES = 64 * 1024
_PROBE_WAIT_MS = 100
_MAX_PROBES = 100


class _Uuid(AbstractType):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


_NAME = CompactString("utf-8")


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32), ("host", _NAME), ("port", Int32), ("rack", _NAME), ("tags", TaggedFields)
            ),
        ),
        ("cluster_id", _NAME),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _NAME),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequestStruct(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _NAME), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicIdRequest(Request[_MetadataRequestStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        return request_struct_class([(_NO_ID, name, {}) for name in sorted(self._names)], False, False, {})


async def log_ids(client: AIOKafkaClient, node_id: int, names: Collection[str]) -> dict[str, str]:
    """The identity of each topic's log as the broker knows it now, for those that exist: `kafka:CLUSTER:ID`.

    Brokers before Kafka 2.8 have no topic IDs; the topic's name replaces it then. Raises KafkaError.
    """
    if not names:
        return {}
    try:
        answer = await client.send(node_id, _TopicIdRequest(names))
    except (IncompatibleBrokerVersion, NotImplementedError):
        answer = await client.send(node_id, MetadataRequest(sorted(names), allow_auto_topic_creation=False))
        return {name: f"kafka:{answer.cluster_id}:{name}" for error, name, *_ in answer.topics if error == 0}
    found = {}
    for error, name, topic_id, *_ in answer.topics:
        if error == 0 and topic_id != _NO_ID:
            found[name] = f"kafka:{answer.cluster_id}:{topic_id}"
        elif error not in (0, _UNKNOWN_TOPIC):
            raise for_code(error)(name)
    return found


async def log_ids_by_leaders(client: AIOKafkaClient, names: Collection[str]) -> dict[str, str]:
    """As `log_ids`, each read from a broker that leads one of the topic's partitions: others may lag.

    Topics without a leader in the client's metadata are missing.
    """
    by_leader: dict[int, list[str]] = {}
    for name in names:
        leaders = {
            client.cluster.leader_for_partition(KafkaPartition(name, partition))
            for partition in client.cluster.partitions_for_topic(name) or ()
        } - {None, -1}
        if leaders:
            by_leader.setdefault(min(leaders), []).append(name)
    found: dict[str, str] = {}
    for leader, theirs in by_leader.items():
        found.update(await log_ids(client, leader, theirs))
    return found


class Hole(NamedTuple):
    """Messages of a partition that cannot be read."""

    resume_at: int
    reason: str


async def find_hole(client: AIOKafkaClient, at: KafkaPartition, offset: int, end: int) -> Hole | None:
    """Find the unreadable messages from `offset` on, up to `end`; None if the one at `offset` is readable.

    Fetches single batches from the leader. Raises KafkaError.
    """
    first = await _probe(client, at, offset)
    if first is None or first.damage is None:
        return None
    bad = offset
    # A damaged batch has the offset of the next one; if that is damaged too, growing steps find a whole one.
    guess = (
        first.next_offset
        if first.next_offset is not None and offset < first.next_offset <= end
        else offset + 1
    )
    step = 1
    for _ in range(_MAX_PROBES):
        if guess >= end:
            guess = end
            break
        batch = await _probe(client, at, guess)
        if batch is None or batch.damage is None:
            break
        bad, guess, step = guess, min(guess + step, end), step * 2
    while guess - bad > 1:
        middle = (bad + guess) // 2
        batch = await _probe(client, at, middle)
        if batch is None or batch.damage is None:
            guess = middle
        else:
            bad = middle
    return Hole(guess, first.damage)


class _Batch(NamedTuple):
    damage: str | None
    next_offset: int | None


async def _probe(client: AIOKafkaClient, at: KafkaPartition, offset: int) -> _Batch | None:
    """Fetch and check the batch with the message `offset`; None if there is none."""
    leader = client.cluster.leader_for_partition(at)
    partitions = [(at.topic, [(at.partition, offset, _PROBE_BYTES)])]
    answer = await client.send(
        leader, FetchRequest(_PROBE_WAIT_MS, 1, _PROBE_BYTES, 0, partitions, rack_id="")
    )
    ((_, ((_, code, *rest),)),) = answer.topics
    if code:
        return _Batch(for_code(code).__name__, None)
    data: bytes = rest[-1] or b""
    if not data:
        return None
    next_offset = None
    if len(data) >= _BATCH_HEADER_BYTES:
        delta = int.from_bytes(data[_LAST_OFFSET_DELTA], "big", signed=True)
        next_offset = int.from_bytes(data[:8], "big", signed=True) + delta + 1
    try:
        batch: Any = MemoryRecords(data).next_batch()
        if batch is None:
            return _Batch("it is cut short", next_offset)
        if not batch.validate_crc():
            return _Batch("its checksum is wrong", next_offset)
        for _ in batch:
            pass
    except Exception as error:  # damaged bytes can raise any error in a decoder
        return _Batch(f"it cannot be decoded ({type(error).__name__}: {error})", next_offset)
    return _Batch(None, next_offset)
