"""`windvane verify` and `windvane recover` over a home whose tiers do not run."""

import fcntl
import json
from contextlib import closing
from pathlib import Path

import pytest
from windvane.bus.embedded.bus_directory import BusDirectory
from windvane.bus.embedded.segment_log import LogWriter, segment_bases, segment_path
from windvane.bus.interface import TopicPartition
from windvane.bus.messages.chunks import ChunkMessage, encode_chunk
from windvane.commands.common.home_check import HomeCheck
from windvane.config import Settings
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamCheckpoint
from windvane.store.databases.interfaces import CheckpointDatabase
from windvane.store.files.store import Store

from tests.store.repair.damaging import flip

from .conftest import Run

CHUNKS = 5


class Filled:
    """A home with the stream `t`, of which all is committed, and with its chunks on the embedded bus."""

    def __init__(self, home: Path) -> None:
        self.home = home
        bus = BusDirectory(home / "bus")
        bus.ensure_topic("p", 1)
        self.log = bus.log_path(TopicPartition("p", 0))
        with closing(LogWriter(self.log, segment_bytes=200)) as log:
            for number in range(CHUNKS):
                chunk = ChunkMessage("t", "s", b"id%d" % number, number, 1, b"payload %d" % number * 10)
                log.append([(b"t", encode_chunk(chunk))])
        with (
            Store(home / "store") as store,
            closing(SqlCheckpointDatabase(home / "checkpoints.sqlite")) as checkpoints,
            store.stream_writer("t", attrs={"tag": "t", "policy": "p"}) as writer,
        ):
            writer.resume(None, database_id=checkpoints.database_id)
            for number in range(CHUNKS):
                writer.append(b"%d" % number * 100, arrived_ns=number, chunk_id=b"id%d" % number, events=1)
            self.length = writer.found
            checkpoints.commit(
                positions={("p", 0): CHUNKS},
                streams={"t": StreamCheckpoint(outputs={"t": self.length}, partition=("p", 0))},
                chunk_keys={("p", 0): [("t", b"key"), ("other", b"key2")]},
                window=10,
            )
            writer.mark_committed(self.length)

    @property
    def segment(self) -> Path:
        return self.home / "store" / "t" / "stream" / "bytes" / f"{0:020d}.seg"

    def checkpoints(self) -> CheckpointDatabase:
        return SqlCheckpointDatabase(self.home / "checkpoints.sqlite")


@pytest.fixture
def filled(home: Path) -> Filled:
    return Filled(home)


def test_a_whole_home_has_no_damage(run: Run, filled: Filled) -> None:
    assert run("verify").output.endswith(": no damage\n")
    assert json.loads(run("verify", "--json").output)["checked"]["streams"] == 1
    assert run("recover", "list").stdout == ""


def test_damage_is_named_with_file_byte_reference_and_what_is_missing(run: Run, filled: Filled) -> None:
    flip(filled.segment, 250)
    printed = run("verify", exit_code=1).output
    assert f"{filled.segment} at byte 200: t: chunk 2: bytes 200 to 300 do not have" in printed
    [damage] = json.loads(run("verify", "--json", "t", exit_code=1).output)["damages"]
    assert (damage["reference"], damage["offset"], damage["known"]) == ("t", 200, False)
    repaired = run("verify", "--repair").output
    assert "t: noted as missing: chunk 2" in repaired
    assert "known, repaired before: t: chunk 2" in run("verify").output


def test_a_stream_that_is_not_there_is_not_verified(run: Run, filled: Filled) -> None:
    assert "there is no data stream 'x'" in run("verify", "x", exit_code=1).output


