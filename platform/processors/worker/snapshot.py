"""The content of one checkpoint."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

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
