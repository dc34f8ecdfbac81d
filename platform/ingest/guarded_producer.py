"""A producer that takes nothing while the disk is full: the log leaves room for the databases."""

import asyncio

from ..bus.interface import Buffer, Durability, Producer
from ..disk_watch import DiskWatch
from ..errors import DiskFull


class GuardedProducer(Producer):
    """Publishes through another producer as long as `disk` has room beyond its reserve."""

    def __init__(self, producer: Producer, disk: DiskWatch) -> None:
        self.max_message_bytes = producer.max_message_bytes
        self._producer = producer
        self._disk = disk

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """See `Producer.publish`; the future fails with DiskFull while there is no room."""
        if self._disk.is_full:
            refused: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            try:
                self._disk.require_room()
            except DiskFull as error:
                refused.set_exception(error)
                return refused
        return self._producer.publish(topic, key, *value, durability=durability)

    @property
    def pending_bytes(self) -> int:
        """See `Producer.pending_bytes`."""
        return self._producer.pending_bytes

    async def close(self) -> None:
        """See `Producer.close`."""
        await self._producer.close()
