"""What a worker reports about its partitions and buses, and about the end of the worker before it."""

import logging
from collections.abc import Collection

from ....runtime.instrumentation import Count, Event, LogLine

_LISTED_PARTITIONS = 10


class PartitionsAssigned(Event, frozen=True):
    """The bus has assigned partitions to this worker."""

    line = LogLine(logging.INFO, "assigned {partitions}; owns {owned} partitions")

    partitions: str
    owned: int


class PartitionsReleased(Event, frozen=True):
    """This worker has released partitions, or noticed that another worker owns them."""

    line = LogLine(logging.INFO, "released {partitions}; owns {owned} partitions")

    partitions: str
    owned: int


class PartitionsLost(Event, frozen=True):
    """Other workers took partitions while this one was suspended or disconnected."""

    line = LogLine(logging.WARNING, "{reason}", key=())
    counts = (
        Count(
            "lost_total",
            "windvane_worker_lost_partitions",
            "Partitions that another worker took unnoticed",
            amount="number",
        ),
    )

    number: int
    reason: str


class PartitionReadHalted(Event, frozen=True):
    """A partition cannot be read further; the others can."""

    line = LogLine(logging.WARNING, "{reason}", key=("topic", "partition"))

    topic: str
    partition: int
    reason: str


class MessagesGivenUp(Event, frozen=True):
    """Reading continues after messages that are gone, as an operator decided."""

    line = LogLine(
        logging.WARNING,
        "{topic}/{partition} resumes at message {resume_at}; messages {first} to {last} were skipped",
    )

    topic: str
    partition: int
    resume_at: int
    first: int

    @property
    def last(self) -> int:
        """The last message that was skipped."""
        return self.resume_at - 1


class PartitionLogReplaced(Event, frozen=True):
    """A partition has positions of other logs only, so it is read from its beginning."""

    line = LogLine(
        logging.WARNING,
        "{topic}/{partition} is a new log ({log}); it is read from its beginning. Positions of the former "
        "one ({former}) are kept",
        key=("topic", "partition"),
    )

    topic: str
    partition: int
    log: str
    former: str


class BusUnreachable(Event, frozen=True):
    """The bus delivers no messages now."""

    line = LogLine(logging.WARNING, "waiting for the bus: {reason}", key=())

    reason: str

    @classmethod
    def of(cls, error: Exception) -> "BusUnreachable":
        """The event of a request that `error` ended."""
        return cls(str(error) or repr(error))


class PreviousWorkerDied(Event, frozen=True):
    """The previous worker crashed while it processed chunks, and one of them may be the cause."""

    line = LogLine(
        logging.WARNING,
        "the previous worker crashed while it processed {chunks} chunks: {reason}. A chunk that crashes a "
        "worker twice becomes a dead letter",
    )

    chunks: int
    reason: str


class FormerBusFound(Event, frozen=True):
    """A bus that the home used before has messages that are not stored."""

    line = LogLine(logging.INFO, "the former bus {url} has {messages} messages, which are stored first")

    url: str
    messages: int


class FormerBusUnreadable(Event, frozen=True):
    """A bus that the home used before cannot be read."""

    line = LogLine(
        logging.WARNING,
        "the former bus {url} cannot be read ({reason}). Chunks on it that are not stored remain "
        "there: make it reachable and restart the worker",
    )

    url: str
    reason: str


def listed_partitions(keys: Collection[tuple[str, int]]) -> str:
    """The first ten as TOPIC/NUMBER, and how many more there are."""
    names = [f"{topic}/{partition}" for topic, partition in sorted(keys)]
    more = len(names) - _LISTED_PARTITIONS
    return ", ".join(names[:_LISTED_PARTITIONS]) + (f" and {more} more" if more > 0 else "")
