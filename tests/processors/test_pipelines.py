"""An operation that no policy of `pipelines` names is tested in a policy of its own."""

import pytest
from windvane.processors.operations.base.registry import built_in_operations
from windvane.processors.worker.pipeline.steps import RunningSteps

from tests.processors.pipelines import given_by, policies, policy_with_defaults

STEPS = [step for policy in policies().values() for step in policy.pipeline]


def test_every_built_in_operation_has_a_step() -> None:
    assert {step.operation for step in STEPS} == set(built_in_operations())


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("wav", []),
        ("fields", []),
        ("gaps", ["pcm"]),
        ("resample", ["pcm"]),
        ("features", ["pcm"]),
        ("best_band", ["pcm", "kurtosis"]),
        ("statistics", ["fields"]),
        ("model", ["pcm", "spectrum", "bands"]),
    ],
)
def test_the_steps_before_it_give_its_input(name: str, before: list[str]) -> None:
    others = [step for step in STEPS if step.operation != name]
    _, policy = policy_with_defaults(name, built_in_operations(), others)
    assert [step.operation for step in policy.pipeline] == [*before, name]


@pytest.mark.parametrize("name", ["gaps", "spectrum", "resample", "statistics", "condition"])
def test_it_runs_with_its_example_or_its_defaults(name: str) -> None:
    stream, policy = policy_with_defaults(name, built_in_operations(), STEPS)
    steps = RunningSteps(policy, {})
    given_by(steps, stream, slice(None))
    assert name in steps.states()


def test_parameters_without_defaults_and_without_an_example_are_named() -> None:
    with pytest.raises(AssertionError, match=r"rate_hz.*example.*docstring of Pcm"):
        policy_with_defaults("pcm", built_in_operations(), STEPS)
