"""Creates operations from a policy's steps: checks their parameters and resolves their inputs.

msgspec checks and converts parameter types, so that ranges (`msgspec.Meta`) and choices (`Literal`) need no
extra code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ....errors import ExtensionInvalid, PolicyInvalid
from ....msgspec_threading import prepare
from ....store.catalog.policy import Policy, Step
from .failures import as_failure, did_you_mean
from .operation import Operation, parameters_of
from .parameter_types import describe
from .registry import operation_class, operation_names

SOURCES = ("bytes", "events")
"""The inputs of a pipeline: the bytes that are appended to the data stream, and decoded events."""


def make_operation(step: Step) -> Operation:
    """A new operation with the step's parameters; PolicyInvalid if it cannot be created."""
    cls = _class(step)
    arguments = _arguments(step, cls)
    try:
        return cls(**arguments)
    except BaseException as rejection:  # an estimator, or a user's class, can raise anything
        raise PolicyInvalid(f'step "{step.name}": {as_failure(rejection)}') from rejection


def resolve_inputs(steps: Sequence[Step]) -> tuple[str, ...]:
    """The source of each step's input: "bytes", "events", or the name of an earlier step.

    A step's `input` names an earlier step or a kind. Without it the step takes the default kind of its
    operation. If no earlier step outputs that kind, it takes the next kind that the operation accepts. A kind
    means the nearest earlier step that outputs it.

    Raises:
        PolicyInvalid: an unknown operation, a duplicate or reserved name, an input that no earlier step
            outputs, or one of a kind that the operation does not accept.
    """
    earlier: dict[str, str] = {}
    sources: list[str] = []
    for step in steps:
        cls = _class(step)
        if step.name in SOURCES or step.name in earlier:
            why = "is reserved" if step.name in SOURCES else "is that of an earlier step too"
            raise PolicyInvalid(f'step "{step.name}": its name {why}; give it another `name`')
        sources.append(_source(step, (cls.input, *cls.accepts), earlier))
        earlier[step.name] = cls.output
    return tuple(sources)


def check_pipeline(policy: Policy) -> None:
    """PolicyInvalid if the policy's pipeline could not run; names the step and the allowed values."""
    sources = resolve_inputs(policy.pipeline)
    kept = {step.name for step in policy.pipeline if step.keep}
    for step, source in zip(policy.pipeline, sources, strict=True):
        if _class(step).reads_stored_source and source not in kept:
            raise PolicyInvalid(
                f'step "{step.name}": "{step.operation}" is trained on the stored rows of "{source}", which '
                f'has keep = false; set keep = true for "{source}"'
            )
        if source == "bytes" and policy.format != "raw":
            raise PolicyInvalid(
                f'step "{step.name}": reads the bytes of records, but the format of the policy is '
                f'"{policy.format}"; set format = "raw", or begin with an operation that reads events, such '
                'as "fields"'
            )
        make_operation(step)


def _class(step: Step) -> type[Operation]:
    try:
        return operation_class(step.operation)
    except ExtensionInvalid as error:
        raise PolicyInvalid(f'step "{step.name}": {error}') from error
    except LookupError:
        raise PolicyInvalid(
            f'step "{step.name}": the operation "{step.operation}" is not '
            f"known{did_you_mean(step.operation, operation_names())}"
        ) from None


def _source(step: Step, takes: tuple[str, ...], earlier: Mapping[str, str]) -> str:
    if step.input is None:
        source = next((found for kind in takes if (found := _nearest(kind, earlier))), None)
        if source is None:
            raise PolicyInvalid(
                f'step "{step.name}": needs {" or ".join(takes)}, which no earlier step gives; put one '
                "before it"
            )
        return source
    source = _nearest(step.input, earlier)
    if source is None:
        there = dict.fromkeys([*SOURCES, *earlier, *earlier.values()])
        raise PolicyInvalid(
            f'step "{step.name}": the input "{step.input}" is given by no earlier '
            f"step{did_you_mean(step.input, there)}"
        )
    kind = earlier.get(source, source)
    if kind not in takes:
        raise PolicyInvalid(
            f'step "{step.name}": the input "{step.input}" is {kind}, but "{step.operation}" takes '
            f"{' or '.join(takes)}"
        )
    return source


def _nearest(name: str, earlier: Mapping[str, str]) -> str | None:
    if name in SOURCES or name in earlier:
        return name
    return next((step for step, kind in reversed(list(earlier.items())) if kind == name), None)


def _arguments(step: Step, cls: type[Operation]) -> dict[str, Any]:
    hints, known = parameters_of(cls)
    arguments: dict[str, Any] = {}
    for name, value in step.parameters.items():
        if name not in known:
            raise PolicyInvalid(
                f'step "{step.name}": "{step.operation}" has no parameter "{name}"{did_you_mean(name, known)}'
            )
        wanted = hints.get(name, Any)
        prepare(wanted)
        try:
            arguments[name] = msgspec.convert(value, wanted)
        except msgspec.ValidationError as rejection:
            raise PolicyInvalid(
                f'step "{step.name}": {name} of "{step.operation}" is {value!r}, must be '
                f"{describe(hints.get(name, Any))}"
            ) from rejection
        except BaseException as error:  # a type of a user's class that msgspec cannot check
            raise PolicyInvalid(
                f'step "{step.name}": {name} of "{step.operation}" cannot be checked: {as_failure(error)}'
            ) from error
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise PolicyInvalid(
                f'step "{step.name}": {name} is missing, which "{step.operation}" needs: '
                f"{describe(hints.get(name, Any))}"
            )
    return arguments
