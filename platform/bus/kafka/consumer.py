"""Reads from Kafka as a member of a consumer group.

aiokafka joins the group, sends heartbeats and fetches ahead in the background. This module adds the other
guarantees of the interface: the listener is called within a poll, one call at a time; partitions move one by
one (`assignor.py`) while the others are read; a poll divides its bytes equally.

Three sets describe the assignment. `_granted` is the latest assignment of the group's leader. `_held` has the
partitions that were passed to `assigned` and not revoked. `_stale` is the part of `_held` that the group has
reassigned without a handover, because it considered this consumer dead. A poll adapts `_held` to `_granted`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, OffsetAndMetadata
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from ...errors import (
    BusUnavailable,
    ConfigInvalid,
    PartitionHalted,
    PartitionUnreadable,
    WindvaneError,
)
from ..interface import (
    BEGINNING,
    DEFAULT_POLL_BYTES,
    AssignmentListener,
    BusMessage,
    Consumer,
    TopicPartition,
)
from .assignor import CooperativeAssignor
from .background_tasks import BackgroundErrors
from .connection import KafkaConnection
from .fetched_messages import FetchedMessages
from .halts import damaged, log_replaced, not_permitted, outside_log
from .installation import KafkaInstallation
from .metadata import log_ids_by_leaders

HEARTBEATS = 10
"""Heartbeats in a session timeout: the answer to each also tells a consumer that the group changes."""

REBALANCE_TIMEOUT_S = 30.0
"""How long the group waits for a consumer to rejoin; joining does not wait for a poll."""

METADATA_AGE_S = 2.0
"""Maximum age of the metadata: how soon the consumer finds topics and partitions created elsewhere."""

SILENCE_S = 5.0
"""After this long without an answer from the brokers, a poll checks the connection."""

READ_AGAIN_S = 5.0
"""How long to wait before reading a topic again that the account may not read."""

REQUEST_TIMEOUT_S = 10.0
"""Bound on the requests that a call waits for: commits, and reads of positions."""

_FETCH_WAIT_S = 0.5
_FETCH_TURN_S = 1.0
_RETRY_S = 0.2
_STOP_S = 5.0

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


class KafkaConsumer(Consumer):
    """A member of a group on the cluster; see `Consumer`.

    A consumer that does not answer for `session_timeout_s` loses its partitions to others. Once it is
    connected again, it calls `revoked`; until then its commits fail. Its writes to other systems need a fence
    of their own. Memory: about three times `fetch_bytes`.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        group: str,
        listener: AssignmentListener,
        installation: KafkaInstallation,
        *,
        positions_of: str | None = None,
    ) -> None:
        self._positions_of = positions_of or ""
        self._installation = installation
        self._is_doubted = False  # another installation is in the group: check the owner of the topics
        self._connection = connection
        self._settings = connection.settings
        self._group = connection.to_kafka(group)
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        BackgroundErrors.watch(self._loop)
        self._client: AIOKafkaConsumer | None = None
        self._running: asyncio.Task[None] | None = None
        self._polling = asyncio.Lock()
        self._woken = asyncio.Event()
        self._topics: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._granted: set[TopicPartition] = set()
        self._held: set[TopicPartition] = set()
        self._stale: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._halted: dict[TopicPartition, PartitionHalted] = {}
        self._log_ids: dict[str, str] = {}  # of the held topics, at the time of the assignment
        self._one_by_one: set[KafkaPartition] = set()
        self._ids_read_s = float("-inf")
        self._handing_over: asyncio.Task[None] | None = None
        # Held while this consumer joins: a commit meanwhile would carry an old generation, and the group
        # would remove the consumer.
        self._membership = asyncio.Lock()
        self._joining = False
        self._fetched_to: dict[TopicPartition, int] = {}  # where the next fetch begins
        self._fetching: dict[TopicPartition, int] = {}  # changes whenever the fetch begins elsewhere
        self._messages = FetchedMessages()
        self._room = asyncio.Event()
        self._failure: WindvaneError | None = None
        self._alive_at_s = self._loop.time()
        self._closing = False

    @property
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        """See `Consumer.halted`."""
        return dict(self._halted)

    @property
    def log_ids(self) -> Mapping[str, str]:
        """The logs that are being read: messages of any other log are not returned."""
        return self._log_ids

    def subscribe(self, topics: Collection[str]) -> None:
        """See `Consumer.subscribe`."""
        if (wanted := frozenset(topics)) != self._topics:
            self._topics = wanted
            self._woken.set()

    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        """See `Consumer.poll`."""
        deadline_s = self._loop.time() + timeout_s
        async with self._polling:
            halted = self._halted.keys() | set()
            if self._closing:
                raise BusUnavailable("the consumer is closed; create another one")
            while not self._closing:
                self._woken.clear()
                self._follow_subscription()
                await self._hand_over()
                if (messages := self._take(max_bytes)) or self._halted.keys() - halted:
                    return messages
                if self._failure is not None and self._client is not None:
                    failure, self._failure = self._failure, None
                    self._room.set()
                    raise failure
                remaining_s = deadline_s - self._loop.time()
                if remaining_s <= 0:
                    await self._check_alive()
                    return []
                with suppress(TimeoutError):
                    async with asyncio.timeout(remaining_s):
                        await self._woken.wait()
            return []

    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        self._check_held([topic_partition])
        self._halted.pop(topic_partition, None)
        self._drop_messages(topic_partition)
        self._fetched_to[topic_partition] = offset
        self._fetch_on(topic_partition)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        self._check_held(partitions)
        for partition in partitions:
            self._paused.add(partition)
            self._fetched_to[partition] = self._next_offset(partition)
            self._drop_messages(partition)
            self._fetch_on(partition)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        for partition in self._paused & set(partitions):
            self._paused.discard(partition)
            self._fetch_on(partition)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        self._check_held(positions)
        if not positions:
            return
        offsets = {
            self._kafka(at): OffsetAndMetadata(offset, self._positions_of) for at, offset in positions.items()
        }

        async def put() -> None:
            async with self._membership:
                # The public `commit` rejects partitions that are being revoked.
                await self._require_client()._coordinator.commit_offsets(None, offsets)

        await self._ask(put(), "the positions cannot be committed")

    async def lag(self) -> dict[TopicPartition, int]:
        """See `Consumer.lag`; reads the ends of paused and not yet fetched partitions from the brokers."""
        client = self._client
        if client is None:
            return {}
        ends = {at: client.highwater(self._kafka(at)) for at in self._held if self._is_fetched(at)}
        unknown = [at for at in self._held if ends.get(at) is None or at in self._paused]
        if unknown:
            # If the brokers that lead them do not answer, the last known ends remain.
            with suppress(BusUnavailable):
                asked = await self._ask(
                    client.end_offsets([self._kafka(at) for at in unknown]), "the lag cannot be read"
                )
                ends.update({self._own(at): end for at, end in asked.items()})
        return {
            at: max(0, (ends.get(at) or 0) - self._next_offset(at))
            for at in sorted(self._held)
            if at in self._fetched_to
        }

    async def close(self) -> None:
        """See `Consumer.close`."""
        if self._closing:
            return
        self._closing = True
        self._woken.set()
        async with self._polling:
            try:
                with suppress(WindvaneError):
                    await self._end_handing_over()
                if self._held:
                    await self._revoke(self._held)
            finally:
                if self._running is not None:
                    self._running.cancel()
                    await asyncio.wait([self._running])
                await self._stop_client()

    def refresh_topics(self) -> None:
        """Find new topics and partitions at once."""
        if self._client is not None:
            self._client._client.force_metadata_update()

    # Names

    def _kafka(self, partition: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._connection.to_kafka(partition.topic), partition.partition)

    def _own(self, partition: KafkaPartition) -> TopicPartition:
        topic = self._connection.from_kafka(partition.topic)
        assert topic is not None, partition
        return TopicPartition(topic, partition.partition)

    # The group

    def _follow_subscription(self) -> None:
        if self._running is None and self._topics:
            self._running = self._loop.create_task(self._run())
        if self._client is None or self._topics == self._subscribed:
            return
        self._subscribed = self._topics
        self._granted &= {at for at in self._held if at.topic in self._topics}
        if self._topics:
            topics = [self._connection.to_kafka(topic) for topic in self._topics]
            self._client.subscribe(topics, listener=_JoinListener(self._before_joining))
        else:
            self._client.unsubscribe()

    async def _before_joining(self) -> None:
        """Called when aiokafka is about to join the group."""
        if not self._joining:
            self._joining = True
            await self._membership.acquire()

    def _report_held(self) -> set[TopicPartition]:
        """Called for each attempt to join: the partitions to report to the leader, in the cluster's names."""
        if self._client is not None and self._client._coordinator.generation < 0:
            # The group has removed this consumer, or never knew it: others may hold its partitions by now.
            self._stale |= self._held
            self._granted.clear()  # otherwise it would resume the partitions right after revoking them
        return {TopicPartition(*self._kafka(at)) for at in self._held - self._stale}

    def _take_grant(self, granted: Collection[TopicPartition]) -> None:
        """The leader has assigned these; nothing of them was fetched yet."""
        self._granted = {self._own(KafkaPartition(*at)) for at in granted}
        for partition in self._granted:
            self._fetch_on(partition)
        if self._joining:
            self._joining = False
            self._membership.release()
        self._alive_at_s = self._loop.time()
        self._woken.set()

    def _fetch_on(self, partition: TopicPartition) -> None:
        """Set aiokafka's position to this consumer's, or pause the fetch if it must not read."""
        self._fetching[partition] = self._fetching.get(partition, 0) + 1
        if self._client is None or not self._is_fetched(partition):
            return  # `_take_grant` does it
        at = self._kafka(partition)
        reads = partition in self._held - self._stale and partition in self._fetched_to
        start = self._fetched_to[partition] if reads else 0
        if start == BEGINNING:
            self._room.set()  # `_fetch` finds the first offset
        if reads and start != BEGINNING and partition not in self._paused and partition not in self._halted:
            self._client.resume(at)
        else:
            self._client.pause(at)
        self._client.seek(at, max(start, 0))

    def _is_fetched(self, partition: TopicPartition) -> bool:
        return self._client is not None and self._kafka(partition) in self._client.assignment()

    async def _hand_over(self) -> None:
        """Adapt the held partitions to the granted ones; the next poll completes a cancelled one."""
        while True:
            await self._end_handing_over()
            lost = self._stale | (self._held - self._granted)
            new = self._granted - self._held
            if lost:
                self._handing_over = self._loop.create_task(self._revoke(lost))
            elif new:
                self._handing_over = self._loop.create_task(self._start_reading(new))
            else:
                return

    async def _end_handing_over(self) -> None:
        if self._handing_over is not None:
            await asyncio.wait([self._handing_over])
            ended, self._handing_over = self._handing_over, None
            ended.result()

    async def _revoke(self, lost: Collection[TopicPartition]) -> None:
        gone = sorted(lost)
        for partition in gone:
            self._drop_messages(partition)
        await self._listener.revoked(gone)
        for partition in gone:
            self._held.discard(partition)
            self._stale.discard(partition)
            self._paused.discard(partition)
            self._halted.pop(partition, None)
            self._fetched_to.pop(partition, None)
        topics = {partition.topic for partition in self._held}
        self._log_ids = {topic: log_id for topic, log_id in self._log_ids.items() if topic in topics}
        if self._client is not None and not self._closing:
            # Now the leader can assign them to others, or back.
            self._client._coordinator.request_rejoin()

    async def _start_reading(self, new: Collection[TopicPartition]) -> None:
        wanted = sorted(new)
        self._held.update(wanted)
        try:
            # Before the call, so that the listener's offsets cannot belong to an earlier log.
            topics = {at.topic for at in wanted if at.topic not in self._log_ids}
            self._log_ids.update(await self._ask(self._read_log_ids(topics), "the topics cannot be read"))
            if without_leader := sorted(topics - self._log_ids.keys()):
                raise BusUnavailable(f"{self._connection.where}: {without_leader} have no leaders yet")
            starts = dict(await self._listener.assigned(wanted))
            unknown = [self._kafka(at) for at in wanted if starts.get(at) is None]
            starts.update(await self._ask(self._first_offsets(unknown), "the positions cannot be read"))
        except BaseException:
            self._held.difference_update(wanted)
            raise
        for partition in wanted:
            start = starts[partition]
            assert start is not None
            self._fetched_to[partition] = start
            self._fetch_on(partition)

    async def _first_offsets(self, partitions: Sequence[KafkaPartition]) -> dict[TopicPartition, int]:
        """The group's committed positions, otherwise the first offsets of the logs."""
        client = self._require_client()
        committed = await client._coordinator.fetch_committed_offsets(partitions)
        ours = {at: kept for at, kept in committed.items() if kept.metadata == self._positions_of}
        fresh = [at for at in partitions if at not in ours]
        firsts = await client.beginning_offsets(fresh) if fresh else {}
        return {self._own(at): ours[at].offset if at in ours else firsts[at] for at in partitions}

    async def _read_log_ids(self, topics: Collection[str]) -> dict[str, str]:
        """The identities of these topics' logs, read from the brokers that lead them."""
        names = {self._connection.to_kafka(topic): topic for topic in topics}
        found = await log_ids_by_leaders(self._require_client()._client, names)
        return {names[name]: log_id for name, log_id in found.items()}

    # Fetching

    async def _run(self) -> None:
        """Run a client of aiokafka, restart it after errors, and collect the messages that it fetches."""
        while True:
            try:
                await self._start_client()
                self._woken.set()
                await self._fetch()
            except (KafkaError, OSError, TimeoutError) as error:
                await self._stop_client()
                self._failure = await self._why(error)
            except WindvaneError as error:
                await self._stop_client()
                self._failure = error
            self._woken.set()
            await asyncio.sleep(_RETRY_S)

    def _doubt_ownership(self) -> None:
        self._is_doubted = True

    async def _why(self, error: BaseException) -> WindvaneError:
        try:
            await self._connection.check()
        except (BusUnavailable, ConfigInvalid) as reason:
            return reason
        return self._connection.explain(error)

    async def _start_client(self) -> None:
        settings = self._settings
        await self._installation.claim()
        client = AIOKafkaConsumer(
            **self._connection.options(),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=[
                CooperativeAssignor(
                    self._report_held,
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
        self._client = client
        self._subscribed = frozenset()
        self._failure = None

    async def _stop_client(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self._granted.clear()
        self._stale |= self._held
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await client.stop()
        if self._joining:
            self._joining = False
            self._membership.release()

    async def _fetch(self) -> None:
        client = self._require_client()
        while True:
            try:
                await self._fetch_once(client)
            except (KafkaError, OSError, TimeoutError) as error:
                if _has_stopped(client) or (isinstance(error, KafkaError) and not error.retriable):
                    raise  # `_run` creates another client
                # Brokers are temporarily unavailable. Fetch again the messages that could not be checked.
                for partition in self._held:
                    self._fetch_on(partition)
                await asyncio.sleep(_RETRY_S)

    async def _fetch_once(self, client: AIOKafkaConsumer) -> None:
        self._room.clear()
        if self._messages.size > self._settings.fetch_bytes // 2 or self._failure is not None:
            await self._room.wait()
            return
        await self._find_beginnings(client)
        if not client._fetcher._records:
            await self._wait_for_records(client)
            if self._is_doubted:
                await self._installation.claim(again=True)
                self._is_doubted = False
            if self._loop.time() - self._ids_read_s > METADATA_AGE_S:
                await self._check_logs(self._log_ids)
            return
        fetched: dict[TopicPartition, Sequence[Any]] = {}
        fetching = dict(self._fetching)
        # One by one, so that an error can be attributed to its partition.
        for at in list(client._fetcher._records):
            try:
                if records := await self._fetched(client, at):
                    fetched[self._own(at)] = records
            except NoOffsetForPartitionError:
                continue  # before `_take_grant` has set the position
            except (OffsetOutOfRangeError, TopicAuthorizationFailedError) as error:
                await self._halt_outside(client, self._own(at), error)
            except Exception as error:  # damaged bytes can raise any error in a decoder
                if _has_stopped(client):
                    raise
                await self._halt_damaged(client, self._own(at), error)
        if fetched:
            same = await self._check_logs({partition.topic for partition in fetched})
            self._alive_at_s = self._loop.time()
            for partition, records in fetched.items():
                if self._fetching.get(partition) != fetching.get(partition):
                    continue  # sought, paused or revoked meanwhile: fetched from its new position
                if partition.topic in same:
                    self._keep(partition, records)
                else:
                    self._fetch_on(partition)
            self._woken.set()
            if any(partition.topic not in same for partition in fetched):
                await asyncio.sleep(_RETRY_S)

    async def _wait_for_records(self, client: AIOKafkaConsumer) -> None:
        """Wait until aiokafka has fetched messages, at most a second. Raises the error of the membership."""
        client._coordinator.check_errors()
        waiter = client._fetcher._create_fetch_waiter()
        room = asyncio.ensure_future(self._room.wait())
        try:
            await asyncio.wait([waiter, room], timeout=_FETCH_TURN_S, return_when=asyncio.FIRST_COMPLETED)
            if waiter.done() and not waiter.cancelled():
                waiter.result()
        finally:
            waiter.cancel()
            room.cancel()
        if _has_stopped(client):
            raise KafkaError("the consumer has stopped")

    async def _fetched(self, client: AIOKafkaConsumer, at: KafkaPartition) -> Sequence[Any]:
        """The fetched records of a partition; returns those before a damaged one first."""
        if at not in self._one_by_one:
            try:
                fetched: dict[KafkaPartition, Sequence[Any]] = await client.getmany(at)
                return fetched.get(at, ())
            except (KafkaError, WindvaneError) as error:
                if _has_stopped(client) or isinstance(
                    error, NoOffsetForPartitionError | OffsetOutOfRangeError | TopicAuthorizationFailedError
                ):
                    raise
            except Exception:
                pass  # raised by a decoder
            # aiokafka has dropped the records before the damage, and fetches them again.
            self._one_by_one.add(at)
            return ()
        records: list[Any] = []
        try:
            while at in client._fetcher._records:
                records += (await client.getmany(at, max_records=1)).get(at, ())
        except Exception:
            if not records or _has_stopped(client):
                self._one_by_one.discard(at)
                raise
            client.seek(at, records[-1].offset + 1)  # so that the next fetch starts with the damaged record
        else:
            if records:
                self._one_by_one.discard(at)
        return records

    async def _find_beginnings(self, client: AIOKafkaConsumer) -> None:
        """Replace `BEGINNING` by the first offset that the log has."""
        wanted = [
            at for at, offset in self._fetched_to.items() if offset == BEGINNING and self._is_fetched(at)
        ]
        if not wanted:
            return
        firsts = await client.beginning_offsets([self._kafka(at) for at in wanted])
        for partition in wanted:
            if self._fetched_to.get(partition) == BEGINNING:
                self._fetched_to[partition] = firsts[self._kafka(partition)]
                self._fetch_on(partition)

    async def _check_logs(self, topics: Collection[str]) -> set[str]:
        """Halt the partitions of topics that were deleted and recreated since the assignment.

        Returns those of `topics` whose log is unchanged: records fetched before the call belong to this log.
        """
        found = await self._read_log_ids(topics)
        self._ids_read_s = self._loop.time()
        replaced = {
            topic: log_id
            for topic, log_id in found.items()
            if topic in self._log_ids and self._log_ids[topic] != log_id
        }
        for topic, log_id in replaced.items():
            held = [at for at in self._held if at.topic == topic]
            firsts = await self._require_client().beginning_offsets([self._kafka(at) for at in held])
            self._log_ids[topic] = log_id
            for partition in held:
                offset = self._next_offset(partition)
                self._drop_messages(partition)
                self._halt(partition, log_replaced(partition, offset, first=firsts[self._kafka(partition)]))
        return {topic for topic, log_id in found.items() if self._log_ids.get(topic) == log_id} - set(
            replaced
        )

    async def _halt_outside(
        self, client: AIOKafkaConsumer, partition: TopicPartition, error: KafkaError
    ) -> None:
        offset = self._fetched_to.get(partition)
        if offset is None or offset == BEGINNING or partition in self._halted:
            return
        if isinstance(error, TopicAuthorizationFailedError):
            self._halt(partition, not_permitted(self._connection, partition, offset, error))
            self._loop.call_later(READ_AGAIN_S, self._read_again, partition)
            return
        fetching = self._fetching.get(partition)
        await self._check_logs({partition.topic})
        reason = await outside_log(client, self._kafka(partition), partition, offset)
        if self._fetching.get(partition) != fetching:
            return
        if reason is None:
            self._fetch_on(partition)
        else:
            self._halt(partition, reason)

    async def _halt_damaged(
        self, client: AIOKafkaConsumer, partition: TopicPartition, error: Exception
    ) -> None:
        offset = self._fetched_to.get(partition)
        if offset is None or partition in self._halted:
            return
        fetching = self._fetching.get(partition)
        reason = await damaged(client, self._connection, self._kafka(partition), partition, offset)
        if reason is None and isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
            raise error  # an error of the group or the connection
        if self._fetching.get(partition) != fetching:
            return
        if reason is None:
            self._fetch_on(partition)
            await asyncio.sleep(_RETRY_S)
        else:
            self._halt(partition, reason)

    def _read_again(self, partition: TopicPartition) -> None:
        if isinstance(self._halted.get(partition), PartitionUnreadable):
            del self._halted[partition]
            self._fetch_on(partition)

    def _halt(self, partition: TopicPartition, error: PartitionHalted) -> None:
        self._halted[partition] = error
        self._fetch_on(partition)
        self._woken.set()
        _log.error("reading of %s/%d has halted: %s", partition.topic, partition.partition, error)

    def _keep(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        if partition not in self._fetched_to or partition in self._paused or partition in self._halted:
            return
        self._messages.add(
            partition,
            [BusMessage(partition, each.offset, each.key or b"", each.value or b"") for each in records],
        )
        self._fetched_to[partition] = records[-1].offset + 1

    def _drop_messages(self, partition: TopicPartition) -> None:
        self._messages.drop(partition)
        self._room.set()

    def _next_offset(self, partition: TopicPartition) -> int:
        waiting = self._messages.first_offset(partition)
        return max(self._fetched_to.get(partition, 0), 0) if waiting is None else waiting

    def _take(self, max_bytes: int) -> list[BusMessage]:
        messages = self._messages.take(max_bytes, self._topics)
        if messages:
            self._room.set()
        return messages

    # Requests and connection

    def _require_client(self) -> AIOKafkaConsumer:
        if self._client is None:
            raise self._failure or BusUnavailable(f"{self._connection.where} is not connected yet")
        return self._client

    def _check_held(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            if partition not in self._held:
                raise BusUnavailable(
                    f"{partition.topic}/{partition.partition} is not (or no longer) assigned to this consumer"
                )

    async def _ask(self, request: Awaitable[_Result], what: str) -> _Result:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await request
        except (KafkaError, OSError, TimeoutError) as error:
            if isinstance(error, WindvaneError):
                raise
            raise BusUnavailable(f"{what}: {self._connection.explain(error)}") from error

    async def _check_alive(self) -> None:
        """Raise if an empty poll has a cause other than a lack of messages: the brokers do not answer."""
        client = self._client
        if client is None:
            if self._failure is not None:
                raise self._failure
            return
        fetched = [client.last_poll_timestamp(at) for at in client.assignment()]
        now_s = self._loop.time()
        newest = max((stamp for stamp in fetched if stamp), default=0)
        if newest > self._newest_fetch:
            self._newest_fetch = newest
            self._alive_at_s = now_s
        if now_s - self._alive_at_s > SILENCE_S:
            await self._connection.check()
            self._alive_at_s = now_s

    _newest_fetch = 0


class _JoinListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka's listener; only the start of a join is used."""

    def __init__(self, before_joining: Callable[[], Awaitable[None]]) -> None:
        self._before_joining = before_joining

    async def on_partitions_revoked(self, revoked: object) -> None:
        await self._before_joining()

    async def on_partitions_assigned(self, assigned: object) -> None:
        pass


def _has_stopped(client: AIOKafkaConsumer) -> bool:
    """Whether the client has stopped, so that another one is needed."""
    return bool(client._coordinator._coordination_task.done() or client._fetcher.error_future.done())
