"""What every checkpoint database must do: `CheckpointConformance`.

A test module subclasses it and gives the fixture `open_checkpoints`:

    class TestCheckpoints(CheckpointConformance):
        @pytest.fixture
        def open_checkpoints(self, tmp_path: Path) -> OpenCheckpoints:
            return lambda: SqlCheckpointDatabase(tmp_path / "checkpoints.sqlite")
"""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..errors import PartitionLost
from ..store.databases.checkpoint_records import (
    Hole,
    OutputLength,
    Partition,
    StreamCheckpoint,
    StreamPosition,
)
from ..store.databases.interfaces import CheckpointDatabase
from ..store.databases.stream_order import HeldChunk, StreamOrder

__all__ = ["CheckpointConformance", "OpenCheckpoints"]

OpenCheckpoints: TypeAlias = Callable[[], CheckpointDatabase]
"""Opens the database of the test, which is empty at first; each call is what another process would have."""

WIND = ("wind", 0)
LOG = "log-1"
THREADS = 4
WAIT_S = 60.0
_numbers = itertools.count()


def of_generation(n: int) -> StreamCheckpoint:
    """A checkpoint whose values all tell `n`."""
    return StreamCheckpoint(
        states={"spectrum": b"\x00%d" % n, "model": b"%d\xff" % n},
        outputs={
            "t1": OutputLength(uid=b"u" * 16, length=n * 100, chunks=n),
            "t1:spectrum": OutputLength(uid=b"v" * 16, length=n),
        },
        partition=WIND,
    )


def commit(
    database: CheckpointDatabase,
    *,
    positions: Mapping[Partition, int] = MappingProxyType({}),
    streams: Mapping[str, StreamCheckpoint] = MappingProxyType({}),
    chunk_keys: Mapping[Partition, Sequence[bytes]] = MappingProxyType({}),
    window: int = 100,
    epochs: Mapping[Partition, int] = MappingProxyType({}),
    log: str = LOG,
) -> None:
    """Commit with defaults; all keys are of stream t1, all positions of `log`."""
    database.commit(
        positions=positions,
        streams=streams,
        chunk_keys={at: [("t1", key) for key in keys] for at, keys in chunk_keys.items()},
        window=window,
        epochs=epochs,
        logs=dict.fromkeys(positions, log),
    )


def held(sequence: int, *, offset: int, events: int = 2) -> HeldChunk:
    """A chunk that waits to be put in order."""
    return HeldChunk(sequence, LOG, *WIND, offset, "sender", b"id%d" % sequence, 1, events, b"event" * events)


