"""Gateways, workers and a real Kafka, killed, stopped, added and removed under load: the results are those of
an undisturbed run, and contain every acked chunk once.
"""

import asyncio
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kafka_broker import KafkaBroker
from tests.other_machine import OtherMachine, is_available
from tests.processes import Running, wait_until
from tests.system.disturbance import (
    FAST_CHECKPOINTS,
    Release,
    chunks_of,
    make_policy,
    results,
    send_until_acked,
    sizes_of,
    undisturbed_results,
    wait_until_stored,
)

CHUNKS = 350  # of each stream
STREAMS = [f"park.t{i:02}" for i in range(6)]
PARTITIONS = 4
SESSION_TIMEOUT_S = 3.0
BROKER_AWAY_S = 10.0


def kafka_environment(kafka: KafkaBroker) -> dict[str, str]:
    """A bus of the test's own on the broker."""
    return {
        "WINDVANE_BUS": f"kafka://{kafka.bootstrap}",
        "WINDVANE_KAFKA_TOPIC_PREFIX": f"{kafka.prefix()}.",
        "WINDVANE_KAFKA_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
        **FAST_CHECKPOINTS,
    }


@pytest.fixture
def inside(kafka: KafkaBroker, tmp_path: Path) -> Iterator[list[str]]:
    """Runs a command as if on another machine."""
    if not is_available():
        warnings.warn(
            "no network namespace can be made here: the second worker shares this one's network", stacklevel=1
        )
        yield []
        return
    with OtherMachine(kafka.ports["PLAINTEXT"], tmp_path) as other:
        yield other.inside


class Disturbed:
    """The processes of one installation, and the disturbances while chunks arrive."""

    def __init__(self, home: Path, kafka: KafkaBroker, inside: list[str]) -> None:
        environ = kafka_environment(kafka)
        self.kafka = kafka
        self.gateway = Running("gateway", home, "--processes", "2", environ=environ)
        self.here = Running("worker", home, environ=environ)
        self.there = Running("worker", home, environ=environ, instance="there", inside=inside)

    async def kill_the_broker(self) -> None:
        self.kafka.kill()
        await asyncio.sleep(BROKER_AWAY_S)  # the disturbance itself
        await asyncio.to_thread(self.kafka.start)

    async def kill_a_gateway(self) -> None:
        before = gateways(self.gateway)
        os.kill(before[0], signal.SIGKILL)
        await asyncio.to_thread(
            wait_until, lambda: len(set(gateways(self.gateway)) - {before[0]}) == 2, "a gateway comes back"
        )

    async def kill_a_worker(self) -> None:
        self.here.kill()
        await asyncio.to_thread(self.here.start)
        await until_partitions(self.here, PARTITIONS)

    async def add_a_worker(self) -> None:
        await asyncio.to_thread(self.there.start)
        await until_partitions(self.here, PARTITIONS // 2)
        await until_partitions(self.there, PARTITIONS // 2)

    async def remove_a_worker(self) -> None:
        assert await asyncio.to_thread(self.there.stop) == 0
        await until_partitions(self.here, PARTITIONS)

    async def stop_a_worker_for_a_while(self) -> None:
        os.kill(self.here.pid, signal.SIGSTOP)
        try:
            await until_partitions(self.there, PARTITIONS)
            await asyncio.to_thread(wait_until, lambda: self.there.status()["waits"], "a stream is held")
        finally:
            os.kill(self.here.pid, signal.SIGCONT)
        await asyncio.to_thread(wait_until, lambda: not self.there.status()["waits"], "it is released")
        await until_partitions(self.here, PARTITIONS // 2)

    async def kill_one_of_two_workers(self) -> None:
        self.there.kill()
        await until_partitions(self.here, PARTITIONS)
        await self.add_a_worker()


def gateways(pool: Running) -> list[int]:
    """The process IDs of the gateways of a pool."""
    return [int(pid) for pid in Path(f"/proc/{pool.pid}/task/{pool.pid}/children").read_text().split()]


async def until_partitions(worker: Running, count: int) -> None:
    def has_them() -> bool:
        return bool(worker.status()["partitions"] == count)

    await asyncio.to_thread(wait_until, has_them, f"{worker.instance or 'the first'} has {count} partitions")


async def test_whatever_happens_all_that_was_acked_is_stored_once(
    tmp_path: Path, kafka: KafkaBroker, inside: list[str]
) -> None:
    chunks = {tag: chunks_of(tag, CHUNKS) for tag in STREAMS}
    expected = await undisturbed_results(tmp_path / "undisturbed", chunks)
    home = tmp_path / "disturbed"
    make_policy(home, partitions=PARTITIONS)
    site = Disturbed(home, kafka, inside)
    with ExitStack() as running:
        running.enter_context(site.gateway)
        running.enter_context(site.here)
        running.callback(site.there.end)
        release = Release(0)
        sending = [
            asyncio.ensure_future(send_until_acked(site.gateway, of_tag, release))
            for of_tag in chunks.values()
        ]
        disturbances = [
            site.kill_the_broker,
            site.kill_a_gateway,
            site.kill_a_worker,
            site.add_a_worker,
            site.stop_a_worker_for_a_while,
            site.remove_a_worker,
            site.add_a_worker,
            site.kill_one_of_two_workers,
        ]
        for turn, disturb in enumerate(disturbances, start=1):
            await release.allow(CHUNKS * turn // len(disturbances))
            await disturb()
        await asyncio.gather(*sending)
        await asyncio.to_thread(wait_until_stored, [site.here, site.there], home, sizes_of(chunks))
        assert [site.gateway.stop(), site.here.stop(), site.there.stop()] == [0, 0, 0]
    found = results(home)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
