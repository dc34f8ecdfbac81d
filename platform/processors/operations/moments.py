"""Moments of columns of numbers; the moments of two parts can be merged to those of the whole.

Sources: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", COMPSTAT 1982; P. Pébay, "Formulas for robust, one-pass parallel computation of covariances
and arbitrary-order statistical moments", SAND2008-6212, 2008, for the third and fourth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Measure = Literal["min", "mean", "max", "std", "rms", "peak", "peak_to_peak", "crest", "skewness", "kurtosis"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of the finite numbers in c columns, for several parts; all arrays are float64 (parts, c).

    Attributes:
        count: of the numbers.
        mean: their mean; 0 if there is none.
        m2: sum of the squares of the deviations from the mean.
        m3: sum of their third powers.
        m4: sum of their fourth powers.
        low: the least number; infinity if there is none.
        high: the greatest; minus infinity if there is none.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    m3: NDArray[np.float64]
    m4: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def none(cls, columns: int) -> Moments:
        """Moments of no numbers: one part."""
        zero = np.zeros((1, columns))
        infinite = np.full((1, columns), np.inf)
        return cls(zero, zero, zero, zero, zero, infinite, -infinite)

    @classmethod
    def of(cls, rows: NDArray[Any], *, shape: bool = True) -> Moments:
        """Moments of rows (..., n, c), n >= 1, over each of the leading axes; NaN and infinity do not count.

        Without `shape`, the third and fourth powers stay 0, for measures that need neither.
        """
        numbers = np.array(np.moveaxis(rows, -2, -1), dtype=np.float64, order="C")
        total = numbers.sum(axis=-1)
        if np.isfinite(total).all():
            low, high = numbers.min(axis=-1), numbers.max(axis=-1)
            count = np.full(total.shape, float(numbers.shape[-1]))
            mean = total / count
            numbers -= mean[..., np.newaxis]
        else:
            finite = np.isfinite(numbers)
            low = np.where(finite, numbers, np.inf).min(axis=-1)
            high = np.where(finite, numbers, -np.inf).max(axis=-1)
            numbers[~finite] = 0.0
            count = finite.sum(axis=-1).astype(np.float64)
            mean = numbers.sum(axis=-1) / np.maximum(count, 1)
            numbers -= mean[..., np.newaxis]
            numbers[~finite] = 0.0
        squares = numbers * numbers
        m2 = squares.sum(axis=-1)
        if not shape:
            return cls(count, mean, m2, np.zeros_like(m2), np.zeros_like(m2), low, high)
        m3 = np.multiply(numbers, squares, out=numbers).sum(axis=-1)
        m4 = np.multiply(squares, squares, out=squares).sum(axis=-1)
        return cls(count, mean, m2, m3, m4, low, high)

    def with_more(self, other: Moments) -> Moments:
        """The parts of both, each of shape (parts, c), concatenated."""
        return Moments(*(np.concatenate(pair) for pair in zip(self._arrays, other._arrays, strict=True)))

    def merged(self, *, shape: bool = True) -> Moments:
        """Moments of the numbers of all parts together: (parts, c) gives (1, c)."""
        n = self.count
        count = n.sum(axis=0, keepdims=True)
        mean = (n * self.mean).sum(axis=0, keepdims=True) / np.maximum(count, 1)
        d = self.mean - mean
        d2 = d * d
        m2 = (self.m2 + n * d2).sum(axis=0, keepdims=True)
        m3 = m4 = np.zeros_like(m2)
        if shape:
            m3 = (self.m3 + d * (3 * self.m2 + n * d2)).sum(axis=0, keepdims=True)
            fourth = self.m4 + d * (4 * self.m3 + d * (6 * self.m2 + n * d2))
            m4 = fourth.sum(axis=0, keepdims=True)
        low, high = self.low.min(axis=0, keepdims=True), self.high.max(axis=0, keepdims=True)
        return Moments(count, mean, m2, m3, m4, low, high)

    @property
    def _arrays(self) -> tuple[NDArray[np.float64], ...]:
        return self.count, self.mean, self.m2, self.m3, self.m4, self.low, self.high

    def measure(self, name: Measure) -> NDArray[np.float64]:
        """A measure of each column, NaN if it has no number.

        `std` is that of the numbers themselves (divided by their count); `skewness` is m3 / m2^1.5 and
        `kurtosis` m4 / m2² - 3 of the central moments, without correction for bias, 0 if all numbers are
        equal, as is `crest` = peak / rms if all are 0.
        """
        n = np.where(self.count == 0, np.nan, self.count)
        variance = self.m2 / n
        rms = np.sqrt(variance + self.mean**2)
        peak = np.maximum(np.abs(self.low), np.abs(self.high))
        equal = self.low == self.high
        match name:
            case "min":
                measured = self.low
            case "mean":
                measured = self.mean
            case "max":
                measured = self.high
            case "std":
                measured = np.sqrt(variance)
            case "rms":
                measured = rms
            case "peak":
                measured = peak
            case "peak_to_peak":
                measured = self.high - self.low
            case "crest":
                measured = np.where(rms == 0, 0.0, peak / rms)
            case "skewness":
                measured = np.where(equal, 0.0, self.m3 / n / variance**1.5)
            case "kurtosis":
                measured = np.where(equal, 0.0, self.m4 / n / variance**2 - 3)
        return np.where(self.count == 0, np.nan, measured)