def test_a_database_is_not_repaired_while_the_worker_runs(run: Run, filled: Filled) -> None:
    (filled.home / "run").mkdir()
    path = filled.home / "checkpoints.sqlite"
    flip(path, 0)
    damaged = path.read_bytes()
    with (filled.home / "run" / "worker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "worker of" in run("verify", "--repair", exit_code=1).output
    assert path.read_bytes() == damaged
    run("verify", "--repair")
    with closing(filled.checkpoints()) as checkpoints:
        checkpoint = checkpoints.stream("t")
        assert checkpoint is not None
        assert checkpoint.outputs["t"] == filled.length


def test_without_checkpoints_a_stream_is_listed_and_adopted(run: Run, filled: Filled) -> None:
    for path in filled.home.glob("checkpoints.sqlite*"):
        path.rename(filled.home / f"elsewhere-{path.name}")
    path = filled.home / "checkpoints.sqlite"
    first, second, *_ = run("recover", "list", exit_code=1).stdout.splitlines()
    assert first.startswith(f"{path}\tthe database is missing, and the store has 1 stream\t")
    assert "restore the latest copy first" in first
    assert second.startswith("t\tno checkpoint covers its 500 bytes")
    assert "windvane recover adopt t" in second
    for command in (("adopt", "t"), ("rebuild", "t"), ("skip-hole", "p/0", "--resume-at", "3")):
        assert "restore the latest copy" in run("recover", *command, exit_code=1).output
        assert not path.exists()
    run("verify", "--repair", exit_code=1)  # the stream is still to be adopted
    assert run("recover", "list", exit_code=1).stdout.startswith("t\tno checkpoint covers its 500 bytes")
    assert "adopted t: 500 bytes in 5 chunks" in run("recover", "adopt", "t").output
    assert run("recover", "list").stdout == ""
    with closing(filled.checkpoints()) as checkpoints:
        checkpoint = checkpoints.stream("t")
        assert checkpoint is not None
        assert (checkpoint.outputs["t"], checkpoint.adopted_chunks) == (filled.length, CHUNKS)


def test_a_stream_is_rebuilt_from_the_bus_only_if_the_bus_has_all_of_it(run: Run, filled: Filled) -> None:
    flip(filled.segment, 250)
    first = segment_path(filled.log, segment_bases(filled.log)[0])
    kept = first.rename(filled.home / "kept")
    rejected = run("recover", "rebuild", "t", exit_code=1).output
    assert "the bus lacks" in rejected
    assert "of its 5 chunks" in rejected
    assert filled.segment.exists()
    kept.rename(first)
    damaged = filled.segment.read_bytes()
    assert "start the worker" in run("recover", "rebuild", "t").output
    assert not (filled.home / "store" / "t").exists()
    [aside] = (filled.home / "set-aside").rglob("bytes/*.seg")
    assert aside.read_bytes() == damaged
    with closing(filled.checkpoints()) as checkpoints:
        assert checkpoints.stream("t") is None
        assert checkpoints.positions() == {}  # so it is read from the beginning
        assert checkpoints.chunk_keys("p", 0) == [b"key2"]


def test_a_hole_is_skipped_by_a_decision_in_the_checkpoints(run: Run, filled: Filled) -> None:
    with closing(filled.checkpoints()) as checkpoints:
        checkpoints.commit(positions={("p", 0): 0}, streams={}, chunk_keys={}, window=0)
    flip(segment_path(filled.log, segment_bases(filled.log)[0]), 60)
    assert "windvane recover skip-hole p/0" in run("recover", "list", exit_code=1).stdout
    assert "resumes at 1\n" in run("recover", "skip-hole", "p/0").output
    with closing(filled.checkpoints()) as checkpoints:
        found = [hole for log in ("", *_logs(filled.home)) for hole in checkpoints.holes(log, ("p", 0))]
    assert [(hole.first, hole.resume_at) for hole in found] == [(0, 1)]
    assert run("recover", "list").stdout == ""
    assert "no hole in p/0" in run("recover", "skip-hole", "p/0", exit_code=1).output


@pytest.mark.parametrize(
    ("resume_at", "reason"),
    [
        ("1", "is inside the hole"),
        ("0", "is not above 0"),
        (str(CHUNKS + 1), "beyond the end"),
    ],
)
def test_a_decision_that_goes_nowhere_is_rejected(
    run: Run, filled: Filled, resume_at: str, reason: str
) -> None:
    with closing(filled.checkpoints()) as checkpoints:
        checkpoints.commit(positions={("p", 0): 0}, streams={}, chunk_keys={}, window=0)
    for base in segment_bases(filled.log)[:2]:
        segment_path(filled.log, base).unlink()
    printed = run("recover", "skip-hole", "p/0", "--resume-at", resume_at, exit_code=1).output
    assert reason in printed
    with closing(filled.checkpoints()) as checkpoints:
        assert [hole for log in ("", *_logs(filled.home)) for hole in checkpoints.holes(log, ("p", 0))] == []


def test_nothing_is_given_up_of_a_partition_without_a_hole(run: Run, filled: Filled) -> None:
    with closing(filled.checkpoints()) as checkpoints:
        checkpoints.commit(positions={("p", 0): 0}, streams={}, chunk_keys={}, window=0)
    assert "no hole in p/0" in run("recover", "skip-hole", "p/0", "--resume-at", "3", exit_code=1).output
    assert "p/7 does not exist" in run("recover", "skip-hole", "p/7", "--resume-at", "3", exit_code=1).output


def test_streams_that_are_committed_while_they_are_checked_are_not_listed(run: Run, filled: Filled) -> None:
    check = HomeCheck(Settings(home=filled.home))
    with (
        Store(filled.home / "store") as store,
        closing(filled.checkpoints()) as checkpoints,
        store.stream_writer("t", attrs={"tag": "t", "policy": "p"}) as writer,
    ):
        writer.resume(filled.length, database_id=checkpoints.database_id)
        writer.append(b"more", arrived_ns=9, chunk_id=b"id9", events=1)
        length = writer.found
        checkpoints.commit(
            positions={},
            streams={"t": StreamCheckpoint(outputs={"t": length}, partition=("p", 0))},
            chunk_keys={},
            window=0,
        )
        writer.mark_committed(length)
    [(reference, directory)] = check.streams.items()
    assert list(check.stops(reference, directory)) == []
    assert list(check.stream(reference, directory)) == []


def _logs(home: Path) -> list[str]:
    return list(BusDirectory(home / "bus").log_ids(["p"]).values())
