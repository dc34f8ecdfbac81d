"""Tries an operation on recorded data: its inputs, its outputs, and whether it keeps its contract."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....store.catalog.policy import Policy, Step
from ....store.files.data_stream import DataStream
from ...operations.base.block import Block, Events, blocks_of
from ...operations.base.failures import as_failure
from ...operations.base.operation import Operation
from ...operations.base.state_codec import decode_state, encode_state
from ...operations.base.steps import make_operation, resolve_inputs
from ..pipeline.steps import RunningSteps, given_with
from .archive_replay import recorded_inputs

_TRIED = "tried"
MAX_ROWS = 2_000_000
"""The maximum number of output rows that are kept for the comparisons."""


@dataclass
class Trial:
    """The result of a trial."""

    chunks: int = 0
    given: list[Block | Events] = field(default_factory=list)
    """The inputs."""
    gave: list[Block] = field(default_factory=list)
    """The outputs."""
    errors: list[Exception] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Rules of `Operation` that it broke."""


def try_operation(
    stream: DataStream,
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
    for _, given in recorded:
        between_blocks()
        results = steps.run(given, failed=lambda name, error: None)
        made = [result.block for result in results if result.step == source]
        trial.given += [given[source]] if source in given else made
    trial.chunks = stop - first
    trial.gave = _run(step, trial.given, trial.errors, between_blocks)
    if not trial.errors and sum(len(block.rows) for block in trial.gave) <= MAX_ROWS:
        _compare(step, trial, between_blocks)
    return trial


def replace_pipeline(policy: Policy, steps: Sequence[Step]) -> Policy:
    """The policy with other steps."""
    return Policy(reference=policy.reference, format=policy.format, field=policy.field, pipeline=tuple(steps))


def _compare(step: Step, trial: Trial, between_blocks: Callable[[], object]) -> None:
    wanted = _joined(trial.gave)
    cut = list(chain.from_iterable(map(_halves, trial.given)))
    if not _equal(_joined(_run(step, cut, [], between_blocks)), wanted):
        trial.complaints.append(
            "the rows differ where the input is cut into other blocks: keep in `state` what a row needs of "
            "the block before"
        )
    middle = len(trial.given) // 2
    operation, again = make_operation(step), make_operation(step)
    cls = type(operation)
    rows = _process(operation, trial.given[:middle], [], between_blocks)
    try:
        again.restore(decode_state(cls, encode_state(cls, operation.state())))
    except BaseException as error:
        trial.complaints.append(f"its state cannot be saved and restored: {as_failure(error)!r}")
        return
    try:
        operation.counts()
    except BaseException as error:
        trial.complaints.append(f"it cannot give its counts: {as_failure(error)!r}")
    rows += _process(again, trial.given[middle:], [], between_blocks)
    if not _equal(_joined(rows), wanted):
        trial.complaints.append(
            "the rows differ where the worker is restarted on the way: give all that it keeps in `state`, "
            "and take it up in `restore`"
        )


def _run(
    step: Step,
    given: Sequence[Block | Events],
    errors: list[Exception],
    between_blocks: Callable[[], object],
) -> list[Block]:
    return _process(make_operation(step), given, errors, between_blocks)


def _process(
    operation: Operation,
    given: Sequence[Block | Events],
    errors: list[Exception],
    between_blocks: Callable[[], object],
) -> list[Block]:
    made: list[Block] = []
    for each in given:
        between_blocks()
        try:
            made += blocks_of(operation.process(each))
        except BaseException as error:  # as in the worker
            made += given_with(error)
            errors.append(as_failure(error))
    return made


def _halves(given: Block | Events) -> Iterator[Block | Events]:
    if isinstance(given, Events):
        middle = len(given.records) // 2
        parts = [slice(0, middle), slice(middle, None)]
        yield from (
            Events(given.times_ns[part], given.records[part]) for part in parts if given.records[part]
        )
        return
    middle = len(given.rows) // 2
    if middle:
        yield replace(given, rows=given.rows[:middle])
    yield replace(given, rows=given.rows[middle:], first=given.first + middle)


def _joined(blocks: Sequence[Block]) -> NDArray[Any] | None:
    shapes = {(block.rows.dtype, block.rows.shape[1:]) for block in blocks}
    return np.concatenate([block.rows for block in blocks]) if len(shapes) == 1 else None


def _equal(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
