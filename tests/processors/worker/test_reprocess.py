"""Outputs recomputed from the stored stream: equal, also while data arrives and after a crash."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.errors import OperationFailed, PolicyInvalid, RowsWouldBeLost, StoreLocked
from windvane.processors.worker.pipeline.archive import json_lines
from windvane.processors.worker.reprocessing.reprocess import Reprocessing
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.interfaces import CheckpointDatabase
from windvane.store.files.store import Store

from tests.processors.worker.test_worker import PCM, SPECTRUM, Home
from tests.store.files.resumed import resumed

PIPELINE = [PCM, SPECTRUM, {"operation": "features", "window": 100, "bands": 2}]


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
    home: Home, checkpoints: CheckpointDatabase, settings: dict[str, Any], records: list[Any]
) -> None:
    await home.policy("p", tags=["t"], **settings)
    for record in records:
        await home.publish("p", record, record)
    async with home.working():
        await home.until_stored(len(records))
    with Reprocessing(home.store, "t", policy(**settings), checkpoints) as again:
        again.run()
        assert not again.failed
        made = again.rows
    assert made
    for output in made:
        assert contents(home, f"t:{output}~rebuilt") == contents(home, f"t:{output}")


async def test_a_changed_policy_s_outputs_take_the_place_of_the_old_ones_and_grow_on(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=PIPELINE)
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    changed = [PCM, {**SPECTRUM, "length": 32}, PIPELINE[2]]
    await home.policy("p", tags=["t"], format="raw", pipeline=changed)
    with (
        Reprocessing(home.store, "t", policy(pipeline=changed), checkpoints) as again,
    ):
        again.run()
        again.put_in_place(lambda: None)
    assert home.store.array("t:spectrum").shape == (1 + (1000 - 32) // 16, 17)
    assert home.store.array("t:spectrum~1").shape == (1 + (1000 - 64) // 32, 33)

    await home.publish("p", noise(1000, 1))
    async with home.working():
        await home.until_stored(1)
    assert len(home.store.array("t:spectrum")) == 1 + (2000 - 32) // 16
    assert len(home.store.array("t:features")) == 20
    with Reprocessing(home.store, "t", policy(pipeline=changed), checkpoints) as afresh:
        afresh.run()
    for output in ("spectrum", "features", "samples"):
        assert contents(home, f"t:{output}") == contents(home, f"t:{output}~rebuilt")


async def test_a_running_worker_hands_the_stream_over_and_takes_it_back(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
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
            with Reprocessing(home.store, "t", policy(pipeline=changed), checkpoints) as again:
                again.run()
                asyncio.run_coroutine_threadsafe(more(), loop).result(20)
                again.put_in_place(let_go)

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


async def test_a_stream_with_new_chunks_is_not_released_without_a_commit(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, the bus accepts published rows late: a checkpoint takes longer than the stream is
    released.
    """
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", noise(100, 0))
    async with home.working():
        await home.until_stored(1)
        checkpoint = home.worker.checkpoint

        async def late_checkpoint() -> None:
            await checkpoint()
            await home.worker.release("t", seconds=0)
            await home.publish("p", noise(100, 1))
            await home.until_stored(2)

        with monkeypatch.context() as patched:
            patched.setattr(home.worker, "checkpoint", late_checkpoint)
            await home.worker.release("t", seconds=20)
        await home.publish("p", noise(100, 2))
        await home.until_stored(3)
    assert home.stream() == b"".join(noise(100, n) for n in range(3))
    assert home.store.array("t:samples")[:].tobytes() == home.stream()


