"""Presets: policy templates for the most common kinds of data.

A preset is a mapping for `policy_from_mapping`, without reference and tags. The user's settings override it;
steps of the pipeline are identified by name, so that each parameter of each step can be set separately.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ....errors import PolicyInvalid
from .failures import did_you_mean

AUDIO: Mapping[str, Any] = {
    "title": "Audio: WAVE files",
    "format": "raw",
    "pipeline": [
        {"operation": "wav", "name": "samples"},
        {"operation": "spectrum", "length": 2048},
        {"operation": "features", "window_s": 0.1, "bands": 8},
        {"operation": "model", "estimator": "river.anomaly.HalfSpaceTrees", "warmup": 250},
    ],
}
"""WAVE files; their samples are kept as an array, since the data stream has headers between them."""

VIBRATION: Mapping[str, Any] = {
    "title": "Vibration: samples at 25.6 kHz",
    "format": "raw",
    "pipeline": [
        {
            "operation": "pcm",
            "name": "samples",
            "keep": False,
            "dtype": "int16",
            "channels": 1,
            "rate_hz": 25600.0,
        },
        {"operation": "spectrum", "length": 2048},
        {"operation": "features", "window_s": 0.1, "bands": 8},
        {"operation": "condition"},
    ],
}
"""Little-endian int16 samples, one channel at 25.6 kHz; the data stream itself holds the samples.

More channels, or another rate, dtype or scale, are set at the step `samples`. `condition` needs no tuning; a
model of River or scikit-learn can be added next to it."""

SENSORS: Mapping[str, Any] = {
    "title": "Sensors: records with numbers",
    "format": "json",
    "pipeline": [
        {"operation": "fields"},
        {"operation": "model", "estimator": "river.anomaly.HalfSpaceTrees", "warmup": 250},
    ],
}
"""Records with numeric fields, each a row."""

LOGS: Mapping[str, Any] = {"title": "Logs", "format": "json", "pipeline": []}
"""Records of any kind, stored without processing."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"audio": AUDIO, "vibration": VIBRATION, "sensors": SENSORS, "logs": LOGS}
)


def with_preset(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of a policy: the preset's, overridden by `given`; neither is changed.

    A step of `given` with the name of a preset's step overrides the keys that it has; with another operation
    it replaces that step. Steps of other names come last.

    Raises:
        PolicyInvalid: there is no such preset.
    """
    if preset not in PRESETS:
        raise PolicyInvalid(f'the preset "{preset}" is not known{did_you_mean(preset, PRESETS)}')
    merged = copy.deepcopy({**PRESETS[preset], **given})
    if isinstance(given.get("pipeline"), list):
        merged["pipeline"] = _merged_steps(PRESETS[preset]["pipeline"], given["pipeline"])
    return merged


def _merged_steps(preset: list[dict[str, Any]], given: list[Any]) -> list[Any]:
    steps: list[Any] = copy.deepcopy(preset)
    places = {_name(step): index for index, step in enumerate(steps)}
    for step in copy.deepcopy(given):
        name = _name(step) if isinstance(step, dict) else None
        place = places.get(name) if isinstance(name, str) else None
        if place is None:
            steps.append(step)
        elif step.get("operation", steps[place]["operation"]) == steps[place]["operation"]:
            steps[place] |= step
        else:
            steps[place] = step
    return steps


def _name(step: Mapping[str, Any]) -> Any:
    return step.get("name", step.get("operation"))
