"""Presets: their pipelines can run, and every parameter can be overridden."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from windvane.errors import PolicyInvalid
from windvane.processors.operations.base.presets import PRESETS, with_preset
from windvane.processors.operations.base.steps import check_pipeline, make_operation
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping

from tests.processors.streams import one, whole


@pytest.mark.parametrize("preset", ["audio", "vibration", "sensors", "logs"])
def test_a_preset_is_a_policy_that_can_run(preset: str) -> None:
    policy = policy_from_mapping(with_preset(preset, {"reference": "r"}))
    check_pipeline(policy)
    assert policy_from_mapping(policy_to_mapping(policy)) == policy


def test_the_vibration_preset_takes_int16_at_25600_hz() -> None:
    policy = policy_from_mapping(with_preset("vibration", {"reference": "r"}))
    data = np.zeros(25_600, "<i2").view(np.uint8)
    samples = one(make_operation(policy.pipeline[0]).process(next(whole(len(data)).blocks(data))))
    rates = {}
    for step in policy.pipeline[1:3]:
        rates[step.name] = one(make_operation(step).process(samples)).rate_hz
    assert rates == {"spectrum": 25.0, "features": 10.0}


def test_given_settings_override_the_preset() -> None:
    before = copy.deepcopy(PRESETS["vibration"])
    given = {
        "reference": "r",
        "title": "Mine",
        "pipeline": [
            {"operation": "spectrum", "length": 4096},
            {"name": "samples", "channels": 2},
            {"operation": "model", "name": "drift", "estimator": "river.drift.ADWIN", "column": "rms"},
        ],
    }
    merged = with_preset("vibration", given)
    pipeline = {step.get("name", step["operation"]): step for step in merged["pipeline"]}
    assert list(pipeline) == ["samples", "spectrum", "features", "condition", "drift"]
    assert pipeline["spectrum"]["length"] == 4096
    assert pipeline["samples"]["channels"] == 2
    assert pipeline["samples"]["rate_hz"] == 25_600.0
    assert merged["title"] == "Mine"
    assert PRESETS["vibration"] == before


def test_a_step_with_another_operation_replaces_that_of_the_preset() -> None:
    merged = with_preset(
        "vibration", {"reference": "r", "pipeline": [{"operation": "wav", "name": "samples"}]}
    )
    assert merged["pipeline"][0] == {"operation": "wav", "name": "samples"}
    check_pipeline(policy_from_mapping(merged))


def test_an_invalid_pipeline_is_rejected_by_the_policy_not_the_preset() -> None:
    for pipeline in ("spectrum", [3], [{"name": ["samples"]}]):
        with pytest.raises(PolicyInvalid, match="pipeline"):
            policy_from_mapping(with_preset("audio", {"reference": "r", "pipeline": pipeline}))


def test_an_unknown_preset_is_rejected_with_a_suggestion() -> None:
    with pytest.raises(PolicyInvalid, match='"vibrations" is not known; did you mean "vibration"'):
        with_preset("vibrations", {})
