"""What the parts of the store promise, whichever engine keeps them.

`windvane.testing` has a suite for each interface: `checkpoints.CheckpointConformance` and
`dead_letters.DeadLetterConformance`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from .checkpoint_records import Hole, Partition, StreamCheckpoint, Taken
from .dead_letter import DeadLetter, DeadLetterStatistics, KeptDeadLetter, Summaries
from .stream_order import OrderFigures


class CheckpointDatabase(ABC):
    """The checkpoints of all streams; thread-safe, and each process may commit the partitions that it has.

    A commit is one transaction. A killed process leaves the last commit that had returned, or the one that
    was running, whole. A failed commit (StoreFailed: disk full, fsync failed, server away) leaves the one
    before it, unless the disk or the server kept what was reported as failed: read the positions from the
    database before you continue. Size is bounded by the states, by `window` chunk keys per partition, and by
    the messages that stay in the outbox.
    """

    database_id: bytes
    """16 random bytes, made with the database: an output knows by it which one its checkpoints are in."""

    @abstractmethod
    def positions(self) -> dict[Partition, int]:
        """(topic, partition) → the offset of the next message to read, in the log that was read last."""

    @abstractmethod
    def logs(self) -> dict[str, dict[Partition, int]]:
        """The committed positions by log: former logs may still have messages."""

    @abstractmethod
    def streams(self) -> list[str]:
        """The references of all streams that have a checkpoint, sorted."""

    @abstractmethod
    def stream(self, reference: str) -> StreamCheckpoint | None:
        """The checkpoint of one stream; None if it has none yet.

        If its row is lost and its held chunks are not, the checkpoint has these alone.
        """

    @abstractmethod
    def holds_chunks(self, reference: str) -> bool:
        """Whether the stream holds chunks back to put them in order."""

    @abstractmethod
    def held_chunk_ids(self, reference: str) -> list[bytes]:
        """The IDs, at most 32 bytes each, of the chunks that the stream holds; b"" for one without."""

    @abstractmethod
    def orders(self, partitions: Iterable[Partition]) -> list[OrderFigures]:
        """The streams of these partitions that hold chunks or have figures about their order."""

    @abstractmethod
    def figures(self, references: Sequence[str]) -> dict[str, OrderFigures]:
        """The figures about the order of these streams; a stream without figures is missing."""

    @abstractmethod
    def held_suspects(self, log: str, partition: Partition) -> dict[int, str]:
        """The held messages that ended a worker: offset → stream."""

    @abstractmethod
    def chunk_keys(self, topic: str, partition: int) -> list[bytes]:
        """The keys of the chunks last seen on a partition, oldest first; at most the window of its commit."""

    @abstractmethod
    def keys_elsewhere(self, reference: str, partition: Partition) -> list[bytes]:
        """The keys of a stream's chunks that came by other partitions than this one."""

    @abstractmethod
    def take(
        self, partitions: Iterable[Partition], *, owner: str, logs: Mapping[str, str] = MappingProxyType({})
    ) -> dict[Partition, Taken]:
        """Make `owner` the owner of these partitions, and return what was committed of each.

        This is one transaction: it returns the last commit of the former owner, whose later commits fail.
        `owner` is the name of a worker, for messages. `logs` has the identity of each topic's present log.
        Raises StoreFailed.
        """

    @abstractmethod
    def open_added(self, log: str, partition: Partition) -> None:
        """A partition that was added to its topic may be read now: the earlier partitions have been."""

    @abstractmethod
    def owner(self, partition: Partition) -> str | None:
        """The name of the worker that took the partition last; None if it was never taken."""

    @abstractmethod
    def commit(
        self,
        *,
        positions: Mapping[Partition, int],
        streams: Mapping[str, StreamCheckpoint],
        chunk_keys: Mapping[Partition, Sequence[tuple[str, bytes]]],
        window: int,
        epochs: Mapping[Partition, int] = MappingProxyType({}),
        logs: Mapping[Partition, str] = MappingProxyType({}),
    ) -> None:
        """Record all of it in one transaction; durable on return.

        Args:
            positions: The next offset to read, for the partitions that moved.
            streams: The streams that changed; each replaces its whole row.
            chunk_keys: The new keys with the stream of each, oldest first.
            window: How many keys a partition keeps; the oldest leave.
            epochs: What `take` returned for the partitions that all this came from.
            logs: The log of each partition.

        Raises PartitionLost if other workers have taken some of the partitions since, and StoreFailed; then
        nothing is recorded.
        """

    @abstractmethod
    def holes(self, log: str, partition: Partition) -> list[Hole]:
        """The messages of a partition that an operator chose to skip, lowest first."""

    @abstractmethod
    def skip(self, hole: Hole) -> None:
        """Record that reading resumes after the hole: its messages are given up."""

    @abstractmethod
    def blame(self, log: str, partition: Partition, offsets: Iterable[int], reason: str) -> None:
        """A worker ended while it worked on these messages: count that for each."""

    @abstractmethod
    def suspects(self, log: str, partition: Partition) -> dict[int, tuple[int, str]]:
        """The messages that ended a worker: offset → how often, and how it ended the last time."""

    @abstractmethod
    def outbox(self, *, limit: int = 100) -> list[tuple[int, bytes]]:
        """The oldest committed messages that are still in the outbox, with their numbers."""

    @abstractmethod
    def take_out(self, numbers: Iterable[int]) -> None:
        """Remove messages that have arrived; numbers that are removed already are ignored."""

    @abstractmethod
    def rewind(self, reference: str, partitions: Sequence[Partition]) -> None:
        """Drop the checkpoint of a stream, and rewind these partitions to their beginning; no worker may run.

        In one transaction: every other stream gets the former position of each partition as its own, below
        which it skips messages; the chunk IDs of the stream are dropped, and those without a stream.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the database; closing twice is allowed."""


