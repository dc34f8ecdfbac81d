"""docs/operations.md: its examples are policies that can run, and it names all operations and parameters."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from windvane.processors.operations.base.registry import operations
from windvane.processors.operations.base.steps import check_pipeline
from windvane.store.catalog.policy import policy_from_mapping

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
DESCRIBED_ELSEWHERE = {"model", "trained_model", "condition"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_policies_that_can_run(example: str) -> None:
    policy: dict[str, Any] = tomllib.loads("[[policy]]\n" * ("[[policy]]" not in example) + example)[
        "policy"
    ][0]
    before: list[dict[str, Any]] = [
        {"operation": "pcm", "rate_hz": 25_600.0, "channels": 2},
        {"operation": "welch"},
    ]
    if "reference" not in policy:
        decodes = policy["pipeline"][0]["operation"] == "fields"
        policy = {
            "reference": "example",
            "format": "json" if decodes else "raw",
            "pipeline": [
                *([] if decodes else [step for step in before if step["operation"] not in str(policy)]),
                *policy["pipeline"],
            ],
        }
        if "'input': 'welch'" in str(policy):
            policy["pipeline"].insert(1, before[1])
    check_pipeline(policy_from_mapping(policy))


@pytest.mark.parametrize("name", sorted(set(operations()) - DESCRIBED_ELSEWHERE))
def test_every_parameter_is_on_the_page(name: str) -> None:
    if not operations()[name].__module__.startswith("windvane."):
        pytest.skip("registered by another test")
    assert f"`{name}`" in PAGE
    for parameter in inspect.signature(operations()[name]).parameters:
        assert f"`{parameter}`" in PAGE, f"{parameter} of {name}"
