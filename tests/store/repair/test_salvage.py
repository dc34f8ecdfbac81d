"""The readable rows of a damaged database are saved; the damaged one is set aside."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from windvane.store.catalog.policy_copy import write_policy_copy
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import OutputLength, StreamCheckpoint
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.repair.database_repair import repair_catalog, repair_checkpoints, repair_dead_letters
from windvane.store.repair.salvage import check_database
from windvane.store.repair.set_aside import SetAside

from tests.store.repair.damaging import KINDS, truncate

STREAMS = 400


def checkpoints_of(path: Path) -> bytes:
    """A database of many streams in many pages; its identity."""
    with closing(SqlCheckpointDatabase(path)) as store:
        streams = {
            f"t{number:03}": StreamCheckpoint(
                states={"s": bytes(500)},
                outputs={f"t{number:03}": OutputLength(b"u" * 16, number, number)},
                partition=("p", 0),
            )
            for number in range(STREAMS)
        }
        store.commit(positions={("p", 0): 7}, streams=streams, chunk_keys={}, window=0)
        return store.database_id


def test_a_whole_database_has_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.sqlite"
    assert list(check_database(path)) == []
    assert list(check_database(path, expected=True)) == [(0, "the file is missing")]
    checkpoints_of(path)
    assert list(check_database(path)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_a_database_is_found(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "checkpoints.sqlite"
    checkpoints_of(path)
    KINDS[kind](path, 0)
    assert list(check_database(path, expected=True))


def test_every_checkpoint_outside_a_damaged_page_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.sqlite"
    identity = checkpoints_of(path)
    page = path.read_bytes().index(b"t200") // 4096 * 4096
    with path.open("r+b") as file:
        file.seek(page)
        file.write(b"\xff" * 4096)
    damaged = path.read_bytes()
    assert [offset for offset, _ in check_database(path)]
    aside = SetAside(tmp_path)
    lines = repair_checkpoints(path, aside)
    assert aside.folder / "checkpoints.sqlite" in aside.paths
    assert (aside.folder / "checkpoints.sqlite").read_bytes() == damaged
    with closing(SqlCheckpointDatabase(path)) as store:
        saved = store.streams()
        assert STREAMS - 10 <= len(saved) < STREAMS, lines
        checkpoint = store.stream("t000")
        assert checkpoint is not None
        assert checkpoint.outputs["t000"] == OutputLength(b"u" * 16, 0, 0)
        last = store.stream("t399")
        assert last is not None
        assert (last.adopted_chunks, last.partition) == (399, ("p", 0))
        assert store.positions() == {("p", 0): 7}
        # An output whose checkpoint is lost must not look as if it had never been committed.
        assert store.database_id != identity
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM identity").fetchone() == (1,)
    assert list(check_database(path)) == []


@pytest.mark.parametrize("kind", ["flip", "zero"])
def test_a_damaged_header_costs_no_row(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "checkpoints.sqlite"
    checkpoints_of(path)
    KINDS[kind](path, 0)
    repair_checkpoints(path, SetAside(tmp_path))
    with closing(SqlCheckpointDatabase(path)) as store:
        assert len(store.streams()) == STREAMS


def test_an_unreadable_database_is_set_aside_and_recreated(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.sqlite"
    path.write_bytes(b"nothing of a database " * 1000)
    damaged = path.read_bytes()
    aside = SetAside(tmp_path)
    repair_checkpoints(path, aside)
    assert (aside.folder / "checkpoints.sqlite").read_bytes() == damaged
    with closing(SqlCheckpointDatabase(path)) as store:
        assert store.streams() == []


def test_dead_letters_are_saved_with_their_totals(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters.sqlite"
    with closing(SqlDeadLetters(path)) as letters:
        for number in range(200):
            letters.add(
                DeadLetter(
                    code="framing",
                    reason="r",
                    tag=f"t{number}",
                    sender="s",
                    policy=None,
                    payload=bytes([number]) * 300,
                    time_ns=number + 1,
                )
            )
    truncate(path, path.stat().st_size - 8192)
    repair_dead_letters(path, SetAside(tmp_path))
    with closing(SqlDeadLetters(path)) as letters:
        kept = letters.list(limit=1000)
        assert 100 < len(kept) <= 200
        assert letters.statistics().count == len(kept)
        for summary in kept:
            assert letters.get(summary.id).payload == bytes([int(summary.tag[1:])]) * 300


def test_policies_that_cannot_be_read_come_from_their_copy(tmp_path: Path) -> None:
    path, copy = tmp_path / "catalog.sqlite", tmp_path / "copy.json"
    write_policy_copy(copy, [{"reference": "voice", "tags": ["voice"]}])
    path.write_bytes(b"nothing")
    lines = repair_catalog(path, SetAside(tmp_path), copy)
    assert "catalog.sqlite: policy 'voice' is back from copy.json" in lines
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT reference FROM documents").fetchall() == [("voice",)]


def test_two_repairs_in_one_second_do_not_share_a_folder(tmp_path: Path) -> None:
    first = SetAside(tmp_path)
    (tmp_path / "x").write_bytes(b"1")
    first.move(tmp_path / "x")
    assert SetAside(tmp_path).folder != first.folder
