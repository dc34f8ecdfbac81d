"""The simulated wind farm is plausible and deterministic."""

import json
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray
from windvane.simulation.bearing import Bearing, OuterRaceFault
from windvane.simulation.noise import uniform
from windvane.simulation.park import FAST_RATE_HZ, FAST_SHAFT_BEARING, Source, wind_park
from windvane.simulation.rotation import HOUR_S, REVOLUTIONS_PER_HOUR, Rotation, turns
from windvane.simulation.vibration import BLOCKS_PER_S, FAST_PINION_TEETH, FAST_SHAFT, FULL_SCALE_G

HOUR = 495_000  # hours since 1970, in 2026
START_S = HOUR * HOUR_S
PARK = {source.tag: source for source in wind_park(seed=1)}
CYCLE_S = 600
LATE_S = CYCLE_S - 10  # START_S is the beginning of a cycle


def samples(source: Source, from_s: int, seconds: int) -> NDArray[np.float64]:
    """Acceleration in g."""
    blocks = range(from_s * BLOCKS_PER_S, (from_s + seconds) * BLOCKS_PER_S)
    recording = b"".join(source.record(block)["message"] for block in blocks)
    return np.frombuffer(recording, "<i2") * (FULL_SCALE_G / 32768)


def rotation_of(tag: str) -> Rotation:
    rotation: Rotation = PARK[tag].record.sensor.rotation  # type: ignore[attr-defined]
    return rotation


def fast_shaft_hz(tag: str, at_s: float) -> float:
    return float(FAST_SHAFT) * float(rotation_of(tag).speed_hz(np.array([at_s % HOUR_S]))[0])


def line_over_floor(spectrum: NDArray[np.float64], step_hz: float, line_hz: float, width_hz: float) -> float:
    """The highest value within `width_hz` of `line_hz` over the median of 40 Hz around it."""
    frequencies = np.arange(len(spectrum)) * step_hz
    near = np.abs(frequencies - line_hz) <= width_hz
    around = np.abs(frequencies - line_hz) <= 20
    return float(spectrum[near].max() / np.median(spectrum[around]))


def test_three_turbines_send_three_sensors_and_operating_data_each() -> None:
    places = ("gearbox", "generator", "blade1", "scada")
    assert sorted(PARK) == sorted(
        f"turbine.{name}.{place}" for name in ("t01", "t02", "t03") for place in places
    )


@pytest.mark.parametrize("tag", sorted(PARK))
def test_a_record_is_the_same_whenever_it_is_requested_and_unlike_others(tag: str) -> None:
    number = START_S * 10**9 // PARK[tag].period_ns + 17
    again = {source.tag: source for source in wind_park(seed=1)}
    other = {source.tag: source for source in wind_park(seed=2)}
    assert again[tag].record(number) == PARK[tag].record(number)
    assert other[tag].record(number) != PARK[tag].record(number)
    assert PARK[tag].record(number + 1) != PARK[tag].record(number)
    assert len({json.dumps(str(source.record(number))) for source in PARK.values()}) == len(PARK)


def test_the_angle_of_the_rotor_is_the_integral_of_its_speed() -> None:
    rotation = Rotation((0.3, 1.7, 4.0, 6.0))
    seconds = np.linspace(0, HOUR_S, 360_001)
    speed_hz = rotation.speed_hz(seconds)
    summed = np.concatenate([[0], np.cumsum((speed_hz[1:] + speed_hz[:-1]) / 2 * np.diff(seconds))])
    np.testing.assert_allclose(rotation.revolutions(seconds), summed, atol=1e-6)
    assert math.isclose(float(rotation.revolutions(np.array([3600.0]))[0]), REVOLUTIONS_PER_HOUR)


def test_no_shaft_jumps_at_a_full_hour() -> None:
    rotation = Rotation((0.3, 1.7, 4.0, 6.0))
    end, begin = rotation.revolutions(np.array([float(HOUR_S)])), rotation.revolutions(np.array([0.0]))
    for ratio in (Fraction(1), FAST_SHAFT, FAST_SHAFT * FAST_PINION_TEETH):
        jump = turns(HOUR, end, ratio) - turns(HOUR + 1, begin, ratio)
        assert math.isclose(math.remainder(float(jump[0]), 1.0), 0.0, abs_tol=1e-6)


@pytest.mark.parametrize("place", ["gearbox", "generator", "blade1"])
@pytest.mark.parametrize("boundary", ["of blocks", "of an hour"])
def test_blocks_join_without_a_jump(place: str, boundary: str) -> None:
    source = PARK[f"turbine.t02.{place}"]
    joints = [START_S + hour * HOUR_S for hour in range(40)] if boundary == "of an hour" else [START_S + 500]
    size = len(source.record(0)["message"]) // 2
    inside, across = [], []
    for at_s in joints:
        steps = np.diff(samples(source, at_s - 2, 5))
        across.append(steps[size - 1 :: size] if boundary == "of blocks" else steps[[8 * size - 1]])
        inside.append(steps)
    assert np.sqrt(np.mean(np.concatenate(across) ** 2)) < 1.5 * np.sqrt(np.mean(np.concatenate(inside) ** 2))


def test_gears_are_heard_at_their_mesh_frequency_with_sidebands_of_the_shaft() -> None:
    tag, at_s = "turbine.t01.gearbox", START_S + 100
    _, power = scipy.signal.periodogram(samples(PARK[tag], at_s, 2), FAST_RATE_HZ, "hann")
    shaft_hz = fast_shaft_hz(tag, at_s + 1)
    assert 16 < shaft_hz < 24
    for line_hz in (
        FAST_PINION_TEETH * shaft_hz,
        (FAST_PINION_TEETH - 1) * shaft_hz,
        (FAST_PINION_TEETH + 1) * shaft_hz,
    ):
        assert line_over_floor(power, 0.5, line_hz, 2.0) > 100


