"""Checkpoints in SQLite: one transaction, whatever happens to the process; files of earlier versions."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from windvane.errors import DatabaseDamaged, StoreFailed
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import OutputLength, StreamCheckpoint
from windvane.store.databases.interfaces import CheckpointDatabase
from windvane.store.databases.stream_order import HeldChunk, StreamOrder
from windvane.testing.checkpoints import CheckpointConformance, OpenCheckpoints

from tests.processes import started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "checkpoints.sqlite"


class TestSqlite(CheckpointConformance):
    @pytest.fixture
    def open_checkpoints(self, path: Path) -> OpenCheckpoints:
        return lambda: SqlCheckpointDatabase(path)


def commit(
    store: CheckpointDatabase,
    *,
    positions: dict[tuple[str, int], int] | None = None,
    streams: dict[str, StreamCheckpoint] | None = None,
    chunk_keys: dict[tuple[str, int], list[bytes]] | None = None,
    window: int = 100,
) -> None:
    store.commit(
        positions=positions or {},
        streams=streams or {},
        chunk_keys={at: [("t1", key) for key in keys] for at, keys in (chunk_keys or {}).items()},
        window=window,
    )


def of_generation(n: int) -> StreamCheckpoint:
    return StreamCheckpoint(
        states={"spectrum": b"\x00%d" % n, "model": b"%d\xff" % n},
        outputs={
            "t1": OutputLength(uid=b"u" * 16, length=n * 100, chunks=n),
            "t1:spectrum": OutputLength(uid=b"v" * 16, length=n),
        },
    )


def test_any_mapping_will_do(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    commit(store, streams={"t1": StreamCheckpoint(states=MappingProxyType({"a": b"1"}))})
    assert store.stream("t1") == StreamCheckpoint(states={"a": b"1"})


def test_ten_thousand_streams_go_in_one_transaction(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    streams = {f"turbine.{i:05}": of_generation(i) for i in range(10_000)}
    commit(store, positions={("wind", 0): 1}, streams=streams)
    assert store.streams() == sorted(streams)
    assert all(
        store.stream(reference) == checkpoint for reference, checkpoint in list(streams.items())[::997]
    )


def test_a_commit_that_fails_half_way_changes_nothing(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    commit(
        store, positions={("wind", 0): 1}, streams={"t1": of_generation(1)}, chunk_keys={("wind", 0): [b"1"]}
    )
    beyond_sqlite = 2**63
    with pytest.raises((StoreFailed, OverflowError)):
        store.commit(
            positions={("wind", 0): 2},
            streams={"t1": of_generation(2)},
            chunk_keys={("wind", 0): [("t1", b"2")], ("wind", beyond_sqlite): [("t1", b"2")]},
            window=10,
        )
    assert store.positions() == {("wind", 0): 1}
    assert store.stream("t1") == of_generation(1)
    assert store.chunk_keys("wind", 0) == [b"1"]
    commit(store, positions={("wind", 0): 3})
    assert store.positions() == {("wind", 0): 3}


COMMITTER = """
import os, signal, sqlite3, sys
from pathlib import Path

connect = sqlite3.connect
kill_at = int(sys.argv[2])
armed = False
seen = 0

def about_to_run(statement):
    global seen
    if armed:
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

def traced(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(about_to_run)
    return connection

sqlite3.connect = traced

from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.interfaces import CheckpointDatabase
from windvane.store.databases.checkpoint_records import OutputLength, StreamCheckpoint

store = SqlCheckpointDatabase(Path(sys.argv[1]))

def commit(generation):
    checkpoint = StreamCheckpoint(
        states={"step": b"%d" % generation}, outputs={"t:step": OutputLength(b"uid", generation)}
    )
    store.commit(
        positions={("wind", 0): generation, ("wind", 1): generation},
        streams={"t1": checkpoint, "t2": checkpoint},
        chunk_keys={("wind", 0): [("t1", b"%d" % generation)]},
        window=1,
    )

if kill_at:
    commit(1)
    armed = True
    commit(2)
    print("survived", seen)
else:
    generation = 0
    while True:
        generation += 1
        commit(generation)
        print(generation, flush=True)
"""


def generations(path: Path) -> set[int]:
    """The commit that each recorded value belongs to."""
    store = SqlCheckpointDatabase(path)
    found = {*store.positions().values(), *(int(key) for key in store.chunk_keys("wind", 0))}
    for reference in store.streams():
        checkpoint = store.stream(reference)
        assert checkpoint is not None
        found |= {int(checkpoint.states["step"]), checkpoint.outputs["t:step"].length}
    assert len(store.positions()) == len(store.streams()) == 2
    store.close()
    return found


@pytest.mark.system
def test_killed_before_any_statement_of_a_commit_the_one_before_it_stands(tmp_path: Path) -> None:
    statements = 0
    while True:
        statements += 1
        path = tmp_path / f"{statements}.sqlite"
        child = subprocess.run(
            [sys.executable, "-c", COMMITTER, str(path), str(statements)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert generations(path) == {1}
    # The process had ended before the kill: the commit was complete.
    assert child.stdout.split() == ["survived", str(statements - 1)]
    assert statements - 1 >= len(["BEGIN", *"pp", *"ss", "max", "key", "drop", "COMMIT"])
    assert generations(path) == {2}


@pytest.mark.system
def test_killed_at_any_moment_all_that_is_recorded_is_of_one_commit(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.sqlite"
    for rounds in (1, 2, 7, 20):
        with started(
            [sys.executable, "-c", COMMITTER, str(path), "0"], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            reported = [int(child.stdout.readline()) for _ in range(rounds)][-1]
            child.kill()
        (generation,) = generations(path)
        assert generation >= reported


def test_a_file_that_is_not_a_database_is_named_with_what_to_do(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is not a database, and it is long enough to look at" * 20)
    with pytest.raises(DatabaseDamaged, match=r"checkpoints\.sqlite.*not a database.*verify --repair"):
        SqlCheckpointDatabase(path)


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    SqlCheckpointDatabase(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreFailed, match="format 99"):
        SqlCheckpointDatabase(path)


def test_a_file_of_before_format_2_is_upgraded_so_that_former_programs_leave_it_alone(path: Path) -> None:
    SqlCheckpointDatabase(path).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA user_version = 5")
    SqlCheckpointDatabase(path).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (6,)


def test_closing_twice_is_allowed_and_using_it_then_says_so(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    store.close()
    store.close()
    with pytest.raises(StoreFailed, match="closed"):
        store.positions()


def test_a_file_of_before_chunks_were_held_gets_the_tables_for_them(path: Path) -> None:
    SqlCheckpointDatabase(path).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript("DROP TABLE held_chunks; DROP TABLE stream_orders; PRAGMA user_version = 4")
    store = SqlCheckpointDatabase(path)
    chunk = HeldChunk(0, "log", "p", 0, 7, "s", None, 1, 1, b"payload")
    checkpoint = StreamCheckpoint(partition=("p", 0), order=StreamOrder(next_sequence=1), held=(chunk,))
    commit(store, streams={"t": checkpoint})
    assert store.stream("t") == checkpoint
    assert [(each.reference, each.held_chunks) for each in store.orders([("p", 0)])] == [("t", 1)]
    assert store.orders([("p", 1)]) == []
    commit(store, streams={"t": replace(checkpoint, held=())})
    assert store.orders([("p", 0)]) == []
