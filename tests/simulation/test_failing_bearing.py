"""The demo's policies see the bearing of t02 fail, and nothing else."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.processors.operations.base.block import Block, EventTimes, blocks_of
from windvane.processors.operations.base.steps import make_operation
from windvane.simulation.park import Source, wind_park
from windvane.store.catalog.policy import policy_from_mapping

CYCLE_S, HEALTHY_S = 600, 120
BEGIN_S = 1_790_000_400  # a whole number of cycles since 1970


def condition_of(tag: str, seconds: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds since the beginning, and the grade there, by the steps of the demo's policy."""
    mappings: list[dict[str, Any]] = tomllib.loads(
        (files("windvane.simulation") / "policies.toml").read_text()
    )["policy"]
    policy = policy_from_mapping(next(m for m in mappings if m["reference"] == "demo-drive-train"))
    steps = {step.operation: make_operation(step) for step in policy.pipeline}
    source = next(source for source in wind_park() if source.tag == tag)
    grades, times_ns = [], []
    for block in _events(source, seconds):
        for samples in blocks_of(steps["pcm"].process(block)):
            for features in blocks_of(steps["features"].process(samples)):
                for judged in blocks_of(steps["condition"].process(features)):
                    grades.append(judged.rows[:, judged.columns.index("grade")])
                    times_ns.append(judged.row_times_ns)
    return np.concatenate(times_ns) / 1e9 - BEGIN_S, np.concatenate(grades)


def _events(source: Source, seconds: int) -> Iterator[Block]:
    """A window every two seconds, which is two of eight records: the others would take the test a while."""
    sent, first_number = 0, BEGIN_S * 1_000_000_000 // source.period_ns
    for number in range(first_number, first_number + seconds * 1_000_000_000 // source.period_ns):
        if number % 8 > 1:
            continue
        data = np.frombuffer(source.record(number)["message"], np.uint8)
        time_ns = (number + 1) * source.period_ns
        yield Block(data, sent, EventTimes(np.array([sent + len(data)]), np.array([time_ns])))
        sent += len(data)


def test_the_failing_bearing_is_warned_of_before_the_end_and_healthy_again_when_replaced() -> None:
    seconds, grade = condition_of("turbine.t02.gearbox", CYCLE_S + HEALTHY_S)
    warned, in_danger = (float(seconds[np.argmax(grade >= level)]) for level in (1, 2))
    assert HEALTHY_S < warned < in_danger < CYCLE_S
    assert CYCLE_S - warned > 60
    assert (grade[(seconds > in_danger) & (seconds < CYCLE_S)] == 2).all()
    assert grade[-1] == 0


@pytest.mark.parametrize("tag", ["turbine.t01.gearbox", "turbine.t03.generator"])
def test_nothing_is_reported_of_healthy_machines(tag: str) -> None:
    _, grade = condition_of(tag, 300)
    assert len(grade) > 140
    assert not grade.any()
