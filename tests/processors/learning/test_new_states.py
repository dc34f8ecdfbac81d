"""An operating state that is new to `condition`: learned if it is moderately louder, else a danger."""

from __future__ import annotations

import numpy as np
import pytest

from tests.processors.learning.machines import COLUMNS, Rows, features, judged, onsets

HEALTHY = 200
LEAPT = 100


def judged_with(level: Rows, name: str, values: Rows) -> dict[str, Rows]:
    return judged(np.column_stack((features(level), values)), columns=(*COLUMNS, name))


@pytest.mark.parametrize(
    ("name", "before", "after", "leap_db"),
    [
        ("speed", 1500.0, 1200.0, 21.0),
        ("speed", 1500.0, 1200.0, 35.0),
        ("speed", 1500.0, 0.0, 35.0),
        ("speed", 1500.0, 1800.0, 35.0),
        ("power", 2000.0, 0.0, 35.0),
        ("load", 10.0, 80.0, 60.0),
        ("torque", 100.0, 0.0, 35.0),
    ],
)
def test_a_jump_with_a_change_of_state_is_a_danger_within_three_rows(
    name: str, before: float, after: float, leap_db: float
) -> None:
    counts = [HEALTHY, LEAPT]
    said = judged_with(np.repeat([0.0, leap_db], counts), name, np.repeat([before, after], counts))
    assert HEALTHY <= onsets(said["grade"], 2)[0] < HEALTHY + 3
    assert (said["grade"][HEALTHY + 2 :] == 2).all()


def test_a_jump_at_a_known_standstill_is_a_danger_within_three_rows() -> None:
    counts = [HEALTHY, LEAPT, HEALTHY, LEAPT]
    said = judged_with(
        np.repeat([0.0, -50.0, 0.0, 35.0], counts), "power", np.repeat([2000.0, 0.0, 2000.0, 0.0], counts)
    )
    first = len(said["grade"]) - LEAPT
    assert first <= onsets(said["grade"])[0] < first + 3


@pytest.mark.parametrize(
    ("name", "before", "after", "rise_db"),
    [
        ("speed", 1500.0, 1200.0, 14.0),
        ("speed", 500.0, 1500.0, 30.0),
        ("speed", 0.0, 1500.0, 50.0),
        ("speed", 10.0, 1500.0, 50.0),
        ("power", 0.0, 2000.0, 50.0),
        ("load", 10.0, 80.0, 30.0),
    ],
)
def test_changes_explained_by_an_operating_state_are_learned(
    name: str, before: float, after: float, rise_db: float
) -> None:
    counts = [HEALTHY, LEAPT]
    said = judged_with(np.repeat([0.0, rise_db], counts), name, np.repeat([before, after], counts))
    assert (said["grade"] == 0).all()
    assert said["phase"][-1] == 1


def test_a_state_is_learned_after_the_machine_returns_to_normal_in_it() -> None:
    """Two rows are a shock; after ten normal rows of a known state, the grade falls to 0."""
    counts = [HEALTHY, 2, 60, 20, 60]
    level = np.repeat([0.0, 35.0, 0.0, 35.0, 0.0], counts)
    said = judged_with(level, "speed", np.repeat([1500.0, 1200.0, 1200.0, 900.0, 1500.0], counts))
    [danger] = onsets(said["grade"])
    assert danger == HEALTHY + 62 + 2
    assert said["grade"][-1] == 0


@pytest.mark.parametrize("healthy", [0, 20, HEALTHY])
def test_a_level_of_infinity_is_a_danger_and_is_not_learned(healthy: int) -> None:
    rows = features(np.zeros(healthy + 30 + HEALTHY))
    rows[healthy : healthy + 30, COLUMNS.index("channel0.rms")] = np.inf
    said = judged(rows)
    assert healthy <= onsets(said["grade"], 2)[0] < healthy + 3
    assert said["grade"][healthy + 29] == 2
    assert np.isfinite(said["drift"][healthy + 12 :]).any()
    assert said["grade"][-1] == 0
    assert not (np.isinf(said["score"]) | np.isinf(said["drift"])).any()


def test_infinite_operating_values_raise_no_danger() -> None:
    rows = np.random.default_rng(3).normal([50.0, 3.0], [0.5, 0.1], (400, 2))
    rows[200:230, 1] = np.inf
    assert (judged(rows, columns=("oil_c", "bar"))["grade"] == 0).all()