def test_the_generator_hums_at_twice_the_line_frequency() -> None:
    _, power = scipy.signal.periodogram(
        samples(PARK["turbine.t03.generator"], START_S, 2), FAST_RATE_HZ, "hann"
    )
    assert line_over_floor(power, 0.5, 100.0, 0.5) > 100


def test_a_blade_feels_its_weight_once_a_revolution_and_the_tower_three_times() -> None:
    tag = "turbine.t01.blade1"
    felt = samples(PARK[tag], START_S, 120)
    assert 1.0 < felt.max() < 2.0
    frequencies, power = scipy.signal.periodogram(felt, 1600, "hann")
    rotor_hz = fast_shaft_hz(tag, 60.0) / float(FAST_SHAFT)
    assert abs(frequencies[np.argmax(power)] - rotor_hz) < 0.03
    near_three = (frequencies > 2.7 * rotor_hz) & (frequencies < 3.3 * rotor_hz)
    beside = (frequencies > 3.4 * rotor_hz) & (frequencies < 3.7 * rotor_hz)
    assert power[near_three].max() > 5 * power[beside].max()


def envelope_line(tag: str, at_s: int) -> float:
    """How far the ball pass frequency stands out in the envelope around the bearing's resonance."""
    band = scipy.signal.butter(4, (1800, 2900), "bandpass", fs=FAST_RATE_HZ, output="sos")
    envelope = np.abs(scipy.signal.hilbert(scipy.signal.sosfilt(band, samples(PARK[tag], at_s, 4))))
    _, power = scipy.signal.periodogram(envelope, FAST_RATE_HZ, "hann", detrend="constant")
    passes_hz = FAST_SHAFT_BEARING.outer_race_passes * fast_shaft_hz(tag, at_s + 2)
    return line_over_floor(power, 0.25, passes_hz, 1.5)


def test_only_the_failing_bearing_has_impacts_at_its_ball_pass_frequency() -> None:
    assert envelope_line("turbine.t02.gearbox", START_S + LATE_S) > 300
    assert envelope_line("turbine.t02.gearbox", START_S + 60) < 60
    assert envelope_line("turbine.t01.gearbox", START_S + LATE_S) < 60


def test_the_fault_grows_for_minutes_and_is_gone_with_the_next_cycle() -> None:
    rms = [np.std(samples(PARK["turbine.t02.gearbox"], START_S + at_s, 2)) for at_s in (60, 450, 598, 602)]
    assert rms[0] * 1.02 < rms[1] < rms[2]
    assert rms[2] > 1.5 * rms[3]
    fault = OuterRaceFault(FAST_SHAFT_BEARING, seed=1)
    severities = [fault.severity(START_S + at_s) for at_s in range(0, CYCLE_S, 5)]
    assert severities == sorted(severities)
    assert severities[:25] == [0.0] * 25
    assert 0.9 < severities[-1] <= 1.0


def test_the_ball_pass_frequency_follows_from_the_geometry() -> None:
    # 8 balls of 15 mm on 65 mm at 15 degrees: 8 / 2 (1 - 15 / 65 cos 15°).
    bearing = Bearing(rollers=8, roller_mm=15.0, pitch_mm=65.0, contact_deg=15.0)
    assert math.isclose(bearing.outer_race_passes, 3.1083738, rel_tol=1e-6)


def test_each_roller_causes_one_impact_that_rings_into_the_next_samples() -> None:
    fault = OuterRaceFault(FAST_SHAFT_BEARING, seed=1, slip=0.0)
    passes = np.arange(-64, 1600) / 100.0  # one every hundred samples
    heard = fault.ringing(passes, 64, 6400.0)
    assert len(heard) == 1600
    for start in range(0, 1600, 100):
        ring = heard[start : start + 64]
        np.testing.assert_allclose(ring, heard[:64], atol=1e-9)
    assert np.abs(heard).max() <= fault.peak_g
    assert heard[0] == 0.0
    assert np.abs(heard[1:5]).max() > 0.3 * fault.peak_g


def test_operating_data_belong_together() -> None:
    records = [PARK["turbine.t01.scada"].record(START_S + at_s) for at_s in range(0, HOUR_S, 7)]
    column: Callable[[str], NDArray[np.float64]] = lambda name: np.array([record[name] for record in records])  # noqa: E731
    assert np.corrcoef(column("wind_speed"), column("power_kw"))[0, 1] > 0.8
    assert np.corrcoef(column("wind_speed"), column("rotor_rpm"))[0, 1] > 0.7
    assert column("rotor_rpm").min() > 11
    assert column("rotor_rpm").max() < 15
    assert column("power_kw").min() > 200
    assert column("power_kw").max() < 2020
    assert column("pitch_deg").min() >= 0.5
    assert 45 < column("gear_oil_c").min() < column("gear_oil_c").max() < 70
    assert json.loads(json.dumps(records)) == records


def test_counted_chance_is_spread_evenly() -> None:
    drawn = uniform(7, np.arange(100_000))
    assert 0 <= drawn.min() <= drawn.max() < 1
    np.testing.assert_allclose(np.histogram(drawn, 10, (0, 1))[0], 10_000, rtol=0.05)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.02
