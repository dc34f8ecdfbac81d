"""`resample`: converts samples to up / down times their rate with a polyphase low-pass filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import scipy.signal
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach, window

MAX_FACTOR = 1000


@dataclass(frozen=True, slots=True)
class ResampleState:
    """What is kept between blocks.

    Attributes:
        samples: shape (channels, kept), the first at `start`.
        start: number of the first kept sample, counted from the last gap; negative for the zeros before it.
        next_sample: global index of the next expected sample.
        origin: global index of the first sample after the last gap.
        base: number of the first row after the last gap.
        given: number of rows since.
        rate_hz: of the samples.
    """

    samples: NDArray[np.float64]
    start: int
    next_sample: int
    origin: int
    base: int
    given: int
    rate_hz: float


@operation("resample")
class Resample(Operation):
    """Samples at up / down times their rate, as `scipy.signal.resample_poly` gives them for the whole.

    The filter is linear in phase (windowed sinc, 20 max(up, down) + 1 taps at up times the rate, Kaiser
    window with beta 5), cuts off at half the lower of both rates, and its delay is taken away: row `i` lies
    at the time of sample i down / up. At the beginning, and behind a gap, it reaches into zeros. A row is
    given once the last sample that it depends on is there, 10 max(up, down) / up samples behind it; so of
    what comes before a gap, or of a stream that ends, that much at the end is not given.

    Samples of shape (n, channels) at a rate give rows (m, channels). Keeps about 20 max(up, down) / up + down
    samples of each channel.

    ```toml
    [[policy.pipeline]]
    operation = "resample"
    rate_hz = 6400.0
    ```
    """

    input = "samples"
    accepts = ("values",)
    output = "samples"
    state_type = ResampleState | None

    def __init__(
        self,
        *,
        up: Annotated[int, Meta(ge=1, le=MAX_FACTOR)] = 1,
        down: Annotated[int, Meta(ge=1, le=MAX_FACTOR)] = 1,
        rate_hz: Annotated[float, Meta(gt=0)] | None = None,
        dtype: Literal["float32", "float64"] = "float64",
    ) -> None:
        """The rate of the output.

        Args:
            up: factor of the rate.
            down: divisor of the rate.
            rate_hz: of the output, instead of `up` and `down`.
            dtype: of the output; computed in float64.
        """
        if (rate_hz is None) == (up == down == 1):
            raise PolicyInvalid("give either rate_hz, or up and down with another quotient than 1.")
        if rate_hz is None and up == down:
            raise PolicyInvalid(f"up / down cannot be {up} / {down}: the rate would stay as it is.")
        self._factor, self._rate_hz = Fraction(up, down), rate_hz
        self._dtype = np.dtype(dtype)
        self._filter_of, self._filter = Fraction(0), np.empty(0)
        self._state: ResampleState | None = None

    def process(self, block: Block) -> Block | None:
        """Takes samples (n, channels); OperationFailed without a rate, or if `rate_hz` is not reachable."""
        up, down = self._factors(block.rate_hz)
        half, taps = 10 * max(up, down), self._taps(up, down)
        new = np.ascontiguousarray(block.rows.T, dtype=np.float64)
        before = self._state
        if (
            before is None
            or (before.next_sample, before.rate_hz) != (block.first, block.rate_hz)
            or len(before.samples) != len(new)
        ):
            start = _start(0, up, down)
            base = 0
            if before is not None:
                base = max(before.base + before.given + 1, -(-block.first * up // down))
            silence = np.zeros((len(new), -start))
            before = ResampleState(silence, start, block.first, block.first, base, 0, block.rate_hz)
        samples = np.concatenate((before.samples, new), axis=1)
        stop = before.start + samples.shape[1]
        # Row m depends on samples n with |m down - n up| <= half.
        given = max((stop * up - 1 - half) // down + 1, before.given)
        start = _start(given, up, down)
        result = None
        if given > before.given:
            delay = (half - before.start * up) // down
            rows = scipy.signal.upfirdn(taps, samples, up, down, axis=1)
            rows = rows[:, before.given + delay : given + delay]
            numbers = np.arange(before.given, given)
            result = Block(
                rows=rows.T.astype(self._dtype, order="C"),
                first=before.base + before.given,
                times=block.times.of_completed(
                    before.base + before.given, before.origin + (numbers * down + half) // up
                ),
                rate_hz=float(Fraction(block.rate_hz) * up / down),
                columns=block.columns,
                attrs={
                    **block.attrs,
                    "kind": self.output,
                    "rate_hz": float(Fraction(block.rate_hz) * up / down),
                    "resampled": [up, down],
                },
            )
        self._state = ResampleState(
            samples[:, start - before.start :].copy(),
            start,
            block.stop,
            before.origin,
            before.base,
            given,
            block.rate_hz,
        )
        return result

    def depends_on(self) -> Reach:
        """The support of the filter, which is centered at the row."""
        if self._state is None:
            return Reach()
        up, down = self._factors(self._state.rate_hz)
        half = 10 * max(up, down)
        return window(2 * half // up + 1, Fraction(down, up))

    def state(self) -> ResampleState | None:
        """The samples that the next rows depend on."""
        return self._state

    def restore(self, state: ResampleState | None) -> None:
        """Resumes from `state()`."""
        self._state = state

    def _factors(self, rate_hz: float) -> tuple[int, int]:
        if not rate_hz > 0:
            raise OperationFailed('Samples without a rate cannot have another: give "pcm" its rate_hz.')
        factor = self._factor
        if self._rate_hz is not None:
            factor = Fraction(self._rate_hz) / Fraction(rate_hz)
            if factor == 1 or max(factor.numerator, factor.denominator) > MAX_FACTOR:
                raise OperationFailed(
                    f"{rate_hz:g} Hz cannot become {self._rate_hz:g} Hz: their quotient is {factor}, and can "
                    f"be of whole numbers up to {MAX_FACTOR}, other than 1; set another rate_hz."
                )
        return factor.numerator, factor.denominator

    def _taps(self, up: int, down: int) -> NDArray[np.float64]:
        if self._filter_of != Fraction(up, down):
            widest = max(up, down)
            taps = scipy.signal.firwin(20 * widest + 1, 1 / widest, window=("kaiser", 5.0)) * up
            self._filter_of, self._filter = Fraction(up, down), taps
        return self._filter


def _start(row: int, up: int, down: int) -> int:
    """The first sample to be kept for this row: the start of the filter's support, in the filter's phase."""
    half = 10 * max(up, down)
    reach = math.ceil(Fraction(row * down - half, up))
    phase = 10 if up > down else 0
    return phase + (reach - phase) // down * down
