"""The Kafka cluster: whether it lets us in, its versions, and whether it keeps what it acks."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ...config import Settings
from ...errors import WindvaneError
from .finding import Finding, failure, ok, skipped, warning

ANSWER_BOUND_S = 20.0
MIN_ISR = "min.insync.replicas"
_REQUESTS = {0: "Produce", 1: "Fetch"}


class TopicReplicas(msgspec.Struct, frozen=True):
    """A topic of this installation: replicas, and how many of them are in sync, each at the least."""

    name: str
    replicas: int
    in_sync: int
    min_isr: int


class Cluster(msgspec.Struct, frozen=True):
    """The brokers, topics and settings that a cluster reports."""

    brokers: int
    versions: str
    """Of the protocol: brokers do not say which release they are."""
    default_replicas: int | None
    topics: tuple[TopicReplicas, ...]
    silent: Mapping[str, str] = {}
    """Servers of --bus that cannot be used, and why."""


def check_kafka(settings: Settings) -> Iterator[Finding]:
    """All checks of this module; nothing is made or changed on the cluster."""
    if urlsplit(settings.bus).scheme != "kafka":
        yield skipped("kafka", "the bus is not Kafka")
        return
    from ...bus.kafka.bus import connection_to

    try:
        connection = connection_to(settings.bus, settings.home, settings.kafka)
        cluster = asyncio.run(_ask(connection, settings.home))
    except WindvaneError as error:
        yield failure("kafka", str(error), "see docs/kafka.md; what is not acked stays with its senders")
        return
    except TimeoutError:
        yield failure(
            "kafka",
            f"the cluster lets us in, but has not answered within {ANSWER_BOUND_S:g} s",
            "check the brokers and their controller",
        )
        return
    said = f"{connection.where} lets us in; brokers: {cluster.brokers}; protocol: {cluster.versions}"
    yield ok("kafka", said)
    for server, reason in cluster.silent.items():
        yield warning("kafka brokers", reason, f"start the broker at {server}, or take it out of --bus")
    yield from check_cluster(cluster, wanted_replicas=settings.kafka.replication_factor)


def check_cluster(cluster: Cluster, *, wanted_replicas: int | None) -> Iterator[Finding]:
    """Whether messages survive the loss of a broker, and whether they can be written meanwhile."""
    replicas = wanted_replicas or cluster.default_replicas
    if replicas is not None and replicas > cluster.brokers:
        yield failure(
            "kafka replicas",
            f"new topics want {replicas} replicas, and there are {cluster.brokers} brokers",
            "start more brokers, or lower kafka.replication_factor",
        )
    if not cluster.topics:
        yield skipped("kafka topics", "there is no topic of this installation yet")
        return
    for states, check, state, message, fix in (
        (
            [topic for topic in cluster.topics if topic.in_sync < topic.min_isr],
            "kafka in sync",
            failure,
            "fewer replicas are in sync than min.insync.replicas asks for, so nothing is acked",
            "start the brokers that are not running; if a topic requires more replicas than it has, lower "
            "its min.insync.replicas",
        ),
        (
            [topic for topic in cluster.topics if topic.replicas == 1],
            "kafka replicas",
            warning,
            "there is one replica: acked messages are lost with its broker's disk",
            "with three brokers, give the topics three replicas (kafka-reassign-partitions) and set "
            "kafka.replication_factor = 3",
        ),
        (
            [topic for topic in cluster.topics if topic.replicas > 1 and topic.min_isr == 1],
            "kafka min ISR",
            warning,
            "min.insync.replicas is 1: a message may be acked that only one broker has",
            "set min.insync.replicas = 2 for the topics, or for the brokers",
        ),
        (
            [topic for topic in cluster.topics if 1 < topic.min_isr == topic.replicas],
            "kafka min ISR",
            warning,
            "min.insync.replicas is as high as the replicas: nothing is acked without one broker",
            "give the topics one replica more, or lower min.insync.replicas by one",
        ),
    ):
        if states:
            yield state(check, f"{_named(states)}: {message}", fix)
    if all(1 < t.min_isr < t.replicas and t.in_sync >= t.min_isr for t in cluster.topics):
        yield ok(
            "kafka replicas", f"{len(cluster.topics)} topics outlive a broker, and can be written without it"
        )


def _named(topics: Iterable[TopicReplicas]) -> str:
    names = [f"{t.name} (replicas {t.replicas}, in sync {t.in_sync}, min ISR {t.min_isr})" for t in topics]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


async def _ask(connection: Any, home: Path) -> Cluster:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    silent = await _silent(connection, home)
    if len(silent) == len(connection.servers):
        await connection.check()
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with asyncio.timeout(ANSWER_BOUND_S):
            await admin.start()
            cluster = await _read(admin, connection)
            return msgspec.structs.replace(cluster, silent=silent)
    except (KafkaError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise connection.explain(error) from error
    finally:
        await admin.close()


async def _silent(connection: Any, home: Path) -> dict[str, str]:
    """Which of the servers cannot be used, each by itself, and why."""
    from ...bus.kafka.connection import KafkaConnection

    silent = {}
    for server in connection.servers:
        try:
            await KafkaConnection([server], connection.settings, home).check()
        except WindvaneError as error:
            silent[server] = str(error)
    return silent


async def _versions(connection: Any, host: str, port: int) -> str:
    """What a broker speaks of the requests that matter most, as "Fetch 4-17"."""
    from aiokafka.conn import create_conn
    from aiokafka.protocol.admin import ApiVersionRequest

    options = connection.options()
    security = {
        name: value for name, value in options.items() if name.startswith(("security", "ssl", "sasl"))
    }
    opened = await create_conn(host, port, client_id=options["client_id"], **security)
    try:
        answer = await opened.send(ApiVersionRequest())
    finally:
        opened.close()
    spoken = [f"{_REQUESTS[key]} {low}-{high}" for key, low, high in answer.api_versions if key in _REQUESTS]
    return ", ".join(spoken)


async def _read(admin: Any, connection: Any) -> Cluster:
    from aiokafka.admin.config_resource import ConfigResourceType

    cluster = await admin.describe_cluster()
    brokers = cluster["brokers"]
    described = [
        topic
        for topic in await admin.describe_topics()
        if topic["error_code"] == 0 and connection.from_kafka(topic["topic"]) is not None
    ]
    names = [topic["topic"] for topic in described]
    by_topic = await _configs(admin, ConfigResourceType.TOPIC, names)
    first = str(brokers[0]["node_id"])
    of_broker = (await _configs(admin, ConfigResourceType.BROKER, [first])).get(first, {})
    default = of_broker.get("default.replication.factor")
    return Cluster(
        brokers=len(brokers),
        versions=await _versions(connection, brokers[0]["host"], brokers[0]["port"]),
        default_replicas=int(default) if default else None,
        topics=tuple(
            TopicReplicas(
                name=topic["topic"],
                replicas=min(len(partition["replicas"]) for partition in topic["partitions"]),
                in_sync=min(len(partition["isr"]) for partition in topic["partitions"]),
                min_isr=int(by_topic.get(topic["topic"], {}).get(MIN_ISR) or 1),
            )
            for topic in described
        ),
    )


async def _configs(admin: Any, kind: Any, names: list[str]) -> Mapping[str, Mapping[str, str]]:
    """Settings by resource. Those that this user may not see are left out."""
    from aiokafka.admin.config_resource import ConfigResource

    if not names:
        return {}
    found = {}
    for answer in await admin.describe_configs([ConfigResource(kind, name) for name in names]):
        for code, _, _, name, entries in answer.resources:
            if code == 0:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found
