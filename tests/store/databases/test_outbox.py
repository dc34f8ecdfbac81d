"""The outbox of the checkpoints: messages that are committed with their stream are sent once, after it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from windvane.errors import PartitionLost
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamCheckpoint
from windvane.store.databases.interfaces import CheckpointDatabase


def commit(
    store: CheckpointDatabase, *messages: bytes, epochs: dict[tuple[str, int], int] | None = None
) -> None:
    store.commit(
        positions={},
        streams={"t": StreamCheckpoint(states={"s": b"1"}, alarm_state=b"a", alarms=messages)},
        chunk_keys={},
        window=0,
        epochs=epochs or {},
    )


def test_messages_leave_in_order_and_those_that_were_taken_out_are_gone(tmp_path: Path) -> None:
    store = SqlCheckpointDatabase(tmp_path / "c.sqlite")
    commit(store, b"one", b"two")
    commit(store, b"three")
    assert [message for _, message in store.outbox(limit=2)] == [b"one", b"two"]
    store.take_out(number for number, _ in store.outbox(limit=2))
    store.take_out([1, 99])
    [(last, message)] = store.outbox()
    assert message == b"three"
    store.take_out([last])
    commit(store, b"four")
    [(number, _)] = store.outbox()
    assert number > last, "a number is never given twice"
    store.close()


def test_what_is_read_back_of_a_stream_has_no_messages_that_would_leave_again(tmp_path: Path) -> None:
    store = SqlCheckpointDatabase(tmp_path / "c.sqlite")
    commit(store, b"one")
    assert store.stream("t") == StreamCheckpoint(states={"s": b"1"}, alarm_state=b"a")
    store.close()


def test_a_rejected_commit_leaves_the_outbox_empty(tmp_path: Path) -> None:
    store = SqlCheckpointDatabase(tmp_path / "c.sqlite")
    with pytest.raises(PartitionLost):
        commit(store, b"one", epochs={("p", 0): 7})
    assert store.outbox() == []
    store.close()


VERSION_2 = """
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE streams (reference TEXT PRIMARY KEY, checkpoint BLOB NOT NULL);
CREATE TABLE chunk_keys (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, sequence INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (topic, partition, sequence)
) WITHOUT ROWID;
CREATE TABLE owners (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
INSERT INTO chunk_keys VALUES ('p', 0, 1, x'07');
PRAGMA user_version = 2
"""


def test_a_file_of_before_there_was_an_outbox_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as database:
        database.executescript(VERSION_2)
    store = SqlCheckpointDatabase(tmp_path / "c.sqlite")
    assert store.chunk_keys("p", 0) == [b"\x07"]
    commit(store, b"one")
    assert [message for _, message in store.outbox()] == [b"one"]
    store.close()