class DeadLetters(ABC):
    """Rejected input with its reason; processes may add at once, and any thread may call every method.

    What is kept never costs more than its bound in bytes (payloads, texts and an overhead per letter). Each
    code has a share of that (`rejections.REJECTIONS`), so that letters of one code never evict those that
    others are guaranteed. A payload that has no room in its share is kept cut.

    A letter is durable when `add` returns: one short transaction, so on an event loop call it from a worker
    thread. If many letters arrive at once, pass them to `add_all` together.
    """

    @abstractmethod
    def add(self, letter: DeadLetter) -> int:
        """Keep a letter and return its ID; a letter that is kept already is only counted. StoreFailed.

        Letters are the same if code, tag, sender, payload, chunk ID and occurrence are equal: then `times`
        and `last_time_ns` change, and the rest stays as it was the first time.
        """

    @abstractmethod
    def add_all(self, letters: Sequence[DeadLetter]) -> Sequence[int]:
        """Keep several letters in one transaction; returns their IDs, in order. StoreFailed."""

    @abstractmethod
    def get(self, id: int) -> KeptDeadLetter:
        """One letter with its payload. Raises DeadLetterNotFound."""

    @abstractmethod
    def drop(self, id: int) -> None:
        """Remove one letter permanently; it does not count as evicted. Raises DeadLetterNotFound."""

    @abstractmethod
    def drop_all(self, ids: Sequence[int]) -> int:
        """Remove the letters that are still kept, in one transaction; returns how many there were."""

    @abstractmethod
    def statistics(self) -> DeadLetterStatistics:
        """How many letters are kept, their cost in bytes, and how many were ever evicted."""

    @abstractmethod
    def close(self) -> None:
        """Close the database; closing twice is allowed."""

    @abstractmethod
    def list(self, *, limit: int = 100, before: int | None = None, code: str | None = None) -> Summaries:
        """The newest first, at most `limit`; `before` is the last ID of the previous page.

        With `code`, only letters of this code.
        """