class CheckpointConformance:
    """A commit is one transaction of the owner of its partitions, and any process reads the last one."""

    @pytest.fixture
    def open_checkpoints(self) -> OpenCheckpoints:
        """Give a function that opens the database of this test."""
        raise NotImplementedError("the subclass gives the fixture open_checkpoints")

    @pytest.fixture
    def database(self, open_checkpoints: OpenCheckpoints) -> CheckpointDatabase:
        """The database of this test, opened once."""
        return open_checkpoints()

    def test_a_new_database_is_empty(self, database: CheckpointDatabase) -> None:
        assert (database.positions(), database.streams(), database.logs()) == ({}, [], {})
        assert database.stream("t1") is None
        assert database.chunk_keys(*WIND) == []
        assert database.owner(WIND) is None
        assert database.outbox() == []

    def test_another_process_reads_what_was_committed(self, open_checkpoints: OpenCheckpoints) -> None:
        writer = open_checkpoints()
        commit(
            writer,
            positions={WIND: 7, ("wind", 1): 2**40},
            streams={"t1": of_generation(3), "größe.東京": of_generation(4)},
            chunk_keys={WIND: [b"\x00key", b"another"]},
        )
        reader = open_checkpoints()
        assert reader.database_id == writer.database_id
        assert reader.positions() == {WIND: 7, ("wind", 1): 2**40}
        assert reader.logs() == {LOG: reader.positions()}
        assert reader.streams() == ["größe.東京", "t1"]
        assert [reader.stream(name) for name in ("t1", "größe.東京")] == [of_generation(3), of_generation(4)]
        assert reader.chunk_keys(*WIND) == [b"\x00key", b"another"]
        assert reader.chunk_keys("wind", 1) == []

    def test_a_commit_replaces_what_it_names_and_nothing_else(self, database: CheckpointDatabase) -> None:
        commit(
            database,
            positions={("a", 0): 1, ("b", 0): 1},
            streams={"t1": of_generation(1), "t2": of_generation(1)},
        )
        smaller = StreamCheckpoint(states={"model": b"new"})
        commit(database, positions={("b", 0): 2}, streams={"t2": smaller})
        assert database.positions() == {("a", 0): 1, ("b", 0): 2}
        assert (database.stream("t1"), database.stream("t2")) == (of_generation(1), smaller)

    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        batches=st.lists(st.lists(st.binary(max_size=6), max_size=12), max_size=8),
        window=st.integers(min_value=0, max_value=10),
    )
    def test_a_partition_keeps_its_last_chunk_keys(
        self, database: CheckpointDatabase, batches: list[list[bytes]], window: int
    ) -> None:
        topic = f"keys-{next(_numbers)}"
        every_key: list[bytes] = []
        for batch in batches:
            commit(database, chunk_keys={(topic, 3): batch, (topic, 4): [b"x"]}, window=window)
            every_key += batch
            assert database.chunk_keys(topic, 3) == (every_key[-window:] if window else [])
        assert database.chunk_keys(topic, 4) == [b"x"] * min(len(batches), window)

    def test_a_negative_window_is_an_error(self, database: CheckpointDatabase) -> None:
        with pytest.raises(ValueError, match="-1"):
            commit(database, window=-1)

    def test_keys_of_a_stream_are_found_on_its_other_partitions(self, database: CheckpointDatabase) -> None:
        commit(database, chunk_keys={WIND: [b"here"], ("wind", 1): [b"there"]})
        assert database.keys_elsewhere("t1", WIND) == [b"there"]

    def test_a_commit_with_an_earlier_epoch_changes_nothing(self, open_checkpoints: OpenCheckpoints) -> None:
        first, second = open_checkpoints(), open_checkpoints()
        mine = first.take([WIND], owner="first", logs={"wind": LOG})[WIND]
        assert (mine.position, mine.before) == (None, None)
        commit(first, positions={WIND: 5}, chunk_keys={WIND: [b"k"]}, epochs={WIND: mine.epoch})
        theirs = second.take([WIND], owner="second", logs={"wind": LOG})[WIND]
        assert (theirs.position, theirs.before, list(theirs.chunk_keys)) == (5, "first", [b"k"])
        assert theirs.epoch > mine.epoch
        with pytest.raises(PartitionLost) as lost:
            commit(
                first,
                positions={WIND: 6},
                streams={"t1": StreamCheckpoint(alarms=(b"message",))},
                epochs={WIND: mine.epoch},
            )
        assert lost.value.owners == {WIND: "second"}
        assert second.positions() == {WIND: 5}
        assert (second.streams(), second.outbox(), second.owner(WIND)) == ([], [], "second")

    def test_of_two_that_commit_and_take_at_once_the_later_owner_wins(
        self, open_checkpoints: OpenCheckpoints
    ) -> None:
        committed: list[int] = []

        def commit_until_lost(number: int) -> None:
            database = open_checkpoints()
            taken = database.take([WIND], owner=f"worker-{number}", logs={"wind": LOG})[WIND]
            position = taken.position or 0
            try:
                for _ in range(5):
                    commit(database, positions={WIND: position + 1}, epochs={WIND: taken.epoch})
                    position += 1
                    committed.append(position)
            except PartitionLost:
                pass
            database.close()

        threads = [threading.Thread(target=commit_until_lost, args=(i,), daemon=True) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        # Each owner begins at the position that the one before has committed: no number is committed twice.
        assert sorted(committed) == list(range(1, len(committed) + 1))
        assert open_checkpoints().positions() == {WIND: len(committed)}

    def test_a_position_belongs_to_one_log(self, database: CheckpointDatabase) -> None:
        database.take([WIND], owner="w", logs={"wind": LOG})
        commit(database, positions={WIND: 5})
        taken = database.take([WIND], owner="w", logs={"wind": "log-2"})[WIND]
        assert (taken.position, list(taken.other_logs)) == (None, [LOG])
        assert database.take([WIND], owner="w", logs={"wind": LOG})[WIND].position == 5

    def test_a_partition_that_was_added_waits_for_the_others(self, database: CheckpointDatabase) -> None:
        database.take([WIND], owner="w", logs={"wind": LOG})
        commit(database, positions={WIND: 5})
        added = ("wind", 1)
        assert database.take([added], owner="w", logs={"wind": LOG})[added].added_to == {0}
        database.open_added(LOG, added)
        assert database.take([added], owner="w", logs={"wind": LOG})[added].added_to == frozenset()

    def test_chunks_that_are_held_back_are_part_of_their_stream(self, database: CheckpointDatabase) -> None:
        checkpoint = StreamCheckpoint(
            partition=WIND,
            order=StreamOrder(next_sequence=2, latest_ns=9, is_sorting=True),
            held=(held(0, offset=7), held(1, offset=8)),
        )
        commit(database, streams={"t1": checkpoint})
        assert database.stream("t1") == checkpoint
        assert database.holds_chunks("t1")
        assert database.held_chunk_ids("t1") == [b"id0", b"id1"]
        [figures] = database.orders([WIND])
        assert (figures.reference, figures.held_chunks, figures.latest_ns) == ("t1", 2, 9)
        assert database.figures(["t1", "t2"]) == {"t1": figures}
        assert database.orders([("wind", 1)]) == []
        rest = StreamCheckpoint(partition=WIND, order=checkpoint.order, held=(held(1, offset=8, events=1),))
        commit(database, streams={"t1": rest})
        assert database.stream("t1") == rest
        commit(database, streams={"t1": replace(checkpoint, held=())})
        assert not database.holds_chunks("t1")
        assert database.orders([WIND]) == []

    def test_messages_that_ended_a_worker_are_counted(self, database: CheckpointDatabase) -> None:
        database.blame(LOG, WIND, [7, 8], "killed by signal 9")
        database.blame(LOG, WIND, [7], "out of memory")
        assert database.suspects(LOG, WIND) == {7: (2, "out of memory"), 8: (1, "killed by signal 9")}
        assert database.suspects("log-2", WIND) == {}
        order = StreamOrder(next_sequence=1)
        commit(
            database, streams={"t1": StreamCheckpoint(partition=WIND, order=order, held=(held(0, offset=7),))}
        )
        assert database.held_suspects(LOG, WIND) == {7: "t1"}

    def test_a_hole_is_recorded_once(self, database: CheckpointDatabase) -> None:
        hole = Hole(LOG, *WIND, first=3, resume_at=9)
        database.skip(hole)
        database.skip(hole)
        assert database.holes(LOG, WIND) == [hole]
        assert database.holes("log-2", WIND) == []

    def test_messages_leave_the_outbox_in_order_and_their_numbers_are_never_reused(
        self, database: CheckpointDatabase
    ) -> None:
        commit(database, streams={"t": StreamCheckpoint(alarms=(b"one", b"two"))})
        commit(database, streams={"t": StreamCheckpoint(alarms=(b"three",))})
        assert [message for _, message in database.outbox(limit=2)] == [b"one", b"two"]
        database.take_out(number for number, _ in database.outbox(limit=2))
        database.take_out([99])
        [(last, message)] = database.outbox()
        assert message == b"three"
        database.take_out([last])
        commit(database, streams={"t": StreamCheckpoint(alarms=(b"four",))})
        [(number, _)] = database.outbox()
        assert number > last
        read_back = database.stream("t")
        assert read_back is not None
        assert read_back.alarms == (), "they would be sent a second time"

    def test_a_rewound_stream_is_rebuilt_and_the_others_skip_what_they_have(
        self, database: CheckpointDatabase
    ) -> None:
        own = (StreamPosition(LOG, *WIND, 40),)
        commit(
            database,
            positions={WIND: 30, ("other", 0): 5},
            streams={
                "t1": StreamCheckpoint(
                    partition=WIND, order=StreamOrder(next_sequence=1), held=(held(0, offset=7),)
                ),
                "ahead": StreamCheckpoint(positions=own),
                "plain": StreamCheckpoint(states={"s": b"1"}),
            },
            chunk_keys={WIND: [b"k"], ("other", 0): [b"k"]},
        )
        database.rewind("t1", [WIND])
        assert database.positions() == {("other", 0): 5}, "the log of the stream is read from its beginning"
        assert (database.stream("t1"), database.holds_chunks("t1")) == (None, False)
        ahead, plain = database.stream("ahead"), database.stream("plain")
        assert ahead is not None
        assert plain is not None
        assert ahead.positions == own
        assert plain.positions == (StreamPosition(LOG, *WIND, 30),)
        assert plain.states == {"s": b"1"}
        assert (database.chunk_keys(*WIND), database.chunk_keys("other", 0)) == ([], [b"k"])
