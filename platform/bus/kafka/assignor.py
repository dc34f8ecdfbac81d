"""Who of a consumer group reads which partition: evenly, staying where it is, handed over without a gap.

aiokafka knows Kafka's eager rebalance alone, in which every consumer lets go of everything each time that one
comes or goes. The rule here makes a cooperative one of it (as KIP-429 does in Kafka's own client), with
nothing but what an assignor may say:

- When it joins, each member says which partitions it holds.
- The leader wishes for an even distribution that moves as little as possible. A partition that somebody
  holds is given to its holder or, where the wish is another, to nobody.
- Who is not given what it holds finishes with it, then joins again, holding less: now it can be given away.

So a partition has one holder at a time, and those that stay are read on all the while.

A member of another installation (`installation.py`) is given nothing, and each learns that the other
is there. Members that do not say which one they are of, as those of an earlier version, count as the leader's
own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from ..interface import TopicPartition

_VERSION = 0


class _Held(msgspec.Struct, frozen=True):
    """What a member says when it joins, as JSON in the user data of the consumer protocol."""

    held: dict[str, list[int]]
    installation: str = ""


class CooperativeAssignor:
    """One consumer's assignor; names are those of Kafka's topics.

    `held` says what the consumer holds whenever it joins; `granted` is called with what it is given, and
    `met_another` if a member of another installation is in the group.
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
        """What this member says when it joins."""
        told = msgspec.json.encode(_Held(_by_topic(self._held()), self._installation))
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), told)

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Told what the leader gave, before anything is fetched."""
        if self._is_another((assignment.user_data or b"").decode("ascii", "replace")):
            self._met_another()
        self._granted({TopicPartition(*partition) for partition in assignment.partitions()})

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """As the leader: what each member is given."""
        told = {member: _read_told(metadata.user_data) for member, metadata in members.items()}
        others = {member for member, said in told.items() if self._is_another(said.installation)}
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
                TopicPartition(topic, number) for topic, numbers in said.held.items() for number in numbers
            ]
            for member, said in told.items()
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
    """What each member is given of `partitions`, by the topics that it reads and what each one holds.

    A partition that two say they hold is given to neither.
    """
    holders: dict[TopicPartition, list[str]] = {}
    for member in sorted(held):
        for partition in held[member]:
            holders.setdefault(partition, []).append(member)
    wish: dict[str, list[TopicPartition]] = {member: [] for member in sorted(topics)}
    free = []
    for partition in sorted(partitions):
        holder = holders.get(partition, [])
        if len(holder) == 1 and partition.topic in topics.get(holder[0], ()):
            wish[holder[0]].append(partition)
        else:
            free.append(partition)
    for partition in free:
        readers = [member for member in wish if partition.topic in topics[member]]
        if readers:
            wish[min(readers, key=lambda member: len(wish[member]))].append(partition)
    _level(wish, topics)
    return {
        member: sorted(partition for partition in parts if holders.get(partition, [member]) == [member])
        for member, parts in wish.items()
    }


def _level(wish: dict[str, list[TopicPartition]], topics: Mapping[str, Collection[str]]) -> None:
    """Move partitions, one at a time, to members with at least two fewer, until there are none."""
    moved = True
    while moved:
        moved = False
        for giver in sorted(wish, key=lambda member: -len(wish[member])):
            for taker in sorted(wish, key=lambda member: len(wish[member])):
                if len(wish[giver]) - len(wish[taker]) < 2:
                    break
                movable = [partition for partition in wish[giver] if partition.topic in topics[taker]]
                if movable:
                    wish[giver].remove(movable[-1])
                    wish[taker].append(movable[-1])
                    moved = True
                    break
            if moved:
                break


def _by_topic(partitions: Collection[TopicPartition]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        numbers.setdefault(topic, []).append(number)
    return numbers


def _read_told(user_data: bytes) -> _Held:
    try:
        return msgspec.json.decode(user_data, type=_Held)
    except (msgspec.DecodeError, TypeError):
        return _Held({})  # of no consumer of ours: it takes what it is given
