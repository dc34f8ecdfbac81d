"""Rows traced back to the bytes that they came from, and computed again, over stores that a worker wrote."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.processors.worker.pipeline.pipeline_changes import policy_digest
from windvane.processors.worker.reprocessing.recomputation import recompute
from windvane.processors.worker.reprocessing.reprocess import Reprocessing
from windvane.processors.worker.reprocessing.row_origin import find_origin
from windvane.processors.worker.reprocessing.row_replay import KnownPolicies, KnownPolicy
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.committed import committed_checkpoint
from windvane.store.databases.interfaces import CheckpointDatabase
from windvane.store.row_origin import RowOrigin

from tests.processors.worker.test_worker import PCM, SPECTRUM, Home

FEATURES = {"operation": "features", "window": 100, "bands": 2}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


@pytest.fixture
def checkpoints(home: Home) -> Iterator[CheckpointDatabase]:
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        yield checkpoints


def policy(**settings: Any) -> Any:
    return policy_from_mapping({"reference": "p", "tags": ["t"], "format": "raw", **settings})


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(-999, 999, count).astype("<i2").tobytes()


def origin(home: Home, reference: str, row: int, policies: KnownPolicies | None = None) -> RowOrigin:
    committed = committed_checkpoint(home.path / "checkpoints.sqlite", reference.partition(":")[0])
    return find_origin(home.store, reference, row, committed, policies or {})


def different(home: Home, policies: KnownPolicies | None = None, **options: Any) -> dict[str, Any]:
    """The arrays of the stream that differ from what is computed again: how many rows, and the first."""
    committed = committed_checkpoint(home.path / "checkpoints.sqlite", "t")
    found = recompute(home.store, "t", committed, policies or {}, **options)
    assert found
    assert not any(each.reason for each in found), found
    return {each.array: (each.different, each.first) for each in found if not each.is_equal}


def flip(path: Path, value: bytes, *, at: int = 0) -> None:
    """Flips one bit of the file below `path` that has `value`, in its byte `at`."""
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        data = file.read_bytes()
        if (found := data.find(value)) >= 0:
            with file.open("r+b") as opened:
                opened.seek(found + at)
                opened.write(bytes([data[found + at] ^ 0x10]))
            return
    raise AssertionError(f"no file below {path} has it")


async def test_a_spectrum_came_from_the_bytes_of_its_frame(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    for n in range(5):
        await home.publish("p", noise(777, n), chunk_id=f"id{n}".encode())
    async with home.working():
        await home.until_stored(5)
    for row in (0, 1, 40, 100):
        found = origin(home, "t:spectrum", row)
        assert found.is_equal, found.difference
        assert (found.bytes.start, found.bytes.stop) == (row * 32 * 2, (row * 32 + 64) * 2)
        assert found.direct == found.bytes
        first, last = row * 64 // 1554, (row * 64 + 127) // 1554
        assert [chunk.number for chunk in found.chunks] == list(range(first, last + 1))
        assert {(chunk.id, chunk.sender) for chunk in found.chunks} == {
            (f"id{number}", "s") for number in range(first, last + 1)
        }
        assert [step.name for step in found.steps] == ["spectrum", "samples"]
        assert found.steps[0].version is not None


@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_a_row_of_fields_came_from_its_event_of_a_chunk_with_several(home: Home, form: Any) -> None:
    await home.policy("p", tags=["t"], format=form, pipeline=[{"operation": "fields", "fields": ["a"]}])
    for n in range(3):
        await home.publish("p", *({"a": 10.0 * n + k, "text": "é" * k} for k in range(4)))
    async with home.working():
        await home.until_stored(3)
    stream = home.store.stream("t")
    for row in range(12):
        found = origin(home, "t:fields", row)
        assert found.is_equal, found.difference
        data = stream.read(found.bytes.start, found.bytes.stop - found.bytes.start)
        record = json.loads(data)["record"] if form == "json" else msgpack.unpackb(data)[1]
        assert record["a"] == 10.0 * (row // 4) + row % 4
        assert [chunk.number for chunk in found.chunks] == [row // 4]


async def test_events_in_another_order_lead_to_where_they_are_stored(home: Home) -> None:
    fields = {"operation": "fields", "fields": ["a"]}
    await home.policy("p", tags=["t"], format="msgpack", reorder_s=5.0, pipeline=[fields])
    order = [2, 0, 1, 5, 3, 4, 20, 21]
    for n in order:
        await home.publish("p", {"a": float(n)}, at_s=1_790_000_000 + n)
    async with home.working():
        await home.until_stored(len(order))
    array = home.store.array("t:fields")
    assert array[:, 0].tolist() == sorted(array[:, 0].tolist())
    assert len(array) >= 6
    stream = home.store.stream("t")
    for row in range(len(array)):
        found = origin(home, "t:fields", row)
        assert found.is_equal, found.difference
        data = stream.read(found.bytes.start, found.bytes.stop - found.bytes.start)
        assert msgpack.unpackb(data)[1]["a"] == array[row, 0]
    assert different(home) == {}


async def test_senders_are_recorded_where_they_change_and_over_a_restart(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    for n, sender in enumerate(["a", "a", "b"]):
        await home.publish("p", noise(100, n), sender=sender)
    async with home.working():
        await home.until_stored(3)
    await home.publish("p", noise(100, 4), sender="b")
    await home.publish("p", noise(100, 5), sender="a")
    async with home.working():
        await home.until_stored(2)
    found = [origin(home, "t:samples", row).chunks[0].sender for row in (0, 100, 200, 300, 400)]
    assert found == ["a", "a", "b", "b", "a"]


async def test_a_flipped_bit_of_a_row_is_found_with_its_origin(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM, FEATURES])
    for n in range(5):
        await home.publish("p", noise(777, n))
    async with home.working():
        await home.until_stored(5)
    assert different(home) == {}
    with home.store.array("t:features") as array:
        row = array[17].tobytes()
    flip(home.store.array_directory("t:features"), row, at=11)
    found = different(home)
    assert found.keys() == {"t:features"}
    count, first = found["t:features"]
    assert (count, first.row, first.is_equal) == (1, 17, False)
    assert (first.bytes.start, first.bytes.stop) == (17 * 200, 18 * 200)
    assert "the row was damaged" in first.difference
    assert all(chunk.is_intact for chunk in first.chunks)


async def test_a_flipped_bit_of_the_archive_is_found_and_is_said_to_be_there(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, FEATURES])
    for n in range(3):
        await home.publish("p", noise(777, n))
    async with home.working():
        await home.until_stored(3)
    flip(home.store.stream("t").directory, noise(777, 1)[400:800], at=1)
    found = different(home)
    assert found["t:samples"][0] == 1
    count, first = found["t:features"]
    assert (count, first.row) == (1, (777 + 200) // 100)
    assert "archive of chunk 1 is damaged" in first.difference


async def test_some_rows_are_compared_and_the_replay_ends_with_the_last_of_them(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, FEATURES])
    for n in range(3):
        await home.publish("p", noise(1000, n))
    async with home.working():
        await home.until_stored(3)
    committed = committed_checkpoint(home.path / "checkpoints.sqlite", "t")
    (one,) = recompute(home.store, "t", committed, {}, arrays=["t:features"], sample=4)
    assert (one.rows, one.rows_total, one.is_equal) == (4, 30, True)
    (every,) = recompute(home.store, "t", committed, {}, arrays=["t:features"], sample=400)
    assert every.rows == 30


async def test_rows_of_several_revisions_of_a_policy_are_computed_by_theirs(home: Home) -> None:
    first = policy(pipeline=[PCM, FEATURES, SPECTRUM])
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, FEATURES, SPECTRUM])
    await home.publish("p", noise(1050))
    async with home.working():
        await home.until_stored(1)
    changed = [PCM, FEATURES, {**SPECTRUM, "length": 32}]
    await home.policy("p", tags=["t"], format="raw", pipeline=changed)
    await home.publish("p", noise(1050, 1))
    async with home.working():
        await home.until_stored(1)
    known = {policy_digest(first): KnownPolicy(7, first)}
    assert different(home, known) == {}
    # The features continued with their state; the spectrum has started another array.
    found = origin(home, "t:features", 10, known)
    assert found.is_equal
    assert (found.bytes.start, found.bytes.stop) == (2000, 2200)
    found = origin(home, "t:spectrum", 0, known)
    assert found.is_equal, found.difference
    assert (found.bytes.start, found.bytes.stop) == (2100, 2164)
    assert (found.policy.revision, found.policy.since_chunk) == (None, 1)
    assert origin(home, "t:samples", 0, known).policy.revision == 7


async def test_reprocessed_rows_were_computed_by_the_policy_of_the_reprocessing(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    await home.publish("p", noise(1000), sender="a")
    async with home.working():
        await home.until_stored(1)
    changed = [PCM, {**SPECTRUM, "length": 32}]
    await home.policy("p", tags=["t"], format="raw", pipeline=changed)
    with Reprocessing(home.store, "t", policy(pipeline=changed), checkpoints) as again:
        again.run()
        again.put_in_place(lambda: None)
    found = origin(home, "t:spectrum", 3)
    assert found.is_equal, found.difference
    assert (found.bytes.start, found.bytes.stop) == (96, 160)
    assert found.chunks[0].sender == "a"
    assert different(home) == {}


@pytest.mark.system
async def test_rows_of_models_that_were_trained_meanwhile_are_not_said_to_be_equal(home: Home) -> None:
    trained = {"operation": "trained_model", "first_after_rows": 10, "every_rows": 10}
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, FEATURES, trained])
    await home.publish("p", noise(1500))
    async with home.working():
        await home.until_stored(1)
    # As if a model had been taken: another score than that of the replay, which has none.
    scores = home.store.array("t:trained_model")[:].tobytes()
    flip(home.store.array_directory("t:trained_model"), scores, at=3)
    committed = committed_checkpoint(home.path / "checkpoints.sqlite", "t")
    found = {each.array: each for each in recompute(home.store, "t", committed, {})}
    assert found["t:features"].is_equal
    one = found["t:trained_model"]
    assert not one.is_equal
    assert one.rows == one.rows_total - 1
    assert "cannot be computed again: they used models of step 'trained_model'" in one.reason
