"""The catalog after a power cut: a stored document survives, an alarm is in the outbox or in the catalog."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from windvane.processors.alarms.relay import AlarmRelay
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamCheckpoint

from tests.durability.power_cut import PowerCut
from tests.durability.recording_disk import RecordingDisk
from tests.store.catalog.test_alarms import event


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    (tmp_path / "home").mkdir()
    return RecordingDisk(tmp_path / "home")


@pytest.fixture
async def recorded(disk: RecordingDisk) -> AsyncIterator[Catalog]:
    """A catalog on the recorded disk."""
    with disk.recording():
        catalog = await Catalog.open(_url(disk.root))
        yield catalog
        await catalog.close()


def _url(home: Path) -> str:
    return f"sqlite+aiosqlite:///{home / 'catalog.sqlite'}"


async def alarms_at(home: Path) -> tuple[int, int]:
    """How many wait in the outbox, and how many are in the catalog."""
    catalog = await Catalog.open(_url(home))
    with closing(SqlCheckpointDatabase(home / "checkpoints.sqlite")) as checkpoints:
        found = len(checkpoints.outbox()), len(await catalog.list("alarm", limit=10))
    await catalog.close()
    return found


async def test_a_document_that_was_put_survives_a_power_cut(
    tmp_path: Path, disk: RecordingDisk, recorded: Catalog
) -> None:
    await recorded.put("stream", "t", body={"tag": "t"})
    disk.mark("put")
    put = next(i for i, step in enumerate(disk.steps) if step.path == "put")
    assert all(step.succeeded for step in disk.steps if step.kind == "commit")
    for number, cut in enumerate(PowerCut(disk.steps).cuts(put, seed=0)):
        cut.tree.write_to(tmp_path / str(number))
        catalog = await Catalog.open(_url(tmp_path / str(number)))
        assert (await catalog.get("stream", "t")).body == {"tag": "t"}, cut.how
        await catalog.close()


async def test_an_alarm_leaves_the_outbox_when_it_is_durable_in_the_catalog(
    tmp_path: Path, disk: RecordingDisk, recorded: Catalog
) -> None:
    with closing(SqlCheckpointDatabase(disk.root / "checkpoints.sqlite")) as checkpoints:
        raised = msgspec.msgpack.encode(event(3, "raised", 1))
        checkpoints.commit(
            positions={}, streams={"t": StreamCheckpoint(alarms=(raised,))}, chunk_keys={}, window=0
        )
        disk.mark("raised")
        await AlarmRelay(checkpoints, recorded).empty()
        disk.mark("recorded")
    begin, end = (
        next(i for i, step in enumerate(disk.steps) if step.path == mark) for mark in ("raised", "recorded")
    )
    found = []
    for stop in range(begin, end + 1):
        home = tmp_path / str(stop)
        PowerCut(disk.steps).tree(stop, lambda i, p: False).write_to(home)
        found.append(await alarms_at(home))
    assert set(found) <= {(1, 0), (1, 1), (0, 1)}, "an alarm is lost"
    assert (found[0], found[-1]) == ((1, 0), (0, 1))
