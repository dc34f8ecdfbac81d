"""`order`: samples over shaft angle instead of time, so that shaft harmonics keep their place in a spectrum.

Sources: K. R. Fyfe, E. D. S. Munck, "Analysis of computed order tracking", Mechanical Systems and Signal
Processing 11 (1997), for resampling by a tacho; interpolation after R. Keys, "Cubic convolution interpolation
for digital image processing", IEEE Transactions on Acoustics, Speech, and Signal Processing 29 (1981).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block, Given
from .base.operation import Operation, operation
from .base.reach import Reach

_MARGIN = 3
"""Samples required after a position before it is processed: Keys' kernel takes two on each side."""


@dataclass(frozen=True, slots=True)
class OrderState:
    """State between blocks; positions are samples since the last gap.

    Attributes:
        samples: shape (kept, channels), the first at `start`.
        start: position of the first kept sample.
        origin: global index of the sample at position 0.
        rate_hz: of the samples.
        seen: positions processed so far; the last three samples are still pending.
        high: whether the tacho was above its threshold at the last of them.
        known: position of the last pulse, None before the first.
        pulses: since the angle began.
        angle: at the last processed position, in points, from the speed.
        given: rows since the angle began.
        base: number of the first of them.
    """

    samples: NDArray[np.float64]
    start: int
    origin: int
    rate_hz: float
    seen: int = 0
    high: bool = True
    known: float | None = None
    pulses: int = 0
    angle: float = 0.0
    given: int = 0
    base: int = 0

    @property
    def next_sample(self) -> int:
        """Global index of the next expected sample."""
        return self.origin + self.start + len(self.samples)


