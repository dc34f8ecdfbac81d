"""The partitions that this worker owns, and the state of each between checkpoints.

A partition is owned from the moment when its epoch was taken (`CheckpointDatabase.take`) until it is dropped
here: because the bus has revoked it, or because a commit has shown that another worker took it since.
"""

import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ....bus.interface import TopicPartition
from ....bus.messages.chunks import ChunkMessage
from ....key_table import KEY_BYTES, KeyTable
from ....records.events import chunk_key, content_key, is_identified_by_id
from ....store.databases.checkpoint_records import Hole, Taken
from ....store.databases.interfaces import CheckpointDatabase

RETAKE_AFTER_S = 10.0
"""A partition that another worker took, and that the bus has not revoked after this time, is retaken.

Three times the longest time in which a bus engine notices that its group has rebalanced without it.
"""


@dataclass(slots=True, eq=False)
class OwnedPartition:
    """One partition while it is owned; a later time of owning it is another object.

    Memory: the polled chunks that are not processed, up to the backlog's bounds.
    """

    key: TopicPartition
    log: str
    """The identity of the log that its offsets belong to."""
    epoch: int
    before: str | None
    """Who owned it before, by name."""
    committed: int | None = None
    """The position in the last commit; None if there is none in this log."""
    frontier: int | None = None
    """One past the last message that was polled."""
    queued_bytes: int = 0
    polled_s: float = 0.0
    """Monotonic time of the last poll that returned messages of it."""
    suspects: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    """Messages that crashed a worker: offset → number of times, and the last cause."""
    held_suspects: dict[int, str] = field(default_factory=dict)
    """Those of them that are buffered, each with its stream: the partition's position is after them."""
    paused_until_s: float = 0.0
    """Monotonic time before which it is not read, since a message of it could not be stored."""
    holes: tuple[Hole, ...] = ()
    read_after: Mapping[TopicPartition, int] = field(default_factory=dict)
    """The partition was added to its topic: it is read after the others were read up to these offsets."""
    paused: bool = False
    released: bool = False
    """It is being released: no thread starts a chunk of it."""

    def is_suspected(self, stream: str) -> bool:
        """Whether the stream's chunks are suspects: a message of the partition that is not committed yet, or
        one that this stream has buffered (maybe for hours), has ended a worker.
        """
        return any(offset >= (self.committed or 0) for offset in self.suspects) or (
            stream in self.held_suspects.values()
        )

    def rewind(self, offset: int) -> None:
        """Records that the partition is reread from this message: it is neither processed nor in memory."""
        if self.frontier is not None:
            self.frontier = min(self.frontier, offset)


def repetition_key(chunk: ChunkMessage, *, by_content: bool) -> bytes | None:
    """Returns the key that identifies a repetition of the chunk; None if it cannot be repeated."""
    if by_content and not is_identified_by_id(chunk.chunk_id):
        return content_key(chunk.sender, chunk.tag, chunk.payload)
    if chunk.chunk_id:  # an empty ID would be the same for all chunks
        return chunk_key(chunk.sender, chunk.tag, chunk.chunk_id)
    return None


class Ownership:
    """The partitions of one worker, changed only on the event loop, and the keys of its recent chunks."""

    def __init__(self, checkpoints: CheckpointDatabase, name: str, *, remembered_keys: int) -> None:
        """`remembered_keys`: how many chunk keys are known in memory, over all partitions."""
        self._checkpoints = checkpoints
        self._name = name
        self._keys = KeyTable(remembered_keys)
        self._remembered_keys = remembered_keys
        self._keys_changing = threading.Lock()  # several threads add, one at a time
        self._masks: dict[str, int] = {}
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._lost_at_s: dict[TopicPartition, float] = {}

    def get(self, key: TopicPartition) -> OwnedPartition | None:
        """Returns the partition if it is owned now."""
        return self._owned.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._owned

    def __iter__(self) -> Iterator[OwnedPartition]:
        # A copy in one step: a thread that takes a snapshot may iterate while the event loop adds.
        return iter(list(self._owned.values()))

    def __len__(self) -> int:
        return len(self._owned)

    def take(
        self, keys: Iterable[TopicPartition], logs: Mapping[str, str]
    ) -> list[tuple[OwnedPartition, Taken]]:
        """Raises the epochs; returns each partition with its committed state.

        `logs` has the identity of each topic's log. Blocks; nothing is owned until `add`. Raises StoreFailed.
        """
        taken = self._checkpoints.take(keys, owner=self._name, logs=logs)
        # Each partition has the same share, the newest last: none evicts recent keys of the others.
        share = max(1, self._remembered_keys // (len(self._owned) + len(taken)))
        newest = [[(topic, key) for key in each.chunk_keys[-share:]] for (topic, _), each in taken.items()]
        for back in range(max(map(len, newest), default=0), 0, -1):
            for of_partition in newest:
                if back <= len(of_partition):
                    self.remember(*of_partition[-back])
        return [
            (self._owned_partition(TopicPartition(*key), logs, each), each) for key, each in taken.items()
        ]

    def _owned_partition(self, key: TopicPartition, logs: Mapping[str, str], taken: Taken) -> OwnedPartition:
        log = logs[key.topic]
        return OwnedPartition(
            key=key,
            log=log,
            epoch=taken.epoch,
            before=taken.before,
            committed=taken.position,
            frontier=taken.position,
            suspects=self._checkpoints.suspects(log, key),
            held_suspects=self._checkpoints.held_suspects(log, key),
            holes=tuple(self._checkpoints.holes(log, key)),
        )

    def has_seen(self, topic: str, key: bytes) -> bool:
        """Whether a chunk of this key, by whichever partition of the topic, is part of its stream."""
        return self._in_topic(topic, key) in self._keys

    def remember(self, topic: str, key: bytes) -> None:
        """A chunk of this key has become part of its stream."""
        with self._keys_changing:
            self._keys.add(self._in_topic(topic, key))

    def forget(self, topic: str, key: bytes) -> None:
        """The chunk of this key is no longer part of its stream: the stream was rolled back to its
        checkpoint.
        """
        with self._keys_changing:
            self._keys.discard(self._in_topic(topic, key))

    def _in_topic(self, topic: str, key: bytes) -> bytes:
        """The same tag may belong to two policies, and be stored under each."""
        mask = self._masks.get(topic)
        if mask is None:
            mask = self._masks[topic] = int.from_bytes(
                hashlib.blake2b(topic.encode(), digest_size=KEY_BYTES).digest(), "little"
            )
        return (int.from_bytes(key, "little") ^ mask).to_bytes(KEY_BYTES, "little")

    def add(self, partition: OwnedPartition) -> None:
        """Adds the partition; its chunks may be processed."""
        self._owned[partition.key] = partition
        self._lost_at_s.pop(partition.key, None)

    def drop(self, keys: Collection[TopicPartition]) -> None:
        """The bus has revoked them."""
        for key in keys:
            self._owned.pop(key, None)
            self._lost_at_s.pop(key, None)

    def lose(self, keys: Collection[TopicPartition]) -> None:
        """Another worker has taken them, though the bus has not revoked them yet."""
        self.drop(keys)
        self._lost_at_s.update(dict.fromkeys(keys, time.monotonic()))

    def to_retake(self) -> list[TopicPartition]:
        """Returns partitions that were lost long ago and never revoked: the other worker took them too
        late.
        """
        now_s = time.monotonic()
        return [key for key, at_s in self._lost_at_s.items() if now_s - at_s >= RETAKE_AFTER_S]
