"""The client of aiokafka that is a member of the group: its start and end, requests, and whether it is alive.

aiokafka joins the group, sends heartbeats and fetches ahead in the background. After an error that it does
not survive, another client joins under the same names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from ....errors import BusUnavailable, WindvaneError
from ...interface import TopicPartition
from ..connection import KafkaConnection
from ..installation import KafkaInstallation
from .assignment import Assignment
from .assignor import CooperativeAssignor

HEARTBEATS = 10
"""Heartbeats in a session timeout: the answer to each also tells a consumer that the group changes."""

REBALANCE_TIMEOUT_S = 30.0
"""How long the group waits for a consumer to rejoin; joining does not wait for a poll."""

METADATA_AGE_S = 2.0
"""Maximum age of the metadata: how soon the consumer finds topics and partitions created elsewhere."""

SILENCE_S = 5.0
"""After this long without an answer from the brokers, a poll checks the connection."""

REQUEST_TIMEOUT_S = 10.0
"""Bound on the requests that a call waits for: commits, and reads of positions."""

_FETCH_WAIT_S = 0.5
_STOP_S = 5.0

_Result = TypeVar("_Result")


class GroupClient:
    """The current client, or none while the cluster cannot be used; `failure` is the reason then.

    `on_grant` is called when the leader has changed `assignment`, before anything is fetched. Holders of
    `membership` delay the next join: a commit while this consumer joins would carry an old generation, and
    the group would remove the consumer.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        group: str,
        installation: KafkaInstallation,
        assignment: Assignment,
        *,
        on_grant: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.assignment = assignment
        self.current: AIOKafkaConsumer | None = None
        self.failure: WindvaneError | None = None
        self.membership = asyncio.Lock()
        self._group = connection.to_kafka(group)
        self._installation = installation
        self._on_grant = on_grant
        self._joining = False
        self._subscribed: frozenset[str] = frozenset()
        self._met_another_installation = False
        self._loop = asyncio.get_running_loop()
        self._alive_at_s = self._loop.time()
        self._newest_fetch_ms = 0

    # Names

    def kafka_partition(self, partition: TopicPartition) -> KafkaPartition:
        """The partition in the cluster's names."""
        return KafkaPartition(self.connection.to_kafka(partition.topic), partition.partition)

    def bus_partition(self, partition: KafkaPartition) -> TopicPartition:
        """The inverse of `kafka_partition`."""
        topic = self.connection.from_kafka(partition.topic)
        assert topic is not None, partition
        return TopicPartition(topic, partition.partition)

    # Start and end

    async def start(self) -> None:
        """Start a client; it joins the group once it has a subscription.

        Raises `WindvaneError` if the topics belong to another installation, KafkaError, or OSError.
        """
        settings = self.connection.settings
        await self._installation.claim()
        client = AIOKafkaConsumer(
            **self.connection.options(),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=[
                CooperativeAssignor(
                    self._report_owned,
                    self._take_grant,
                    installation=self._installation.id,
                    met_another=self._doubt_ownership,
                )
            ],
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / HEARTBEATS),
            rebalance_timeout_ms=int(max(REBALANCE_TIMEOUT_S, settings.session_timeout_s) * 1000),
            metadata_max_age_ms=int(METADATA_AGE_S * 1000),
            fetch_max_wait_ms=int(_FETCH_WAIT_S * 1000),
            fetch_max_bytes=settings.fetch_bytes,
            max_partition_fetch_bytes=max(settings.fetch_bytes // 4, 64 * 1024),
        )
        try:
            await client.start()
        except BaseException:
            await client.stop()
            raise
        self.current = client
        self._subscribed = frozenset()
        self.failure = None

    async def stop(self) -> None:
        """Leave the group."""
        client, self.current = self.current, None
        if client is None:
            return
        self.assignment.invalidate()
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await client.stop()
        self._end_joining()

    # Membership

    def subscribe(self, topics: frozenset[str]) -> None:
        """Make `topics` the subscription of the current client, if it is another one."""
        if self.current is None or topics == self._subscribed:
            return
        self._subscribed = topics
        self.assignment.narrow(topics)
        if topics:
            names = [self.connection.to_kafka(topic) for topic in topics]
            self.current.subscribe(names, listener=_JoinListener(self._begin_joining))
        else:
            self.current.unsubscribe()

    def rejoin(self) -> None:
        """Join the group again, so that its leader learns which partitions are owned now."""
        if self.current is not None:
            self.current._coordinator.request_rejoin()

    def refresh_topics(self) -> None:
        """Find new topics and partitions at once."""
        if self.current is not None:
            self.current._client.force_metadata_update()

    def is_fetched(self, partition: TopicPartition) -> bool:
        """Whether aiokafka has the partition in its assignment."""
        return self.current is not None and self.kafka_partition(partition) in self.current.assignment()

    async def check_owner(self) -> None:
        """Check that the topics still belong to this installation, if another one was seen in the group.

        Raises `WindvaneError`.
        """
        if self._met_another_installation:
            await self._installation.claim(again=True)
            self._met_another_installation = False

    async def _begin_joining(self) -> None:
        """Called when aiokafka is about to join the group."""
        if not self._joining:
            self._joining = True
            await self.membership.acquire()

    def _end_joining(self) -> None:
        if self._joining:
            self._joining = False
            self.membership.release()

    def _report_owned(self) -> set[TopicPartition]:
        """Called for each attempt to join: the partitions to report to the leader, in the cluster's names."""
        if self.current is not None and self.current._coordinator.generation < 0:
            self.assignment.invalidate()  # the group has removed this consumer, or never knew it
        return {TopicPartition(*self.kafka_partition(at)) for at in self.assignment.owned}

    def _take_grant(self, granted: Collection[TopicPartition]) -> None:
        """The leader has assigned these; nothing of them was fetched yet."""
        self.assignment.grant({self.bus_partition(KafkaPartition(*at)) for at in granted})
        self._on_grant()
        self._end_joining()
        self.note_answer()

    def _doubt_ownership(self) -> None:
        self._met_another_installation = True

    # Requests and answers

    def require(self) -> AIOKafkaConsumer:
        """The current client. Raises `WindvaneError` if there is none."""
        if self.current is None:
            raise self.failure or BusUnavailable(f"{self.connection.where} is not connected yet")
        return self.current

    async def request(self, request: Awaitable[_Result], failed: str) -> _Result:
        """The answer to a request. Raises `BusUnavailable`, with `failed` and the reason."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await request
        except (KafkaError, OSError, TimeoutError) as error:
            if isinstance(error, WindvaneError):
                raise
            raise BusUnavailable(f"{failed}: {self.connection.explain(error)}") from error

    def note_answer(self) -> None:
        """The brokers have just answered."""
        self._alive_at_s = self._loop.time()

    async def check_alive(self) -> None:
        """Raise if an empty poll has a cause other than a lack of messages: the brokers do not answer."""
        if self.current is None:
            if self.failure is not None:
                raise self.failure
            return
        fetched = [self.current.last_poll_timestamp(at) for at in self.current.assignment()]
        newest_ms = max((stamp for stamp in fetched if stamp), default=0)
        if newest_ms > self._newest_fetch_ms:
            self._newest_fetch_ms = newest_ms
            self.note_answer()
        if self._loop.time() - self._alive_at_s > SILENCE_S:
            await self.connection.check()
            self.note_answer()


class _JoinListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka's listener; only the start of a join is used."""

    def __init__(self, before_joining: Callable[[], Awaitable[None]]) -> None:
        self._before_joining = before_joining

    async def on_partitions_revoked(self, revoked: object) -> None:
        await self._before_joining()

    async def on_partitions_assigned(self, assigned: object) -> None:
        pass


def has_stopped(client: AIOKafkaConsumer) -> bool:
    """Whether the client has stopped, so that another one is needed."""
    return bool(client._coordinator._coordination_task.done() or client._fetcher.error_future.done())
