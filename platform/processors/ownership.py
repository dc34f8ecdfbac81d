"""Which partitions this worker may work on, and what it knows of each of them between checkpoints.

A partition is owned from the moment when its epoch was taken (`CheckpointStore.take`) until it is dropped
here: because the bus has revoked it, or because a commit has shown that another worker took it since.
"""

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from ..bus.envelope import ChunkMessage
from ..bus.interface import BusMessage, TopicPartition
from ..events import chunk_key, content_key, is_stored_anew
from ..store.checkpoint import CheckpointStore

TAKE_AGAIN_S = 10.0
"""A partition that another worker took, and that the bus has not revoked by then, is ours after all.

Three times as long as an engine of the bus needs at most to notice that its group went on without it.
"""


@dataclass(slots=True, eq=False)
class OwnedPartition:
    """One partition while it is owned; a later time of owning it is another object.

    Memory: the keys of the chunk id window, and what was polled and waits for another's lock: two polls.
    """

    key: TopicPartition
    epoch: int
    before: str | None
    """Who owned it before, by name."""
    recent: OrderedDict[bytes, None]
    new_keys: list[bytes] = field(default_factory=list)
    position: int | None = None
    """The next offset, once something was worked on."""
    parked: list[BusMessage] = field(default_factory=list)
    """The message that cannot be worked on yet, and all that were polled after it."""
    paused: bool = False
    released: bool = False
    """Being given back: a thread that works on it begins no other chunk."""

    _snapshot_position: int | None = None

    def moved_to(self) -> int | None:
        """The position, where it is another than at the last call."""
        if self.position == self._snapshot_position:
            return None
        self._snapshot_position = self.position
        return self.position

    def take_new_keys(self) -> list[bytes]:
        """The keys that were remembered since the last call."""
        keys, self.new_keys = self.new_keys, []
        return keys

    def seen_before(self, key: bytes | None) -> bool:
        """Whether a chunk of this key was worked on recently."""
        return key is not None and key in self.recent

    def remember(self, key: bytes | None, *, window: int) -> None:
        """The chunk of this key was worked on."""
        if key is None:
            return
        self.recent[key] = None
        self.new_keys.append(key)
        if len(self.recent) > window:
            self.recent.popitem(last=False)


def repetition_key(chunk: ChunkMessage, *, by_content: bool) -> bytes | None:
    """By what a repetition of the chunk is known; None where it can have none."""
    if by_content and not is_stored_anew(chunk.chunk_id):
        return content_key(chunk.sender, chunk.tag, chunk.payload)
    if chunk.chunk_id:  # an empty one would be the same for all chunks
        return chunk_key(chunk.sender, chunk.tag, chunk.chunk_id)
    return None


class Ownership:
    """The partitions of one worker; changed on the event loop, while no thread works on what changes."""

    def __init__(self, checkpoints: CheckpointStore, name: str) -> None:
        self._checkpoints = checkpoints
        self._name = name
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._lost_at_s: dict[TopicPartition, float] = {}

    def get(self, key: TopicPartition) -> OwnedPartition | None:
        """The partition, where it is owned now."""
        return self._owned.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._owned

    def __iter__(self) -> Iterator[OwnedPartition]:
        # A copy in one step: a thread that takes a snapshot may iterate while the event loop adds.
        return iter(list(self._owned.values()))

    def __len__(self) -> int:
        return len(self._owned)

    def take(self, keys: Iterable[TopicPartition]) -> list[tuple[OwnedPartition, int | None]]:
        """Raise the epochs; each partition with the offset of its next message, None where none is known.

        Blocks; nothing is owned until `add`. Raises StoreFailed.
        """
        taken = self._checkpoints.take(keys, owner=self._name)
        return [
            (
                OwnedPartition(
                    key=TopicPartition(*key),
                    epoch=each.epoch,
                    before=each.before,
                    recent=OrderedDict.fromkeys(each.chunk_keys),
                ),
                each.position,
            )
            for key, each in taken.items()
        ]

    def add(self, partition: OwnedPartition) -> None:
        """Work may begin on it."""
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

    def to_take_again(self) -> list[TopicPartition]:
        """Lost for so long, and never revoked, that it was the other one who came late."""
        now_s = time.monotonic()
        return [key for key, at_s in self._lost_at_s.items() if now_s - at_s >= TAKE_AGAIN_S]
