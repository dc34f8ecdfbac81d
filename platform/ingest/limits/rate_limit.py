"""Limits of rate: token buckets, and the line in which chunks wait for their tokens.

A bucket fills at its rate up to its burst. What takes more than is in it leaves a debt, so that a chunk
larger than the burst passes too, once the bucket is full, and the rate holds over time.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from ...store.catalog.policy import Limits


class Clock(Protocol):
    """Time as an event loop has it; a test hands in one that it moves."""

    def time(self) -> float:
        """Seconds since some moment, never going back."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        """Calls back in `delay` seconds."""


class TokenBucket:
    """One rate; full at first. Tokens are events or bytes, `now_s` the seconds of any steady clock."""

    def __init__(self, per_s: float, burst: float, *, now_s: float) -> None:
        self.per_s = per_s
        self.burst = burst
        self._tokens = burst
        self._filled_at_s = now_s

    def wait_s(self, amount: float, *, now_s: float) -> float:
        """In how many seconds `amount` may be taken; 0 for now."""
        self._fill(now_s)
        return max(0.0, (min(amount, self.burst) - self._tokens) / self.per_s)

    def take(self, amount: float, *, now_s: float) -> None:
        """Takes `amount`, whether it is there or not."""
        self._fill(now_s)
        self._tokens -= amount

    def change(self, per_s: float, burst: float, *, now_s: float) -> None:
        """Another rate from now on; what was taken stays taken."""
        self._fill(now_s)
        self.per_s, self.burst = per_s, burst
        self._tokens = min(self._tokens, burst)

    def _fill(self, now_s: float) -> None:
        self._tokens = min(self.burst, self._tokens + (now_s - self._filled_at_s) * self.per_s)
        self._filled_at_s = now_s


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    events: int
    size: int
    go: Callable[[], object]


class RateLimit:
    """The rates of one policy, and who waits for them, first come first served.

    Memory: what its user puts into the line; `Gateway` bounds that by its bytes.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._clock = clock
        self._events: TokenBucket | None = None
        self._bytes: TokenBucket | None = None
        self._line: deque[_Waiting] = deque()
        self._timer: object | None = None  # the one that counts; those before it find nothing to do
        self.change(limits)

    def change(self, limits: Limits) -> None:
        """The policy was edited; who waits stays in line."""
        self._events = self._changed(self._events, limits.events_per_s, limits.burst_s)
        self._bytes = self._changed(self._bytes, limits.bytes_per_s, limits.burst_s)
        self._timer = None
        self._let_go()

    def wait_s(self, *, events: int, size: int) -> float:
        """In how many seconds such a chunk could go; 0 for now. Does not count those that wait before it."""
        now_s = self._clock.time()
        waits = [0.0]
        if self._events is not None:
            waits.append(self._events.wait_s(events, now_s=now_s))
        if self._bytes is not None:
            waits.append(self._bytes.wait_s(size, now_s=now_s))
        return max(waits)

    def try_take(self, *, events: int, size: int) -> bool:
        """Takes the tokens of a chunk if they are available and no chunk waits for them."""
        if self._line:
            return False
        if self._events is None and self._bytes is None:
            return True
        if self.wait_s(events=events, size=size) > 0:
            return False
        self._take(events, size)
        return True

    def put_in_line(self, *, events: int, size: int, go: Callable[[], object]) -> None:
        """Calls `go` when it is this chunk's turn and its tokens are there."""
        self._line.append(_Waiting(events, size, go))
        self._set_timer()

    def open(self) -> None:
        """Lets all who wait go at once, whatever the rates say: the gateway stops."""
        while self._line:
            self._line.popleft().go()

    def _take(self, events: int, size: int) -> None:
        now_s = self._clock.time()
        if self._events is not None:
            self._events.take(events, now_s=now_s)
        if self._bytes is not None:
            self._bytes.take(size, now_s=now_s)

    def _set_timer(self) -> None:
        if not self._line or self._timer is not None:
            return
        timer = self._timer = object()

        def due() -> None:
            if self._timer is timer:
                self._timer = None
                self._let_go()

        first = self._line[0]
        # A microsecond more, so that rounding does not let the timer fire just before the tokens arrive.
        self._clock.call_later(self.wait_s(events=first.events, size=first.size) + 1e-6, due)

    def _let_go(self) -> None:
        while self._line and not self.wait_s(events=self._line[0].events, size=self._line[0].size):
            first = self._line.popleft()
            self._take(first.events, first.size)
            first.go()
        self._set_timer()

    def _changed(self, bucket: TokenBucket | None, per_s: float | None, burst_s: float) -> TokenBucket | None:
        if per_s is None:
            return None
        now_s = self._clock.time()
        if bucket is None:
            return TokenBucket(per_s, per_s * burst_s, now_s=now_s)
        bucket.change(per_s, per_s * burst_s, now_s=now_s)
        return bucket
