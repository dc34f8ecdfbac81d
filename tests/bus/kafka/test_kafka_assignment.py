"""Which partitions a consumer holds and may read, through joins, handovers and removals."""

import pytest
from windvane.bus import TopicPartition
from windvane.bus.kafka.consumer.assignment import Assignment
from windvane.errors import BusUnavailable

A, B, OTHER = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("other", 0)


def holding(*partitions: TopicPartition) -> Assignment:
    assignment = Assignment()
    assignment.grant(partitions)
    assignment.held.update(partitions)
    return assignment


def test_a_grant_is_new_until_it_is_held() -> None:
    assignment = holding(A)
    assert assignment.is_settled
    assignment.grant([A, B])
    assert (assignment.new, assignment.lost, assignment.is_settled) == ({B}, set(), False)
    assignment.held.add(B)
    assert assignment.is_settled


def test_a_partition_that_moves_is_owned_until_it_is_released() -> None:
    assignment = holding(A, B)
    assignment.grant([B])
    assert assignment.lost == {A}
    assert assignment.owned == {A, B}
    assignment.release([A])
    assert assignment.is_settled
    with pytest.raises(BusUnavailable, match="t/0 is not"):
        assignment.check_held([B, A])


def test_a_consumer_that_the_group_removed_owns_nothing_and_revokes_everything() -> None:
    assignment = holding(A, B)
    assignment.invalidate()
    assert assignment.owned == set()
    assert not assignment.owns(A)
    assignment.check_held([A, B])
    assignment.grant([A])
    assert assignment.lost == {A, B}
    assignment.release([A, B])
    assert (assignment.new, assignment.lost) == ({A}, set())


def test_a_narrower_subscription_revokes_the_partitions_of_other_topics() -> None:
    assignment = holding(A, OTHER)
    assignment.narrow(["t"])
    assert assignment.lost == {OTHER}
    assert assignment.new == set()
