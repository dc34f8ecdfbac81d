"""Moments of columns of numbers, of which those of two parts give those of the whole.

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
    """Of the finite numbers in each of c columns; all arrays are float64 of shape (c,).

    Attributes:
        count: of the numbers.
        mean: their mean; 0 where there is none.
        m2: sum of the squares of the deviations from the mean.
        m3: sum of their third powers.
        m4: sum of their fourth powers.
        low: the least number; infinity where there is none.
        high: the greatest; minus infinity where there is none.
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
        """Of no numbers."""
        zero = np.zeros(columns)
        infinite = np.full(columns, np.inf)
        return cls(zero, zero, zero, zero, zero, infinite, -infinite)

    @classmethod
    def of(cls, rows: NDArray[Any], *, shape: bool = True) -> Moments:
        """Of rows (n, c), n >= 1; what is NaN or infinite does not count.

        Without `shape`, the third and fourth powers are left at 0, for those who ask for neither.
        """
        numbers = np.array(rows.T, dtype=np.float64, order="C")
        size = np.full(len(numbers), float(numbers.shape[1]))
        with np.errstate(invalid="ignore", over="ignore"):
            total = numbers.sum(axis=1)
        if np.isfinite(total).all():
            low, high, count = numbers.min(axis=1), numbers.max(axis=1), size
            mean = total / count
            numbers -= mean[:, np.newaxis]
        else:
            finite = np.isfinite(numbers)
            low = np.where(finite, numbers, np.inf).min(axis=1)
            high = np.where(finite, numbers, -np.inf).max(axis=1)
            numbers[~finite] = 0.0
            count = finite.sum(axis=1).astype(np.float64)
            mean = numbers.sum(axis=1) / np.maximum(count, 1)
            numbers -= mean[:, np.newaxis]
            numbers[~finite] = 0.0
        squares = numbers * numbers
        m2 = squares.sum(axis=1)
        if not shape:
            return cls(count, mean, m2, np.zeros_like(m2), np.zeros_like(m2), low, high)
        m3 = np.multiply(numbers, squares, out=numbers).sum(axis=1)
        m4 = np.multiply(squares, squares, out=squares).sum(axis=1)
        return cls(count, mean, m2, m3, m4, low, high)

    def merged(self, other: Moments, *, shape: bool = True) -> Moments:
        """Of the numbers of both; without `shape`, the third and fourth powers stay at 0."""
        a, b = self.count, other.count
        ab, n = a * b, np.maximum(a + b, 1)
        d = other.mean - self.mean
        mean = np.where(a == 0, other.mean, self.mean + d * (b / n))
        m2 = self.m2 + other.m2 + d * d * (ab / n)
        m3, m4 = self.m3, self.m4
        if shape:
            m3 = m3 + other.m3 + d**3 * ab * (a - b) / n**2 + 3 * d * (a * other.m2 - b * self.m2) / n
            m4 = (
                m4
                + other.m4
                + d**4 * ab * (a * a - ab + b * b) / n**3
                + 6 * d**2 * (a * a * other.m2 + b * b * self.m2) / n**2
                + 4 * d * (a * other.m3 - b * self.m3) / n
            )
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Moments(a + b, mean, m2, m3, m4, low, high)

    def measure(self, name: Measure) -> NDArray[np.float64]:
        """A measure of each column, NaN where it has no number.

        `std` is that of the numbers themselves (divided by their count); `skewness` is m3 / m2^1.5 and
        `kurtosis` m4 / m2² - 3 of the central moments, without correction for bias, 0 where all numbers are
        equal, as is `crest` = peak / rms where all are 0.
        """
        n = np.where(self.count == 0, np.nan, self.count)
        variance = self.m2 / n
        rms = np.sqrt(variance + self.mean**2)
        peak = np.maximum(np.abs(self.low), np.abs(self.high))
        equal = self.low == self.high
        with np.errstate(invalid="ignore", divide="ignore"):
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
