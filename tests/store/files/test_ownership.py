"""A partition can be committed only by the worker that took it last."""

import sqlite3
from pathlib import Path

import msgpack
import pytest
from windvane.errors import PartitionLost
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import OutputLength, StreamCheckpoint
from windvane.store.databases.interfaces import CheckpointDatabase

VERSION_1 = """
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE streams (reference TEXT PRIMARY KEY, checkpoint BLOB NOT NULL);
CREATE TABLE chunk_keys (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, sequence INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (topic, partition, sequence)
) WITHOUT ROWID;
INSERT INTO positions VALUES ('wind', 0, 7);
INSERT INTO chunk_keys VALUES ('wind', 0, 1, x'00');
PRAGMA user_version = 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints.sqlite"


def test_a_new_partition_has_no_position_and_is_taken_for_the_first_time(path: Path) -> None:
    taken = SqlCheckpointDatabase(path).take([("wind", 0)], owner="a")[("wind", 0)]
    assert (taken.position, list(taken.chunk_keys), taken.epoch) == (None, [], 1)


def test_the_next_owner_finds_what_the_one_before_has_committed(path: Path) -> None:
    here, there = SqlCheckpointDatabase(path), SqlCheckpointDatabase(path)
    epoch = here.take([("wind", 0)], owner="a")[("wind", 0)].epoch
    here.commit(
        positions={("wind", 0): 4},
        streams={"t": StreamCheckpoint(states={"s": b"1"}, partition=("wind", 0))},
        chunk_keys={("wind", 0): [("t", b"k1"), ("t", b"k2")]},
        window=10,
        epochs={("wind", 0): epoch},
    )
    taken = there.take([("wind", 0)], owner="b")[("wind", 0)]
    assert (taken.position, list(taken.chunk_keys), taken.epoch) == (4, [b"k1", b"k2"], epoch + 1)
    found = there.stream("t")
    assert found is not None
    assert found.partition == ("wind", 0)
    assert there.owner(("wind", 0)) == "b"
    assert there.owner(("wind", 1)) is None


def test_who_has_lost_a_partition_commits_nothing_of_any(path: Path) -> None:
    here, there = SqlCheckpointDatabase(path), SqlCheckpointDatabase(path)
    epochs = {p: t.epoch for p, t in here.take([("a", 0), ("b", 0)], owner="first").items()}
    there.take([("b", 0)], owner="second")
    with pytest.raises(PartitionLost, match=r"b/0 \(second\)") as rejected:
        here.commit(
            positions={("a", 0): 9, ("b", 0): 9},
            streams={"t": StreamCheckpoint()},
            chunk_keys={("a", 0): [("t", b"k")]},
            window=10,
            epochs=epochs,
        )
    assert rejected.value.owners == {("b", 0): "second"}
    assert (here.positions(), here.streams(), here.chunk_keys("a", 0)) == ({}, [], [])
    here.commit(positions={("a", 0): 9}, streams={}, chunk_keys={}, window=10, epochs={("a", 0): 1})
    assert here.positions() == {("a", 0): 9}


def test_a_partition_that_was_never_taken_cannot_be_committed_under_an_epoch(path: Path) -> None:
    with pytest.raises(PartitionLost, match="no worker"):
        SqlCheckpointDatabase(path).commit(
            positions={("a", 0): 9}, streams={}, chunk_keys={}, window=10, epochs={("a", 0): 1}
        )


def test_a_file_of_version_1_is_brought_up_to_date_and_keeps_what_it_holds(path: Path) -> None:
    # The format of that version: a map without the partition.
    checkpoint = msgpack.packb(
        {"states": {"model": b"s"}, "outputs": {"t": {"uid": b"u", "length": 5, "chunks": 1}}}
    )
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_1)
        database.execute("INSERT INTO streams VALUES ('t', ?)", (checkpoint,))
    database.close()
    for epoch in (1, 2):
        store = SqlCheckpointDatabase(path)
        taken = store.take([("wind", 0)], owner="a")[("wind", 0)]
        assert (taken.position, list(taken.chunk_keys), taken.epoch) == (7, [b"\0"], epoch)
        assert store.stream("t") == StreamCheckpoint({"model": b"s"}, {"t": OutputLength(b"u", 5, 1)})
        store.close()


LOG_A, LOG_B = "embedded:a", "kafka:c:b"


def commit_at(store: CheckpointDatabase, log: str, offset: int, *, epoch: int) -> None:
    at = ("wind", 0)
    store.commit(
        positions={at: offset}, streams={}, chunk_keys={}, window=10, epochs={at: epoch}, logs={at: log}
    )


def test_a_position_counts_for_its_own_log_alone(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    at = ("wind", 0)
    commit_at(store, LOG_A, 7, epoch=store.take([at], owner="w", logs={"wind": LOG_A})[at].epoch)
    new = store.take([at], owner="w", logs={"wind": LOG_B})[at]
    assert (new.position, new.other_logs, new.added_to) == (None, [LOG_A], frozenset())
    commit_at(store, LOG_B, 2, epoch=new.epoch)
    assert store.positions() == {at: 2}
    back = store.take([at], owner="w", logs={"wind": LOG_A})[at]
    assert (back.position, back.other_logs) == (7, [LOG_B])
    assert store.logs() == {LOG_A: {at: 7}, LOG_B: {at: 2}}


def test_a_position_from_before_logs_had_identities_is_that_of_the_log_that_is_read_first(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    at = ("wind", 0)
    commit_at(store, "", 7, epoch=store.take([at], owner="w")[at].epoch)
    assert store.take([at], owner="w", logs={"wind": LOG_A})[at].position == 7
    assert store.take([at], owner="w", logs={"wind": LOG_B})[at].position is None


def test_a_partition_is_new_if_others_of_its_topic_were_read_before(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    logs = {"wind": LOG_A}
    first = store.take([("wind", 0), ("wind", 1)], owner="w", logs=logs)
    assert [each.added_to for each in first.values()] == [frozenset(), frozenset()]
    again = store.take([("wind", 0), ("wind", 1), ("wind", 2)], owner="w", logs=logs)
    assert [each.added_to for each in again.values()] == [frozenset(), frozenset(), {0, 1}]
    assert store.take([("wind", 2)], owner="w", logs=logs)["wind", 2].added_to == {0, 1}, "a restart"
    store.open_added(LOG_A, ("wind", 2))
    assert not store.take([("wind", 2)], owner="w", logs=logs)["wind", 2].added_to


def test_the_keys_of_a_stream_are_found_on_the_partitions_that_it_came_from(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    for partition, keys in enumerate([[("t", b"1"), ("u", b"2")], [("t", b"3")]]):
        store.commit(positions={}, streams={}, chunk_keys={("wind", partition): keys}, window=10)
    assert store.keys_elsewhere("t", ("wind", 1)) == [b"1"]
    assert sorted(store.keys_elsewhere("t", ("wind", 2))) == [b"1", b"3"]


def test_deaths_are_counted_for_each_message(path: Path) -> None:
    store = SqlCheckpointDatabase(path)
    store.blame(LOG_A, ("wind", 0), [3, 4], "SIGSEGV")
    store.blame(LOG_A, ("wind", 0), [3], "SIGBUS")
    assert store.suspects(LOG_A, ("wind", 0)) == {3: (2, "SIGBUS"), 4: (1, "SIGSEGV")}
    assert store.suspects(LOG_B, ("wind", 0)) == {}
