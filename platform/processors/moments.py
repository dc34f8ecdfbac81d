"""Moments of columns of numbers, of which those of two parts give those of the whole.

Sources: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", COMPSTAT 1982; P. Pébay, "Formulas for robust, one-pass parallel computation of covariances
and arbitrary-order statistical moments", SAND2008-6212, 2008, for the third and fourth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    def of(cls, rows: NDArray[np.float64]) -> Moments:
        """Of rows (n, c), n >= 1; what is NaN or infinite does not count."""
        numbers = np.ascontiguousarray(rows.T)
        finite = np.isfinite(numbers)
        whole = bool(finite.all())
        count = finite.sum(axis=1).astype(np.float64)
        taken = numbers if whole else np.where(finite, numbers, 0.0)
        mean = taken.sum(axis=1) / np.maximum(count, 1)
        apart = taken - mean[:, np.newaxis]
        if not whole:
            apart[~finite] = 0.0
        squares = apart * apart
        return cls(
            count,
            mean,
            squares.sum(axis=1),
            (squares * apart).sum(axis=1),
            (squares * squares).sum(axis=1),
            (numbers if whole else np.where(finite, numbers, np.inf)).min(axis=1),
            (numbers if whole else np.where(finite, numbers, -np.inf)).max(axis=1),
        )

    def merged(self, other: Moments) -> Moments:
        """Of the numbers of both."""
        a, b, n = self.count, other.count, np.maximum(self.count + other.count, 1)
        d = other.mean - self.mean
        ab = a * b
        return Moments(
            a + b,
            np.where(a == 0, other.mean, self.mean + d * b / n),
            self.m2 + other.m2 + d**2 * ab / n,
            self.m3 + other.m3 + d**3 * ab * (a - b) / n**2 + 3 * d * (a * other.m2 - b * self.m2) / n,
            self.m4
            + other.m4
            + d**4 * ab * (a * a - ab + b * b) / n**3
            + 6 * d**2 * (a * a * other.m2 + b * b * self.m2) / n**2
            + 4 * d * (a * other.m3 - b * self.m3) / n,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

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
