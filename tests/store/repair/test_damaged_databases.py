"""A damaged database is left unchanged, and does not stop tiers that can run without it."""

import errno
import sqlite3
from pathlib import Path

import pytest
from windvane.errors import CatalogUnavailable, DatabaseDamaged, DiskFull, StoreFailed
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy_copy import read_policy_copy, write_policy_copy
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.databases.sqlite_file import SqliteFile, database_failure

LETTER = DeadLetter(code="framing", reason="r", tag="t", sender="s", policy=None, payload=b"x", time_ns=1)
VOICE = {"reference": "voice", "tags": ["voice"], "format": "raw"}


def test_an_io_error_is_not_called_damage_and_no_advice_loses_data() -> None:
    path = Path("/home/windvane/checkpoints.sqlite")
    io_error = database_failure(path, "open it", OSError(errno.EIO, "Input/output error"))
    assert type(io_error) is StoreFailed
    assert str(io_error).endswith("(EIO). Check the disk; the data is untouched. Then restart")
    malformed = sqlite3.DatabaseError("database disk image is malformed")
    malformed.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert isinstance(database_failure(path, "open it", malformed), DatabaseDamaged)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert isinstance(database_failure(path, "open it", full), DiskFull)
    assert isinstance(database_failure(path, "open it", OSError(errno.ENOSPC, "No space left")), DiskFull)
    for error in (io_error, malformed, full):
        assert "begin without" not in str(error)


def test_a_format_that_never_existed_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    SqliteFile(path, version=1, schema="CREATE TABLE t (x)").close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 70000")
    with pytest.raises(DatabaseDamaged, match="never existed"):
        SqliteFile(path, version=1, schema="CREATE TABLE t (x)")


def test_damaged_dead_letters_are_out_of_order_until_they_are_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dead-letters.sqlite"
    path.write_bytes(b"no database, " * 1000)
    letters = SqlDeadLetters(path)
    for action in (lambda: letters.add(LETTER), letters.list, letters.statistics):
        with pytest.raises(DatabaseDamaged, match="verify --repair"):
            action()
    assert path.read_bytes() == b"no database, " * 1000
    path.rename(tmp_path / "aside")
    with pytest.raises(DatabaseDamaged):  # it is not checked for every letter
        letters.add(LETTER)
    monkeypatch.setattr("windvane.store.databases.dead_letters.REOPEN_S", 0.0)
    letters._look_again_s = 0.0
    letters.add(LETTER)
    assert len(letters.list()) == 1
    letters.close()


def test_the_copy_of_the_policies_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    assert read_policy_copy(path) == []
    write_policy_copy(path, [VOICE])
    assert read_policy_copy(path) == [VOICE]
    inode = path.stat().st_ino
    write_policy_copy(path, [VOICE])
    assert path.stat().st_ino == inode  # unchanged: not written again
    path.write_bytes(path.read_bytes()[:-3])
    assert read_policy_copy(path) == []


@pytest.mark.parametrize("damage", ["overwritten", "removed", "truncated"])
async def test_a_damaged_catalog_gives_the_policies_that_were_in_force_last(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "catalog.sqlite", tmp_path / "copy.json"
    url = f"sqlite:///{path}"
    catalog = await Catalog.open(url, copy=copy)
    await catalog.put("policy", "voice", body=VOICE)
    await catalog.keep_copy([VOICE])
    await catalog.close()
    whole = path.read_bytes()
    match damage:
        case "overwritten":
            path.write_bytes(b"garbage " * 1000)
        case "removed":
            path.unlink()
        case "truncated":
            path.write_bytes(b"")
    broken = await Catalog.open(url, copy=copy)
    with pytest.raises(CatalogUnavailable, match="verify --repair"):
        await broken.revision()
    assert broken.fallback() == [VOICE]
    if damage == "removed":
        assert not path.exists()  # it is not recreated
    monkeypatch.setattr("windvane.store.catalog.database.REOPEN_S", 0.0)
    broken.database._look_again_s = 0.0
    path.write_bytes(whole)
    assert (await broken.get("policy", "voice")).body == VOICE
    await broken.close()
