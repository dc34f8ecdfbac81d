"""Reprocessing and a power cut: the old outputs count until the commit, the new ones from then on."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from windvane.processors.worker.reprocessing.reprocess import Reprocessing
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.files.store import Store

from tests.durability.file_tree import Step
from tests.durability.power_cut import Cut, PowerCut
from tests.durability.proof import no_real_syncs, sample
from tests.durability.recording_disk import RecordingDisk
from tests.durability.test_worker import home_at, send, size_of, until_size
from tests.processors.worker.test_worker import PCM, SPECTRUM

pytestmark = pytest.mark.slow

CHUNKS = 3
BEFORE = [PCM, SPECTRUM]
AFTER = [PCM, {**SPECTRUM, "length": 32}]


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield catalog
    await catalog.close()


def rows_of(path: Path, output: str) -> tuple[bytes, bytes]:
    with Store(path / "store", segment_bytes=4096) as store, store.array(f"t:{output}") as array:
        return array[:].tobytes(), array.times_ns[:].tobytes()


def reprocess(path: Path, disk: RecordingDisk | None = None) -> None:
    policy = policy_from_mapping({"reference": "p", "tags": ["t"], "format": "raw", "pipeline": AFTER})
    with (
        closing(SqlCheckpointDatabase(path / "checkpoints.sqlite")) as checkpoints,
        Store(path / "store", segment_bytes=4096) as store,
        Reprocessing(store, "t", policy, checkpoints) as again,
    ):
        if disk is not None:
            disk.mark("begun")
        again.run()
        again.put_in_place(lambda: None)
        if disk is not None:
            disk.mark("in place")


async def worked_on(path: Path, catalog: Catalog, pipeline: list[dict[str, object]], chunks: int) -> None:
    """Chunks under a policy, all of them committed."""
    path.mkdir(exist_ok=True)
    async with home_at(path, catalog) as home:
        await home.policy("p", tags=["t"], format="raw", pipeline=pipeline)
        async with home.working():
            done = home.store.stream("t").size if home.store.streams() else 0
            for number in range(chunks):
                if size_of(number) >= done:
                    await send(home, number)
            await until_size(home, size_of(chunks))


@pytest.fixture
async def disk(tmp_path: Path, catalog: Catalog) -> RecordingDisk:
    """A home whose reprocessing was recorded."""
    await worked_on(tmp_path / "home", catalog, BEFORE, CHUNKS)
    disk = RecordingDisk(tmp_path / "home")
    with disk.recording():
        reprocess(disk.root, disk)
    return disk


def commit_of(steps: Sequence[Step]) -> int:
    """Where the new outputs are committed."""
    begun = [step.path for step in steps].index("begun")
    [commit] = [i for i in range(begun, len(steps)) if steps[i].kind == "commit"]
    return commit


async def test_new_outputs_are_durable_then_committed_then_put_in_place(disk: RecordingDisk) -> None:
    steps = disk.steps
    commit = commit_of(steps)
    assert not [str(steps[i]) for i in PowerCut(steps).uncovered(commit) if "~rebuilt" in steps[i].path]
    renames = [
        (i, step) for i, step in enumerate(steps) if step.kind == "rename" and "/arrays/" in step.target
    ]
    in_place = [(i, step) for i, step in renames if step.path.count("~rebuilt") and "meta" not in step.path]
    assert {step.target.rpartition("/")[2] for _, step in in_place} == {"samples", "spectrum"}
    assert all(i > commit for i, _ in in_place)
    for i, step in in_place:  # the old one is set aside, never overwritten
        assert (steps[i - 1].kind, steps[i - 1].target) == ("rename", f"{step.target}~1")


async def check(
    cut: Cut,
    path: Path,
    catalog: Catalog,
    *,
    is_committed: bool,
    old: dict[str, tuple[bytes, bytes]],
    new: dict[str, tuple[bytes, bytes]],
) -> None:
    cut.tree.write_to(path)
    if not is_committed:
        for output in ("samples", "spectrum"):
            assert rows_of(path, output) == old[output], f"{output} is not what it was"
        reprocess(path)  # again, as its user would
    await worked_on(path, catalog, AFTER, CHUNKS + 1)
    for output in ("samples", "spectrum"):
        assert rows_of(path, output) == new[output], f"{output} differs"


async def test_every_power_cut_leaves_the_old_outputs_or_the_new_ones(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog
) -> None:
    old = {output: rows_of(disk.root, f"{output}~1") for output in ("samples", "spectrum")}
    await worked_on(tmp_path / "undisturbed", catalog, AFTER, CHUNKS + 1)
    new = {output: rows_of(tmp_path / "undisturbed", output) for output in ("samples", "spectrum")}
    power_cut, commit = PowerCut(disk.steps), commit_of(disk.steps)
    begun = [step.path for step in disk.steps].index("begun")
    seen: set[int] = set()
    around = range(commit - 2, len(disk.steps) + 1)  # where names change: all of them in any case
    for stop in sorted({*sample(range(begun, len(disk.steps) + 1), seed=2, least=6), *around}):
        cuts = list(power_cut.cuts(stop, seed=2, single_losses=2))
        for number, cut in enumerate(sample(cuts, seed=stop, least=3)):
            state = hash((stop > commit, tuple(sorted(cut.tree.snapshot().items()))))
            if state in seen:
                continue
            seen.add(state)
            home = tmp_path / f"after-{stop}-{number}"
            with no_real_syncs():
                try:
                    await check(cut, home, catalog, is_committed=stop > commit, old=old, new=new)
                except BaseException as error:
                    before = "\n".join(f"{i} {step}" for i, step in enumerate(disk.steps[begun:stop], begun))
                    error.add_note(f"after {cut.stop} steps, {cut.how}; the steps:\n{before}")
                    raise
            shutil.rmtree(home)
    print(f"{len(seen)} states after a power cut while reprocessing: old outputs or new ones, none mixed")