@operation("order")
class Order(Operation):
    """Samples at equal angles of a shaft, `points` in a turn: a spectrum of them has orders for frequencies.

    This is computed order tracking (Fyfe and Munck 1997). The angle comes of a tacho, whose pulses are the
    places where the channel rises through `threshold` (between two samples, by a straight line; it must fall
    below `threshold` - `hysteresis` before the next): the shaft is taken to turn evenly from pulse to pulse.
    Or it comes of a channel with the speed, by the trapezoid rule. Angle 0 is the first pulse, or the first
    sample. The other channels are interpolated there by cubic convolution (Keys 1981), in float64.

    Samples of shape (n, channels) at a rate in Hz give rows (m, channels - 1) at `points` a turn: that is
    their rate, and orders the frequencies of what is made of them. Nothing keeps what lies above points / 2
    orders from folding back: put a `filter` before it if there is any. A row has the time of the event
    that made it known. Behind a gap, and if more than `max_turn_s` pass without a turn, angles start over.

    Keeps the samples of a turn, at most those of `max_turn_s`.

    ```toml
    [[policy.pipeline]]
    operation = "order"
    tacho_channel = 1
    threshold = 2.5
    points = 512

    [[policy.pipeline]]
    operation = "spectrum"
    name = "orders"
    input = "order"
    length = 8192               # 16 turns: lines of 1/16 order
    ```
    """

    input = "samples"
    accepts = ("values",)
    output = "samples"
    state_type = OrderState | None

    def __init__(
        self,
        *,
        points: Annotated[int, Meta(ge=2, le=65_536)] = 256,
        tacho_channel: Annotated[int, Meta(ge=0)] | None = None,
        threshold: float = 0.5,
        hysteresis: Annotated[float, Meta(ge=0)] = 0.0,
        pulses_per_turn: Annotated[int, Meta(ge=1, le=65_536)] = 1,
        speed_channel: Annotated[int, Meta(ge=0)] | None = None,
        speed_scale: Annotated[float, Meta(gt=0)] = 1.0,
        max_turn_s: Annotated[float, Meta(gt=0, le=600)] = 10.0,
        max_rpm: Annotated[float, Meta(gt=0)] = 6000.0,
    ) -> None:
        """The source of the angle.

        Args:
            points: samples per revolution.
            tacho_channel: index of the channel with the pulses.
            threshold: level of the rising edge of a pulse, in the unit of the channel.
            hysteresis: required fall below the threshold between pulses.
            pulses_per_turn: of the tacho.
            speed_channel: index of the channel with the speed, instead of a tacho.
            speed_scale: turns a minute per unit of that channel.
            max_turn_s: seconds of a turn, of the slowest that counts.
            max_rpm: turns a minute of the fastest: a pulse that comes earlier is noise, a higher speed
                counts as this one. So rows are bounded, whatever the channel holds.
        """
        if (tacho_channel is None) == (speed_channel is None):
            raise PolicyInvalid("give the channel of the angle, either tacho_channel or speed_channel.")
        self._points, self._pulses_per_turn = points, pulses_per_turn
        self._tacho = tacho_channel is not None
        self._channel = (tacho_channel if tacho_channel is not None else speed_channel) or 0
        self._threshold, self._hysteresis = threshold, hysteresis
        self._speed_scale, self._max_turn_s, self._max_rpm = speed_scale, max_turn_s, max_rpm
        self._state: OrderState | None = None

    def process(self, block: Block) -> Given:
        """Takes samples (n, channels); OperationFailed without a rate or without that channel."""
        channels = block.rows.shape[1]
        if not block.rate_hz > 0 or not self._channel < channels > 1:
            raise OperationFailed(
                f"There is no angle in channel {self._channel} of {channels} at {block.rate_hz:g} Hz: a rate "
                "and another channel are needed, and tacho_channel or speed_channel, counted from 0."
            )
        state = self._state
        if (
            state is None
            or (state.next_sample, state.rate_hz) != (block.first, block.rate_hz)
            or state.samples.shape[1] != channels
        ):
            base = 0 if state is None else state.base + state.given + 1
            state = OrderState(np.empty((0, channels)), 0, block.first, block.rate_hz, base=base)
        samples = np.concatenate((state.samples, block.rows), axis=0, dtype=np.float64)
        state = replace(state, samples=samples)
        stop = state.start + len(samples) - _MARGIN
        given: list[Block] = []
        if stop > state.seen:
            follow = self._follow_pulses if self._tacho else self._follow_speed
            state = follow(state, stop, block, given)
        self._state = state
        return tuple(given)

    def depends_on(self) -> Reach:
        """Everything: how many rows came before depends on all speeds until now."""
        return Reach()

    def state(self) -> OrderState | None:
        """The samples since the last known revolution."""
        return self._state

    def restore(self, state: OrderState | None) -> None:
        """Resumes from `state()`."""
        self._state = state

    def _follow_pulses(self, state: OrderState, stop: int, block: Block, given: list[Block]) -> OrderState:
        before = max(state.seen - 1, 0)
        channel = state.samples[before - state.start : stop - state.start, self._channel]
        crossings, state = self._crossings(state, channel, before, stop)
        max_samples = self._max_turn_s * state.rate_hz
        if len(crossings):
            earlier, later = channel[crossings - 1 - before], channel[crossings - before]
            with np.errstate(invalid="ignore"):
                places = crossings - 1 + (self._threshold - earlier) / (later - earlier)
            # After NaN, the pulse rises at the sample.
            places = np.where(np.isfinite(places), places, crossings)
            min_samples = 60 * state.rate_hz / (self._max_rpm * self._pulses_per_turn)
            counted = _spaced(places, state.known, min_samples)
            places, crossings = places[counted], crossings[counted]
        if len(crossings):
            known = places[0] - 2 * max_samples if state.known is None else state.known
            begins = np.flatnonzero(np.diff(places, prepend=known) > max_samples)
            for begin, end in zip([0, *begins.tolist()], [*begins.tolist(), len(places)], strict=True):
                if begin in begins:
                    anew = state.base + state.given + 1 if state.pulses else state.base
                    state = replace(state, known=None, pulses=0, given=0, base=anew)
                if begin < end:
                    state = self._turned(state, places[begin:end], crossings[begin:end], block, given)
        keep = stop - 2
        if state.known is not None and stop - state.known <= max_samples + 1:
            keep = min(keep, int(state.known) - 1)
        return _cut(state, keep)

    def _crossings(
        self, state: OrderState, channel: NDArray[np.float64], before: int, stop: int
    ) -> tuple[NDArray[np.int64], OrderState]:
        """Places of the samples, of those from `state.seen` to `stop`, at which a pulse has risen."""
        marks = np.where(channel >= self._threshold, 1, 0)
        marks[channel < self._threshold - self._hysteresis] = -1
        marks[0] = marks[0] if state.seen == 0 and marks[0] else (1 if state.high else -1)
        # Between both thresholds the state does not change.
        levels = marks[np.maximum.accumulate(np.where(marks != 0, np.arange(len(marks)), 0))]
        crossings = before + np.flatnonzero((levels[1:] == 1) & (levels[:-1] == -1)) + 1
        return crossings, replace(state, seen=stop, high=bool(levels[-1] == 1))

    def _turned(
        self,
        state: OrderState,
        places: NDArray[np.float64],
        crossings: NDArray[np.int64],
        block: Block,
        given: list[Block],
    ) -> OrderState:
        """Rows up to the last of these consecutive pulses."""
        known = [] if state.known is None else [state.known]
        pulses = state.pulses + len(places)
        numbers = np.arange(state.given, (pulses - 1) * self._points // self._pulses_per_turn + 1)
        if len(numbers):
            in_pulses = numbers * self._pulses_per_turn / self._points
            first = state.pulses - len(known)
            at = np.interp(in_pulses, np.arange(first, pulses), np.concatenate((known, places)))
            closing = crossings[np.ceil(in_pulses).astype(np.int64) - state.pulses]
            given.append(self._block(state, at, closing, block))
        return replace(state, known=float(places[-1]), pulses=pulses, given=state.given + len(numbers))

    def _follow_speed(self, state: OrderState, stop: int, block: Block, given: list[Block]) -> OrderState:
        before = max(state.seen - 1, 0)
        speed = state.samples[before - state.start : stop - state.start, self._channel]
        # NaN and negative speeds count as standstill.
        speed = np.minimum(np.where(speed > 0, speed, 0.0) * self._speed_scale, self._max_rpm)
        speed *= self._points / (60 * state.rate_hz)
        steps = (speed[1:] + speed[:-1]) / 2
        angles = np.cumsum(np.append(state.angle, steps))
        last = int(np.ceil(angles[-1]))  # only completed points: at a standstill the position is unknown
        numbers = np.arange(state.given, last)
        if len(numbers):
            index = np.searchsorted(angles, numbers, side="right")
            step = angles[index] - angles[index - 1]
            at = before + index - 1 + (numbers - angles[index - 1]) / step
            given.append(self._block(state, at, before + index, block))
        state = replace(state, seen=stop, angle=float(angles[-1]), given=max(last, state.given))
        return _cut(state, stop - 3)

    def _block(
        self, state: OrderState, at: NDArray[np.float64], closing: NDArray[np.int64], block: Block
    ) -> Block:
        """The next rows, interpolated at positions; each is complete with the given sample."""
        others = [index for index in range(block.rows.shape[1]) if index != self._channel]
        whole = np.floor(at).astype(np.int64)
        part = at - whole
        before = np.maximum(whole - 1 - state.start, 0)
        whole -= state.start
        rows = np.empty((len(at), len(others)))
        for column, channel in enumerate(others):
            samples = np.ascontiguousarray(state.samples[:, channel])
            here, after = samples[whole], samples[whole + 1]
            slope = (after - samples[before]) / 2
            next_slope = (samples[whole + 2] - here) / 2
            jump = after - here
            cubic = slope + next_slope - 2 * jump
            rows[:, column] = here + part * (slope + part * (jump - slope - cubic + part * cubic))
        first = state.base + state.given
        return Block(
            rows=rows,
            first=first,
            times=block.times.of_completed(first, state.origin + closing + _MARGIN),
            rate_hz=float(self._points),
            columns=tuple(block.columns[index] for index in others) if block.columns else (),
            attrs={
                **{key: value for key, value in block.attrs.items() if key != "columns"},
                "kind": self.output,
                "channels": len(others),
                "rate_hz": float(self._points),
                "rate": "points a turn",
            },
        )


def _cut(state: OrderState, keep: int) -> OrderState:
    start = min(max(keep, state.start), state.start + len(state.samples))
    return replace(state, samples=state.samples[start - state.start :].copy(), start=start)


def _spaced(places: NDArray[np.float64], last: float | None, least: float) -> NDArray[np.int64]:
    """Indices of the rising `places` at least `least` samples after the previously counted one."""
    counted: list[int] = []
    index = 0 if last is None else int(np.searchsorted(places, last + least))
    while index < len(places):
        counted.append(index)
        index = max(index + 1, int(np.searchsorted(places, places[index] + least)))
    return np.array(counted, np.int64)
