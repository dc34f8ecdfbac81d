"""Takes the records of one partition that aiokafka has fetched, up to the first one that cannot be decoded.

aiokafka decodes the records of a fetch together, and drops all of them if one is damaged.
"""

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from ....errors import WindvaneError
from .group_client import has_stopped

_NOT_DAMAGE = (NoOffsetForPartitionError, OffsetOutOfRangeError, TopicAuthorizationFailedError)


class RecordReader:
    """Reads a partition with a damaged record one by one, until it has returned those before the damage."""

    def __init__(self) -> None:
        self._one_by_one: set[KafkaPartition] = set()

    async def read(self, client: AIOKafkaConsumer, at: KafkaPartition) -> Sequence[Any]:
        """The fetched records. Raises any error, if the first one cannot be read."""
        if at in self._one_by_one:
            return await self._read_up_to_damage(client, at)
        try:
            fetched: dict[KafkaPartition, Sequence[Any]] = await client.getmany(at)
            return fetched.get(at, ())
        except (KafkaError, WindvaneError) as error:
            if has_stopped(client) or isinstance(error, _NOT_DAMAGE):
                raise
        except Exception:
            pass  # raised by a decoder
        # aiokafka has dropped the records before the damage, and fetches them again.
        self._one_by_one.add(at)
        return ()

    async def _read_up_to_damage(self, client: AIOKafkaConsumer, at: KafkaPartition) -> Sequence[Any]:
        records: list[Any] = []
        try:
            while at in client._fetcher._records:
                records += (await client.getmany(at, max_records=1)).get(at, ())
        except Exception:
            if not records or has_stopped(client):
                self._one_by_one.discard(at)
                raise
            client.seek(at, records[-1].offset + 1)  # so that the next fetch starts with the damaged record
        else:
            if records:
                self._one_by_one.discard(at)
        return records
