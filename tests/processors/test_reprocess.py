"""Outputs made again from the stream as it is kept: equal, while data arrives, and whole after a crash."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.reprocess import Reprocessing
from windvane.store.catalog import Catalog
from windvane.store.checkpoint import CheckpointStore
from windvane.store.policy import policy_from_mapping

from tests.processors.test_worker import PCM, SPECTRUM, Home

PIPELINE = [PCM, SPECTRUM, {"operation": "features", "window": 100, "bands": 2}]


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


def policy(**settings: Any) -> Any:
    return policy_from_mapping({"reference": "p", "tags": ["t"], "format": "raw", **settings})


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(-999, 999, count).astype("<i2").tobytes()


def contents(home: Home, reference: str) -> tuple[bytes, list[int]]:
    with home.store.array(reference) as array:
        return array[:].tobytes(), array.times_ns[:].tolist()


@pytest.mark.parametrize(
    ("settings", "records"),
    [
        ({"format": "raw", "pipeline": PIPELINE}, [noise(777, n) for n in range(5)]),
        (
            {"format": "json", "pipeline": [{"operation": "fields"}]},
            [{"a": 1.5, "b": n, "text": "é"} for n in range(5)],
        ),
        ({"format": "msgpack", "pipeline": [{"operation": "fields"}]}, [{"a": n} for n in range(5)]),
    ],
)
async def test_the_same_policy_makes_the_same_outputs_with_the_same_times(
    home: Home, settings: dict[str, Any], records: list[Any]
) -> None:
    await home.policy("p", tags=["t"], **settings)
    for record in records:
        await home.publish("p", record, record)
    async with home.working():
        await home.until_stored(len(records))
    with Reprocessing(home.store, "t", policy(**settings)) as again:
        again.run()
        assert not again.failed
        made = again.rows
    assert made
    for output in made:
        assert contents(home, f"t:{output}~rebuilt") == contents(home, f"t:{output}")


async def test_a_changed_policy_s_outputs_take_the_place_of_the_old_ones_and_grow_on(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=PIPELINE)
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    changed = [PCM, {**SPECTRUM, "length": 32}, PIPELINE[2]]
    await home.policy("p", tags=["t"], format="raw", pipeline=changed)
    with (
        Reprocessing(home.store, "t", policy(pipeline=changed)) as again,
    ):
        again.run()
        checkpoints = CheckpointStore(home.path / "checkpoints.sqlite")
        again.put_in_place(checkpoints, lambda: None)
        checkpoints.close()
    assert home.store.array("t:spectrum").shape == (1 + (1000 - 32) // 16, 17)
    assert home.store.array("t:spectrum~1").shape == (1 + (1000 - 64) // 32, 33)

    await home.publish("p", noise(1000, 1))
    async with home.working():
        await home.until_stored(1)
    assert len(home.store.array("t:spectrum")) == 1 + (2000 - 32) // 16
    assert len(home.store.array("t:features")) == 20
    with Reprocessing(home.store, "t", policy(pipeline=changed)) as afresh:
        afresh.run()
    for output in ("spectrum", "features", "samples"):
        assert contents(home, f"t:{output}") == contents(home, f"t:{output}~rebuilt")


async def test_a_running_worker_hands_the_stream_over_and_takes_it_back(home: Home) -> None:
    changed = [PCM, {**SPECTRUM, "length": 32}]
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    async with home.working(checkpoint_interval_s=0.05):
        for n in range(20):
            await home.publish("p", noise(500, n))
        await home.until_stored(20)
        await home.worker.checkpoint()
        await home.policy("p", tags=["t"], format="raw", pipeline=changed)
        loop = asyncio.get_running_loop()

        def let_go() -> None:
            asyncio.run_coroutine_threadsafe(home.worker.release("t", seconds=20), loop).result(20)

        def rebuild() -> None:
            with Reprocessing(home.store, "t", policy(pipeline=changed)) as again:
                again.run()
                asyncio.run_coroutine_threadsafe(more(), loop).result(20)
                checkpoints = CheckpointStore(home.path / "checkpoints.sqlite")
                again.put_in_place(checkpoints, let_go)
                checkpoints.close()

        async def more() -> None:
            for n in range(20, 40):
                await home.publish("p", noise(500, n))

        await asyncio.to_thread(rebuild)
        await home.worker.release("t", seconds=0)
        await home.until_stored(40)
    samples = b"".join(noise(500, n) for n in range(40))
    assert home.stream() == samples
    assert home.store.array("t:samples")[:].tobytes() == samples
    assert home.store.array("t:spectrum").shape == (1 + (20_000 - 32) // 16, 17)


async def test_killed_between_the_commit_and_the_renaming_the_new_outputs_take_their_place(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    changed = [PCM, {**SPECTRUM, "length": 32}]
    await home.policy("p", tags=["t"], format="raw", pipeline=changed)
    checkpoints = CheckpointStore(home.path / "checkpoints.sqlite")
    with monkeypatch.context() as patched, Reprocessing(home.store, "t", policy(pipeline=changed)) as again:
        patched.setattr(type(home.store), "put_rebuilt_in_place", _killed)
        again.run()
        with pytest.raises(KeyboardInterrupt):
            again.put_in_place(checkpoints, lambda: None)
    checkpoints.close()
    assert home.store.array("t:spectrum").row_shape == (33,)

    await home.publish("p", noise(16, 1))
    async with home.working():
        await home.until_stored(1)
    assert home.store.array("t:spectrum").shape == (2 + (1000 - 32) // 16, 17)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


async def test_what_cannot_be_made_again_is_said(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[])
    await home.publish("p", b"x")
    async with home.working():
        await home.until_stored(1)
    with pytest.raises(PolicyInvalid, match="no pipeline"):
        Reprocessing(home.store, "t", policy())
    with (
        Reprocessing(home.store, "t", policy(pipeline=[{"operation": "fields"}])) as again,
        pytest.raises(PolicyInvalid, match="keeps their bytes alone"),
    ):
        again.run()


async def test_without_a_checkpoint_nothing_is_replaced(home: Home) -> None:
    with home.store.stream_writer("t", attrs={}) as writer:
        writer.append(noise(10), arrived_ns=1, chunk_id=None, events=1)
    checkpoints = CheckpointStore(home.path / "checkpoints.sqlite")
    with Reprocessing(home.store, "t", policy(pipeline=[PCM])) as again:
        again.run()
        with pytest.raises(OperationFailed, match="has no checkpoint yet"):
            again.put_in_place(checkpoints, lambda: None)
    checkpoints.close()
