"""The positions that the group has committed on the cluster, and the ends of its logs."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from aiokafka import OffsetAndMetadata

from ....errors import BusUnavailable
from ...interface import TopicPartition
from .group_client import GroupClient


class GroupPositions:
    """Commits positions and reads them; those of another database than `positions_of` are ignored.

    Kafka stores a text with each position: it is the identity of the database.
    """

    def __init__(self, client: GroupClient, *, positions_of: str | None) -> None:
        self._client = client
        self._positions_of = positions_of or ""

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Store the positions; see `Consumer.commit`."""
        offsets = {
            self._client.kafka_partition(at): OffsetAndMetadata(offset, self._positions_of)
            for at, offset in positions.items()
        }

        async def put() -> None:
            async with self._client.membership:
                # The public `commit` rejects partitions that are being revoked.
                await self._client.require()._coordinator.commit_offsets(None, offsets)

        await self._client.request(put(), "the positions cannot be committed")

    async def starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The committed positions, otherwise the first offsets of the logs."""
        return await self._client.request(self._read_starts(partitions), "the positions cannot be read")

    async def _read_starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        client = self._client.require()
        places = {partition: self._client.kafka_partition(partition) for partition in partitions}
        committed = await client._coordinator.fetch_committed_offsets(list(places.values()))
        ours = {at: kept for at, kept in committed.items() if kept.metadata == self._positions_of}
        fresh = [at for at in places.values() if at not in ours]
        firsts = await client.beginning_offsets(fresh) if fresh else {}
        return {partition: ours[at].offset if at in ours else firsts[at] for partition, at in places.items()}

    async def ends(
        self, partitions: Collection[TopicPartition], *, paused: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """The ends of the logs, from the last fetch of each; reads those of paused and unfetched partitions.

        If the brokers that lead them do not answer, their last known ends, or none.
        """
        client = self._client.require()
        ends: dict[TopicPartition, int] = {}
        for partition in partitions:
            if self._client.is_fetched(partition):
                end = client.highwater(self._client.kafka_partition(partition))
                if end is not None:
                    ends[partition] = end
        unknown = [at for at in partitions if at not in ends or at in paused]
        if unknown:
            with suppress(BusUnavailable):
                places = [self._client.kafka_partition(at) for at in unknown]
                asked = await self._client.request(client.end_offsets(places), "the lag cannot be read")
                ends.update({self._client.bus_partition(at): end for at, end in asked.items()})
        return ends
