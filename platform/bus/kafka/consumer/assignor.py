"""Cooperative, sticky assignment of partitions to the members of a consumer group.

aiokafka implements only Kafka's eager rebalance, in which every consumer releases all its partitions whenever
a member joins or leaves. This assignor makes it cooperative (as KIP-429 does in Kafka's own client), using
only the data that an assignor may exchange:

- When it joins, each member reports the partitions that it holds.
- The leader computes an even distribution that moves as few partitions as possible. It assigns a held
  partition to its holder or, if the distribution moves it, to no member.
- A member that loses a partition finishes with it, then rejoins; now the leader can assign it to another.

So a partition has one holder at a time, and partitions that do not move are read without interruption.

A member of another installation (`installation.py`) gets no partitions, and both sides detect each other.
Members that report no installation, as those of an earlier version, count as the leader's own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from ...interface import TopicPartition

_VERSION = 0


class _Held(msgspec.Struct, frozen=True):
    """What a member reports when it joins, as JSON in the user data of the consumer protocol."""

    held: dict[str, list[int]]
    installation: str = ""


class CooperativeAssignor:
    """One consumer's assignor; names are those of Kafka's topics.

    `held` returns the partitions that the consumer holds when it joins. `granted` is called with those that
    it is assigned, and `met_another` if a member of another installation is in the group.
    """

    name = "windvane-cooperative"

    def __init__(
        self,
        held: Callable[[], Collection[TopicPartition]],
        granted: Callable[[Collection[TopicPartition]], None],
        *,
        installation: str,
        met_another: Callable[[], None],
    ) -> None:
        self._installation = installation
        self._met_another = met_another
        self._held = held
        self._granted = granted

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member reports when it joins."""
        report = msgspec.json.encode(_Held(_by_topic(self._held()), self._installation))
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), report)

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Receives the assignment of the leader, before anything is fetched."""
        if self._is_another((assignment.user_data or b"").decode("ascii", "replace")):
            self._met_another()
        self._granted({TopicPartition(*partition) for partition in assignment.partitions()})

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Called on the leader: the assignment of each member."""
        reports = {member: _decode_report(metadata.user_data) for member, metadata in members.items()}
        others = {member for member, report in reports.items() if self._is_another(report.installation)}
        if others:
            self._met_another()
        topics = {
            member: set(metadata.subscription) for member, metadata in members.items() if member not in others
        }
        partitions = [
            TopicPartition(topic, number)
            for topic in sorted(set().union(*topics.values()))
            for number in sorted(cluster.partitions_for_topic(topic) or ())
        ]
        held = {
            member: [
                TopicPartition(topic, number) for topic, numbers in report.held.items() for number in numbers
            ]
            for member, report in reports.items()
        }
        given = share_out(partitions, topics, held)
        mine = self._installation.encode()
        return {
            member: ConsumerProtocolMemberAssignment(
                _VERSION, sorted(_by_topic(given.get(member, ())).items()), mine
            )
            for member in members
        }

    def _is_another(self, installation: str) -> bool:
        return installation not in ("", self._installation)


def share_out(
    partitions: Collection[TopicPartition],
    topics: Mapping[str, Collection[str]],
    held: Mapping[str, Collection[TopicPartition]],
) -> dict[str, list[TopicPartition]]:
    """Assign `partitions` to the members, by the topics that they read and the partitions that they hold.

    A partition that two members report is assigned to neither.
    """
    holders: dict[TopicPartition, list[str]] = {}
    for member in sorted(held):
        for partition in held[member]:
            holders.setdefault(partition, []).append(member)
    planned: dict[str, list[TopicPartition]] = {member: [] for member in sorted(topics)}
    free = []
    for partition in sorted(partitions):
        holder = holders.get(partition, [])
        if len(holder) == 1 and partition.topic in topics.get(holder[0], ()):
            planned[holder[0]].append(partition)
        else:
            free.append(partition)
    for partition in free:
        readers = [member for member in planned if partition.topic in topics[member]]
        if readers:
            planned[min(readers, key=lambda member: len(planned[member]))].append(partition)
    _level(planned, topics)
    return {
        member: sorted(partition for partition in parts if holders.get(partition, [member]) == [member])
        for member, parts in planned.items()
    }


def _level(planned: dict[str, list[TopicPartition]], topics: Mapping[str, Collection[str]]) -> None:
    """Move partitions, one at a time, to members with at least two fewer, until no such member is left."""
    moved = True
    while moved:
        moved = False
        for giver in sorted(planned, key=lambda member: -len(planned[member])):
            for taker in sorted(planned, key=lambda member: len(planned[member])):
                if len(planned[giver]) - len(planned[taker]) < 2:
                    break
                movable = [partition for partition in planned[giver] if partition.topic in topics[taker]]
                if movable:
                    planned[giver].remove(movable[-1])
                    planned[taker].append(movable[-1])
                    moved = True
                    break
            if moved:
                break


def _by_topic(partitions: Collection[TopicPartition]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        numbers.setdefault(topic, []).append(number)
    return numbers


def _decode_report(user_data: bytes) -> _Held:
    try:
        return msgspec.json.decode(user_data, type=_Held)
    except (msgspec.DecodeError, TypeError):
        return _Held({})  # not one of Windvane's consumers: it holds nothing that is known
