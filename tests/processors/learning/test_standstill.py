"""`condition` distinguishes leaps of the level, which are graded, from a machine that starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.processors.operations.base.block import Block
from windvane.processors.operations.base.operation import collected_operations, operation
from windvane.processors.operations.base.registry import set_user_operations
from windvane.processors.worker.pipeline.steps import RunningSteps
from windvane.store.catalog.policy import Policy, Step

from tests.processors.learning.machines import COLUMNS, Rows, by_column, features, judged, onsets
from tests.processors.streams import op, run, whole

pytestmark = pytest.mark.slow

HEALTHY = 300
WINDOW = 200


def with_column(rows: Rows, name: str, values: Rows, **parameters: Any) -> dict[str, Rows]:
    return judged(np.column_stack((rows, values)), columns=(*COLUMNS, name), **parameters)


@pytest.mark.parametrize("leap_db", [20.0, 25.0, 31.0, 33.0, 40.0, 60.0, 90.0])
@pytest.mark.parametrize("noise_db", [0.3, 1.0, 2.0])
def test_a_jump_of_the_level_is_a_danger_within_three_rows(leap_db: float, noise_db: float) -> None:
    for healthy in (41, 45, HEALTHY) if noise_db < 1 else (HEALTHY,):
        said = judged(features(np.repeat([0.0, leap_db], [healthy, 300]), noise_db=noise_db))
        assert healthy <= onsets(said["grade"], 2)[0] < healthy + 3
        assert (said["grade"][healthy + 2 :] == 2).all()
        assert (said["phase"][healthy + 2 :] == 2).all()
        assert np.isfinite(said["rul_s"][healthy + 2 :]).all()


def test_a_jump_of_one_sensor_or_one_band_is_graded_within_three_rows() -> None:
    rows = features(np.zeros(600))
    rows[HEALTHY:, COLUMNS.index("channel1.rms")] *= 10 ** (33 / 20)
    assert HEALTHY <= onsets(judged(rows)["grade"], 2)[0] < HEALTHY + 3
    banded = features(np.zeros(600), band_db=np.repeat([0.0, 35.0], HEALTHY))
    assert HEALTHY <= onsets(judged(banded)["grade"])[0] < HEALTHY + 3
    assert judged(banded)["grade"][-1] == 2


def test_two_high_rows_are_a_shock_and_a_third_makes_a_jump() -> None:
    for rows, expected in ((2, 0), (3, 2)):
        level = np.zeros(600)
        level[HEALTHY : HEALTHY + rows] = 40.0
        said = judged(features(level))
        assert said["grade"].max() == expected
        assert said["grade"][-1] == 0


def test_a_large_scatter_alone_is_not_a_danger() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(0, 12, 4000)
    assert onsets(judged(features(level))["grade"], 2) == []


@pytest.mark.parametrize("rows", [30, 200, 2000])
@pytest.mark.parametrize("still_db", [-32.0, -45.0, -90.0])
def test_a_standstill_of_any_length_is_not_learned_as_healthy(rows: int, still_db: float) -> None:
    level = np.repeat([0.0, still_db, 0.0, still_db, 0.0, 14.0], [200, rows, 100, rows, 100, 50])
    said = judged(features(level))
    assert onsets(said["grade"]) == onsets(said["grade"], 2)
    [danger] = onsets(said["grade"])
    assert len(level) - 50 < danger < len(level) - 40


@pytest.mark.parametrize("still_db", [-41.0, -60.0])
@pytest.mark.parametrize("rows", [5, 100, 1000])
def test_a_machine_that_stood_still_at_first_is_learned_when_it_starts(rows: int, still_db: float) -> None:
    level = np.repeat([still_db, 0.0, 33.0], [rows, 300, 50])
    said = judged(features(level, noise_db=0.3), standstill=0.005)  # -40 dB
    assert (said["phase"][:rows] == 0).all()
    assert np.isnan(said["score"][: rows + 40]).all()
    [danger] = onsets(said["grade"])
    assert rows + 300 <= danger < rows + 303
    # Without evidence it is a leap.
    if rows >= 100:
        assert rows <= onsets(judged(features(level))["grade"], 2)[0] < rows + 3


@pytest.mark.parametrize("name", ["shaft_rpm", "speed", "rotor.speed", "power"])
def test_a_start_that_speed_or_power_shows_late_is_not_a_jump(name: str) -> None:
    level = np.tile(np.repeat([-45.0, 0.0], [100, 200]), 4)
    speed = np.tile(np.repeat([0.0, 1500.0], [106, 194]), 4)
    said = with_column(features(level), name, speed)
    assert onsets(said["grade"]) == []
    level[-50:] += 33.0
    assert (
        len(level) - 50 <= onsets(with_column(features(level), name, speed)["grade"], 2)[0] < len(level) - 47
    )


@pytest.mark.parametrize(
    ("name", "value"), [("speed", 1500.0), ("power", 2e6), ("load", 0.0), ("torque", 0.0)]
)
def test_a_jump_of_a_running_or_unloaded_machine_is_a_danger(name: str, value: float) -> None:
    level = np.repeat([0.0, 33.0], HEALTHY)
    said = with_column(features(level), name, np.full(len(level), value))
    assert HEALTHY <= onsets(said["grade"], 2)[0] < HEALTHY + 3


def test_a_running_speed_overrides_a_power_of_zero() -> None:
    rows = np.column_stack((features(np.repeat([0.0, 33.0], HEALTHY)), np.full(600, 1500.0), np.zeros(600)))
    said = judged(rows, columns=(*COLUMNS, "speed", "power"))
    assert HEALTHY <= onsets(said["grade"], 2)[0] < HEALTHY + 3


def sampled(counts: Rows, *, seed: int = 1) -> NDArray[np.float64]:
    """Noise in which each window has its RMS, in counts."""
    noise = np.random.default_rng(seed).standard_normal((len(counts), WINDOW))
    samples: NDArray[np.float64] = (noise * counts[:, np.newaxis]).ravel()
    return samples


def condition_of(samples: NDArray[Any], decoder: str, **parameters: Any) -> dict[str, Rows]:
    data = np.frombuffer(samples.tobytes(), np.uint8)
    if decoder == "wav":
        size = samples.dtype.itemsize
        fmt = np.array([16, 0, 1 | 1 << 16, 1000, 1000 * size, size | 8 * size << 16], "<u4")
        head = b"RIFF\0\0\0\0WAVEfmt " + fmt[[0, 2, 3, 4, 5]].tobytes() + b"data\xff\xff\xff\xff"
        data = np.frombuffer(head + data.tobytes(), np.uint8)
    decoded = run(op(decoder, **parameters), whole(len(data)).blocks(data))
    found = run(op("features", window=WINDOW, bands=4), decoded.blocks)
    return by_column(run(op("condition", interval_s=0.1), found.blocks))


COUNTS = np.repeat([1.0, 300.0, 1.0, 300.0, 9000.0], [100, 200, 300, 100, 50])


@pytest.mark.parametrize(
    ("decoder", "dtype", "parameters"),
    [
        ("wav", "<i2", {}),
        ("pcm", "<i2", {"rate_hz": 1000.0}),
        ("pcm", "<i2", {"rate_hz": 1000.0, "scale": 0.00012, "unit": "g"}),
        ("pcm", "<i2", {"rate_hz": 1000.0, "scale": -3.0}),
        ("pcm", "<i4", {"rate_hz": 1000.0, "dtype": "int32"}),
    ],
)
def test_the_floor_of_the_converter_is_a_standstill(
    decoder: str, dtype: str, parameters: dict[str, Any]
) -> None:
    samples = np.clip(np.rint(sampled(COUNTS)), -32768, 32767).astype(dtype)
    said = condition_of(samples, decoder, **parameters)
    begin = len(said["grade"]) - 50
    [danger] = onsets(said["grade"])
    assert begin <= danger < begin + 4
    assert onsets(said["grade"], 2) == [danger]
    assert (said["phase"][:100] == 0).all()


def test_a_few_counts_of_8_bits_or_floats_are_not_the_converter_floor() -> None:
    counts = np.repeat([2.0, 60.0], [100, 50])
    rounded = np.rint(sampled(counts))
    eight = (np.clip(rounded, -128, 127).astype(np.int16) + 128).astype(np.uint8)
    for samples, decoder, parameters in (
        (eight, "wav", {}),
        (np.clip(rounded, -128, 127).astype(np.int8), "pcm", {"rate_hz": 1000.0, "dtype": "int8"}),
        (rounded.astype("<f4"), "pcm", {"rate_hz": 1000.0, "dtype": "float32"}),
    ):
        said = condition_of(samples, decoder, **parameters)
        assert 100 <= onsets(said["grade"], 2)[0] < 104


def test_output_of_user_operations_has_no_known_resolution() -> None:
    with collected_operations() as found:

        @operation("thousandth")
        def thousandth(block: Block) -> NDArray[np.float64]:
            return block.rows / 1000.0

    steps = (
        Step(operation="pcm", name="pcm", parameters={"rate_hz": 1000.0}),
        Step(operation="thousandth", name="thousandth"),
    )
    data = np.frombuffer(np.arange(100, dtype="<i2").tobytes(), np.uint8)
    [block] = whole(len(data)).blocks(data)
    set_user_operations(found)
    try:
        running = RunningSteps(Policy(reference="p", format="raw", pipeline=steps), {})
        given = running.run({"bytes": block}, failed=lambda step, error: pytest.fail(repr(error)))
        assert [result.block.resolution for result in given] == [1.0, 0.0]
    finally:
        set_user_operations({})


def test_a_standstill_threshold_of_0_disables_standstills() -> None:
    level = np.repeat([-100.0, 0.0], [100, 50])
    assert onsets(judged(features(level), standstill=0.0)["grade"], 2) != []
