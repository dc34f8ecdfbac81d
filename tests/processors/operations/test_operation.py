"""The creation of operations from a policy's steps, and the rejection of invalid ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta
from windvane.errors import PolicyInvalid
from windvane.processors.operations.base.block import Block
from windvane.processors.operations.base.operation import Operation, collected_operations, operation
from windvane.processors.operations.base.registry import operations, set_user_operations
from windvane.processors.operations.base.steps import check_pipeline, make_operation, resolve_inputs
from windvane.store.catalog.policy import Policy, Step

from tests.processors.streams import op

PCM = Step(operation="pcm", name="samples", parameters={"rate_hz": 25_600})


def policy(*steps: Step, form: Literal["raw", "json"] = "raw") -> Policy:
    return Policy(reference="p", format=form, pipeline=steps)


def test_these_operations_are_built_in() -> None:
    assert set(operations()) >= {"wav", "pcm", "fields", "spectrum", "features", "model"}


@pytest.fixture
def gain() -> Iterator[type[Operation]]:
    with collected_operations() as found:

        @operation("gain")
        class Gain(Operation):
            input = "samples"
            output = "samples"

            def __init__(
                self,
                *,
                factor: Annotated[float, Meta(gt=0, le=10)],
                mode: Literal["db", "linear"] = "linear",
                limit: int | None = None,
            ) -> None:
                if limit is not None and limit < factor:
                    raise PolicyInvalid("limit is below factor; raise it")
                self.factor, self.mode, self.limit = factor, mode, limit

            def process(self, block: Block) -> Block | None:
                return block

    set_user_operations(found)
    yield Gain
    set_user_operations({})


def test_the_keyword_parameters_of_a_class_are_those_of_the_step(gain: type[Operation]) -> None:
    made = op("gain", factor=2, mode="db")
    assert isinstance(made, gain)
    assert vars(made) == {"factor": 2.0, "mode": "db", "limit": None}
    assert isinstance(vars(made)["factor"], float)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, 'step "gain": factor is missing, which "gain" needs: a number over 0 up to 10'),
        ({"factor": 0}, 'factor of "gain" is 0, must be a number over 0 up to 10'),
        ({"factor": "2"}, "factor of \"gain\" is '2', must be a number"),
        ({"factor": 1, "mode": "dB"}, "mode of \"gain\" is 'dB', must be one of 'db', 'linear'"),
        ({"factor": 1, "limit": 1.5}, 'limit of "gain" is 1.5, must be a whole number'),
        (
            {"factor": 1, "limt": 1},
            'has no parameter "limt"; did you mean "limit"\\? Allowed: factor, mode, limit',
        ),
        ({"factor": 3, "limit": 2}, 'step "gain": limit is below factor; raise it'),
    ],
)
@pytest.mark.usefixtures("gain")
def test_an_invalid_parameter_is_rejected_with_the_allowed_values(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op("gain", **parameters)


def test_an_unknown_operation_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(
        PolicyInvalid, match=r'"spectrm" is not known; did you mean "spectrum"\? Allowed: .*wav'
    ):
        make_operation(Step(operation="spectrm"))


@pytest.mark.parametrize(
    ("steps", "sources"),
    [
        ([], ()),
        (
            [PCM, Step(operation="spectrum"), Step(operation="features"), Step(operation="model")],
            ("bytes", "samples", "samples", "features"),
        ),
        ([Step(operation="wav"), PCM, Step(operation="spectrum")], ("bytes", "bytes", "samples")),
        # The nearest earlier step of a kind, or the named one.
        (
            [
                Step(operation="wav", name="a"),
                Step(operation="wav", name="b"),
                Step(operation="spectrum"),
                Step(operation="features", input="a"),
                Step(operation="model", input="features"),
            ],
            ("bytes", "bytes", "b", "a", "features"),
        ),
        # If no step outputs features, a model takes values; if both exist, features.
        ([Step(operation="fields"), Step(operation="model")], ("events", "fields")),
        (
            [
                Step(operation="fields"),
                Step(operation="features"),
                Step(operation="model"),
                Step(operation="model", name="m"),
            ],
            ("events", "fields", "features", "features"),
        ),
        (
            [
                Step(operation="fields"),
                Step(operation="model"),
                Step(operation="model", name="m", input="score"),
            ],
            ("events", "fields", "model"),
        ),
    ],
)
def test_each_step_finds_its_input(steps: list[Step], sources: tuple[str, ...]) -> None:
    assert resolve_inputs(steps) == sources


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step(operation="spectrum")], "needs samples or values, which no earlier step gives; put one"),
        (
            [Step(operation="model"), Step(operation="fields")],
            "needs features or values or score, which no earlier",
        ),
        (
            [PCM, Step(operation="spectrum", input="sample")],
            'input "sample" is given by no earlier .* mean "samples"',
        ),
        (
            [PCM, Step(operation="model", input="samples")],
            'input "samples" is samples, but "model" takes features or',
        ),
        (
            [PCM, Step(operation="spectrum", input="bytes")],
            'input "bytes" is bytes, but "spectrum" takes samples',
        ),
        ([PCM, PCM], 'step "samples": its name is that of an earlier step too'),
        ([Step(operation="wav", name="bytes")], "its name is reserved"),
        ([Step(operation="nothing")], "is not known"),
    ],
)
def test_a_step_without_its_input_is_rejected(steps: list[Step], message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        resolve_inputs(steps)
    with pytest.raises(PolicyInvalid, match=message):
        check_pipeline(policy(*steps))


def test_a_pipeline_is_checked_with_all_its_parameters() -> None:
    check_pipeline(policy(PCM, Step(operation="spectrum", parameters={"length": 64})))
    with pytest.raises(
        PolicyInvalid, match='step "spectrum": length of "spectrum" is 1, must be a whole number from 2'
    ):
        check_pipeline(policy(PCM, Step(operation="spectrum", parameters={"length": 1})))


def test_only_a_raw_policy_has_bytes_that_are_samples() -> None:
    with pytest.raises(PolicyInvalid, match='format of the policy is "json"; set format = "raw"'):
        check_pipeline(policy(PCM, form="json"))


def test_an_operation_that_restores_models_by_the_former_name_still_does() -> None:
    class Former(Operation):
        input = output = "samples"
        restored: object = None

        def process(self, block: Block) -> Block:
            return block

        def take_up(self, state: object) -> None:
            self.restored = state

    operation = Former()
    operation.restore_model("a model")
    assert operation.restored == "a model"
