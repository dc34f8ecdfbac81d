"""The content of one checkpoint."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ...bus.interface import TopicPartition
from .progress.ownership import OwnedPartition
from .stream_work import StreamSnapshot, StreamWork


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The streams whose snapshots a commit takes, and the positions of the partitions with it.

    `owned` has every partition of the worker, changed or not, so that the loss of an idle one is noticed too.
    """

    owned: Collection[OwnedPartition] = ()
    positions: Mapping[OwnedPartition, int] = field(default_factory=dict)
    streams: Mapping[StreamWork, StreamSnapshot] = field(default_factory=dict)

    def without(self, gone: Collection[TopicPartition]) -> "Snapshot":
        """Returns the snapshot without these partitions, and without the streams that have chunks of them."""
        return Snapshot(
            owned=[each for each in self.owned if each.key not in gone],
            positions={each: at for each, at in self.positions.items() if each.key not in gone},
            streams={
                stream: snapshot
                for stream, snapshot in self.streams.items()
                if not any(each.key in gone for each in snapshot.uncommitted)
            },
        )
