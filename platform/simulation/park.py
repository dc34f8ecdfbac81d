"""The park: three turbines, with three vibration sensors and operating data each; on t02 a bearing fails."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bearing import Bearing, OuterRaceFault
from .noise import uniform, white
from .rotation import HOUR_S, RATED_WIND_M_S, WAVES_PER_HOUR, Rotation, power_kw
from .vibration import BLOCKS_PER_S, BladeSensor, GearboxSensor, GeneratorSensor, VibrationSensor

TURBINES = ("t01", "t02", "t03")
FAULTY_TURBINE = "t02"
FAST_RATE_HZ = 6400
BLADE_RATE_HZ = 1600
NS_PER_S = 1_000_000_000
FAST_SHAFT_BEARING = Bearing(rollers=13, roller_mm=32.0, pitch_mm=205.0)


@dataclass(frozen=True)
class Source:
    """What sends with one tag: record number `n` since 1970 is complete at (n + 1) `period_ns`."""

    tag: str
    period_ns: int
    record: Callable[[int], dict[str, Any]]


def wind_park(seed: int = 1) -> list[Source]:
    """All sources of the park: `turbine.t01.gearbox`, `.generator`, `.blade1`, `.scada`, and so on."""
    sources = []
    for number, name in enumerate(TURBINES):
        own_seed = seed * 1000 + number * 10
        phases = 2 * math.pi * uniform(own_seed, np.arange(len(WAVES_PER_HOUR)))
        rotation = Rotation(tuple(phases.tolist()))
        faulty = name == FAULTY_TURBINE
        fault = OuterRaceFault(FAST_SHAFT_BEARING, seed=own_seed + 4) if faulty else None
        sensors: dict[str, VibrationSensor] = {
            "gearbox": GearboxSensor(rotation, own_seed + 1, FAST_RATE_HZ, fault),
            "generator": GeneratorSensor(rotation, own_seed + 2, FAST_RATE_HZ),
            "blade1": BladeSensor(rotation, own_seed + 3, BLADE_RATE_HZ),
        }
        for place, sensor in sensors.items():
            period_ns = NS_PER_S // BLOCKS_PER_S
            sources.append(Source(f"turbine.{name}.{place}", period_ns, _Waveform(sensor)))
        scada = _OperatingData(rotation, own_seed + 5, fault)
        sources.append(Source(f"turbine.{name}.scada", NS_PER_S, scada))
    return sources


@dataclass(frozen=True)
class _Waveform:
    """A block of samples as forwarders send a recording: its bytes in `message`."""

    sensor: VibrationSensor

    def __call__(self, number: int) -> dict[str, Any]:
        return {"message": self.sensor.samples(number).tobytes()}


@dataclass(frozen=True)
class _OperatingData:
    """What the controller of a turbine reports once a second."""

    rotation: Rotation
    seed: int
    fault: OuterRaceFault | None

    def __call__(self, number: int) -> dict[str, Any]:
        seconds = np.array([float(number % HOUR_S)])
        slow_wind = float(self.rotation.wind_m_s(seconds)[0])
        jitter = white(self.seed, number, 3)
        gust = sum(
            part * math.sin(2 * math.pi * number / period_s + self.seed)
            for part, period_s in ((0.35, 61), (0.25, 23), (0.2, 11))
        )
        wind = max(0.0, slow_wind + gust + 0.15 * float(jitter[0]))
        power = float(power_kw(np.array([slow_wind + 0.6 * gust]))[0])
        severity = self.fault.severity(float(number)) if self.fault is not None else 0.0
        return {
            "wind_speed": round(wind, 2),
            "rotor_rpm": round(60 * float(self.rotation.speed_hz(seconds)[0]), 3),
            "power_kw": round(power + 4 * float(jitter[1]), 1),
            "pitch_deg": round(0.5 + 3.0 * max(0.0, slow_wind + gust - RATED_WIND_M_S), 2),
            # Oil is slow: it has the load of two minutes ago. Friction in a failing bearing warms it.
            "gear_oil_c": round(
                51.0
                + 9.0 * float(self.rotation.load(seconds - 120.0)[0])
                + 5.0 * severity
                + 0.05 * float(jitter[2]),
                2,
            ),
        }
