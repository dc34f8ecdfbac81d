"""A restored home after a power cut: it is whole, or it says that it is not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from windvane.commands.backups.backup_folder import BackupFolder
from windvane.commands.backups.home_backup import HomeBackup
from windvane.commands.backups.home_restore import restore_home
from windvane.config import Settings
from windvane.errors import ConfigInvalid
from windvane.home import require_whole_home
from windvane.store.catalog.catalog import Catalog

from tests.durability import recording_disk
from tests.durability.power_cut import PowerCut
from tests.durability.proof import IS_PROOF, sample
from tests.durability.recording_disk import RecordingDisk
from tests.durability.test_worker import (
    CHUNKS,
    contents_of,
    home_at,
    life,
    send,
    size_of,
    undisturbed,
    until_size,
)

pytestmark = pytest.mark.slow


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield catalog
    await catalog.close()


@pytest.fixture
async def backup(tmp_path: Path, catalog: Catalog) -> Path:
    """A backup of a home with a stream, three arrays, a bus and chunks behind the last checkpoint."""
    home = tmp_path / "home"
    home.mkdir()
    await life(RecordingDisk(home), catalog)
    with BackupFolder.locked(tmp_path / "backup", home=home) as folder:
        HomeBackup(Settings(home=home), folder).run()
    return tmp_path / "backup"


def is_home(home: Path) -> bool:
    """Whether a tier would start on what is there."""
    try:
        require_whole_home(home)
    except ConfigInvalid:
        return False
    return home.is_dir() and any(home.iterdir())


async def test_a_power_cut_leaves_no_home_or_the_whole_home(
    tmp_path: Path, backup: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A restore writes databases as it writes all other files.
    monkeypatch.setattr(recording_disk, "_DATABASE_FILES", ())
    root = tmp_path / "recorded"
    root.mkdir()
    disk = RecordingDisk(root)
    with disk.recording():
        restore_home(backup, Settings(home=root / "home"))
    whole = content_of(root)
    power_cut = PowerCut(disk.steps)
    homes = 0
    for stop in range(len(disk.steps) + 1):
        cuts = list(power_cut.cuts(stop, seed=1, single_losses=3))
        for number, cut in enumerate(cuts if IS_PROOF else sample(cuts, seed=stop, least=3)):
            after = tmp_path / f"after-{stop}-{number}"
            cut.tree.write_to(after)
            if is_home(after / "home"):
                homes += 1
                assert content_of(after) == whole, cut.how
    assert is_home(root / "home")
    assert homes
    expected = await undisturbed(tmp_path / "undisturbed", catalog)
    async with home_at(root / "home", catalog) as home:
        async with home.working():
            await send(home, CHUNKS)
            await until_size(home, size_of(CHUNKS + 1))
        assert contents_of(home.store) == expected


def content_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
