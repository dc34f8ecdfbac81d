"""Which partitions a member of a consumer group holds, has to release, and may read.

A member learns of a new assignment while it joins, and adapts to it later, during its polls: in between it
holds partitions that it was not assigned, and was assigned some that it does not hold. A pure state machine.
"""

from collections.abc import Collection

from ....errors import BusUnavailable
from ...interface import TopicPartition


class Assignment:
    """The partitions of one consumer.

    `granted` is the latest assignment of the group's leader. `held` has the partitions that were passed to
    `AssignmentListener.assigned` and not revoked. `stale` is the part of `held` that the group has reassigned
    without a handover, because it considered this consumer dead.
    """

    def __init__(self) -> None:
        self.granted: set[TopicPartition] = set()
        self.held: set[TopicPartition] = set()
        self.stale: set[TopicPartition] = set()

    @property
    def is_settled(self) -> bool:
        """Whether the held partitions are those that were granted: neither `lost` nor `new` has any."""
        return self.held == self.granted and not self.stale

    @property
    def lost(self) -> set[TopicPartition]:
        """Held partitions that have to be revoked."""
        return self.stale | (self.held - self.granted)

    @property
    def new(self) -> set[TopicPartition]:
        """Granted partitions that are not held yet."""
        return self.granted - self.held

    @property
    def owned(self) -> set[TopicPartition]:
        """Held partitions that no other member can hold: those to report to the leader."""
        return self.held - self.stale

    def owns(self, partition: TopicPartition) -> bool:
        """Whether the partition is in `owned`: only then this consumer may read it."""
        return partition in self.held and partition not in self.stale

    def grant(self, partitions: Collection[TopicPartition]) -> None:
        """The leader has assigned these."""
        self.granted = set(partitions)

    def narrow(self, topics: Collection[str]) -> None:
        """The subscription has changed: partitions of other topics have to be revoked."""
        self.granted &= {partition for partition in self.held if partition.topic in topics}

    def invalidate(self) -> None:
        """This consumer is not in the group any more: others may hold its partitions by now."""
        self.stale |= self.held
        self.granted.clear()  # otherwise it would resume the partitions right after revoking them

    def release(self, partitions: Collection[TopicPartition]) -> None:
        """These are revoked."""
        self.held.difference_update(partitions)
        self.stale.difference_update(partitions)

    def check_held(self, partitions: Collection[TopicPartition]) -> None:
        """Raises `BusUnavailable` if one of the partitions is not held."""
        for partition in partitions:
            if partition not in self.held:
                raise BusUnavailable(
                    f"{partition.topic}/{partition.partition} is not (or no longer) assigned to this consumer"
                )
