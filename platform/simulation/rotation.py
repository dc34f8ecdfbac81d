"""How a turbine turns: wind, rotor speed, and the exact angle of every shaft at every moment since 1970.

The slow part of the wind is a sum of sines that repeats every hour, the rotor follows it at a constant tip
speed ratio (as turbines do below rated power), and its mean is a whole number of revolutions an hour. So the
angle has a closed form, without a jump at any hour, and without the rounding of an angle that has grown for
fifty years.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

HOUR_S = 3600
REVOLUTIONS_PER_HOUR = 780  # 13 rpm
SPEED_SWING_HZ = 0.032  # the rotor runs between 11.1 and 14.9 rpm
WAVES_PER_HOUR = (2, 5, 11, 23)
WAVE_PARTS = (0.4, 0.3, 0.2, 0.1)  # sum 1, so that the swing is never passed

ROTOR_RADIUS_M = 45.0
TIP_SPEED_RATIO = 7.5
AIR_DENSITY_KG_M3 = 1.225
POWER_COEFFICIENT = 0.44
EFFICIENCY = 0.93
RATED_POWER_KW = 2000.0
RATED_WIND_M_S = 10.6

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Rotation:
    """One turbine's rotor; `phases` (radians, one for each wave) set it apart from its neighbours."""

    phases: tuple[float, ...]

    def speed_hz(self, seconds: Seconds) -> Seconds:
        """Revolutions of the rotor per second, at `seconds` since a full hour."""
        waves = sum(
            part * np.sin(2 * math.pi * count / HOUR_S * seconds + phase)
            for count, part, phase in zip(WAVES_PER_HOUR, WAVE_PARTS, self.phases, strict=True)
        )
        return REVOLUTIONS_PER_HOUR / HOUR_S + SPEED_SWING_HZ * np.asarray(waves)

    def revolutions(self, seconds: Seconds) -> Seconds:
        """The integral of `speed_hz` since the full hour: 780 after 3600 s, for every turbine."""
        swing = sum(
            part * HOUR_S / (2 * math.pi * count)
            * (math.cos(phase) - np.cos(2 * math.pi * count / HOUR_S * seconds + phase))
            for count, part, phase in zip(WAVES_PER_HOUR, WAVE_PARTS, self.phases, strict=True)
        )  # fmt: skip
        return REVOLUTIONS_PER_HOUR / HOUR_S * seconds + SPEED_SWING_HZ * np.asarray(swing)

    def wind_m_s(self, seconds: Seconds) -> Seconds:
        """The wind that the rotor follows, without gusts: speed of the blade tips over tip speed ratio."""
        return 2 * math.pi * ROTOR_RADIUS_M / TIP_SPEED_RATIO * self.speed_hz(seconds)

    def load(self, seconds: Seconds) -> Seconds:
        """Power over rated power, 0 to 1."""
        return np.minimum(power_kw(self.wind_m_s(seconds)) / RATED_POWER_KW, 1.0)


def turns(hour: int, revolutions: Seconds, ratio: Fraction) -> Seconds:
    """Turns, up to whole ones, of what turns `ratio` times with each revolution of the rotor.

    `hour` counts full hours since 1970, `revolutions` those of the rotor since then. What the hours before
    leave over is exact, however many they are.
    """
    return float(hour * REVOLUTIONS_PER_HOUR * ratio % 1) + float(ratio) * revolutions


def power_kw(wind_m_s: Seconds) -> Seconds:
    """What a rotor takes from the wind, P = ½ ρ A c_p η v³, up to rated power."""
    area_m2 = math.pi * ROTOR_RADIUS_M**2
    watts = 0.5 * AIR_DENSITY_KG_M3 * area_m2 * POWER_COEFFICIENT * EFFICIENCY * wind_m_s**3
    return np.minimum(watts / 1000, RATED_POWER_KW)
