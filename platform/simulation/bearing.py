"""A rolling bearing with a growing flaw on its outer race, and the vibration that a sensor measures.

Each roller that passes the flaw causes an impact; the housing rings at its resonance with a decay.
The impacts occur at the ball pass frequency of the outer race, slightly irregularly: rollers slip. After
R. B. Randall and J. Antoni, "Rolling element bearing diagnostics: a tutorial", Mechanical Systems and Signal
Processing 25 (2011) 485-520, equations 1 and 2.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .noise import uniform


@dataclass(frozen=True)
class Bearing:
    """Geometry of a rolling bearing."""

    rollers: int
    roller_mm: float
    pitch_mm: float
    contact_deg: float = 0.0

    @property
    def outer_race_passes(self) -> float:
        """Rollers that pass a point of the outer race in a turn of the shaft: BPFO = n/2 (1 - d/D cos φ)."""
        ratio = self.roller_mm / self.pitch_mm * math.cos(math.radians(self.contact_deg))
        return self.rollers / 2 * (1 - ratio)


@dataclass(frozen=True)
class OuterRaceFault:
    """A flaw that grows for minutes, until the bearing is replaced and the cycle restarts.

    `severity` runs from 0 to 1; at 1 the peak of an impact is `peak_g`.
    """

    bearing: Bearing
    seed: int
    resonance_hz: float = 2300.0
    decay_s: float = 0.0012
    peak_g: float = 1.6
    cycle_s: float = 600.0
    healthy_s: float = 120.0
    slip: float = 0.01  # of the interval between two impacts
    growth: float = 4.0  # e-foldings from the first sign to the end

    def severity(self, time_s: float) -> float:
        """0 while healthy, then exponentially up to 1 at the end of the cycle; `time_s` since 1970."""
        ill_s = time_s % self.cycle_s - self.healthy_s
        if ill_s <= 0:
            return 0.0
        return math.expm1(self.growth * ill_s / (self.cycle_s - self.healthy_s)) / math.expm1(self.growth)

    def ringing(self, passes: NDArray[np.float64], lead: int, rate_hz: float) -> NDArray[np.float64]:
        """Acceleration at severity 1, in g, of all but the first `lead` samples.

        `passes` counts, at each sample, the rollers that have passed the flaw so far (any whole number less).
        The first `lead` samples cover earlier impacts that still ring.
        """
        first, last = math.ceil(passes[0] + self.slip), math.floor(passes[-1] - self.slip)
        numbers = np.arange(first, last + 1)
        slipped = numbers + self.slip * (2 * uniform(self.seed, numbers) - 1)
        impacts = np.interp(slipped, passes, np.arange(len(passes), dtype=np.float64))
        following = np.ceil(impacts).astype(np.intp)[:, None] + np.arange(lead)
        since_s = (following - impacts[:, None]) / rate_hz
        rings = (
            self.peak_g * np.exp(-since_s / self.decay_s) * np.sin(2 * math.pi * self.resonance_hz * since_s)
        )
        heard = np.zeros(len(passes) + lead)
        np.add.at(heard, following, rings)
        return heard[lead : len(passes)]
