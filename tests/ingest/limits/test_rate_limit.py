"""Rates: what goes at once, what waits, in which order; with a clock that the test moves."""

import heapq
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.ingest.limits.rate_limit import RateLimit, TokenBucket
from windvane.store.catalog.policy import Limits


class MovedClock:
    """An event loop's clock, moved by the test."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        self._count += 1
        heapq.heappush(self._timers, (self.now_s + delay, self._count, callback))
        return None

    def move(self, seconds: float) -> None:
        end = self.now_s + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now_s, _, callback = heapq.heappop(self._timers)
            callback()
        self.now_s = end


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(10, 20, now_s=0)
    assert bucket.wait_s(20, now_s=0) == 0
    bucket.take(20, now_s=0)
    assert bucket.wait_s(5, now_s=0) == 0.5
    assert bucket.wait_s(5, now_s=0.25) == 0.25
    assert bucket.wait_s(5, now_s=0.5) == 0
    assert bucket.wait_s(20, now_s=1000) == 0


def test_more_than_the_burst_passes_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = TokenBucket(10, 20, now_s=0)
    bucket.take(1, now_s=0)
    assert bucket.wait_s(100, now_s=0) == pytest.approx(0.1)
    bucket.take(100, now_s=0.1)
    assert bucket.wait_s(1, now_s=0.1) == pytest.approx(8.1)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), max_size=60))
def test_over_any_time_no_more_passes_than_rate_burst_and_one_chunk(tries: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(10, 20, now_s=0)
    now_s, passed, largest = 0.0, 0, 0
    for pause_s, amount in tries:
        now_s += pause_s
        if bucket.wait_s(amount, now_s=now_s) == 0:
            bucket.take(amount, now_s=now_s)
            passed += amount
            largest = max(largest, amount)
        assert passed <= 20 + 10 * now_s + largest + 1e-6


def test_who_waits_goes_in_turn_when_the_tokens_are_there() -> None:
    clock, gone = MovedClock(), list[str]()
    rate = RateLimit(Limits(events_per_s=10, burst_s=1), clock)
    assert rate.try_take(events=10, size=1)
    assert not rate.try_take(events=5, size=1)
    rate.put_in_line(events=5, size=1, go=lambda: gone.append("a"))
    rate.put_in_line(events=1, size=1, go=lambda: gone.append("b"))
    assert not rate.try_take(events=0, size=0), "no chunk overtakes another"
    clock.move(0.49)
    assert gone == []
    clock.move(0.02)
    assert gone == ["a"]
    clock.move(0.1)
    assert gone == ["a", "b"]
    clock.move(1.1)
    assert rate.try_take(events=10, size=1)


def test_both_rates_hold() -> None:
    clock = MovedClock()
    rate = RateLimit(Limits(events_per_s=10, bytes_per_s=100, burst_s=1), clock)
    assert rate.try_take(events=1, size=100)
    assert rate.wait_s(events=1, size=50) == 0.5
    assert rate.wait_s(events=10, size=1) == pytest.approx(0.1)


def test_an_edited_rate_holds_for_those_who_wait_and_keeps_what_was_taken() -> None:
    clock, gone = MovedClock(), list[str]()
    rate = RateLimit(Limits(events_per_s=1, burst_s=1), clock)
    assert rate.try_take(events=100, size=0)
    rate.put_in_line(events=1, size=0, go=lambda: gone.append("a"))
    rate.change(Limits(events_per_s=100, burst_s=1))
    clock.move(0.9)
    assert gone == []
    clock.move(0.2)
    assert gone == ["a"]


def test_a_rate_that_is_taken_away_lets_all_go() -> None:
    clock, gone = MovedClock(), list[str]()
    rate = RateLimit(Limits(events_per_s=1), clock)
    assert rate.try_take(events=1000, size=0)
    rate.put_in_line(events=1, size=0, go=lambda: gone.append("a"))
    rate.change(Limits())
    assert gone == ["a"]
    assert rate.try_take(events=10**9, size=10**9)
