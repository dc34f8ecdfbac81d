"""Chunks that are sent until they are acked under every disturbance, and their expected results."""

import asyncio
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
from windvane.lab import connect

from tests.processes import Running, wait_until, windvane

POLICY = """
[[policy]]
reference = "park"
tags = ["park.**"]
format = "raw"
partitions = {partitions}

[[policy.pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 6400.0

[[policy.pipeline]]
operation = "spectrum"
length = 512
dtype = "float64"

[[policy.pipeline]]
operation = "features"
window = 1280

[[policy.pipeline]]
operation = "model"
estimator = "river.anomaly.HalfSpaceTrees"
"""
FAST_CHECKPOINTS = {"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": "0.3"}


@dataclass(frozen=True)
class Chunk:
    """One forward message of one stream."""

    tag: str
    message: bytes
    chunk_id: bytes


def chunks_of(tag: str, count: int) -> list[Chunk]:
    """Always the same chunks for the same tag; odd piece sizes, so that no piece ends at a boundary."""
    random_source = np.random.default_rng(sum(tag.encode()))
    chunks = []
    for number in range(count):
        events = b""
        for event in range(3):
            piece = random_source.normal(0, 2000, 701).astype("<i2").tobytes()[: 1301 + event]
            time = msgpack.ExtType(0, struct.pack(">II", 1_790_000_000 + number, event))
            events += msgpack.packb([time, {"message": piece}])
        chunk_id = f"{tag}-{number:06}".encode()
        message = msgpack.packb([tag, events, {"size": 3, "chunk": chunk_id.decode()}])
        chunks.append(Chunk(tag, message, chunk_id))
    return chunks


class Release:
    """Limits how many chunks of each stream may be sent so far: new ones are in flight at every kill."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = asyncio.Condition()

    async def allow(self, count: int) -> None:
        async with self._changed:
            self._count = count
            self._changed.notify_all()

    async def wait_for(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._count)


async def send_until_acked(port: Running, chunks: list[Chunk], release: Release) -> None:
    """As fluentd does: one chunk in flight, resent with the same ID until it is acked."""
    acked = 0
    while acked < len(chunks):
        try:
            reader, writer = await asyncio.open_connection(*port.forward)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        try:
            while acked < len(chunks):
                await release.wait_for(acked)
                chunk = chunks[acked]
                writer.write(chunk.message)
                await writer.drain()
                expected = msgpack.packb({"ack": chunk.chunk_id.decode()})
                assert await reader.readexactly(len(expected)) == expected
                acked += 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def results(home: Path) -> dict[str, bytes]:
    """Every byte of every stream and array, with dtype, shape and row times."""
    found: dict[str, bytes] = {}
    context = connect(home)
    for reference in context.streams:
        stream = context.streams[reference]
        found[reference] = stream[:]
    for reference in context.arrays:
        array = context.arrays[reference]
        described = f"{array.dtype} {array.shape}"
        found[f"{reference} {described}"] = np.asarray(array).tobytes() + array.times.tobytes()
    return found


def make_policy(home: Path, *, partitions: int) -> None:
    """The policy of all streams here."""
    home.mkdir(exist_ok=True)
    (home / "park.toml").write_text(POLICY.format(partitions=partitions))
    applied = windvane(home, "apply", str(home / "park.toml"))
    assert applied.returncode == 0, applied.stderr.decode()


def sizes_of(chunks: Mapping[str, list[Chunk]]) -> dict[str, int]:
    """Bytes of each stream once all of it is stored."""
    return {tag: sum(1301 + event for event in range(3)) * len(of_tag) for tag, of_tag in chunks.items()}


def wait_until_stored(workers: Sequence[Running], home: Path, sizes: Mapping[str, int]) -> None:
    """Waits until all streams have their size and every worker is idle."""

    def all_stored() -> bool:
        context = connect(home)
        return all(
            tag in context.streams and context.streams[tag].size == size for tag, size in sizes.items()
        )

    def nothing_left() -> bool:
        return all(worker.status()["lag_messages"] == 0 for worker in workers)

    wait_until(lambda: all_stored() and nothing_left(), "all that was acked is stored", timeout_s=120)


async def kill_while_sending(
    gateway: Running,
    worker: Running,
    chunks: Mapping[str, list[Chunk]],
    *,
    rounds: int,
    seed: int,
    disturb: Callable[[int], None] = lambda turn: None,
) -> None:
    """Starts both and sends all chunks, each until it is acked; kills one or both in each round.

    `disturb` is called with the number of the round, from 1, before its kill. Returns when all is stored and
    both have ended.
    """
    gateway.start()
    worker.start()
    count = max(map(len, chunks.values()))
    release = Release(0)
    sending = [
        asyncio.ensure_future(send_until_acked(gateway, of_tag, release)) for of_tag in chunks.values()
    ]
    chance = random.Random(seed)
    for turn in range(1, rounds + 1):
        await release.allow(count * turn // (rounds + 1))
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        await asyncio.to_thread(disturb, turn)
        victims = chance.choice([[gateway], [worker], [gateway, worker]])
        for victim in victims:
            victim.kill()
        for victim in victims:
            await asyncio.to_thread(victim.start)
    # Some are sent after the last kill: without an append a stream shows the length before the kill.
    await release.allow(count)
    await asyncio.gather(*sending)
    await asyncio.to_thread(wait_until_stored, [worker], worker.home, sizes_of(chunks))
    assert gateway.stop() == 0
    assert worker.stop() == 0


async def undisturbed_results(home: Path, chunks: Mapping[str, list[Chunk]]) -> dict[str, bytes]:
    """The results of the chunks without a disturbance, on the embedded bus."""
    make_policy(home, partitions=2)
    with Running("gateway", home) as gateway, Running("worker", home) as worker:
        await asyncio.gather(
            *(send_until_acked(gateway, of_tag, Release(len(of_tag))) for of_tag in chunks.values())
        )
        await asyncio.to_thread(wait_until_stored, [worker], home, sizes_of(chunks))
    found = results(home)
    assert len(found) == 5 * len(chunks), "a stream and four arrays for each tag"
    return found
