"""Keeps a client of aiokafka running, and collects the messages that it fetches.

aiokafka fetches in the background, and keeps the records of each partition until they are taken. Taking them
only in a poll would find errors late, and one partition could use up the room of all.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, NoOffsetForPartitionError

from ....errors import BusUnavailable, ConfigInvalid, WindvaneError
from ...interface import BEGINNING, TopicPartition
from .assigned_logs import AssignedLogs
from .group_client import GroupClient, has_stopped
from .partition_reads import PartitionReads
from .read_errors import ReadErrors
from .record_reader import RecordReader

_FETCH_TURN_S = 1.0
_RETRY_S = 0.2


class Fetcher:
    """The background task of a consumer."""

    def __init__(self, client: GroupClient, reads: PartitionReads, logs: AssignedLogs) -> None:
        self._client = client
        self._reads = reads
        self._logs = logs
        self._reader = RecordReader()
        self._errors = ReadErrors(client, reads, logs)
        self._max_waiting_bytes = client.connection.settings.fetch_bytes // 2

    async def run(self) -> None:
        """Start a client, restart it after errors, and queue its messages for polls, until cancelled."""
        while True:
            try:
                await self._client.start()
                self._reads.poll_due.set()
                await self._fetch(self._client.require())
            except (KafkaError, OSError, TimeoutError) as error:
                await self._client.stop()
                self._client.failure = await self._reason_of(error)
            except WindvaneError as error:
                await self._client.stop()
                self._client.failure = error
            self._reads.poll_due.set()
            await asyncio.sleep(_RETRY_S)

    async def _reason_of(self, error: BaseException) -> WindvaneError:
        try:
            await self._client.connection.check()
        except (BusUnavailable, ConfigInvalid) as reason:
            return reason
        return self._client.connection.explain(error)

    async def _fetch(self, client: AIOKafkaConsumer) -> None:
        while True:
            try:
                await self._fetch_once(client)
            except (KafkaError, OSError, TimeoutError) as error:
                if has_stopped(client) or (isinstance(error, KafkaError) and not error.retriable):
                    raise  # `run` starts another client
                # Brokers are temporarily unavailable. Fetch again the messages that could not be checked.
                for partition in self._client.assignment.held:
                    self._reads.restart_fetch(partition)
                await asyncio.sleep(_RETRY_S)

    async def _fetch_once(self, client: AIOKafkaConsumer) -> None:
        self._reads.fetch_due.clear()
        if self._reads.waiting_bytes > self._max_waiting_bytes:
            await self._reads.fetch_due.wait()
            return
        if at_beginning := self._reads.at_beginning():
            await self._find_beginnings(client, at_beginning)
        if client._fetcher._records:
            await self._collect(client)
            return
        await self._wait_for_records(client)
        await self._client.check_owner()
        await self._logs.check_while_idle()

    async def _find_beginnings(
        self, client: AIOKafkaConsumer, partitions: Collection[TopicPartition]
    ) -> None:
        """Replace `BEGINNING` by the first offset that the log has."""
        places = {partition: self._client.kafka_partition(partition) for partition in partitions}
        firsts = await client.beginning_offsets(list(places.values()))
        for partition, at in places.items():
            if self._reads.fetched_to(partition) == BEGINNING:
                self._reads.start(partition, firsts[at])

    async def _wait_for_records(self, client: AIOKafkaConsumer) -> None:
        """Wait until aiokafka has fetched messages, at most a second. Raises the error of the membership."""
        client._coordinator.check_errors()
        waiter = client._fetcher._create_fetch_waiter()
        due = asyncio.ensure_future(self._reads.fetch_due.wait())
        try:
            await asyncio.wait([waiter, due], timeout=_FETCH_TURN_S, return_when=asyncio.FIRST_COMPLETED)
            if waiter.done() and not waiter.cancelled():
                waiter.result()
        finally:
            waiter.cancel()
            due.cancel()
        if has_stopped(client):
            raise KafkaError("the consumer has stopped")

    async def _collect(self, client: AIOKafkaConsumer) -> None:
        """Queue the fetched records of logs that are still those of the assignment."""
        restarts = self._reads.all_restarts()
        fetched = await self._read_partitions(client)
        if not fetched:
            return
        unchanged = await self._logs.check({partition.topic for partition in fetched})
        self._client.note_answer()
        for partition, records in fetched.items():
            if self._reads.restarts(partition) != restarts.get(partition, 0):
                continue  # sought, paused or revoked meanwhile: fetched from its new position
            if partition.topic in unchanged:
                self._reads.keep(partition, records)
            else:
                self._reads.restart_fetch(partition)
        self._reads.poll_due.set()
        if any(partition.topic not in unchanged for partition in fetched):
            await asyncio.sleep(_RETRY_S)

    async def _read_partitions(self, client: AIOKafkaConsumer) -> dict[TopicPartition, Sequence[Any]]:
        """The fetched records of each partition, one by one: an error belongs to one partition."""
        fetched: dict[TopicPartition, Sequence[Any]] = {}
        for at in list(client._fetcher._records):
            partition = self._client.bus_partition(at)
            try:
                if records := await self._reader.read(client, at):
                    fetched[partition] = records
            except NoOffsetForPartitionError:
                continue  # the grant has not set the position yet
            except Exception as error:  # damaged bytes can raise any error in a decoder
                await self._errors.handle(client, partition, error)
        return fetched
