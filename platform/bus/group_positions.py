"""Where a consumer group of the embedded bus stands, and which process reads for it.

@groups/<group>/lock             held by the group's one consumer
@groups/<group>/positions.json   {topic: {partition: offset of the next message}}, replaced atomically
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from ..directories import make_directory, sync_directory
from ..errors import BusCorrupt
from .interface import TopicPartition

_POSITIONS = "positions.json"
_Form: TypeAlias = dict[str, dict[str, int]]


class GroupPositions:
    """One group's positions. All of it blocks, shortly; for one thread at a time.

    A group is known from when it was made until its folder is removed; retention keeps for it what it has
    not read, of every topic.
    """

    def __init__(self, directory: Path) -> None:
        make_directory(directory)
        self._directory = directory
        self._lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        self._by_partition: dict[TopicPartition, int] = {}

    def take(self) -> bool:
        """Become the group's consumer, unless another one is (False). The lock goes with the process."""
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._by_partition = _load(self._directory)
        return True

    def get(self, topic_partition: TopicPartition) -> int | None:
        """The committed position; None where there is none."""
        return self._by_partition.get(topic_partition)

    def put(self, positions: Mapping[TopicPartition, int]) -> None:
        """Keep positions, beside those of other partitions; only for the one who has taken the lock."""
        by_partition = {**self._by_partition, **positions}
        if by_partition == self._by_partition:
            return
        form: _Form = {}
        for (topic, partition), offset in by_partition.items():
            form.setdefault(topic, {})[str(partition)] = offset
        building = self._directory / (_POSITIONS + ".new")
        with building.open("wb") as file:
            file.write(msgspec.json.encode(form))
            file.flush()
            os.fdatasync(file.fileno())
        building.replace(self._directory / _POSITIONS)
        # Retention goes by it: what it drops must not be needed again after a power cut.
        sync_directory(self._directory)
        self._by_partition = by_partition

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock_fd)


def make_group(directory: Path) -> None:
    """Make the group known, before any consumer of it has run."""
    make_directory(directory)


def first_needed(groups: Path, topic_partition: TopicPartition) -> int | None:
    """The lowest position that any known group has in the partition; None where there is no group.

    A group that has committed nothing there may still want all of it, so its position is 0.
    """
    if not groups.is_dir():
        return None
    positions = [_load(group).get(topic_partition, 0) for group in groups.iterdir() if group.is_dir()]
    return min(positions, default=None)


def _load(directory: Path) -> dict[TopicPartition, int]:
    path = directory / _POSITIONS
    try:
        form = msgspec.json.decode(path.read_bytes(), type=_Form)
        return {
            TopicPartition(topic, int(partition)): offset
            for topic, partitions in form.items()
            for partition, offset in partitions.items()
        }
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BusCorrupt(
            f"{path} is damaged: {error}. Remove it; the group then begins at the first message kept, unless "
            "its consumer knows better"
        ) from error
