"""The worker, reprocessing and the lab on a store that has no files: nothing knows which engine it has."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.errors import CheckpointMissing
from windvane.lab.context import Context
from windvane.processors.worker.reprocessing.reprocess import Reprocessing
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.interface import StoreAddress
from windvane_memory_store import MemoryStore

from tests.processors.worker.test_worker import PCM, SPECTRUM, Home

STEPS = [PCM, SPECTRUM, {"operation": "features", "window": 100, "bands": 2}]
OUTPUTS = ("samples", "spectrum", "features")


@asynccontextmanager
async def home_in_memory(path: Path, *, is_memory: bool) -> AsyncIterator[Home]:
    path.mkdir()
    bus = open_bus("embedded:", path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{path / 'catalog.sqlite'}")
    home = Home(path, bus, bus.producer(), catalog)
    if is_memory:
        home.store.close()
        home.store = MemoryStore.open(StoreAddress("memory:", path))  # type: ignore[assignment]
    yield home
    await catalog.close()
    await bus.close()


@pytest.fixture
async def homes(tmp_path: Path) -> AsyncIterator[dict[str, Home]]:
    """One with the store in its directory, one with a store in memory."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(home_in_memory(tmp_path / name, is_memory=name == "memory"))
            for name in ("local", "memory")
        }


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(-999, 999, count).astype("<i2").tobytes()


def contents(home: Home) -> dict[str, Any]:
    """All that a reader of the home sees, without what differs by chance."""
    found: dict[str, Any] = {"streams": home.store.streams(), "arrays": home.store.arrays()}
    for reference in home.store.streams():
        with home.store.stream(reference) as stream:
            arrivals = stream.arrivals[:].tobytes()
            found[reference] = (stream.read(0, stream.size), arrivals, dict(stream.attrs), stream.events)
    for reference in home.store.arrays():
        with home.store.array(reference) as array:
            rows = array[:].tobytes(), array.times_ns[:].tobytes()
            found[reference] = (array.dtype, array.shape, dict(array.attrs), rows)
    return found


async def process(home: Home) -> None:
    """Chunks by two workers, the first of which is killed after its first checkpoint."""
    await home.policy("p", tags=["t"], format="raw", pipeline=STEPS)
    await home.publish("p", noise(1000, 1), chunk_id=b"1")
    async with home.working():
        await home.until_stored(1)
    await home.publish("p", noise(700, 2), chunk_id=b"2")
    async with home.working(dies=True):
        await home.until_stored(1)
    await home.publish("p", noise(500, 3), chunk_id=b"3")
    async with home.working():
        await home.until_stored(2)


async def test_a_pipeline_makes_the_same_outputs_also_after_a_crash(homes: dict[str, Home]) -> None:
    for home in homes.values():
        await process(home)
    local, memory = (contents(home) for home in homes.values())
    assert memory == local
    assert memory["t"][0] == noise(1000, 1) + noise(700, 2) + noise(500, 3)
    assert memory["arrays"] == ["t:features", "t:samples", "t:spectrum"]
    assert not (homes["memory"].path / "store" / "t").exists()


async def test_a_changed_policy_replaces_the_outputs_of_the_archive(homes: dict[str, Home]) -> None:
    changed = [PCM, {**SPECTRUM, "length": 32}, STEPS[2]]
    settings = {"reference": "p", "tags": ["t"], "format": "raw", "pipeline": changed}
    for home in homes.values():
        await process(home)
        await home.policy("p", tags=["t"], format="raw", pipeline=changed)
        with (
            closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints,
            Reprocessing(home.store, "t", policy_from_mapping(settings), checkpoints) as again,
        ):
            again.run()
            again.put_in_place(lambda: None)
        await home.publish("p", noise(300, 4))
        async with home.working():
            await home.until_stored(1)
    local, memory = (contents(home) for home in homes.values())
    assert memory == local
    assert memory["arrays"] == sorted(f"t:{output}{n}" for output in OUTPUTS for n in ("", "~1"))
    assert memory["t:spectrum"][1] == (1 + (2500 - 32) // 16, 17)


async def test_a_store_that_forgot_nothing_stops_a_stream_without_its_checkpoint(
    homes: dict[str, Home],
) -> None:
    home = homes["memory"]
    await process(home)
    before = contents(home)
    writer = home.store.stream_writer("t", attrs={})
    with writer, pytest.raises(CheckpointMissing):
        writer.resume(None, database_id=bytes(16))
    assert contents(home) == before


async def test_the_lab_reads_it(homes: dict[str, Home]) -> None:
    home = homes["memory"]
    await process(home)
    context = Context(home.path, home.store)
    assert list(context.streams) == ["t"]
    spectrum = context.streams["t"].arrays["spectrum"]
    assert spectrum[-3:].shape == (3, 33)
    assert len(spectrum.times) == len(spectrum)
    assert "t:spectrum" in repr(context)
