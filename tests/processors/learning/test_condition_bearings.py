"""`condition` on real bearings that ran to failure, with default parameters and no prior knowledge.

Data: P. Nectoux et al., "PRONOSTIA: An experimental platform for bearings accelerated degradation tests",
IEEE PHM 2012. What is asserted must hold for any bearing of such a bench; benchmarks/condition.py has the
figures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from windvane.processors.operations.base.block import Block, EventTimes

from tests.processors.learning.machines import Rows, by_column, onsets
from tests.processors.streams import DATA, op, run

pytestmark = pytest.mark.slow

BEARINGS = ("Bearing1_1", "Bearing1_2", "Bearing2_2", "Bearing3_1")
RECORD_S = 10.0


def recording(name: str) -> Path:
    """A file; where the data is absent, the test is skipped and says so."""
    path = DATA / "pronostia" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"needs {name}.npz of the test data, which is not next to this checkout")
    return path


def condition_of(name: str) -> tuple[Rows, dict[str, Rows]]:
    """The fraction of life at each row, and the output there."""
    with np.load(recording(name)) as arrays:
        records, seconds = arrays["acc_mg"], arrays["seconds"]
    ends = np.arange(1, len(records) + 1) * records.shape[1]
    times = EventTimes(ends, np.rint(seconds * 1e9).astype(np.int64))
    samples = records.reshape(-1, records.shape[2]) / 1000.0
    features = run(op("features"), [Block(samples, 0, times, 25_600.0, attrs={"unit": "g"})])
    said = by_column(run(op("condition"), features.blocks))
    return np.arange(len(said["grade"])) / (len(said["grade"]) - 1), said


@pytest.mark.parametrize("name", BEARINGS)
def test_a_warning_precedes_each_bearing_failure_and_danger_is_never_early(name: str) -> None:
    life, said = condition_of(name)
    life_s = len(life) * RECORD_S
    warnings, dangers = onsets(said["grade"]), onsets(said["grade"], 2)
    assert said["grade"][-1] == 2
    assert (1 - life[warnings[-1]]) * life_s >= 60  # the last one stays
    assert all(life[danger] > 0.25 for danger in dangers)
    assert sum(life[warning] < 0.5 for warning in warnings) <= 1
    assert all(life[warning] > 0.1 for warning in warnings)
    there = said["grade"] > 0
    np.testing.assert_array_equal(np.isfinite(said["rul_s"]), there)
    left_s = (1 - life) * life_s
    within = (said["rul_low_s"] <= left_s) & (left_s <= said["rul_high_s"])
    assert within[there].mean() > 0.5
