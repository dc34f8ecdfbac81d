"""`order` against a naive version, and on shafts with known speed."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.operations.base.block import blocks_of

from tests.processors.streams import Cut, cuts, firsts, op, run, run_with_restarts, whole

RATE_HZ = 10_000.0


def run_up(count: int, from_hz: float, to_hz: float) -> NDArray[np.float64]:
    """Revolutions of a shaft at each sample."""
    seconds = np.arange(count) / RATE_HZ
    return from_hz * seconds + (to_hz - from_hz) * seconds**2 / (2 * count / RATE_HZ)


def keys(samples: NDArray[np.float64], at: float) -> float:
    """Cubic convolution by its kernel."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    around = range(math.floor(at) - 1, math.floor(at) + 3)
    return sum(float(samples[max(place, 0)]) * kernel(at - place) for place in around)


def naive_by_pulses(
    tacho: NDArray[np.float64], signal: NDArray[np.float64], points: int, per_turn: int, max_samples: float
) -> list[list[float]]:
    pulses = [
        place - 1 + (0.5 - tacho[place - 1]) / (tacho[place] - tacho[place - 1])
        for place in range(1, len(tacho) - 3)
        if tacho[place - 1] < 0.5 <= tacho[place]
    ]
    runs: list[list[float]] = []
    for pulse in pulses:
        if not runs or pulse - runs[-1][-1] > max_samples:
            runs.append([])
        runs[-1].append(pulse)
    given = []
    for places in runs:
        rows, number = [], 0
        while number * per_turn <= (len(places) - 1) * points:
            pulse, part = divmod(number * per_turn / points, 1)
            at = places[int(pulse)]
            if part:
                at += part * (places[int(pulse) + 1] - at)
            rows.append(keys(signal, at))
            number += 1
        given.append(rows)
    return given


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_rows_are_those_of_the_naive_version_for_any_chunk_boundaries(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    count = data.draw(st.integers(1, 300))
    points, per_turn = data.draw(st.sampled_from([(2, 1), (8, 1), (5, 3), (3, 7)]))
    tacho = np.clip(np.sin(np.cumsum(random.uniform(0, 0.5, count))) * 2, 0, 1)
    if count > 100:
        tacho[50:95] = 0.0  # no pulse for longer than max_turn_s
    samples = np.stack([random.standard_normal(count), tacho], axis=1)
    parameters: dict[str, Any] = {
        "points": points,
        "tacho_channel": 1,
        "pulses_per_turn": per_turn,
        "max_turn_s": 40 / RATE_HZ,
        "max_rpm": 1e9,
    }
    blocks = list(data.draw(cuts(count)).blocks(samples, rate_hz=RATE_HZ))
    expected = naive_by_pulses(tacho, samples[:, 0], points, per_turn, 40)
    output = run(op("order", **parameters), blocks, gaps=True)
    restarted = run_with_restarts(lambda: op("order", **parameters), blocks, gaps=True)
    np.testing.assert_allclose(output.rows.ravel(), [x for rows in expected for x in rows], atol=1e-9)
    once = run(op("order", **parameters), whole(count).blocks(samples, rate_hz=RATE_HZ), gaps=True)
    assert output.same_rows(once)
    assert restarted.same_rows(once)
    assert firsts(output) == firsts(restarted) == firsts(once)
    number, numbers = 0, list[int]()
    for rows in expected:
        numbers += range(number, number + len(rows))
        number += len(rows) + 1
    assert firsts(output) == numbers


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_speed_integration_does_not_depend_on_chunk_boundaries(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    count = data.draw(st.integers(1, 300))
    speed_rpm = random.uniform(-20_000, 60_000, count)
    speed_rpm[: count // 5] = 0
    samples = np.stack([speed_rpm, random.standard_normal(count), np.arange(count)], axis=1)
    parameters: dict[str, Any] = {"points": 7, "speed_channel": 0, "max_rpm": 1e9}
    blocks = list(data.draw(cuts(count)).blocks(samples, rate_hz=RATE_HZ))
    once = run(op("order", **parameters), whole(count).blocks(samples, rate_hz=RATE_HZ))
    for output in (
        run(op("order", **parameters), blocks),
        run_with_restarts(lambda: op("order", **parameters), blocks),
    ):
        assert output.same_rows(once)
    turning = np.maximum(speed_rpm, 0) / 60 * 7 / RATE_HZ
    angle, number, rows = 0.0, 0, []
    for place in range(1, count - 3):
        step = (turning[place - 1] + turning[place]) / 2
        while number < angle + step:
            at = place - 1 + (number - angle) / step
            rows.append([keys(samples[:, 1], at), keys(samples[:, 2], at)])
            number += 1
        angle += step
    np.testing.assert_allclose(once.rows.reshape(-1, 2), np.reshape(rows, (-1, 2)), atol=1e-6)


@pytest.mark.parametrize("source", ["tacho", "speed"])
def test_components_synchronous_to_the_shaft_stay_at_their_order(source: str) -> None:
    count = 50_000
    turns = run_up(count, 10, 30)
    signal = 2 * np.sin(2 * np.pi * 3.0 * turns)
    speed_rpm = np.gradient(turns) * RATE_HZ * 60
    reference = (turns % 1 < 0.5).astype(float) if source == "tacho" else speed_rpm
    samples = np.stack([reference, signal], axis=1)
    order = op("order", points=64, **{f"{source}_channel": 0})
    stretched = run(order, Cut([20_000, count], [1, 2], [1, 2]).blocks(samples, rate_hz=RATE_HZ))
    assert len(stretched.rows) == pytest.approx(turns[-1] * 64, abs=130)
    spectrum = op("spectrum", length=640, scaling="spectrum", dtype="float64")
    rows = run(spectrum, stretched.blocks).rows
    assert np.all(np.argmax(rows, axis=1) == 30)  # ten lines an order
    np.testing.assert_allclose(np.sqrt(2 * rows[:, 30]), 2, rtol=0.01)


def test_a_noisy_edge_is_one_pulse_with_hysteresis() -> None:
    turns = run_up(20_000, 10, 10)
    noise = np.random.default_rng(9).uniform(-0.1, 0.1, 20_000)
    samples = np.stack([np.sin(2 * np.pi * turns) + noise, turns], axis=1)
    blocks = list(Cut([777, 20_000], [1, 2], [1, 2]).blocks(samples, rate_hz=RATE_HZ))
    rows = run(op("order", points=2, tacho_channel=0, threshold=0.0, hysteresis=0.5), blocks).rows
    assert len(rows) == pytest.approx(40, abs=3)
    np.testing.assert_allclose(np.diff(rows[:, 0]), 0.5, atol=0.04)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_noise_instead_of_a_tacho_signal_stays_within_the_maximum_speed(data: st.DataObject) -> None:
    count = 4000
    samples = np.random.default_rng(3).uniform(0, 1, (count, 2))
    blocks = list(data.draw(cuts(count)).blocks(samples, rate_hz=RATE_HZ))
    make = partial(op, "order", points=4, tacho_channel=1, max_rpm=6000)
    output = run(make(), blocks)
    assert 0 < len(output.rows) <= 4 * 100 * count / RATE_HZ + 1
    assert output.same_rows(run(make(), whole(count).blocks(samples, rate_hz=RATE_HZ)))


def test_a_speed_over_the_fastest_counts_as_the_fastest() -> None:
    samples = np.stack([np.zeros(20_000), np.full(20_000, 1e9)], axis=1)
    blocks = whole(20_000).blocks(samples, rate_hz=RATE_HZ)
    rows = run(op("order", points=4, speed_channel=1, max_rpm=600), blocks).rows
    assert len(rows) == pytest.approx(4 * 10 * 20_000 / RATE_HZ, abs=2)


def test_non_finite_tacho_values_are_neither_high_nor_low() -> None:
    turns = run_up(20_000, 20, 20)
    tacho = (turns % 1 < 0.5).astype(float)
    samples = np.stack([tacho, turns], axis=1)
    expected = run(op("order", points=4, tacho_channel=0), whole(20_000).blocks(samples, rate_hz=RATE_HZ))
    holes = np.flatnonzero(np.diff(tacho) == 1)  # the samples before pulses
    samples[holes, 0] = np.nan
    samples[[3000, 3001], 0] = np.nan, -np.inf
    output = run(op("order", points=4, tacho_channel=0), whole(20_000).blocks(samples, rate_hz=RATE_HZ))
    np.testing.assert_allclose(output.rows, expected.rows, atol=0.01)


def test_angles_restart_after_a_gap() -> None:
    turns = run_up(20_000, 20, 20)
    samples = np.stack([(turns % 1 < 0.5).astype(float), turns], axis=1)
    blocks = list(Cut([7000, 9000, 20_000], [1, 2, 3], [1, 2, 3]).blocks(samples, rate_hz=RATE_HZ))
    output = run(op("order", points=4, tacho_channel=0), [blocks[0], blocks[2]], gaps=True)
    before = [
        block
        for result in [op("order", points=4, tacho_channel=0).process(blocks[0])]
        for block in blocks_of(result)
    ]
    numbers = firsts(output)
    assert numbers[: before[0].stop] == list(range(before[0].stop))
    assert numbers[before[0].stop] == before[0].stop + 1
    steps = np.diff(output.rows[:, 0])
    assert np.sum(np.abs(steps - 0.25) > 0.01) == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "either tacho_channel or speed_channel"),
        ({"tacho_channel": 0, "speed_channel": 1}, "either tacho_channel or speed_channel"),
        ({"tacho_channel": 0, "points": 1}, "from 2 up to 65536"),
    ],
)
def test_invalid_parameters_are_rejected(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op("order", **parameters)


def test_an_angle_without_a_channel_is_rejected() -> None:
    with pytest.raises(OperationFailed, match="no angle in channel 1 of 1 at 10000 Hz"):
        op("order", tacho_channel=1).process(next(whole(10).blocks(np.zeros((10, 1)), rate_hz=RATE_HZ)))
