"""A process that publishes or reads on an embedded bus until it is killed.

`bus_process.py publish HOME FIRST_NUMBER` publishes numbered messages and prints `number offset` once each is
durable. `bus_process.py read HOME TOPIC` prints `partition offset value` of each message as it arrives.
"""

import asyncio
import itertools
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from windvane.bus import TopicPartition, open_bus

TOPIC = "numbers"
URL = "embedded:?segment_bytes=2000000&retention_bytes=1000000000000"
IN_FLIGHT = 24


def key_of(number: int) -> bytes:
    return b"key %d" % (number % 5)


def value_of(number: int) -> bytes:
    """Bytes unique to this number; one in six is large, so that a kill may interrupt its write."""
    sizes = random.Random(number)
    size = sizes.randrange(1_500_000) if number % 6 == 0 else sizes.randrange(2000)
    return b"%d " % number + random.Random(-number - 1).randbytes(16) * (size // 16)


class FromTheBeginning:
    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        return {}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        return None


async def publish(home: Path, first_number: int) -> None:
    bus = open_bus(URL, home)
    await bus.ensure_topic(TOPIC, partitions=2)
    producer = bus.producer()
    numbers = itertools.count(first_number)

    async def one_at_a_time() -> None:
        for number in numbers:
            offset = await producer.publish(TOPIC, key_of(number), b"", value_of(number))
            os.write(1, b"%d %d\n" % (number, offset))

    await asyncio.gather(*(one_at_a_time() for _ in range(IN_FLIGHT)))


async def read(home: Path, topic: str) -> None:
    consumer = open_bus("embedded:", home).consumer("process", FromTheBeginning())
    consumer.subscribe([topic])
    os.write(1, b"ready\n")
    while True:
        for message in await consumer.poll(timeout_s=60):
            partition = message.topic_partition.partition
            os.write(1, b"%d %d %s\n" % (partition, message.offset, message.value))


if __name__ == "__main__":
    mode, home_directory, argument = sys.argv[1:]
    if mode == "publish":
        asyncio.run(publish(Path(home_directory), int(argument)))
    else:
        asyncio.run(read(Path(home_directory), argument))
