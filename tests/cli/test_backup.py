"""`windvane backup` and `windvane restore` over a home whose tiers do not run."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from windvane.commands.backups import home_files
from windvane.commands.backups.backup_folder import BackupFolder
from windvane.commands.backups.home_backup import HomeBackup
from windvane.commands.backups.manifest import Manifest, read_manifest
from windvane.config import Settings, load_settings
from windvane.errors import ConfigInvalid
from windvane.home import UNFINISHED_RESTORE
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamCheckpoint
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store

from tests.cli.conftest import Run
from tests.cli.test_recovery import CHUNKS, Filled
from tests.processes import COMMAND, environment, started, wait_until
from tests.small_disk import small_disk

OLD_NS = 1_700_000_000 * 1_000_000_000


@pytest.fixture
def filled(home: Path) -> Filled:
    filled = Filled(home)
    (home / "windvane.toml").write_text("[worker]\ncheckpoint_interval_s = 1.0\n")
    (home / "token").write_text("secret\n")
    (home / "token").chmod(0o600)
    return filled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def files_of(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def back_up(home: Path, folder: Path, *, copied: Callable[[str], object]) -> Manifest:
    """A backup in this process; `copied` is called after each file and may change the home."""
    with BackupFolder.locked(folder, home=home) as into:
        return HomeBackup(Settings(home=home), into, copied=copied).run()


def restore(run: Run, folder: Path, home: Path) -> Path:
    run("restore", str(folder), "--home", str(home))
    run("verify", "--home", str(home))
    return home


def stream_of(home: Path) -> bytes:
    with Store(home / "store") as store, store.stream("t") as stream:
        return stream.read(0, stream.size)


def append_and_commit(home: Path, data: bytes) -> None:
    """What a worker does with one more chunk."""
    store = Store(home / "store")
    checkpoints = SqlCheckpointDatabase(home / "checkpoints.sqlite")
    committed = checkpoints.stream("t")
    assert committed is not None
    with store, store.stream_writer("t", attrs={"tag": "t", "policy": "p"}) as writer:
        writer.resume(committed.outputs["t"], database_id=checkpoints.database_id)
        writer.append(data, arrived_ns=CHUNKS, chunk_id=b"more", events=1)
        checkpoint = StreamCheckpoint(outputs={"t": writer.found}, partition=("p", 0))
        checkpoints.commit(
            positions={("p", 0): CHUNKS + 1}, streams={"t": checkpoint}, chunk_keys={}, window=10
        )
        writer.mark_committed(writer.found)
    checkpoints.close()


def test_a_restored_home_has_every_file_of_the_home(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    (filled.home / "run").mkdir()
    (filled.home / "run" / "worker.lock").touch()
    (filled.home / "operations").mkdir()
    (filled.home / "operations" / "own.py").write_text("# own\n")
    run("backup", str(folder))
    restored = restore(run, folder, tmp_path / "restored")
    expected = {path for path in files_of(filled.home) if not path.startswith("run/")}
    assert {path for path in files_of(restored) if ".sqlite-" not in path} == {
        path for path in expected if ".sqlite-" not in path
    }
    assert stream_of(restored) == stream_of(filled.home)
    assert (restored / "token").stat().st_mode & 0o777 == 0o600
    assert load_settings(home=restored, environment={}).worker.checkpoint_interval_s == 1.0


def test_no_other_user_can_read_a_backup_or_a_restored_home(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    run("backup", str(folder))
    restored = restore(run, folder, tmp_path / "restored")
    for directory in (folder, restored):
        assert directory.stat().st_mode & 0o077 == 0
    assert (folder / "manifest.json").stat().st_mode & 0o077 == 0


def test_what_is_committed_while_a_backup_runs_is_cut_back_to_its_checkpoint(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    """The heads are later than the checkpoint; a worker would take that for a lost checkpoint."""
    before = stream_of(filled.home)

    def commit_more(path: str) -> None:
        if path == "checkpoints.sqlite":
            append_and_commit(filled.home, b"later" * 100)

    back_up(filled.home, folder, copied=commit_more)
    restored = restore(run, folder, tmp_path / "restored")
    assert stream_of(restored) == before
    append_and_commit(restored, b"next")
    assert stream_of(restored) == before + b"next"


def test_a_stream_that_is_committed_first_while_a_backup_runs_is_left_to_the_bus(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    def make_another(path: str) -> None:
        if path != "checkpoints.sqlite":
            return
        checkpoints = SqlCheckpointDatabase(filled.home / "checkpoints.sqlite")
        with Store(filled.home / "store") as store, store.stream_writer("new", attrs={}) as writer:
            writer.resume(None, database_id=checkpoints.database_id)
            writer.append(b"new", arrived_ns=1, chunk_id=b"new", events=1)
            checkpoint = StreamCheckpoint(outputs={"new": writer.found}, partition=("p", 0))
            checkpoints.commit(positions={}, streams={"new": checkpoint}, chunk_keys={}, window=10)
            writer.mark_committed(writer.found)
        checkpoints.close()

    back_up(filled.home, folder, copied=make_another)
    restored = restore(run, folder, tmp_path / "restored")
    with Store(restored / "store") as store:
        assert store.streams() == ["t"]


def test_a_stream_that_is_replaced_while_it_is_copied_is_copied_once_more(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    replaced: list[str] = []

    def replace(path: str) -> None:
        if path.startswith("store/") and not replaced:
            replaced.append(path)
            os.rename(filled.home / "store" / "t" / "stream", filled.home / "old")
            checkpoints = SqlCheckpointDatabase(filled.home / "checkpoints.sqlite")
            with Store(filled.home / "store") as store, store.stream_writer("t", attrs={}) as writer:
                writer.resume(None, database_id=checkpoints.database_id)
                writer.append(b"another", arrived_ns=1, chunk_id=b"1", events=1)
                checkpoint = StreamCheckpoint(outputs={"t": writer.found}, partition=("p", 0))
                checkpoints.commit(positions={}, streams={"t": checkpoint}, chunk_keys={}, window=10)
            checkpoints.close()

    back_up(filled.home, folder, copied=replace)
    assert stream_of(restore(run, folder, tmp_path / "restored")) == b"another"


def test_a_segment_of_the_bus_that_is_dropped_before_it_is_copied_repeats_the_backup(
    filled: Filled, folder: Path
) -> None:
    """Its messages were not processed as of the first checkpoint; as of the second one they are."""
    checkpoints = SqlCheckpointDatabase(filled.home / "checkpoints.sqlite")
    checkpoints.rewind("t", [("p", 0)])
    checkpoints.close()
    rounds: list[str] = []

    def drop_first(path: str) -> None:
        if path == "checkpoints.sqlite":
            rounds.append(path)
            if len(rounds) == 1:
                first = home_files.log_segments(filled.home)["p/0"][0]
                (filled.log / f"{first:020d}.log").unlink()

    back_up(filled.home, folder, copied=drop_first)
    assert len(rounds) == 2


def test_a_second_backup_copies_what_is_new_and_removes_what_is_gone(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    large = filled.home / "large"
    large.write_bytes(os.urandom(200_000))
    os.utime(large, ns=(OLD_NS, OLD_NS))
    (filled.home / "gone").write_text("gone")
    run("backup", str(folder))
    (filled.home / "gone").unlink()
    (filled.home / "new").write_text("new")
    copied: list[str] = []
    manifest = back_up(filled.home, folder, copied=copied.append)
    assert manifest.files["large"].folder == "0001"
    assert "large" not in copied
    assert "new" in copied
    assert not (folder / "0001" / "gone").exists()
    restored = restore(run, folder, tmp_path / "restored")
    assert (restored / "large").read_bytes() == large.read_bytes()
    assert not (restored / "gone").exists()


def test_a_file_that_changed_and_kept_its_size_is_copied(filled: Filled, run: Run, folder: Path) -> None:
    large = filled.home / "large"
    large.write_bytes(bytes(200_000))
    os.utime(large, ns=(OLD_NS, OLD_NS))
    run("backup", str(folder))
    large.write_bytes(b"x" * 200_000)
    assert back_up(filled.home, folder, copied=lambda path: None).files["large"].folder == "0002"


def test_a_file_that_changed_within_the_tick_of_the_clock_is_copied(
    filled: Filled, run: Run, folder: Path
) -> None:
    large = filled.home / "large"
    large.write_bytes(bytes(200_000))
    status = large.stat()
    run("backup", str(folder))
    large.write_bytes(b"x" * 200_000)
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert back_up(filled.home, folder, copied=lambda path: None).files["large"].folder == "0002"


def test_the_last_segment_is_copied_although_its_time_of_change_is_old(
    filled: Filled, run: Run, folder: Path
) -> None:
    """It may be written through a mapping; one that is followed by another is not copied again."""
    segments = [filled.home / "store" / "t" / "arrays" / "rows" / f"c.{number}" for number in (9, 10)]
    segments[0].parent.mkdir(parents=True)
    for segment in segments:
        segment.write_bytes(bytes(200_000))
        os.utime(segment, ns=(OLD_NS, OLD_NS))
    run("backup", str(folder))
    files = back_up(filled.home, folder, copied=lambda path: None).files
    assert files["store/t/arrays/rows/c.9"].folder == "0001"
    assert files["store/t/arrays/rows/c.10"].folder == "0002"
    segments[1].with_name("c.11").write_bytes(b"next")  # c.10 may have changed since it was copied
    files = back_up(filled.home, folder, copied=lambda path: None).files
    assert files["store/t/arrays/rows/c.10"].folder == "0003"


def test_an_interrupted_backup_leaves_the_former_one_whole(filled: Filled, run: Run, folder: Path) -> None:
    run("backup", str(folder))
    before = files_of(folder)

    def interrupt(path: str) -> None:
        if path.startswith("store/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(filled.home, folder, copied=interrupt)
    assert files_of(folder) == before
    run("backup", "--verify", str(folder))


def test_what_a_killed_first_backup_leaves_is_not_a_backup_and_is_removed_by_the_next(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    (folder / "0001" / "store").mkdir(parents=True)
    (folder / "0001" / "store" / "part").write_text("part")
    for command in ([*["backup", "--verify"], str(folder)], ["restore", str(folder)]):
        options = ["--home", str(tmp_path / "restored")] if command[0] == "restore" else []
        assert "is not a backup" in run(*command, *options, exit_code=1).output
    run("backup", str(folder))
    assert not any("part" in path for path in files_of(folder))


@pytest.mark.system
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_the_end_of_the_process_leaves_the_former_backup_whole(
    filled: Filled, run: Run, folder: Path, number: int, exit_code: int
) -> None:
    run("backup", str(folder))
    for name in range(8):
        (filled.home / f"large-{name}").write_bytes(os.urandom(16 * 1024 * 1024))
    command = [*COMMAND, "backup", str(folder)]
    with started(command, env=environment(filled.home), stdout=subprocess.DEVNULL) as process:
        wait_until((folder / "0002" / "large-0").exists, "it copies")
        process.send_signal(number)
    assert process.returncode == exit_code
    assert read_manifest(folder).files["token"].folder == "0001"
    assert (folder / "0002").exists() == (number == signal.SIGKILL)
    run("backup", "--verify", str(folder))
    run("backup", str(folder))
    run("backup", "--verify", str(folder))
    assert (folder / "0002" / "large-7").exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_of_a_backup_is_named_and_never_restored(
    filled: Filled, run: Run, folder: Path, tmp_path: Path, damage: str
) -> None:
    run("backup", str(folder))
    path = next((folder / "0001" / "store").rglob("*.seg"))
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    assert str(path) in run("backup", "--verify", str(folder), exit_code=1).output
    answer = run("restore", str(folder), "--home", str(tmp_path / "restored"), exit_code=1)
    assert str(path) in answer.output
    assert files_of(tmp_path / "restored") == set()


def test_a_home_that_is_not_empty_is_never_restored_into(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    run("backup", str(folder))
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("mine")
    assert "is not empty" in run("restore", str(folder), "--home", str(other), exit_code=1).output
    assert files_of(other) == {"mine"}


def test_no_command_opens_a_home_whose_restore_did_not_finish(filled: Filled, run: Run) -> None:
    (filled.home / UNFINISHED_RESTORE).touch()
    for command in (["ls"], ["verify"], ["worker"], ["up"], ["backup", "elsewhere"]):
        assert "was interrupted" in run(*command, exit_code=1).output


def test_a_backup_keeps_holes(filled: Filled, run: Run, folder: Path, tmp_path: Path) -> None:
    size = 256 * 1024 * 1024
    with (filled.home / "sparse").open("wb") as file:
        file.seek(size // 2)
        file.write(b"data")
        file.truncate(size)
    run("backup", str(folder))
    restored = restore(run, folder, tmp_path / "restored")
    for copy in (folder / "0001" / "sparse", restored / "sparse"):
        assert copy.stat().st_size == size
        assert copy.stat().st_blocks * 512 < 1024 * 1024
        with copy.open("rb") as file:
            file.seek(size // 2)
            assert file.read(8) == b"data\0\0\0\0"


@pytest.mark.system
def test_a_full_disk_ends_the_backup_with_the_name_of_the_disk(
    filled: Filled, run: Run, tmp_path: Path
) -> None:
    (filled.home / "large").write_bytes(os.urandom(9 * 1024 * 1024))
    with small_disk(tmp_path / "disk", size="4m") as disk:
        output = run("backup", str(disk / "backup"), exit_code=1).output
        assert "no room for the copy" in output
        assert files_of(disk) == set()


def test_a_backup_inside_the_home_or_among_other_files_is_an_error(
    filled: Filled, run: Run, tmp_path: Path
) -> None:
    assert "is inside the home" in run("backup", str(filled.home / "backup"), exit_code=1).output
    (tmp_path / "photo.jpg").touch()
    assert "not of a backup" in run("backup", str(tmp_path), exit_code=1).output


def test_a_home_whose_databases_are_elsewhere_is_not_copied(filled: Filled, folder: Path) -> None:
    settings = Settings(home=filled.home, database="postgresql://somewhere/else")
    with BackupFolder.locked(folder, home=filled.home) as into, pytest.raises(ConfigInvalid, match="pg_dump"):
        HomeBackup(settings, into)


def test_a_damaged_database_ends_the_backup(filled: Filled, run: Run, folder: Path) -> None:
    path = filled.home / "dead-letters.sqlite"
    SqlDeadLetters(path).close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    assert "dead-letters.sqlite" in run("backup", str(folder), exit_code=1).output


def test_the_manifest_says_where_reading_continues(filled: Filled, run: Run, folder: Path) -> None:
    run("backup", str(folder))
    manifest = read_manifest(folder)
    assert [(each.topic, each.partition, each.next_offset) for each in manifest.positions] == [
        ("p", 0, CHUNKS)
    ]


def test_a_backup_of_a_later_format_is_not_restored(
    filled: Filled, run: Run, folder: Path, tmp_path: Path
) -> None:
    run("backup", str(folder))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    answer = run("restore", str(folder), "--home", str(tmp_path / "restored"), exit_code=1)
    assert "has format 2" in answer.output
