"""`filter`: recursive filters over samples, with their state carried from block to block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import scipy.signal
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach

Design = Literal["butter", "bessel", "cheby1", "cheby2", "ellip"]
Response = Literal["lowpass", "highpass", "bandpass", "bandstop"]


@dataclass(frozen=True, slots=True)
class FilterState:
    """What is kept between blocks.

    Attributes:
        memory: shape (sections, channels, 2), of the sections' delays.
        next_sample: global index of the next expected sample.
        rate_hz: of the samples.
    """

    memory: NDArray[np.float64]
    next_sample: int
    rate_hz: float


@operation("filter")
class Filter(Operation):
    """Samples through a filter of second-order sections, as `scipy.signal.sosfilt` gives them for the whole.

    Samples of shape (n, channels) at a rate give as many, with the same indices and times. The filter starts
    over after a gap, and has the same transient there as at the beginning. In a single channel it also starts
    over after NaN or infinity, for which the output is NaN.

    Keeps two numbers for each section and channel.

    ```toml
    [[policy.pipeline]]
    operation = "filter"
    cutoff_hz = [500, 5000]
    response = "bandpass"
    ```
    """

    input = "samples"
    accepts = ("values",)
    output = "samples"
    state_type = FilterState | None

    def __init__(
        self,
        *,
        cutoff_hz: float | list[float],
        response: Response = "lowpass",
        design: Design = "butter",
        order: Annotated[int, Meta(ge=1, le=20)] = 4,
        ripple_db: Annotated[float, Meta(gt=0)] = 1.0,
        attenuation_db: Annotated[float, Meta(gt=0)] = 60.0,
        begin: Literal["zero", "steady"] = "zero",
        dtype: Literal["float32", "float64"] = "float64",
    ) -> None:
        """The filter.

        Args:
            cutoff_hz: a frequency, or both edges of a band: where power is halved (butter, bessel), the
                ripple ends (cheby1, ellip), or the attenuation is reached (cheby2).
            response: which frequencies pass.
            design: of the analog filter that it is derived from.
            order: of that filter; a band has twice as many poles.
            ripple_db: in the passband, for cheby1 and ellip.
            attenuation_db: of the stopband, for cheby2 and ellip.
            begin: "zero" assumes zeros before the first sample; "steady" assumes a constant at its value, so
                that a large mean causes no transient.
            dtype: of the output; computed in float64.
        """
        frequencies = tuple(cutoff_hz) if isinstance(cutoff_hz, list) else (cutoff_hz,)
        band = response in ("bandpass", "bandstop")
        fits = len(frequencies) == (2 if band else 1) and all(map(math.isfinite, frequencies))
        if not fits or not 0 < frequencies[0] <= frequencies[-1] or len(set(frequencies)) < len(frequencies):
            wanted = "two frequencies [low, high]" if band else "one frequency"
            raise PolicyInvalid(f"cutoff_hz cannot be {cutoff_hz} for {response}: give {wanted} in Hz.")
        self._frequencies, self._response, self._design = frequencies, response, design
        self._order, self._ripple_db, self._attenuation_db = order, ripple_db, attenuation_db
        self._begin, self._dtype = begin, np.dtype(dtype)
        self._sections_rate_hz, self._sections = 0.0, np.empty((0, 6))
        self._state: FilterState | None = None

    def process(self, block: Block) -> Block:
        """Takes samples (n, channels); OperationFailed without a rate, or one too low for the filter."""
        if self._sections_rate_hz != block.rate_hz:
            self._sections, self._sections_rate_hz = self._new_sections(block.rate_hz), block.rate_hz
        samples = np.ascontiguousarray(block.rows.T, dtype=np.float64)
        before = self._state
        if (
            before is None
            or (before.next_sample, before.rate_hz) != (block.first, block.rate_hz)
            or before.memory.shape[1] != len(samples)
        ):
            memory = self._at_begin(samples[:, 0])
        else:
            memory = before.memory
        if np.isfinite(samples.sum()) and np.isfinite(memory).all():
            filtered, memory = scipy.signal.sosfilt(self._sections, samples, axis=1, zi=memory)
        else:
            filtered, memory = self._around_holes(samples, memory)
        self._state = FilterState(memory, block.stop, block.rate_hz)
        return Block(
            rows=filtered.T.astype(self._dtype, order="C"),
            first=block.first,
            times=block.times.of_counts(block.first, block.times.ends),
            rate_hz=block.rate_hz,
            columns=block.columns,
            attrs={**block.attrs, "kind": self.output, "filter": self._attrs()},
        )

    def depends_on(self) -> Reach:
        """The sample, and the delays of the filter, which hold all samples since the last gap."""
        return Reach(1, Fraction(1), "since gap")

    def state(self) -> FilterState | None:
        """The delays of the filter."""
        return self._state

    def restore(self, state: FilterState | None) -> None:
        """Resumes from `state()`."""
        self._state = state

    def _around_holes(
        self, samples: NDArray[np.float64], memory: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Filters each run of finite numbers as after a gap; NaN in memory means that a run comes next."""
        filtered, memory = np.full_like(samples, np.nan), memory.copy()
        for channel, row in enumerate(samples):
            finite = np.isfinite(row)
            edges = np.flatnonzero(np.diff(finite, prepend=False, append=False))
            for start, stop in edges.reshape(-1, 2).tolist():
                if start > 0 or not np.isfinite(memory[:, channel]).all():
                    memory[:, [channel]] = self._at_begin(row[start : start + 1])
                filtered[channel, start:stop], memory[:, channel] = scipy.signal.sosfilt(
                    self._sections, row[start:stop], zi=memory[:, channel]
                )
            if not finite[-1]:
                memory[:, channel] = np.nan
        return filtered, memory

    def _new_sections(self, rate_hz: float) -> NDArray[np.float64]:
        if not self._frequencies[-1] < rate_hz / 2:
            raise OperationFailed(
                f"A filter at {self._frequencies[-1]:g} Hz needs samples at more than twice that rate, not "
                f"at {rate_hz:g} Hz: set cutoff_hz below half the rate."
            )
        sections: NDArray[np.float64] = scipy.signal.iirfilter(
            self._order,
            self._frequencies if len(self._frequencies) == 2 else self._frequencies[0],
            rp=self._ripple_db if self._design in ("cheby1", "ellip") else None,
            rs=self._attenuation_db if self._design in ("cheby2", "ellip") else None,
            btype=self._response,
            # The norm by which cutoff_hz means the same as with butter.
            ftype="bessel_mag" if self._design == "bessel" else self._design,
            output="sos",
            fs=rate_hz,
        )
        return sections

    def _at_begin(self, first: NDArray[np.float64]) -> NDArray[np.float64]:
        memory = np.zeros((len(self._sections), len(first), 2))
        if self._begin == "steady":
            memory += scipy.signal.sosfilt_zi(self._sections)[:, np.newaxis] * first[:, np.newaxis]
        return memory

    def _attrs(self) -> dict[str, Any]:
        return {
            "design": self._design,
            "response": self._response,
            "order": self._order,
            "cutoff_hz": list(self._frequencies),
        }
