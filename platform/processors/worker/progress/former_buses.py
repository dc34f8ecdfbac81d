"""The buses that a home used before: their remaining chunks are processed before the current bus is read.

A home can change its bus: from the embedded log to Kafka, to another cluster or prefix, and back. Chunks that
were acked before the change may not be read yet. So the worker reads each former bus to its end first, which
also keeps the order of every tag. `HOME/buses.json` has the addresses; credentials are those of the settings.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from ....bus import open_bus
from ....bus.interface import WORKER_GROUP, Bus, TopicPartition
from ....bus.topic_names import is_chunk_topic
from ....config import KafkaSettings, Settings
from ....directories import sync_directory
from ....errors import OperationFailed, WindvaneError
from ....runtime.instrumentation import EventLog
from ....store.databases.interfaces import CheckpointDatabase
from .instrumentation import FormerBusFound, FormerBusUnreadable

REACH_TIMEOUT_S = 15.0
"""How long a former bus may take to answer before it is left for the next start."""
STALLED_S = 30.0
"""How long no chunk of a former bus may be stored before the bus is left for the next start."""
_LOOK_S = 0.1
_log = EventLog(logging.getLogger("windvane.worker"))

RunWorker = Callable[[Bus, asyncio.Event], Awaitable[None]]
"""Runs a worker on a bus until the event is set."""


def _identity(url: str, kafka: KafkaSettings) -> dict[str, str]:
    """The identity of a bus; for Kafka, it includes the prefix of the topics."""
    if url.startswith("kafka:"):
        return {"url": url, "topic_prefix": kafka.topic_prefix}
    return {"url": url.partition("?")[0]}


def former_buses(settings: Settings) -> list[dict[str, str]]:
    """Returns the former buses of this home; records the current one durably. Raises OSError."""
    path = settings.home / "buses.json"
    known: list[dict[str, str]] = []
    with suppress(FileNotFoundError, ValueError):
        known = [each for each in json.loads(path.read_text()) if isinstance(each, dict) and "url" in each]
    embedded = _identity("embedded:", settings.kafka)
    if embedded not in known and (settings.home / "bus").is_dir():
        known.insert(0, embedded)  # from a version without the file
    present = _identity(settings.bus, settings.kafka)
    if not settings.bus.startswith("discard:"):
        if present not in known:
            _remember(path, [*known, present])
        # Always: a worker that was killed may have renamed the file just before.
        sync_directory(settings.home)
    return [each for each in known if each != present]


def _remember(path: Path, known: list[dict[str, str]]) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(known, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


async def finish_former_buses(
    settings: Settings, checkpoints: CheckpointDatabase, run_worker: RunWorker, *, stop: asyncio.Event
) -> dict[str, str]:
    """Reads every former bus to its end; returns those that could not be read, with the reason."""
    unread: dict[str, str] = {}
    for former in await asyncio.to_thread(former_buses, settings):
        url = former["url"]
        if stop.is_set():
            break
        try:
            await _finish(former, settings, checkpoints, run_worker, stop)
        except (WindvaneError, OSError, TimeoutError) as error:
            unread[url] = str(error) or f"it did not answer within {REACH_TIMEOUT_S:g} s"
            _log.emit(FormerBusUnreadable(url, unread[url]))
    return unread


async def _finish(
    former: Mapping[str, str],
    settings: Settings,
    checkpoints: CheckpointDatabase,
    run_worker: RunWorker,
    stop: asyncio.Event,
) -> None:
    kafka = settings.kafka
    if "topic_prefix" in former:
        kafka = msgspec.structs.replace(kafka, topic_prefix=former["topic_prefix"])
    bus = open_bus(former["url"], settings.home, kafka)
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            await bus.prepare(groups=[WORKER_GROUP])
            left = await _left(bus, checkpoints)
        if not left:
            return
        count = sum(left.values())
        _log.emit(FormerBusFound(former["url"], count))
        ended = asyncio.Event()
        working = asyncio.ensure_future(run_worker(bus, ended))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            moved_s = time.monotonic()
            while left and not working.done() and not stop.is_set():
                await asyncio.wait([working, stopping], timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                before, left = left, await _left(bus, checkpoints)
                if left != before:
                    moved_s = time.monotonic()
                elif time.monotonic() - moved_s > STALLED_S:
                    raise OperationFailed(
                        f"{sum(left.values())} of its messages cannot be stored now: a stream or a partition "
                        "has stopped, which the log names, or retention has dropped them"
                    )
        finally:
            stopping.cancel()
            ended.set()
            await working
    finally:
        await bus.close()


async def _left(bus: Bus, checkpoints: CheckpointDatabase) -> dict[TopicPartition, int]:
    """Returns the number of messages of each partition that no checkpoint covers."""
    topics = [topic for topic in await bus.topics() if is_chunk_topic(topic)]
    logs = await bus.log_ids(topics)
    ends = await bus.ends(topics)
    committed = await asyncio.to_thread(checkpoints.logs)
    left = {
        key: end - committed.get(logs[key.topic], {}).get(key, 0)
        for key, end in ends.items()
        if key.topic in logs
    }
    return {key: count for key, count in left.items() if count > 0}
