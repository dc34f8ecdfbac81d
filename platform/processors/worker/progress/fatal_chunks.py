"""Messages that crashed worker processes, and when one becomes a dead letter."""

from collections.abc import Mapping

from ....bus.interface import TopicPartition
from ....store.databases.interfaces import CheckpointDatabase
from .in_flight import MessagePosition
from .ownership import OwnedPartition, Ownership

MAX_CRASHES = 2
"""A chunk that crashed this many worker processes goes to the dead letters instead of being retried."""


class Suspects:
    """How many worker processes a message has crashed; also of messages that are buffered."""

    def __init__(self, owned: Ownership, checkpoints: CheckpointDatabase) -> None:
        self._owned = owned
        self._checkpoints = checkpoints

    def crashes(self, position: MessagePosition) -> tuple[int, str]:
        """Returns how many worker processes crashed, and how the last one ended."""
        return self._of_partition(position).get(position.offset, (0, ""))

    def is_fatal(self, position: MessagePosition) -> bool:
        """Whether the message is not retried."""
        return self.crashes(position)[0] >= MAX_CRASHES

    def clear(self, position: MessagePosition) -> None:
        """Records that the message was processed, or is a dead letter."""
        if (owned := self._partition(position)) is not None:
            owned.held_suspects.pop(position.offset, None)

    def _of_partition(self, position: MessagePosition) -> Mapping[int, tuple[int, str]]:
        if (owned := self._partition(position)) is not None:
            return owned.suspects
        return self._checkpoints.suspects(position.log, (position.topic, position.partition))

    def _partition(self, position: MessagePosition) -> OwnedPartition | None:
        """None if the stream's tag has moved to another partition, or another log, since."""
        owned = self._owned.get(TopicPartition(position.topic, position.partition))
        return owned if owned is not None and owned.log == position.log else None


def crash_reason(crashes: int, cause: str) -> str:
    """Returns the reason of the dead letter."""
    return f"the worker process crashed {crashes} times while it processed this chunk: {cause}"
