"""SIGKILL at random moments: acked chunks are stored once, and results equal those of an undisturbed run."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tests.processes import Running, wait_until
from tests.system.disturbance import (
    FAST_CHECKPOINTS,
    Release,
    chunks_of,
    kill_while_sending,
    make_policy,
    results,
    send_until_acked,
    sizes_of,
    undisturbed_results,
    wait_until_stored,
)

ROUNDS = 20
CHUNKS = 800  # of each stream
STREAMS = [f"park.t{i:02}" for i in range(4)]


@pytest.mark.parametrize("seed", [1])
async def test_twenty_kills_change_nothing(tmp_path: Path, seed: int) -> None:
    chunks = {tag: chunks_of(tag, CHUNKS) for tag in STREAMS}
    expected = await undisturbed_results(tmp_path / "undisturbed", chunks)

    disturbed = tmp_path / "disturbed"
    make_policy(disturbed, partitions=2)
    gateway = Running("gateway", disturbed)
    worker = Running("worker", disturbed, environ=FAST_CHECKPOINTS)
    await kill_while_sending(gateway, worker, chunks, rounds=ROUNDS, seed=seed)
    found = results(disturbed)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


async def test_a_second_worker_takes_over_from_one_that_was_killed_or_has_left(tmp_path: Path) -> None:
    count, turns = 120, 3
    chunks = {tag: chunks_of(tag, count) for tag in STREAMS}
    expected = await undisturbed_results(tmp_path / "undisturbed", chunks)

    disturbed = tmp_path / "disturbed"
    make_policy(disturbed, partitions=2)
    release = Release(0)
    with Running("gateway", disturbed) as gateway:
        reading = Running("worker", disturbed, environ=FAST_CHECKPOINTS, instance="a")
        standing_by = Running("worker", disturbed, environ=FAST_CHECKPOINTS, instance="b")
        reading.start()
        standing_by.start()
        sending = [
            asyncio.ensure_future(send_until_acked(gateway, of_tag, release)) for of_tag in chunks.values()
        ]
        for turn in range(1, turns + 1):
            await release.allow(count * turn // turns)
            await asyncio.to_thread(wait_until, partial(has_partitions, reading), "a worker reads")
            assert standing_by.status()["partitions"] == 0
            if turn % 2:
                reading.kill()
            else:
                assert reading.stop() == 0
            reading, standing_by = standing_by, reading
            await asyncio.to_thread(standing_by.start)
        await asyncio.gather(*sending)
        await asyncio.to_thread(wait_until_stored, [reading], disturbed, sizes_of(chunks))
        assert reading.stop() == standing_by.stop() == 0
    found = results(disturbed)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def has_partitions(worker: Running) -> bool:
    """Whether the worker has both partitions of the policy."""
    return bool(worker.status()["partitions"] == 2)