async def test_killed_between_the_commit_and_the_renaming_the_new_outputs_take_their_place(
    home: Home, checkpoints: CheckpointDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    changed = [PCM, {**SPECTRUM, "length": 32}]
    await home.policy("p", tags=["t"], format="raw", pipeline=changed)
    with (
        monkeypatch.context() as patched,
        Reprocessing(home.store, "t", policy(pipeline=changed), checkpoints) as again,
    ):
        patched.setattr(type(home.store), "put_rebuilt_in_place", _killed)
        again.run()
        with pytest.raises(KeyboardInterrupt):
            again.put_in_place(lambda: None)
    assert home.store.array("t:spectrum").row_shape == (33,)

    await home.publish("p", noise(16, 1))
    async with home.working():
        await home.until_stored(1)
    assert home.store.array("t:spectrum").shape == (2 + (1000 - 32) // 16, 17)


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


async def test_outputs_that_cannot_be_recomputed_are_reported(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[])
    await home.publish("p", b"x")
    async with home.working():
        await home.until_stored(1)
    with pytest.raises(PolicyInvalid, match="no pipeline"):
        Reprocessing(home.store, "t", policy(), checkpoints)
    with (
        Reprocessing(home.store, "t", policy(pipeline=[{"operation": "fields"}]), checkpoints) as again,
        pytest.raises(PolicyInvalid, match="keeps their bytes only"),
    ):
        again.run()


async def test_without_a_checkpoint_nothing_is_replaced(home: Home, checkpoints: CheckpointDatabase) -> None:
    with resumed(home.store.stream_writer("t", attrs={})) as writer:
        writer.append(noise(10), arrived_ns=1, chunk_id=None, events=1)
    with Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as again:
        again.run()
        with pytest.raises(OperationFailed, match="has no checkpoint yet"):
            again.put_in_place(lambda: None)


async def test_chunks_after_the_last_checkpoint_are_reprocessed_once(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", noise(100, 0))
    async with home.working():
        await home.until_stored(1)
    # A worker that was killed after a chunk, before its checkpoint: the bus redelivers the chunk.
    with resumed(home.store.stream_writer("t", attrs=home.store.stream("t").attrs)) as writer:
        writer.append(noise(100, 1), arrived_ns=1, chunk_id=None, events=0)
    await home.publish("p", noise(100, 1))
    with Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as again:
        again.run()
        again.put_in_place(lambda: None)
    async with home.working():
        await home.until_stored(1)
    assert home.stream() == noise(100, 0) + noise(100, 1)
    assert home.store.array("t:samples")[:].tobytes() == noise(100, 0) + noise(100, 1)


async def test_another_run_after_one_that_was_killed_behind_its_commit_loses_nothing(
    home: Home, checkpoints: CheckpointDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", noise(100, 0))
    async with home.working():
        await home.until_stored(1)
    with (
        monkeypatch.context() as patched,
        Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as again,
    ):
        patched.setattr(type(home.store), "put_rebuilt_in_place", _killed)
        again.run()
        with pytest.raises(KeyboardInterrupt):
            again.put_in_place(lambda: None)
    with Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as beside:
        beside.run()
        committed = checkpoints.stream("t")
        assert committed is not None
        with home.store.array("t:samples") as array:
            assert array.uid == committed.outputs["t:samples"].uid
            assert array[:].tobytes() == noise(100, 0)
    await home.publish("p", noise(100, 1))
    async with home.working():
        await home.until_stored(1)
    assert home.store.array("t:samples")[:].tobytes() == noise(100, 0) + noise(100, 1)


async def test_two_at_once_do_not_touch_each_other_s_outputs(
    home: Home, checkpoints: CheckpointDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one starts at the worst moment: the first one has committed and closed its outputs."""
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", noise(100, 0))
    async with home.working():
        await home.until_stored(1)
    with (
        Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as first,
        Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as second,
    ):
        first.run()
        with pytest.raises(StoreLocked):
            second.run()
        with monkeypatch.context() as patched:
            patched.setattr(type(home.store), "put_rebuilt_in_place", _killed)
            with pytest.raises(KeyboardInterrupt):
                first.put_in_place(lambda: None)
        first.close()
        with pytest.raises(OperationFailed, match="another"):
            second.run()
    with home.store.array("t:samples~rebuilt") as array:
        assert array[:].tobytes() == noise(100, 0)


async def test_the_new_outputs_are_on_the_disk_before_the_commit_and_the_swap_before_older_ones_go(
    home: Home, checkpoints: CheckpointDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", noise(100, 0))
    async with home.working():
        await home.until_stored(1)
    done: list[str] = []

    def note(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def noted(*given: Any, **named: Any) -> Any:
            result = call(*given, **named)
            if result != []:
                done.append(name)
            return result

        monkeypatch.setattr(owner, name, noted)

    note(home.store, "sync")
    note(checkpoints, "commit")
    note(home.store, "put_rebuilt_in_place")
    note(home.store, "drop_superseded")
    for dropped in ([], ["drop_superseded"]):
        done.clear()
        with Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as again:
            again.run()
            again.put_in_place(lambda: None)
        assert done == ["sync", "commit", "put_rebuilt_in_place", "sync", *dropped]


FIELDS: dict[str, Any] = {"format": "json", "pipeline": [{"operation": "fields"}]}


async def test_records_without_a_json_form_give_the_same_rows_when_reprocessed(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    await home.policy("p", tags=["t"], **FIELDS)
    records = [
        {"v": 1.0, "photo": {"base64": "hello"}},
        {"v": math.inf, "photo": {"base64": "aGk="}},
        {"v": -math.inf, 1: 2},
        {"v": -0.0, "1": 2},
        {"v": math.nan},
        {"v": 2**63},
    ]
    for record in records:
        await home.publish("p", record, record)
    async with home.working():
        await home.until_stored(len(records))
    before = contents(home, "t:fields")
    with Reprocessing(home.store, "t", policy(**FIELDS), checkpoints) as again:
        again.run()
        again.put_in_place(lambda: None)
        assert not again.failed
    assert contents(home, "t:fields") == before


def damaged_lines(events: Any) -> bytes:
    """As on a file system that has lost a page."""
    return json_lines(events).replace(b'"bad"', b"\0\0\0\0\0")


async def archived_with_damage(home: Home, monkeypatch: pytest.MonkeyPatch, *chunks: tuple[Any, ...]) -> None:
    monkeypatch.setattr("windvane.processors.worker.pipeline.chunk_inputs.json_lines", damaged_lines)
    await home.policy("p", tags=["t"], **FIELDS)
    for records in chunks:
        await home.publish("p", *records)
    async with home.working():
        await home.until_stored(len(chunks))


async def test_rows_that_would_be_lost_are_reported_and_the_old_outputs_stay(
    home: Home, checkpoints: CheckpointDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archived_with_damage(home, monkeypatch, ({"v": 1},), ({"v": 2, "s": "bad"}, {"v": 3}), ({"v": 4},))
    before = contents(home, "t:fields")
    with Reprocessing(home.store, "t", policy(**FIELDS), checkpoints) as again:
        again.run()
        assert "events" in again.failed
        with pytest.raises(
            RowsWouldBeLost, match=r"lose 2 of 4 rows of t:fields \(gone\); step 'events' failed"
        ):
            again.put_in_place(lambda: None)
    assert contents(home, "t:fields") == before
    assert not home.store.replaced("t")
    await home.publish("p", {"v": 5})
    async with home.working():
        await home.until_stored(1)
    assert len(home.store.array("t:fields")) == 5

    with Reprocessing(home.store, "t", policy(**FIELDS), checkpoints) as again:
        again.run()
        again.put_in_place(lambda: None, force=True)
    assert home.store.array("t:fields")[:, 0].tolist() == [1, 4, 5]
    assert home.store.array("t:fields~1")[:, 0].tolist() == [1, 2, 3, 4, 5]


async def test_numbers_lost_by_an_older_archive_are_reported_as_lost(
    home: Home, checkpoints: CheckpointDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windvane.processors.worker.pipeline.archive.is_plain", lambda record: True)
    await archived_with_damage(home, monkeypatch, ({"v": 2}, {"v": math.inf}, {"v": math.nan}))
    with Reprocessing(home.store, "t", policy(**FIELDS), checkpoints) as again:
        again.run()
        with pytest.raises(RowsWouldBeLost, match=r"lose 1 of 3 rows of t:fields \(with NaN for a number\)"):
            again.put_in_place(lambda: None)
    assert home.store.array("t:fields")[:, 0].tolist()[:2] == [2, math.inf]


async def test_another_window_may_give_fewer_rows(home: Home, checkpoints: CheckpointDatabase) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    longer = policy(pipeline=[PCM, {**SPECTRUM, "length": 500}])
    with Reprocessing(home.store, "t", longer, checkpoints) as again:
        again.run()
        again.put_in_place(lambda: None)
    assert len(home.store.array("t:spectrum")) < len(home.store.array("t:spectrum~1"))


async def test_reprocessing_starts_at_the_first_complete_chunk_after_dropped_data(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    store = Store(home.path / "store", segment_bytes=4096)
    chunks = [noise(500, n) for n in range(10)]
    with resumed(store.stream_writer("t", attrs={})) as writer:
        for data in chunks:
            writer.append(data, arrived_ns=1, chunk_id=None, events=1)
        writer.drop_before(5000)
        assert writer.size == 10_000
    with Reprocessing(store, "t", policy(pipeline=[PCM]), checkpoints) as again:
        again.run()
        assert not again.failed
    assert store.array("t:samples~rebuilt")[:].tobytes() == b"".join(chunks[5:])


async def test_the_latest_array_replaced_by_reprocessing_is_kept(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=PIPELINE)
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    kept = []
    for length in (32, 16, 64, 128):
        before = contents(home, "t:spectrum")
        changed = [PCM, {**SPECTRUM, "length": length, "overlap": 0.0}]
        with Reprocessing(home.store, "t", policy(pipeline=changed), checkpoints) as again:
            again.run()
            again.put_in_place(lambda: None)
        [reference] = [each for each in home.store.replaced("t") if each.startswith("t:spectrum~")]
        assert reference in again.set_aside
        assert contents(home, reference) == before
        assert home.store.replaced("t")[reference].by == "reprocess"
        kept.append(reference)
    # Only the first policy made "features": no reprocessing has replaced it.
    assert [each for each in home.store.arrays("t") if "samples" not in each] == [
        "t:features",
        "t:spectrum",
        kept[-1],
    ]


@pytest.mark.parametrize(
    "killed_in", ["before the commit", "put_rebuilt_in_place", "sync", "drop_superseded", "rmtree"]
)
async def test_killed_at_any_step_one_older_output_is_there_and_the_next_time_removes_what_was_left(
    home: Home, checkpoints: CheckpointDatabase, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)

    def reprocess() -> None:
        with Reprocessing(home.store, "t", policy(pipeline=[PCM]), checkpoints) as again:
            again.run()
            again.put_in_place(lambda: None)

    expected = contents(home, "t:samples")
    reprocess()
    [first] = home.store.replaced()
    with monkeypatch.context() as patched:
        if killed_in == "rmtree":
            patched.setattr("shutil.rmtree", _killed)
        elif killed_in == "before the commit":
            patched.setattr(checkpoints, "commit", _killed)
        elif killed_in == "sync":
            syncs = []

            def sync() -> None:
                syncs.append(1)
                if len(syncs) == 2:  # the one after the commit
                    raise KeyboardInterrupt

            patched.setattr(home.store, "sync", sync)
        else:
            patched.setattr(home.store, killed_in, _killed)
        with pytest.raises(KeyboardInterrupt):
            reprocess()
    assert contents(home, "t:samples") == expected
    # Nothing is removed before its replacement is durable.
    assert (first in home.store.replaced()) == (killed_in != "rmtree")
    assert all(contents(home, each) == expected for each in home.store.replaced())

    reprocess()
    [reference] = home.store.replaced()
    assert contents(home, reference) == contents(home, "t:samples") == expected
    folder = home.store.array_directory("t:samples").parent
    assert sorted(each.name for each in folder.iterdir()) == ["samples", reference.removeprefix("t:")]


async def test_an_output_replaced_by_another_layout_is_not_an_older_output(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    """A worker sets all rows aside when the policy changes; a reprocessing replaces only the rows since."""
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    old = contents(home, "t:spectrum")
    changed = [PCM, {**SPECTRUM, "length": 32}]
    await home.policy("p", tags=["t"], format="raw", pipeline=changed)
    await home.publish("p", noise(100, 1))
    async with home.working():
        await home.until_stored(1)
    for _ in range(3):
        with Reprocessing(home.store, "t", policy(pipeline=changed), checkpoints) as again:
            again.run()
            again.put_in_place(lambda: None)
    causes = {name: each.by for name, each in home.store.replaced().items() if "spectrum" in name}
    assert sorted(map(str, causes.values())) == ["layout", "reprocess"]
    assert contents(home, next(name for name, by in causes.items() if by == "layout")) == old


async def test_a_step_that_cannot_be_created_fails_the_reprocessing_at_its_start(
    home: Home, checkpoints: CheckpointDatabase
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", noise(1000))
    async with home.working():
        await home.until_stored(1)
    impossible = [PCM, {**SPECTRUM, "window": "no such window"}]
    with pytest.raises(PolicyInvalid, match="window"):
        Reprocessing(home.store, "t", policy(pipeline=impossible), checkpoints)
