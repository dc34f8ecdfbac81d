"""Messages that crashed worker processes, and when one becomes a dead letter."""

from collections.abc import Mapping

from ....bus.interface import TopicPartition
from ....store.databases.checkpoint import CheckpointStore
from .in_flight import Place
from .ownership import OwnedPartition, Ownership

DEATHS_TO_SET_ASIDE = 2
"""A chunk that crashed this many worker processes goes to the dead letters instead of being retried."""


class Suspects:
    """Messages by how many workers they ended, including messages that are buffered since they were read."""

    def __init__(self, owned: Ownership, checkpoints: CheckpointStore) -> None:
        self._owned = owned
        self._checkpoints = checkpoints

    def deaths(self, place: Place) -> tuple[int, str]:
        """Returns how many workers ended, and how the last one ended."""
        return self._of_partition(place).get(place.offset, (0, ""))

    def is_deadly(self, place: Place) -> bool:
        """Whether the message is not retried."""
        return self.deaths(place)[0] >= DEATHS_TO_SET_ASIDE

    def done_with(self, place: Place) -> None:
        """Records that the message was processed, or is a dead letter."""
        if (owned := self._partition(place)) is not None:
            owned.held_suspects.pop(place.offset, None)

    def _of_partition(self, place: Place) -> Mapping[int, tuple[int, str]]:
        if (owned := self._partition(place)) is not None:
            return owned.suspects
        return self._checkpoints.suspects(place.log, (place.topic, place.partition))

    def _partition(self, place: Place) -> OwnedPartition | None:
        """None if the stream's tag has moved to another partition, or another log, since."""
        owned = self._owned.get(TopicPartition(place.topic, place.partition))
        return owned if owned is not None and owned.log == place.log else None


def ended_worker(deaths: int, cause: str) -> str:
    """Returns the reason of the dead letter."""
    return f"the worker process ended {deaths} times while it worked on this chunk: {cause}"
