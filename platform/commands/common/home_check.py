"""The check of a home for `verify` and `recover`: its checkpoints, running tiers, and all damage."""

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from ...config import Settings
from ...errors import StoreFailed, StreamNotFound
from ...store.databases import checkpoint_schema as tables
from ...store.databases.checkpoint_records import OutputLength, StreamCheckpoint, decode_checkpoint
from ...store.databases.database import Place, open_reader
from ...store.repair.array_scrub import ArrayScrub
from ...store.repair.local_store import open_local_store
from ...store.repair.salvage import check_database
from ...store.repair.scrub import Committed, Damage, StreamScrub
from ...store.repair.stream_repair import known_damages


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of all streams, read from the database without changing it."""

    streams: dict[str, StreamCheckpoint] = field(default_factory=dict)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    database_id: bytes = b""
    is_known: bool = True
    problem: str = ""

    def committed(self, reference: str) -> Committed:
        """Of a data stream or data array."""
        checkpoint = self.streams.get(reference.partition(":")[0])
        length: OutputLength | None = None if checkpoint is None else checkpoint.outputs.get(reference)
        return Committed(length, self.database_id, self.is_known)


def read_checkpoints(place: Place, stream: str | None = None) -> Checkpoints:
    """Read the database, or of its checkpoints that of one stream alone.

    A damaged database gives what could be read, and is not `is_known`.
    """
    found = Checkpoints()
    if isinstance(place, Path) and not place.exists():
        return found
    wanted = sa.select(tables.streams.c.reference, tables.streams.c.checkpoint)
    if stream is not None:
        wanted = wanted.where(tables.streams.c.reference == stream)
    topic, partition = tables.positions.c.topic, tables.positions.c.partition
    highest = sa.select(topic, partition, sa.func.max(tables.positions.c.next_offset))
    try:
        with (
            closing(open_reader(place, tables.SCHEMA)) as database,
            database.reading("read the checkpoints") as connection,
        ):
            for reference, row in connection.execute(wanted):
                found.streams[reference] = decode_checkpoint(row)
            for row in connection.execute(highest.group_by(topic, partition)):
                found.positions[row[0], row[1]] = row[2] or 0
            if sa.inspect(connection).has_table("identity"):
                found.database_id = connection.execute(sa.select(tables.identity.c.database_id)).one()[0]
    except StoreFailed as error:
        if not isinstance(place, Path):
            raise
        found.is_known, found.problem = False, str(error)
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        found.is_known, found.problem = False, str(error)
    return found


def running_tiers(settings: Settings) -> list[str]:
    """The tiers that run over this home: `worker`, `gateway-a`, …"""
    running = []
    for path in sorted(settings.run_dir.glob("*.lock")):
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                running.append(path.stem)
    return running


class Checked(NamedTuple):
    """A damage, and whether an earlier repair has noted it."""

    damage: Damage
    is_known: bool

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "code": self.damage.code,
            "file": str(self.damage.file),
            "offset": self.damage.offset,
            "reference": self.damage.reference,
            "missing": self.damage.missing,
            "remedy": self.damage.remedy,
            "known": self.is_known,
        }


class HomeCheck:
    """The check of a home, or of some of its references. Memory: the arrival records of one stream's read."""

    def __init__(self, settings: Settings, references: Sequence[str] = ()) -> None:
        """Raises StreamNotFound for a reference that is not there."""
        self.settings = settings
        self.store = open_local_store(settings.store, settings.home)
        self.checkpoints = read_checkpoints(settings.checkpoint_place)
        self.is_whole = not references
        directories = self.store.stream_directories()
        wanted = {reference.partition(":")[0] for reference in references}
        for reference in sorted(wanted - directories.keys()):
            raise StreamNotFound(
                f"there is no data stream {reference!r} in {settings.store_dir}; "
                f"{self.store.advice_on_missing(reference)}`windvane ls streams` shows what there is"
            )
        self.streams = {
            reference: directory
            for reference, directory in directories.items()
            if (self.is_whole or reference in wanted) and directory.exists()
        }
        self.has_lost_checkpoints = (
            bool(directories) and settings.database is None and not settings.checkpoint_file.exists()
        )
        """Whether the checkpoint database is missing, and streams are there that it should cover."""
        self._arrays = {reference for reference in references if ":" in reference}
        self.counts = {"streams": 0, "arrays": 0, "databases": 0, "bytes": 0}

    @property
    def total_bytes(self) -> int:
        """About how much there is to read."""
        total = sum(_size(directory) for directory in self.streams.values())
        if self.is_whole:
            total += sum(path.stat().st_size for path in self.databases() if path.exists())
            if self.is_embedded:
                total += log_bytes(self.settings.home / "bus")
        return total

    @property
    def is_embedded(self) -> bool:
        """Whether the log is in this home."""
        return self.settings.bus.startswith("embedded:")

    def databases(self) -> list[Path]:
        """The databases of this home, those that should be there too."""
        found = set(self.settings.home.glob("*.sqlite"))
        if self.settings.database is None:
            found.add(self.settings.checkpoint_file)
            if self.settings.catalog is None:
                found.add(self.settings.home / "catalog.sqlite")
        return sorted(found)

    def damages(self, done: Callable[[int], object] = lambda _: None) -> Iterator[Checked]:
        """Read everything; `done` receives the number of bytes read so far."""
        if self.is_whole:
            for path in self.databases():
                yield from (Checked(damage, False) for damage in self._database(path))
                done(self.counts["bytes"])
        for reference, directory in self.streams.items():
            yield from self.stream(reference, directory, done)
        if self.is_whole and self.is_embedded:
            yield from self._log(done)

    def committed(self, reference: str) -> Committed:
        """The current checkpoint of a data stream or data array."""
        if not self.checkpoints.is_known:
            return self.checkpoints.committed(reference)
        now = read_checkpoints(self.settings.checkpoint_place, reference.partition(":")[0])
        return (now if now.is_known else self.checkpoints).committed(reference)

    def stream(
        self, reference: str, directory: Path, done: Callable[[int], object] = lambda _: None
    ) -> Iterator[Checked]:
        """The damages of one stream and its arrays."""
        known = known_damages(directory)
        notes = {(note.get("code"), note.get("file"), note.get("offset")) for note in known}
        if not self._arrays or reference in {array.partition(":")[0] for array in self._arrays}:
            self.counts["streams"] += 1
            scrub = self._scrub(reference, directory)
            for damage in scrub.damages(partial(_add, done, self.counts["bytes"])):
                place = (damage.code, _below(damage.file, directory), damage.offset)
                yield Checked(damage, place in notes)
            self.counts["bytes"] += scrub.total_bytes
        for array, folder in self.store.array_directories(reference).items():
            if self._arrays and array not in self._arrays:
                continue
            self.counts["arrays"] += 1
            rows = self._scrub_array(array, folder)
            for damage in rows.damages(partial(_add, done, self.counts["bytes"])):
                yield Checked(damage, False)
            self.counts["bytes"] += rows.total_bytes

    def stops(self, reference: str, directory: Path) -> Iterator[Checked]:
        """The damage that stops the stream or its arrays; reads only heads and sizes."""
        scrub = self._scrub(reference, directory)
        for damage in scrub.stops():
            yield Checked(damage, False)
        for array, folder in self.store.array_directories(reference).items():
            if "~" not in array:
                for damage in self._scrub_array(array, folder).stops():
                    yield Checked(damage, False)

    def _scrub(self, reference: str, directory: Path) -> StreamScrub:
        return StreamScrub(
            directory, reference, self.committed(reference), partial(self.committed, reference)
        )

    def _scrub_array(self, array: str, folder: Path) -> ArrayScrub:
        return ArrayScrub(folder, array, self.committed(array), partial(self.committed, array))

    def _database(self, path: Path) -> Iterator[Damage]:
        self.counts["databases"] += 1
        is_expected = path == self.settings.checkpoint_file and bool(self.streams)
        if path.name == "catalog.sqlite":
            from ...store.catalog.policy_copy import read_policy_copy

            is_expected = bool(read_policy_copy(self.settings.policy_copy_file))
        remedy = "stop Windvane, then: windvane verify --repair"
        for offset, problem in check_database(path, expected=is_expected):
            yield Damage("database", path, offset, path.name, problem, remedy)
        if path == self.settings.checkpoint_file and self.checkpoints.problem:
            yield Damage("database", path, 0, path.name, self.checkpoints.problem, remedy)
        if path.exists():
            self.counts["bytes"] += path.stat().st_size

    def _log(self, done: Callable[[int], object]) -> Iterator[Checked]:
        from ...bus.embedded.log_repair import partitions_of, verify_log

        bus = self.settings.home / "bus"
        for partition in partitions_of(bus):
            name = f"{partition.topic}/{partition.partition}"
            report = verify_log(bus, partition)
            position = self.checkpoints.positions.get((partition.topic, partition.partition), 0)
            for found in (*report.damages, *report.gaps):
                missing = found.reason
                if found.stop > found.first:
                    missing = f"messages {found.first} to {found.stop - 1} are missing: {found.reason}"
                    if found.stop <= position:
                        missing += "; they are stored in their streams already"
                damage = Damage("log", found.path, found.byte, name, missing, "windvane verify --repair")
                yield Checked(damage, found in report.gaps)
            self.counts["bytes"] += log_bytes(bus / partition.topic / str(partition.partition))
            done(self.counts["bytes"])


def as_json(checked: Sequence[Checked], check: HomeCheck, *, repaired: list[str], aside: list[Path]) -> str:
    """What `verify --json` prints."""
    return json.dumps(
        {
            "checked": check.counts,
            "damages": [each.as_json() for each in checked],
            "repaired": repaired,
            "set_aside": [str(path) for path in aside],
        },
        ensure_ascii=False,
        indent=1,
    )


def log_bytes(directory: Path) -> int:
    """The bytes of the segments of a log, or of a bus."""
    return sum(path.stat().st_size for path in directory.rglob("*.log"))


def _add(done: Callable[[int], object], before: int, read: int) -> None:
    done(before + read)


def _size(directory: Path) -> int:
    """About the bytes of a stream and of its arrays that are read; without what is allocated in advance."""
    folders = (directory / "bytes", *(directory.parent / "arrays").glob("*/*/"))
    statuses = [path.stat() for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sum(min(status.st_size, status.st_blocks * 512) for status in statuses)


def _below(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)
