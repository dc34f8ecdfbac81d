"""A producer that takes nothing while the disk is full: the log leaves room for the databases."""

import asyncio

from ..bus.interface import Buffer, Durability, Producer
from ..errors import BusUnavailable, DiskReserveUsed
from ..runtime.disk_space import DiskWatch

LOOK_BYTES = 8 * 1024 * 1024


class GuardedProducer(Producer):
    """Publishes through another producer as long as `disk` has room beyond its reserve.

    Who watches the disk looks once a second; the producer looks by itself after every `LOOK_BYTES`, so that
    a second of fast senders does not use the reserve up.
    """

    def __init__(self, producer: Producer, disk: DiskWatch) -> None:
        self.max_message_bytes = producer.max_message_bytes
        self._producer = producer
        self._disk = disk
        self._since_look_bytes = 0

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """See `Producer.publish`; the future fails with DiskReserveUsed while there is no room."""
        self._since_look_bytes += sum(map(len, value))
        try:
            if self._since_look_bytes >= LOOK_BYTES:
                self._since_look_bytes = 0
                self._disk.check()  # one statvfs, a few microseconds
            self._disk.require_room()
        except (DiskReserveUsed, OSError) as error:
            rejected: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            rejected.set_exception(
                error if isinstance(error, DiskReserveUsed) else BusUnavailable(str(error))
            )
            return rejected
        return self._producer.publish(topic, key, *value, durability=durability)

    @property
    def pending_bytes(self) -> int:
        """See `Producer.pending_bytes`."""
        return self._producer.pending_bytes

    async def close(self) -> None:
        """See `Producer.close`."""
        await self._producer.close()
