"""What the bus still has of a stream or a partition: `windvane recover` decides by it."""

import asyncio
from contextlib import closing

from ...bus import open_bus
from ...bus.embedded.bus_directory import BusDirectory
from ...bus.embedded.log_reader import LogReader
from ...bus.interface import TopicPartition
from ...bus.messages.chunks import decode_chunk
from ...config import Settings
from ...errors import ConfigInvalid, EnvelopeInvalid, PartitionHalted
from ...store.databases.checkpoint import SqlCheckpointDatabase
from ...store.interface import CHUNK_ID_BYTES

READ_BYTES = 4 * 1024 * 1024


def chunks_on_bus(
    settings: Settings, topic: str, reference: str
) -> tuple[list[tuple[str, int]], set[bytes] | None]:
    """The partitions of the topic, and the IDs of the stream's chunks in them, cut to `CHUNK_ID_BYTES` as in
    arrival records; None if the bus is not embedded.
    """
    if not settings.bus.startswith("embedded:"):
        return [(topic, number) for number in range(asyncio.run(_partition_count(settings, topic)))], None
    bus = BusDirectory(settings.home / "bus")
    partitions = bus.partitions([topic])
    ids: set[bytes] = set()
    for partition in partitions:
        offset: int | None = None
        while True:
            reader = LogReader(bus.log_path(partition), partition, offset)
            try:
                _add_chunk_ids(ids, reader, reference)
                break
            except PartitionHalted as halted:
                if halted.resume_at is None or halted.resume_at <= halted.offset:
                    break
                offset = halted.resume_at
            finally:
                reader.close()
    return [(each.topic, each.partition) for each in partitions], ids


def _add_chunk_ids(ids: set[bytes], reader: LogReader, reference: str) -> None:
    while messages := reader.read(READ_BYTES)[0]:
        for message in messages:
            try:
                chunk = decode_chunk(message.value)
            except EnvelopeInvalid:
                continue
            if chunk.tag == reference and chunk.chunk_id:
                ids.add(chunk.chunk_id[:CHUNK_ID_BYTES])


async def _partition_count(settings: Settings, topic: str) -> int:
    bus = open_bus(settings.bus, settings.home, settings.kafka)
    try:
        return (await bus.topics()).get(topic, 0)
    finally:
        await bus.close()


async def partition_extent(settings: Settings, partition: TopicPartition) -> tuple[str, int, int | None]:
    """The log of a partition, the committed position in it (0: none), and its end if it is embedded.

    Raises ConfigInvalid if the end of an embedded log is not known.
    """
    bus = open_bus(settings.bus, settings.home, settings.kafka)
    try:
        log = (await bus.log_ids([partition.topic])).get(partition.topic, "")
        end = None
        if settings.bus.startswith("embedded:"):
            end = (await bus.ends([partition.topic])).get(partition)
            if end is None:
                raise ConfigInvalid(
                    f"partition {partition.topic}/{partition.partition} does not exist, or its end is "
                    "unknown; `windvane verify` reports damage"
                )
    finally:
        await bus.close()
    with closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints:
        logs = checkpoints.logs()
    positions = logs.get(log, logs.get("", {}))
    return log, positions.get((partition.topic, partition.partition), 0), end


async def halted_partitions(settings: Settings) -> dict[TopicPartition, PartitionHalted]:
    """The partitions of the embedded log that cannot be read from their committed positions to their ends."""
    has_checkpoints = settings.database is not None or settings.checkpoint_file.exists()
    if not settings.bus.startswith("embedded:") or not has_checkpoints:
        return {}
    bus = BusDirectory(settings.home / "bus")
    found = {}
    with closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints:
        logs = checkpoints.logs()
        for partition in bus.partitions(bus.topics()):
            log = await _log_id(settings, partition.topic)
            key = (partition.topic, partition.partition)
            offset = logs.get(log, logs.get("", {})).get(key)
            given_up = checkpoints.holes(log, key)
            while True:
                reader = LogReader(bus.log_path(partition), partition, offset)
                try:
                    while reader.read(READ_BYTES)[0]:
                        pass
                except PartitionHalted as halted:
                    behind = [hole for hole in given_up if hole.first <= halted.offset < hole.resume_at]
                    if behind:
                        offset = behind[-1].resume_at
                        continue
                    found[partition] = halted
                finally:
                    reader.close()
                break
    return found


async def _log_id(settings: Settings, topic: str) -> str:
    bus = open_bus(settings.bus, settings.home, settings.kafka)
    try:
        return (await bus.log_ids([topic])).get(topic, "")
    finally:
        await bus.close()
