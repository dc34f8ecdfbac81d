"""docs/operations.md: its examples are policies that can run, and each parameter is described."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from windvane.processors.operations.base.operation import parameters_of
from windvane.processors.operations.base.registry import built_in_operations
from windvane.processors.operations.base.steps import check_pipeline
from windvane.store.catalog.policy import policy_from_mapping

from tests.docs.operations_page import description, operations_page, parameter_texts

EXAMPLES = re.findall(r"^```toml\n(.*?)^```", operations_page(), re.DOTALL | re.MULTILINE)


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


@pytest.mark.parametrize("name", built_in_operations())
def test_the_docstring_describes_the_operation_and_each_parameter(name: str) -> None:
    cls = built_in_operations()[name]
    assert description(cls), f"write what {name} computes in the docstring of {cls.__name__}"
    _, parameters = parameters_of(cls)
    described = parameter_texts(cls)
    missing = [each for each in parameters if not described.get(each)]
    assert not missing, f"describe {missing} under `Args:` in the docstring of {cls.__name__}.__init__"
