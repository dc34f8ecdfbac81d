"""The ownership of the topics with a prefix, so that two installations do not share them by accident.

Two installations with the same prefix would be one consumer group: each would get part of the other's data.
So each home has an ID (`HOME/installation`, created once), and the first installation publishes its ID to a
small compacted topic below the prefix. Others are rejected, until one of them takes over.

The messages on that topic have the ID of their sender as key. The owner is the sender of the first message.
A message that names the current owner in `takes_over` makes its sender the owner; other messages have no
effect. Of two simultaneous claims the second in the log is rejected.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code

from ...errors import BusUnavailable, ConfigInvalid
from ..topic_names import INSTALLATION_TOPIC
from .connection import KafkaConnection
from .topic_creation import create_topic

INSTALLATION_FILE = "installation"
ASK_TIMEOUT_S = 20.0
"""Bound on claiming a prefix, including the creation of its topic."""

_FORM = re.compile(r"[0-9a-f]{32}")
_RETRY_S = 0.2


class _Claim(msgspec.Struct, frozen=True):
    installation: str
    takes_over: str | None = None


def installation_id(home: Path) -> str:
    """The ID of the installation in `home`, 32 hex digits; its file is created with mode 0600 if missing.

    Raises `ConfigInvalid` if the file cannot be used.
    """
    path = home / INSTALLATION_FILE
    try:
        if not path.exists():
            _create(path)
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(
            f"{path} cannot be used: {error}. It identifies this installation on Kafka: restore it from a "
            "copy"
        ) from error
    if not _FORM.fullmatch(found):
        raise ConfigInvalid(
            f"{path} is damaged: it must hold 32 hex digits, the ID of this installation on Kafka. Restore "
            "it from a copy. Without one, move it away and start: the error then names the ID of the topics"
        )
    return found


def _create(path: Path) -> None:
    building = path.with_name(f".{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        fd = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(os.urandom(16).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another tier was faster
            os.link(building, path)
    finally:
        building.unlink(missing_ok=True)


class KafkaInstallation:
    """This installation's claim on the topics with its prefix."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._topic = connection.to_kafka(INSTALLATION_TOPIC)
        self._asking = asyncio.Lock()
        self._is_claimed = False

    @property
    def id(self) -> str:
        """The ID of this installation. Raises `ConfigInvalid`."""
        return self._connection.settings.installation or installation_id(self._connection.home)

    async def claim(self, *, again: bool = False) -> None:
        """Check that this installation owns the topics, once, or also `again`; claims them without an owner.

        Raises `ConfigInvalid` if another one owns them, `BusUnavailable` if the cluster does not answer.
        """
        async with self._asking:
            if self._is_claimed and not again:
                return
            self._is_claimed = False
            mine = self.id
            owner = await self._asked(lambda: self._claim(mine))
            if owner != mine:
                raise self.rejection(owner)
            self._is_claimed = True

    async def take_over(self) -> str | None:
        """Make this installation the owner of the topics; returns the former owner if it was another."""
        async with self._asking:
            mine = self.id
            owner = await self._asked(lambda: self._claim(mine))
            if owner == mine:
                return None
            after = await self._asked(lambda: self._put(_Claim(mine, takes_over=owner)))
            if after != mine:
                raise BusUnavailable(
                    f"another installation, {after}, took the topics over at the same moment"
                )
            return owner

    def rejection(self, owner: str) -> ConfigInvalid:
        """The error for an installation that finds the topics of `owner`."""
        prefix = self._connection.settings.topic_prefix
        return ConfigInvalid(
            f"{self._connection.where}: the topics with the prefix {prefix!r} belong to another "
            f"installation, {owner}; this one is {self.id}. Nothing was read or written. To run both, set "
            "kafka.topic_prefix to another name. If this host belongs to that installation but has a home "
            f"of its own, copy HOME/{INSTALLATION_FILE} from there, or set kafka.installation. If this home "
            "replaces that one (restored or moved), stop that one, then run `windvane topics take-over`"
        )

    async def _claim(self, mine: str) -> str:
        owner = await self._read_owner()
        return await self._put(_Claim(mine)) if owner is None else owner

    async def _put(self, claim: _Claim) -> str:
        """Publish a claim; returns the owner after it."""
        producer = AIOKafkaProducer(**self._connection.options(), acks="all", enable_idempotence=True)
        await producer.start()
        try:
            key = claim.installation.encode()
            await producer.send_and_wait(self._topic, msgspec.json.encode(claim), key=key, partition=0)
        finally:
            await producer.stop()
        owner = await self._read_owner()
        if owner is None:
            raise KafkaError(f"{self._topic} does not keep the messages published to it")
        return owner

    async def _read_owner(self) -> str | None:
        """The owner according to all messages on the topic; creates the topic if it is missing."""
        await self._make_topic()
        consumer = AIOKafkaConsumer(
            **self._connection.options(), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            at = KafkaPartition(self._topic, 0)
            consumer.assign([at])
            end = (await consumer.end_offsets([at]))[at]
            claims: list[_Claim] = []
            while await consumer.position(at) < end:
                for records in (await consumer.getmany(at, timeout_ms=1000)).values():
                    for record in records:
                        with suppress(msgspec.DecodeError):
                            claims.append(msgspec.json.decode(record.value or b"", type=_Claim))
            return owner_of(claims)
        finally:
            await consumer.stop()

    async def _make_topic(self) -> None:
        settings = self._connection.settings
        admin = await self._connection.start_admin()
        try:
            (found,) = await admin.describe_topics([self._topic])
            if found["error_code"] == 0:
                return
            if found["error_code"] != UnknownTopicOrPartitionError.errno:
                raise for_code(found["error_code"])(self._topic)
            await create_topic(admin, self._topic, 1, settings, configs={"cleanup.policy": "compact"})
        finally:
            await admin.close()

    async def _asked(self, ask: Callable[[], Awaitable[str]]) -> str:
        """The cluster's answer; retries, since brokers learn of a new topic at different times."""
        deadline_s = asyncio.get_running_loop().time() + ASK_TIMEOUT_S
        while True:
            try:
                async with asyncio.timeout_at(deadline_s):
                    return await ask()
            except (KafkaError, OSError, TimeoutError) as error:
                if isinstance(error, BusUnavailable | ConfigInvalid):
                    raise
                is_final = isinstance(error, KafkaError) and not error.retriable
                if is_final or asyncio.get_running_loop().time() >= deadline_s:
                    raise self._connection.explain(error, INSTALLATION_TOPIC) from error
                # Raises if no broker is reachable or the login fails.
                await self._connection.check()
            await asyncio.sleep(_RETRY_S)


def owner_of(claims: Iterable[_Claim]) -> str | None:
    """The owner of the topics by these claims, in the order of the log; None without claims."""
    owner: str | None = None
    for claim in claims:
        if owner is None or claim.takes_over == owner:
            owner = claim.installation
    return owner
