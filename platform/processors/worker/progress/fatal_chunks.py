"""The messages that worker processes died of, and when one of them is set aside."""

from collections.abc import Mapping

from ....bus.interface import TopicPartition
from ....store.databases.checkpoint import CheckpointStore
from .in_flight import Place
from .ownership import OwnedPartition, Ownership

DEATHS_TO_SET_ASIDE = 2
"""A chunk that the worker process died of so often goes to the dead letters instead of a third try."""


class Suspects:
    """Messages by how often a worker died of them; also those that were held back since they were read."""

    def __init__(self, owned: Ownership, checkpoints: CheckpointStore) -> None:
        self._owned = owned
        self._checkpoints = checkpoints

    def deaths(self, place: Place) -> tuple[int, str]:
        """How often, and how it died the last time."""
        return self._of_partition(place).get(place.offset, (0, ""))

    def is_deadly(self, place: Place) -> bool:
        """Whether there is no third try."""
        return self.deaths(place)[0] >= DEATHS_TO_SET_ASIDE

    def done_with(self, place: Place) -> None:
        """What came in the message was worked on, or set aside."""
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


def ended_worker(deaths: int, died_of: str) -> str:
    """The reason of the dead letter."""
    return f"the worker process ended {deaths} times while it worked on this chunk: {died_of}"
