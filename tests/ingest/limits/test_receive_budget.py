"""Room for incomplete messages: at most the limit and one message, and each receiver gets its turn."""

import random

from hypothesis import given
from hypothesis import strategies as st
from windvane.ingest.limits.receive_budget import ReceiveBudget


class Sender:
    """A receiver that needs the bytes of `steps`, and waits while the budget has no room."""

    def __init__(self, budget: ReceiveBudget, steps: list[int]) -> None:
        self.budget, self.steps = budget, steps
        self.waits = False

    def admitted(self) -> None:
        assert self.waits
        self.waits = False
        self.steps.pop(0)

    def proceed(self) -> None:
        if not self.steps:
            self.budget.forget(self)
        elif self.budget.ask(self, self.steps[0]):
            self.steps.pop(0)
        else:
            self.waits = True


def test_who_finds_no_room_waits_and_is_admitted_in_turn() -> None:
    budget = ReceiveBudget(100)
    first, second, third = (Sender(budget, [60]) for _ in range(3))
    for sender in (first, second, third):
        sender.proceed()
    assert [s.waits for s in (first, second, third)] == [False, True, True]
    budget.forget(first)
    assert [s.waits for s in (second, third)] == [False, True]
    budget.forget(third)
    budget.forget(second)
    assert budget.used_bytes == 0


def test_one_message_larger_than_the_budget_passes_alone() -> None:
    budget = ReceiveBudget(100)
    large, small = Sender(budget, [300]), Sender(budget, [10])
    large.proceed()
    small.proceed()
    assert (large.waits, small.waits, budget.used_bytes) == (False, True, 300)
    budget.forget(large)
    assert (small.waits, budget.used_bytes) == (False, 10)


@given(
    st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=5).map(sorted), max_size=30),
    st.randoms(use_true_random=False),
)
def test_each_receiver_completes_and_the_limit_holds(plans: list[list[int]], order: random.Random) -> None:
    budget = ReceiveBudget(100)
    senders = [Sender(budget, list(plan)) for plan in plans]
    unfinished = list(senders)
    while unfinished:
        able = [sender for sender in unfinished if not sender.waits]
        assert able, "all wait for each other"
        sender = order.choice(able)
        if not sender.steps:
            unfinished.remove(sender)
        sender.proceed()
        assert budget.used_bytes <= 100 + 90
    assert budget.used_bytes == 0
