"""The signals of acceleration sensors on a turbine, in g, block by block.

A block is a quarter of a second; each is a function of only its number, and continues its predecessor.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .bearing import OuterRaceFault
from .noise import white
from .rotation import HOUR_S, Rotation, turns

BLOCKS_PER_S = 4
FULL_SCALE_G = 20.0  # of int16
LEAD_SAMPLES = 64

PLANET_TEETH, RING_TEETH, SUN_TEETH, PLANETS = 37, 95, 21, 3
WHEEL_TEETH, PINION_TEETH = 98, 23
FAST_WHEEL_TEETH, FAST_PINION_TEETH = 93, 24
SUN_SHAFT = Fraction(SUN_TEETH + RING_TEETH, SUN_TEETH)
MIDDLE_SHAFT = SUN_SHAFT * Fraction(WHEEL_TEETH, PINION_TEETH)
FAST_SHAFT = MIDDLE_SHAFT * Fraction(FAST_WHEEL_TEETH, FAST_PINION_TEETH)  # 91.2 turns for one of the rotor
LINE_HZ = 50
ROTOR_BARS = 40

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """The time of a block: `hour` counts full hours since 1970, the arrays have a number for each sample.

    `seconds` and `revolutions` (of the rotor) are since the full hour, and begin LEAD_SAMPLES before the
    block; `load` (power over rated power) is of the block alone.
    """

    block: int
    hour: int
    seconds: Samples
    revolutions: Samples
    load: Samples

    def angle(self, ratio: Fraction | int) -> Samples:
        """Angle, in radians, of a shaft that turns `ratio` times as fast as the rotor; of the block alone."""
        return 2 * math.pi * turns(self.hour, self.revolutions[LEAD_SAMPLES:], Fraction(ratio))


@dataclass(frozen=True)
class VibrationSensor(ABC):
    """A sensor that is sampled `rate_hz` times a second; `seed` is its own."""

    rotation: Rotation
    seed: int
    rate_hz: int

    def samples(self, block: int) -> NDArray[np.int16]:
        """Block number `block` since 1970 as little-endian int16, FULL_SCALE_G at 32,768."""
        size = self.rate_hz // BLOCKS_PER_S
        hour, block_of_hour = divmod(block, HOUR_S * BLOCKS_PER_S)
        seconds = (np.arange(-LEAD_SAMPLES, size) + block_of_hour * size) / self.rate_hz
        # The load changes so slowly that a straight line through the block tells no difference.
        edges = self.rotation.load(np.array([block_of_hour, block_of_hour + 1]) / BLOCKS_PER_S)
        moment = Moment(
            block, hour, seconds, self.rotation.revolutions(seconds), np.linspace(edges[0], edges[1], size)
        )
        counts = np.rint(self.acceleration_g(moment) * (32768 / FULL_SCALE_G))
        return np.clip(counts, -32768, 32767).astype("<i2")

    @abstractmethod
    def acceleration_g(self, moment: Moment) -> Samples:
        """The samples of the block alone, without those before it."""

    def _noise(self, moment: Moment, resonance_hz: float, decay_s: float) -> Samples:
        """Broadband noise with a hump where the housing rings; variance 1."""
        size = self.rate_hz // BLOCKS_PER_S
        source = np.concatenate(
            [white(self.seed, moment.block - 1, size)[-LEAD_SAMPLES:], white(self.seed, moment.block, size)]
        )
        since_s = np.arange(LEAD_SAMPLES + 1) / self.rate_hz
        response = np.exp(-since_s / decay_s) * np.cos(2 * math.pi * resonance_hz * since_s)
        response /= np.sqrt(np.sum(response**2))
        return np.convolve(source, response, mode="valid")


def harmonics(angle: Samples, amplitudes_g: Sequence[float]) -> Samples:
    """The sum of a fundamental and its harmonics."""
    parts = [a * np.cos(order * angle + order) for order, a in enumerate(amplitudes_g, start=1)]
    return np.asarray(sum(parts))


@dataclass(frozen=True)
class GearboxSensor(VibrationSensor):
    """On the housing of the gearbox, near the bearing of its fast shaft.

    Each pair of wheels is heard at its tooth mesh frequency and harmonics of it, modulated by the turning of
    its pinion: hence the sidebands.
    """

    fault: OuterRaceFault | None = None

    def acceleration_g(self, moment: Moment) -> Samples:
        """Three meshes, the fast shaft, housing noise, and the failing bearing."""
        load = moment.load
        rotor, middle, fast = (moment.angle(ratio) for ratio in (1, MIDDLE_SHAFT, FAST_SHAFT))
        felt = (0.3 + 0.7 * load) * (
            harmonics(FAST_PINION_TEETH * fast, (0.16, 0.08, 0.05, 0.02))
            * (1 + 0.35 * np.cos(fast) + 0.12 * np.cos(2 * fast))
            + harmonics(PINION_TEETH * middle, (0.07, 0.03)) * (1 + 0.3 * np.cos(middle))
            + harmonics(RING_TEETH * rotor, (0.04, 0.015)) * (1 + 0.4 * np.cos(PLANETS * rotor))
        )
        felt += harmonics(fast, (0.025, 0.015, 0.006))
        felt += (0.03 + 0.05 * load) * self._noise(moment, resonance_hz=1150.0, decay_s=0.0008)
        if self.fault is not None:
            felt += self._impacts(self.fault, moment)
        return felt

    def _impacts(self, fault: OuterRaceFault, moment: Moment) -> Samples:
        severity = fault.severity(moment.block / BLOCKS_PER_S)
        if severity == 0.0:
            return np.zeros(len(moment.seconds) - LEAD_SAMPLES)
        ratio = FAST_SHAFT * Fraction(fault.bearing.outer_race_passes).limit_denominator(1000)
        passes = turns(moment.hour, moment.revolutions, ratio)
        return severity * fault.ringing(passes, LEAD_SAMPLES, self.rate_hz)


@dataclass(frozen=True)
class GeneratorSensor(VibrationSensor):
    """On the drive end of the generator: its shaft, the pull of the stator's field, passing rotor bars."""

    def acceleration_g(self, moment: Moment) -> Samples:
        """Shaft orders, twice the line frequency, rotor bars with its sidebands, noise of the fan."""
        load = moment.load
        fast = moment.angle(FAST_SHAFT)
        pull = 2 * math.pi * 2 * LINE_HZ * moment.seconds[LEAD_SAMPLES:]
        felt = harmonics(fast, (0.06, 0.03, 0.01)) + (0.02 + 0.03 * load) * harmonics(pull, (1.0, 0.3))
        felt += 0.04 * load * np.cos(ROTOR_BARS * fast) * (1 + 0.6 * np.cos(pull))
        return felt + (0.02 + 0.02 * load) * self._noise(moment, resonance_hz=1900.0, decay_s=0.001)


@dataclass(frozen=True)
class BladeSensor(VibrationSensor):
    """In a blade, edgewise: its weight once a revolution, the tower's wake, its swinging, the rush of air."""

    def acceleration_g(self, moment: Moment) -> Samples:
        """Orders of the rotor, two slow modes of the blade, and noise that swells on the way down."""
        load = moment.load
        rotor = moment.angle(1)
        seconds = moment.seconds[LEAD_SAMPLES:]
        felt = np.cos(rotor) + harmonics(3 * rotor, (0.05, 0.03, 0.02, 0.01))
        for frequency_hz, amplitude_g in ((0.95, 0.05), (1.62, 0.08)):
            # Beats of a few neighbouring lines: the mode is driven by gusts, and never still. All have whole
            # periods in an hour.
            for offset in (-72, 0, 108):
                periods = (frequency_hz * HOUR_S + offset) * seconds / HOUR_S
                felt += amplitude_g / 2 * np.cos(2 * math.pi * periods + offset)
        swelling = (0.04 + 0.08 * load) * (1 + 0.5 * np.cos(rotor - 0.8))
        return felt + swelling * self._noise(moment, resonance_hz=320.0, decay_s=0.002)
