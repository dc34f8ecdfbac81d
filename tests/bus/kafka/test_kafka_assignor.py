"""Assignment of partitions in a group: one holder at a time, evenly, with as few moves as possible."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from windvane.bus.interface import TopicPartition
from windvane.bus.kafka.consumer.assignor import share_out

TOPICS = ["a", "b", "c"]
PARTITIONS = st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 7)).map(
    lambda counts: [TopicPartition(topic, number) for topic in counts for number in range(counts[topic])]
)
MEMBERS = st.dictionaries(
    st.sampled_from("klmnop"), st.sets(st.sampled_from(TOPICS), min_size=1), min_size=1, max_size=5
)


ROUNDS = 5
"""Two suffice if members hold only what they read; a member that holds other partitions adds a round."""


def rounds(
    partitions: list[TopicPartition],
    topics: Mapping[str, set[str]],
    held: dict[str, set[TopicPartition]],
) -> list[dict[str, set[TopicPartition]]]:
    """The held partitions after each round: a member that loses one releases it and rejoins."""
    history = [held]
    for _ in range(ROUNDS):
        given = share_out(partitions, topics, history[-1])
        held_now = {member: set(given[member]) for member in topics}
        for member, parts in held_now.items():
            for other, others in history[-1].items():
                if other != member:
                    assert not parts & others, "assigned while another member holds it"
        history.append(held_now)
    return history


@given(PARTITIONS, MEMBERS, st.data())
def test_from_any_correct_state_all_partitions_are_assigned_evenly_after_a_few_rounds(
    partitions: list[TopicPartition], topics: dict[str, set[str]], data: st.DataObject
) -> None:
    held: dict[str, set[TopicPartition]] = {member: set() for member in topics}
    for partition in partitions:
        holder = data.draw(st.sampled_from([None, *topics]))
        if holder is not None:
            held[holder].add(partition)
    *_, last_but_one, last = rounds(partitions, topics, held)
    assert last_but_one == last
    readable = {
        partition for partition in partitions if any(partition.topic in read for read in topics.values())
    }
    assert set().union(*last.values()) == readable
    assert sum(map(len, last.values())) == len(readable)
    for member, parts in last.items():
        assert {partition.topic for partition in parts} <= topics[member]
    if all(read == set(TOPICS) for read in topics.values()):
        sizes = [len(parts) for parts in last.values()]
        assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 20), st.integers(1, 5))
def test_a_new_member_gets_a_fair_share_and_no_other_partition_moves(count: int, members: int) -> None:
    partitions = [TopicPartition("a", number) for number in range(count)]
    names = [f"m{number}" for number in range(members)]
    before = rounds(partitions, {name: {"a"} for name in names}, {name: set() for name in names})[-1]
    topics = {name: {"a"} for name in [*names, "new"]}
    after = rounds(partitions, topics, {**before, "new": set()})[-1]
    assert all(after[name] <= before[name] for name in names)
    assert len(after["new"]) == count // (members + 1)


def test_a_partition_that_two_members_report_is_assigned_to_neither_until_both_release_it() -> None:
    partition = TopicPartition("a", 0)
    topics = {"k": {"a"}, "l": {"a"}}
    assert share_out([partition], topics, {"k": [partition], "l": [partition]}) == {"k": [], "l": []}
    assert share_out([partition], topics, {"k": [], "l": []}) == {"k": [partition], "l": []}
