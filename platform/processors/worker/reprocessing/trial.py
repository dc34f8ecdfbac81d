"""Tries an operation on recorded data: its inputs, its outputs, and whether it keeps its contract."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....store.catalog.policy import Policy, Step
from ....store.interface import StreamReader
from ...operations.base.block import Block, Events, blocks_of
from ...operations.base.failures import as_failure
from ...operations.base.operation import Operation
from ...operations.base.state_codec import decode_state, encode_state
from ...operations.base.steps import make_operation, resolve_inputs
from ..pipeline.steps import RunningSteps, partial_output
from .archive_replay import recorded_inputs

_TRIED = "tried"
MAX_ROWS = 2_000_000
"""The maximum number of output rows that are kept for the comparisons."""


@dataclass
class Trial:
    """The result of a trial."""

    chunks: int = 0
    inputs: list[Block | Events] = field(default_factory=list)
    """The inputs."""
    outputs: list[Block] = field(default_factory=list)
    """The outputs."""
    errors: list[Exception] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    """Rules of `Operation` that it broke."""


def try_operation(
    stream: StreamReader,
    policy: Policy,
    operation: str,
    parameters: Mapping[str, Any],
    *,
    chunks: int,
    between_blocks: Callable[[], object] = lambda: None,
) -> Trial:
    """Runs `operation` after the policy's pipeline on the last `chunks` of the stream.

    Then it runs the operation again with its input split differently, and with its state saved and restored
    in between: all runs must give the same rows. Any exception of the operation is an error of the trial,
    BaseException included; `between_blocks` may raise to end the trial. Raises PolicyInvalid if the operation
    cannot be made, or cannot follow that pipeline. Memory: the inputs and outputs.
    """
    step = Step(operation=operation, name=_TRIED, parameters=dict(parameters))
    before = tuple(each for each in policy.pipeline if each.operation != operation)
    source = resolve_inputs((*before, step))[-1]
    make_operation(step)
    trial = Trial()
    steps = RunningSteps(replace_pipeline(policy, before), {})
    stop = stream.chunks
    first = max(stream.arrivals.start, stop - chunks)
    wanted = steps.sources | ({source} & {"bytes", "events"})
    recorded = recorded_inputs(
        stream, policy, wanted, first_chunk=first, stop_chunk=stop, failed=lambda name, error: None
    )
    for _, inputs in recorded:
        between_blocks()
        results = steps.run(inputs, failed=lambda name, error: None)
        made = [result.block for result in results if result.step == source]
        trial.inputs += [inputs[source]] if source in inputs else made
    trial.chunks = stop - first
    trial.outputs = _run(step, trial.inputs, trial.errors, between_blocks)
    if not trial.errors and sum(len(block.rows) for block in trial.outputs) <= MAX_ROWS:
        _compare(step, trial, between_blocks)
    return trial


def replace_pipeline(policy: Policy, steps: Sequence[Step]) -> Policy:
    """The policy with other steps."""
    return Policy(reference=policy.reference, format=policy.format, field=policy.field, pipeline=tuple(steps))


def _compare(step: Step, trial: Trial, between_blocks: Callable[[], object]) -> None:
    wanted = _joined(trial.outputs)
    cut = list(chain.from_iterable(map(_halves, trial.inputs)))
    if not _equal(_joined(_run(step, cut, [], between_blocks)), wanted):
        trial.violations.append(
            "the rows differ if the input is split into other blocks: keep in `state` what a row needs of "
            "the previous block"
        )
    middle = len(trial.inputs) // 2
    operation, again = make_operation(step), make_operation(step)
    cls = type(operation)
    rows = _process(operation, trial.inputs[:middle], [], between_blocks)
    try:
        again.restore(decode_state(cls, encode_state(cls, operation.state())))
    except BaseException as error:
        trial.violations.append(f"its state cannot be saved and restored: {as_failure(error)!r}")
        return
    try:
        operation.counts()
    except BaseException as error:
        trial.violations.append(f"its counts cannot be read: {as_failure(error)!r}")
    rows += _process(again, trial.inputs[middle:], [], between_blocks)
    if not _equal(_joined(rows), wanted):
        trial.violations.append(
            "the rows differ if the worker restarts in between: return all of its state from `state`, and "
            "load it in `restore`"
        )


def _run(
    step: Step,
    inputs: Sequence[Block | Events],
    errors: list[Exception],
    between_blocks: Callable[[], object],
) -> list[Block]:
    return _process(make_operation(step), inputs, errors, between_blocks)


def _process(
    operation: Operation,
    inputs: Sequence[Block | Events],
    errors: list[Exception],
    between_blocks: Callable[[], object],
) -> list[Block]:
    made: list[Block] = []
    for each in inputs:
        between_blocks()
        try:
            made += blocks_of(operation.process(each))
        except BaseException as error:  # as in the worker
            made += partial_output(error)
            errors.append(as_failure(error))
    return made


def _halves(data: Block | Events) -> Iterator[Block | Events]:
    if isinstance(data, Events):
        middle = len(data.records) // 2
        parts = [slice(0, middle), slice(middle, None)]
        yield from (Events(data.times_ns[part], data.records[part]) for part in parts if data.records[part])
        return
    middle = len(data.rows) // 2
    if middle:
        yield replace(data, rows=data.rows[:middle])
    yield replace(data, rows=data.rows[middle:], first=data.first + middle)


def _joined(blocks: Sequence[Block]) -> NDArray[Any] | None:
    shapes = {(block.rows.dtype, block.rows.shape[1:]) for block in blocks}
    return np.concatenate([block.rows for block in blocks]) if len(shapes) == 1 else None


def _equal(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
