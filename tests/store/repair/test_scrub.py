"""Every kind of damage to every file of a stream is found, and repair does not move intact data."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from windvane.errors import StoreLocked, StreamDamaged
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import OutputLength, StreamCheckpoint
from windvane.store.files.data_stream_writer import DataStreamWriter
from windvane.store.files.store import Store
from windvane.store.interface import ARRIVAL
from windvane.store.repair.adoption import adopt_stream
from windvane.store.repair.array_scrub import ArrayScrub
from windvane.store.repair.scrub import Committed, Damage, StreamScrub
from windvane.store.repair.set_aside import SetAside
from windvane.store.repair.stream_repair import known_damages, repair_stream

from tests.store.repair.damaging import KINDS, flip

DATABASE_ID = b"d" * 16
CHUNK_BYTES, CHUNKS = 1000, 30
SEGMENT = f"{0:020d}.seg"


def chunk(number: int) -> bytes:
    return np.random.default_rng(number).bytes(CHUNK_BYTES)


CONTENT = b"".join(chunk(number) for number in range(CHUNKS))


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(path / "store", segment_bytes=8192)
        with self.writer() as writer:
            writer.resume(None, database_id=DATABASE_ID)
            self.append(writer, range(CHUNKS))
            self.length = writer.found
            writer.mark_committed(self.length)
        self.directory = self.store.stream_directories()["t"]

    def writer(self) -> DataStreamWriter:
        return self.store.stream_writer("t", attrs={"tag": "t", "policy": "p", "format": "raw"})

    @staticmethod
    def append(writer: DataStreamWriter, numbers: Iterable[int]) -> None:
        for number in numbers:
            ends = writer.size + np.array([400, CHUNK_BYTES])
            writer.append(
                chunk(number),
                arrived_ns=1000 + number,
                chunk_id=b"%d" % number,
                events=2,
                event_times=(ends, ends * 10),
            )

    @property
    def committed(self) -> Committed:
        return Committed(self.length, DATABASE_ID)

    def damages(self, committed: Committed | None = None) -> list[Damage]:
        return list(StreamScrub(self.directory, "t", committed or self.committed).damages())

    def repair(self) -> list[str]:
        aside = SetAside(self.path)
        done = repair_stream(self.directory, "t", self.committed, self.damages(), aside)
        self.aside = aside
        return done


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_whole_stream_has_no_damage(home: Home) -> None:
    read: list[int] = []
    assert list(StreamScrub(home.directory, "t", home.committed).damages(read.append)) == []
    assert read[-1] == len(CONTENT)


# The file, the position of the damage, and the byte range of the content that this may cost.
FILES = {
    "bytes": (f"bytes/{8192:020d}.seg", 1000),
    "arrivals": (f"arrivals/{SEGMENT}", 5 * ARRIVAL.itemsize + 6),
    "events": (f"events/{SEGMENT}", 16 * 9 + 5),
    "head": ("bytes/head", 1),
    "head of arrivals": ("arrivals/head", 3),
    "head of events": ("events/head", 2),
    "description": ("meta.json", 0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_damage_is_named_and_repaired_without_a_loss_of_what_is_intact(
    home: Home, file: str, kind: str
) -> None:
    name, at = FILES[file]
    path = home.directory / name
    size = path.stat().st_size
    KINDS[kind](path, at)
    damages = home.damages()
    assert damages, f"{kind} of {name} was not found"
    assert str(path) in {str(damage.file) for damage in damages}
    assert all(damage.reference == "t" and damage.remedy.startswith("windvane ") for damage in damages)

    home.repair()
    left = [damage for damage in home.damages() if damage.code != "bytes"]
    assert left == []
    lost = range(0)
    if file == "bytes":
        start = 8192 + (0 if kind == "delete" else 1000)
        lost = range(start, {"flip": start + 1, "zero": start + 64}.get(kind, 8192 + size))
        assert known_damages(home.directory)
    found = home.store.stream("t").read(0, 1 << 20)
    assert len(found) == len(CONTENT)
    assert [n for n in range(len(CONTENT)) if found[n] != CONTENT[n] and n not in lost] == []
    # It resumes exactly there.
    with home.writer() as writer:
        writer.resume(home.length, database_id=DATABASE_ID)
        assert (writer.size, writer.chunks) == (len(CONTENT), CHUNKS)
        home.append(writer, [99])
    assert home.store.stream("t").read(len(CONTENT), 9999) == chunk(99)


def test_a_flipped_bit_is_named_with_its_chunk_and_file(home: Home) -> None:
    path = home.directory / "bytes" / f"{8192:020d}.seg"
    flip(path, 1000)
    [damage] = home.damages()
    assert (damage.code, damage.file, damage.offset) == ("bytes", path, 9000 - 8192)
    assert damage.missing.startswith("chunk 9: bytes 9000 to 10000 do not have the checksums")


def test_what_is_replaced_is_set_aside(home: Home) -> None:
    path = home.directory / f"arrivals/{SEGMENT}"
    KINDS["zero"](path, 0)
    damaged = path.read_bytes()
    home.repair()
    assert damaged in {aside.read_bytes() for aside in home.aside.paths}
    assert all(aside.is_relative_to(home.path / "set-aside") for aside in home.aside.paths)


def test_a_running_writer_holds_off_the_repair(home: Home) -> None:
    with home.writer() as writer:
        writer.resume(home.length, database_id=DATABASE_ID)
        with pytest.raises(StoreLocked, match="stop the worker"):
            home.repair()


@pytest.mark.parametrize("committed", [None, OutputLength(b"x" * 16, 5, 1)])
def test_a_stream_without_a_checkpoint_is_named(home: Home, committed: OutputLength | None) -> None:
    [damage] = home.damages(Committed(committed, DATABASE_ID))
    assert (damage.code, damage.remedy) == ("no-checkpoint", "windvane recover adopt t")
    assert home.damages(Committed(None, DATABASE_ID, is_known=False)) == []


def test_an_older_checkpoint_is_named(home: Home) -> None:
    older = OutputLength(home.length.uid, 5 * CHUNK_BYTES, 5)
    assert [damage.code for damage in home.damages(Committed(older, DATABASE_ID))] == ["no-checkpoint"]


@pytest.mark.parametrize("before", ["first commit", "later commit"])
def test_a_commit_between_the_two_reads_is_not_damage(home: Home, before: str) -> None:
    older = None if before == "first commit" else OutputLength(home.length.uid, 5 * CHUNK_BYTES, 5)

    def reread() -> Committed:
        return home.committed

    assert list(StreamScrub(home.directory, "t", Committed(older, DATABASE_ID), reread).damages()) == []
    stays = Committed(older, DATABASE_ID)
    [damage] = StreamScrub(home.directory, "t", stays, lambda: stays).damages()
    assert damage.code == "no-checkpoint"


def test_a_head_that_is_shorter_than_the_checkpoint_was_is_named_whatever_comes_later(home: Home) -> None:
    ahead = Committed(OutputLength(home.length.uid, 99 * CHUNK_BYTES, 99), DATABASE_ID)
    assert "head" in {each.code for each in StreamScrub(home.directory, "t", ahead, lambda: ahead).stops()}
    # One that was committed after the head was read may be longer than it.
    assert list(StreamScrub(home.directory, "t", home.committed, lambda: ahead).stops()) == []


def test_an_adopted_stream_continues_and_knows_its_chunks(home: Home) -> None:
    with home.writer() as writer:
        writer.resume(home.length, database_id=DATABASE_ID)
        writer._bytes.append(b"of a chunk that was never whole")
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    adopted = adopt_stream("t", home.directory, {}, checkpoints)
    assert adopted.cut_bytes == 31
    checkpoint = checkpoints.stream("t")
    assert checkpoint is not None
    assert checkpoint.outputs["t"] == home.length
    assert checkpoint.adopted_chunks == CHUNKS
    with home.writer() as writer:
        writer.resume(checkpoint.outputs["t"], database_id=checkpoints.database_id)
        assert writer.size == len(CONTENT)
    description = json.loads((home.directory / "meta.json").read_text())
    assert description["database_id"] == checkpoints.database_id.hex()


def test_a_damaged_stream_is_repaired_before_it_is_adopted(home: Home) -> None:
    (home.directory / "bytes" / f"{8192:020d}.seg").unlink()
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    with pytest.raises(StreamDamaged, match="First run `windvane verify --repair t`"):
        adopt_stream("t", home.directory, {}, checkpoints)
    assert checkpoints.stream("t") is None


def test_an_adoption_keeps_what_the_checkpoint_knew_of_positions(home: Home) -> None:
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    before = StreamCheckpoint(states={"s": b"1"}, partition=("p", 3), alarm_state=b"a")
    checkpoints.commit(positions={}, streams={"t": before}, chunk_keys={}, window=0)
    adopt_stream("t", home.directory, {}, checkpoints)
    after = checkpoints.stream("t")
    assert after is not None
    assert (after.partition, after.alarm_state, after.states) == (("p", 3), b"a", {})


ARRAY_DAMAGE = {
    ("rows", "truncate"): ("rows/c.0.0", 100),
    ("rows", "delete"): ("rows/c.0.0", 0),
    ("times", "truncate"): ("times/c.0", 100),
    ("times", "delete"): ("times/c.0", 0),
    ("times", "zero"): ("times/c.0", 256),
    ("rows in an extent", "flip"): ("rows/c.8.0", 100),
    ("rows after the last extent", "flip"): ("rows/c.16.0", 400),
    ("times in an extent", "flip"): ("times/c.0", 8_000),
    ("times after the last extent", "flip"): ("times/c.8", 100),
    ("head", "flip"): ("rows/head", 0),
    ("head", "zero"): ("times/head", 0),
    ("description", "flip"): ("meta.json", 0),
    ("description", "delete"): ("meta.json", 0),
}


@pytest.mark.parametrize("damage", ARRAY_DAMAGE, ids=" ".join)
def test_damage_to_an_array_is_named(home: Home, damage: tuple[str, str]) -> None:
    array = home.store.array_writer("t:x", dtype=np.dtype("<f4"), row_shape=(4,), attrs={})
    with array.resume(None, database_id=DATABASE_ID) as writer:
        for first, count in ((0, 4096), (4096, 4104), (8200, 100)):
            writer.append(np.ones((count, 4), "<f4"), np.arange(first + 1, first + 1 + count))
            committed = Committed(writer.snapshot(), DATABASE_ID)
            assert committed.length is not None
            writer.mark_committed(committed.length)
    directory = home.store.array_directories("t")["t:x"]
    assert list(ArrayScrub(directory, "t:x", committed).damages()) == []
    name, at = ARRAY_DAMAGE[damage]
    KINDS[damage[1]](directory / name, at)
    damages = list(ArrayScrub(directory, "t:x", committed).damages())
    assert str(directory / name) in {str(each.file) for each in damages}
    assert {each.remedy for each in damages} == {"windvane recover rebuild t"}


def test_checksums_of_rows_that_were_cut_off_do_not_count_for_those_that_replace_them(home: Home) -> None:
    """As after the restore of a backup, whose checkpoint can be older than the files."""
    array = home.store.array_writer("t:x", dtype=np.dtype("<f4"), row_shape=(4,), attrs={})
    lengths: list[OutputLength] = []
    with array.resume(None, database_id=DATABASE_ID) as writer:
        for number in range(4):
            writer.append(np.full((4096, 4), number, "<f4"), np.arange(1, 4097))
            lengths.append(writer.snapshot())
            writer.mark_committed(lengths[-1])
        writer.roll_back(lengths[0], database_id=DATABASE_ID)
        for count in (5000, 4000, 4000):
            writer.mark_committed(writer.snapshot())
            writer.append(np.ones((count, 4), "<f4"), np.arange(1, count + 1))
        length = writer.snapshot()  # committed, and the worker was killed before it marked that
    directory = home.store.array_directories("t")["t:x"]
    assert list(ArrayScrub(directory, "t:x", Committed(length, DATABASE_ID)).damages()) == []
