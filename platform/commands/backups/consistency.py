"""Whether the copied files are of one state: that of the checkpoints that were copied before them."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from ...bus.embedded.bus_directory import topic_uid
from ...config import Settings
from ...errors import ArrayNotFound, StreamDamaged, StreamNotFound
from ...store.databases import checkpoint_schema as tables
from ...store.databases.checkpoint_records import UNKNOWN_LOG
from ...store.databases.database import Place, open_reader
from ...store.interface import REBUILT, StoreEngine
from ...store.repair.local_store import open_local_store
from ..common.home_check import Checkpoints, read_checkpoints
from .home_files import BUS, STORE
from .manifest import Position


@dataclass(slots=True)
class Findings:
    """What differs between the checkpoints of the backup and the home after it was copied.

    `changed`: why the files have to be copied once more. `absent`: outputs that the home itself lacks.
    `later`: folders of outputs that were committed for the first time meanwhile; their chunks are on the bus.
    """

    changed: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)


def compare_store(settings: Settings, taken: Checkpoints) -> Findings:
    """Look at every output that `taken` covers, and at those that came later."""
    found = Findings()
    with closing(open_local_store(settings.store, settings.home)) as store:
        now = read_checkpoints(settings.checkpoint_place)
        for checkpoint in taken.streams.values():
            for reference, length in checkpoint.outputs.items():
                if not length.length and not length.chunks:
                    continue
                start = start_of(store, reference, length.uid)
                if start is None:
                    current = now.committed(reference).length
                    is_covered = current is not None and current.uid == length.uid
                    (found.absent if is_covered else found.changed).append(reference)
                elif start > length.length:
                    found.changed.append(reference)
        for stream, checkpoint in now.streams.items():
            known = taken.streams.get(stream)
            if known is None:
                found.later.append(_below_home(settings, store.stream_directories().get(stream), parent=True))
                continue
            for reference in checkpoint.outputs.keys() - known.outputs.keys() - {stream}:
                found.later.append(_below_home(settings, store.array_directory(reference)))
    found.later = [path for path in found.later if path]
    return found


def start_of(store: StoreEngine, reference: str, uid: bytes) -> int | None:
    """The first byte or row that is kept of this output; None if no readable one has this uid."""
    try:
        if ":" not in reference:
            with store.stream(reference) as stream:
                return stream.start if stream.uid == uid else None
        # A worker that was stopped in between has committed the array and not given it its name yet.
        name = reference + REBUILT if store.is_rebuilt(reference, uid) else reference
        with store.array(name) as array:
            return array.start if array.uid == uid else None
    except (StreamNotFound, ArrayNotFound, StreamDamaged, OSError):
        return None


def _below_home(settings: Settings, directory: Path | None, *, parent: bool = False) -> str:
    if directory is None:
        return ""
    folder = directory.parent if parent else directory
    return f"{STORE}/{folder.relative_to(settings.store_dir)}/"


def read_positions(place: Place) -> list[Position]:
    """The positions of all partitions, of every log that the home was used with."""
    table = tables.positions
    query = sa.select(table.c.log, table.c.topic, table.c.partition, table.c.next_offset)
    with (
        closing(open_reader(place, tables.SCHEMA)) as database,
        database.reading("read the positions") as connection,
    ):
        rows = connection.execute(query).all()
    return [Position(*row[:3], max(row[3] or 0, 0)) for row in rows]


def missing_segments(
    home: Path, positions: list[Position], before: Mapping[str, list[int]], copied: Mapping[str, object]
) -> list[str]:
    """Segments with messages from the positions on that were there before, and were removed uncopied."""
    missing = []
    for partition, bases in before.items():
        topic, _, number = partition.rpartition("/")
        position = _position(home, positions, topic, int(number))
        for base, following in zip(bases, [*bases[1:], None], strict=True):
            path = f"{BUS}/{partition}/{base:020d}.log"
            if (following is None or following > position) and path not in copied:
                missing.append(path)
    return missing


def _position(home: Path, positions: list[Position], topic: str, partition: int) -> int:
    of_partition = {
        each.log: each.next_offset for each in positions if (each.topic, each.partition) == (topic, partition)
    }
    log = f"embedded:{topic_uid(home / BUS / topic)}"
    return of_partition.get(log, of_partition.get(UNKNOWN_LOG, 0))
