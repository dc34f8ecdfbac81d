"""What one checkpoint commits, all of one moment."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..bus.interface import TopicPartition
from ..store.checkpoint import StreamCheckpoint
from ..store.model_files import Identity


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a worker stands between two chunks: what changed since the last snapshot.

    `epochs` has every partition that the worker owns, changed or not, so that the loss of an idle one is
    noticed too. `changed_by`: the partitions that have brought chunks of a stream. `models`: the files that
    streams have taken models up from.
    """

    epochs: Mapping[TopicPartition, int] = field(default_factory=dict)
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    chunk_keys: Mapping[TopicPartition, list[bytes]] = field(default_factory=dict)
    streams: Mapping[str, StreamCheckpoint] = field(default_factory=dict)
    changed_by: Mapping[str, frozenset[TopicPartition]] = field(default_factory=dict)
    models: Mapping[str, dict[str, Identity]] = field(default_factory=dict)

    def without(self, gone: Collection[TopicPartition]) -> "Snapshot":
        """What is left of it without these partitions, and without the streams that have chunks of theirs."""
        kept_streams = {
            reference for reference, partitions in self.changed_by.items() if partitions.isdisjoint(gone)
        }
        return Snapshot(
            epochs={key: epoch for key, epoch in self.epochs.items() if key not in gone},
            positions={key: at for key, at in self.positions.items() if key not in gone},
            chunk_keys={key: keys for key, keys in self.chunk_keys.items() if key not in gone},
            streams={name: each for name, each in self.streams.items() if name in kept_streams},
            changed_by={name: each for name, each in self.changed_by.items() if name in kept_streams},
            models={name: each for name, each in self.models.items() if name in kept_streams},
        )
