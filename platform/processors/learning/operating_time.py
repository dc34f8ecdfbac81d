"""The running time of a machine, from event times that may stand still, jump or go back."""

from __future__ import annotations

from dataclasses import dataclass

LEAP_S, LEAP_ADVANCES = 3600.0, 100.0
"""A leap is an advance of more than an hour and of more than a hundred usual ones, or as far back."""

_NS_PER_S = 1_000_000_000


@dataclass(slots=True)
class RunningTime:
    """A clock that runs by event times, and never backwards.

    A leap (an outage, or a sender's clock that was set) counts as one usual advance: a bearing does not age
    while it stands still. Slightly late rows do not advance the clock. Between events, rows lie 1 / rate
    apart, so that a recording that arrives as one event has its length. Keeps four numbers.

    Attributes:
        now_s: seconds of running since the first row.
    """

    now_s: float = 0.0
    _event_s: float = 0.0
    _latest_ns: int | None = None
    _usual_s: float = 1.0

    def advance(self, time_ns: int, rate_hz: float) -> float:
        """Takes the event time of the next row; returns its running time in seconds."""
        if self._latest_ns is None:
            self._latest_ns = time_ns
            return self.now_s
        step_s = (time_ns - self._latest_ns) / _NS_PER_S
        if abs(step_s) > max(LEAP_S, LEAP_ADVANCES * self._usual_s):
            self._latest_ns = time_ns
            self._event_s += self._usual_s
        elif step_s > 0:
            self._latest_ns = time_ns
            self._event_s += step_s
            self._usual_s = step_s
        by_rate_s = self.now_s + 1 / rate_hz if rate_hz > 0 else self.now_s
        self.now_s = max(self._event_s, by_rate_s)
        return self.now_s
