"""The positions of a consumer group of the embedded bus, and the lock of the process that reads for it.

@groups/<group>/lock             held by the group's one consumer
@groups/<group>/live             held by it too, once the positions are those of its database
@groups/<group>/positions.json   {topic: {partition: offset of the next message}}, replaced atomically; under
                                 "@positions_of", which no topic can be named, the database they belong to

The file of positions can outlive the checkpoint database that they come from. If that database is lost, its
successor needs messages that the old positions would let retention drop. So retention uses positions only
while the consumer that committed them runs, for its current database.
"""

import fcntl
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from ...directories import make_directory, sync_directory
from ...errors import BusCorrupt
from ..interface import TopicPartition

_POSITIONS = "positions.json"
_LOCK = "lock"
_LIVE = "live"
_POSITIONS_OF = "@positions_of"
_Form: TypeAlias = dict[str, dict[str, int] | str]

_log = logging.getLogger(__name__)


class GroupPositions:
    """One group's positions. All methods block for a short time; for one thread at a time.

    A group is known from its creation until its folder is removed; retention keeps what it has not read, in
    every topic.
    """

    def __init__(self, directory: Path, *, positions_of: str | None = None) -> None:
        make_directory(directory)
        self._directory = directory
        self._positions_of = positions_of
        self._lock_fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        self._live_fd = os.open(directory / _LIVE, os.O_RDWR | os.O_CREAT, 0o666)
        self._by_partition: dict[TopicPartition, int] = {}

    def take(self) -> bool:
        """Become the group's consumer; False if it has one already. The lock ends with the process.

        Drops the positions of another database.
        """
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            positions_of, by_partition = _load(self._directory)
        except BusCorrupt as error:
            # The reader's own database has the positions that matter; without one it reads all messages.
            kept = self._directory / f"{_POSITIONS}.damaged-{time.time_ns()}"
            (self._directory / _POSITIONS).rename(kept)
            _log.error("%s; it was moved to %s", error, kept)
            positions_of, by_partition = None, {}
        if positions_of == self._positions_of:
            self._by_partition = by_partition
        else:
            self._by_partition = {}
            self._store({})
        fcntl.flock(self._live_fd, fcntl.LOCK_EX)  # waits for `first_needed`, which holds it for a moment
        return True

    def get(self, topic_partition: TopicPartition) -> int | None:
        """The committed position, or None."""
        return self._by_partition.get(topic_partition)

    def put(self, positions: Mapping[TopicPartition, int]) -> None:
        """Store positions, in addition to those of other partitions; only for the holder of the lock."""
        by_partition = {**self._by_partition, **positions}
        if by_partition == self._by_partition:
            return
        self._store(by_partition)
        self._by_partition = by_partition

    def _store(self, by_partition: Mapping[TopicPartition, int]) -> None:
        topics: dict[str, dict[str, int]] = {}
        for (topic, partition), offset in by_partition.items():
            topics.setdefault(topic, {})[str(partition)] = offset
        form: _Form = {**topics}
        if self._positions_of is not None:
            form[_POSITIONS_OF] = self._positions_of
        building = self._directory / (_POSITIONS + ".new")
        with building.open("wb") as file:
            file.write(msgspec.json.encode(form))
            file.flush()
            os.fdatasync(file.fileno())
        building.replace(self._directory / _POSITIONS)
        # Retention relies on it: what it drops must not be needed after a power cut.
        sync_directory(self._directory)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._live_fd)
        os.close(self._lock_fd)


def make_group(directory: Path) -> None:
    """Create the group, before any of its consumers has run."""
    make_directory(directory)


def first_needed(groups: Path, topic_partition: TopicPartition) -> int | None:
    """The lowest position that any known group has in the partition; None if there is no group.

    A group that has committed nothing there may still need all of it, so its position is 0. So is that of a
    group whose consumer does not run, since it is not known which database its positions belong to now.
    """
    if not groups.is_dir():
        return None
    positions = [_needed(group, topic_partition) for group in groups.iterdir() if group.is_dir()]
    return min(positions, default=None)


def _needed(group: Path, topic_partition: TopicPartition) -> int:
    return _load(group)[1].get(topic_partition, 0) if _is_live(group) else 0


def _is_live(group: Path) -> bool:
    """Whether a consumer of the group runs, and the positions are those of its database."""
    try:
        fd = os.open(group / _LIVE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _load(directory: Path) -> tuple[str | None, dict[TopicPartition, int]]:
    """The database that the positions belong to, and the positions."""
    path = directory / _POSITIONS
    try:
        form = msgspec.json.decode(path.read_bytes(), type=_Form)
        positions_of = form.pop(_POSITIONS_OF, None)
        positions = {
            TopicPartition(topic, int(partition)): offset
            for topic, partitions in form.items()
            if isinstance(partitions, dict)
            for partition, offset in partitions.items()
        }
    except FileNotFoundError:
        return None, {}
    except ValueError as error:
        raise BusCorrupt(
            f"{path} is damaged: {error}. The group starts where its checkpoints say, or at the first "
            "message kept"
        ) from error
    return positions_of if isinstance(positions_of, str) else None, positions
