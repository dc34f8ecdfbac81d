"""Runs the steps of a policy: their outputs for a chunk, and their states."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from ....errors import FileUntrusted, ModelRejected, OperationFailed, PolicyInvalid, StateInvalid
from ....store.catalog.policy import Policy, Step, policy_from_mapping, policy_to_mapping
from ...learning.trained_model import TrainedModel
from ...operations.base.block import Block, Events, blocks_of
from ...operations.base.failures import as_failure
from ...operations.base.operation import Operation, PartlyRejected
from ...operations.base.registry import is_built_in
from ...operations.base.state_codec import decode_state, encode_state
from ...operations.base.steps import make_operation, resolve_inputs
from .chunk_events import ChunkEvents
from .state_losses import state_losses

FailedStep = Callable[[str, Exception], None]
"""Called with the name of a step that raised, and its exception."""


class Result(NamedTuple):
    """The output of a step."""

    step: str
    keep: bool
    block: Block


class StepObserver:
    """Learns of each input of each step, and of what it gave. This one does nothing."""

    def before(self, step: str, operation: Operation, data: Block | Events) -> None:
        """The operation is about to process `data`."""

    def after(self, step: str, operation: Operation, blocks: Sequence[Block]) -> None:
        """It has; `blocks` are what it gave, if it failed those for the rest."""


_NO_OBSERVER = StepObserver()


class DueTraining(NamedTuple):
    """A training that is due, of a step that reads `source`; `rows_since` rows came after the due one."""

    step: Step
    source: str
    fingerprint: bytes
    columns: tuple[str, ...]
    due: int
    rows_since: int


FINGERPRINT_BYTES = 16
"""The length of the configuration's fingerprint, which precedes every saved state."""
_POLICY_STATE = ""  # no step has an empty name


def in_passes(
    inputs: dict[str, Block | Events], events: ChunkEvents | None
) -> Iterator[dict[str, Block | Events]]:
    """The inputs of the steps for one chunk; events in slices, so that inputs and outputs are bounded."""
    if events is None:
        yield inputs
        return
    for some in events.slices():
        yield {**inputs, "events": some}
        inputs = {}


def partial_output(error: BaseException) -> tuple[Block, ...]:
    """The output of a step for the rest of an input of which it rejected a part."""
    try:
        return blocks_of(error.given) if isinstance(error, PartlyRejected) else ()
    except Exception:  # a user-defined operation can put anything there
        return ()


def last_policy(states: Mapping[str, bytes]) -> Policy | None:
    """The policy whose `RunningSteps` saved the states; the catalog may no longer contain it."""
    saved = states.get(_POLICY_STATE)
    return None if saved is None else policy_from_mapping(msgspec.json.decode(saved))


class RunningSteps:
    """The operations of a policy, for one data stream. Memory: the state of the operations.

    If the pipeline cannot be created (a user-defined operation was removed), `broken` has the reason, and no
    step has output. If one step cannot be created, or its state must not be read, `unusable` has the reason
    by its name, and only that step fails for each chunk. The states of such steps are kept.
    """

    def __init__(self, policy: Policy, states: Mapping[str, bytes]) -> None:
        self._policy = policy
        self._steps: list[_RunningStep] = []
        self._kept_states: Mapping[str, bytes] = {}
        self.broken: PolicyInvalid | None = None
        self.running_step: tuple[str, float] | None = None
        """The running step, and its start (monotonic time); read by other threads."""
        self.slowest: tuple[str, float] | None = None
        """The step that took longest for one input, and how long in s."""
        try:
            sources = resolve_inputs(policy.pipeline)
            for step, source in zip(policy.pipeline, sources, strict=True):
                before = next((each for each in self._steps if each.name == source), None)
                self._steps.append(_RunningStep(step, source, before, policy.reference))
        except PolicyInvalid as error:
            self.broken = error
            self._steps = []
            self._kept_states = {
                step.name: states[step.name] for step in policy.pipeline if step.name in states
            }
        for running in self._steps:
            running.restore(states.get(running.name))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the steps, in order."""
        return tuple(step.name for step in self._steps)

    @property
    def unusable(self) -> dict[str, Exception]:
        """The reason of each step that cannot run, by name."""
        return {step.name: step.unusable for step in self._steps if step.unusable is not None}

    @property
    def source_of(self) -> dict[str, str]:
        """The input of each step, by name: "bytes", "events", or another step."""
        return {step.name: step.source for step in self._steps}

    @property
    def sources(self) -> frozenset[str]:
        """The inputs that the steps use: "bytes", "events", and names of steps."""
        return frozenset(step.source for step in self._steps)

    def run(
        self,
        inputs: Mapping[str, Block | Events],
        *,
        failed: FailedStep,
        worked: Callable[[str], None] = lambda _: None,
        before_step: Callable[[], None] = lambda: None,
        observer: StepObserver = _NO_OBSERVER,
    ) -> Iterator[Result]:
        """Returns the output of each step, in their order, for these bytes or events.

        If a step raises, it loses this input (PartlyRejected: a part of it) and no other step is affected.
        That includes a BaseException, such as the panic of an extension, KeyboardInterrupt or SystemExit. A
        step must not write into its input rows. `worked` is called after each input that a step processed.
        `before_step` is called before each step, and its exceptions propagate.
        """
        results: dict[str, tuple[Block | Events, ...]] = {name: (one,) for name, one in inputs.items()}
        for step in self._steps:
            made: list[Block] = []
            # A source gives several blocks if there is a gap between their rows.
            for data in results.get(step.source, ()):
                before_step()
                observer.before(step.name, step.operation, data)
                given: tuple[Block, ...] = ()
                self.running_step = step.name, time.monotonic()
                try:
                    given = step.without_inherited_resolution(blocks_of(step.operation.process(data)))
                except BaseException as error:
                    given = partial_output(error)
                    failed(step.name, as_failure(error))
                else:
                    worked(step.name)
                finally:
                    self._note_time()
                observer.after(step.name, step.operation, given)
                made += given
            results[step.name] = tuple(made)
            for block in made:
                yield Result(step.name, step.keep, block)

    def _note_time(self) -> None:
        assert self.running_step is not None
        name, began_s = self.running_step
        self.running_step = None
        took_s = time.monotonic() - began_s
        if self.slowest is None or took_s > self.slowest[1]:
            self.slowest = name, took_s

    def restore_model(self, step: str, saved: bytes) -> None:
        """Replaces the state of a step with one that was changed elsewhere.

        Raises ModelRejected if it does not fit, and then changes nothing. The estimator in `saved` is
        unpickled: it must come from a user who may run code here.
        """
        next(running for running in self._steps if running.name == step).replace_state(saved)

    def due_trainings(self) -> Iterator[DueTraining]:
        """The trainings that are due."""
        for running in self._steps:
            model = running.operation
            if isinstance(model, TrainedModel) and (wanted := model.wanted) is not None:
                assert model.columns is not None
                yield DueTraining(running.step, running.source, running.fingerprint, model.columns, *wanted)

    def training_failed(self, step: str, fingerprint: bytes, due: int) -> None:
        """Reports a failed training to the step; does nothing if the policy was changed since."""
        for running in self._steps:
            model = running.operation
            if (running.name, running.fingerprint) == (step, fingerprint) and isinstance(model, TrainedModel):
                model.training_failed(due)

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns the counts of each step since its stream began, such as gaps; without zeros."""
        some = {step.name: step.counts() for step in self._steps}
        return {name: counts for name, counts in some.items() if counts}

    def states(self) -> dict[str, bytes]:
        """The policy, and the state of each step by its name, for a later `RunningSteps` of that policy."""
        policy = {_POLICY_STATE: msgspec.json.encode(policy_to_mapping(self._policy))}
        dumped = {step.name: step.dump() for step in self._steps}
        return {
            **self._kept_states,
            **policy,
            **{name: state for name, state in dumped.items() if state is not None},
        }


class _RunningStep:
    """An operation with its name, its source, and the fingerprint that its saved state must match.

    An exception of the operation in these methods, BaseException included, affects this step alone.
    """

    def __init__(self, step: Step, source: str, before: "_RunningStep | None", policy: str) -> None:
        self.step = step
        self.name = step.name
        self.keep = step.keep
        self.source = source
        self.unusable: Exception | None = None
        self._policy = policy
        self._kept: bytes | None = None
        # Includes that of the step before it: a learned state does not apply to rows of another kind.
        configuration = msgspec.json.encode([step.operation, source, step.parameters], order="sorted")
        above: bytes = before.fingerprint if before else b""
        configured = hashlib.blake2b(above + configuration, digest_size=FINGERPRINT_BYTES)
        self.fingerprint: bytes = configured.digest()
        self.operation: Operation = self._new_operation()

    def without_inherited_resolution(self, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        """User-defined operations can return a block with other samples and its remaining attributes
        unchanged.
        """
        if is_built_in(self.step.operation):
            return blocks
        return tuple(replace(block, resolution=0.0) if block.resolution else block for block in blocks)

    def _new_operation(self) -> Operation:
        try:
            return make_operation(self.step)
        except PolicyInvalid as error:
            return self._unusable(error)

    def _unusable(self, why: Exception) -> Operation:
        self.unusable = why
        return _Unusable(why)

    def dump(self) -> bytes | None:
        """None if the state of a user-defined operation cannot be saved: it will start over."""
        if self.unusable is not None:
            return self._kept
        try:
            return self.fingerprint + encode_state(type(self.operation), self.operation.state())
        except BaseException as error:
            if isinstance(error, MemoryError) and is_built_in(self.step.operation):
                raise  # no checkpoint now is better than one without this state
            self._lost("not-kept", error)
            return None

    def restore(self, saved: bytes | None) -> None:
        """A step starts over if its parameters, or those of a step before it, were changed since."""
        if self.unusable is not None:
            self._kept = saved
            return
        if saved is None or not saved.startswith(self.fingerprint):
            return
        try:
            self.operation.restore(self._decoded(saved))
        except (FileUntrusted, MemoryError) as error:  # it may be intact: another start can read it
            self._kept = saved
            self.operation = self._unusable(
                OperationFailed(f"its state is kept, but cannot be read now: {as_failure(error)}")
            )
        except BaseException as error:  # a library of estimators was updated: any class of error can come
            self._lost(error.code if isinstance(error, StateInvalid) else "unreadable", error)
            self.operation = self._new_operation()  # the other one may be in any state

    def _decoded(self, saved: bytes) -> Any:
        return decode_state(type(self.operation), memoryview(saved)[FINGERPRINT_BYTES:])

    def _lost(self, code: str, error: BaseException) -> None:
        state_losses.lost(policy=self._policy, step=self.name, code=code, error=as_failure(error))

    def counts(self) -> dict[str, int]:
        """Returns the counts of the operation that are not 0."""
        try:
            return {str(key): int(n) for key, n in self.operation.counts().items() if n}
        except BaseException as error:  # of a user-defined operation
            state_losses.not_counted(policy=self._policy, step=self.name, error=as_failure(error))
            return {}

    def replace_state(self, saved: bytes) -> None:
        if not saved.startswith(self.fingerprint):
            raise ModelRejected(f"step {self.name!r}: the policy was changed since its model was exported")
        if self.unusable is not None:
            raise ModelRejected(f"step {self.name!r}: its model cannot be restored now: {self.unusable}")
        before = self.dump()
        try:
            self.operation.restore_model(self._decoded(saved))
        except BaseException as error:  # unpickling can raise anything
            self.operation = self._new_operation()
            self.restore(before)
            raise ModelRejected(
                f"step {self.name!r}: its model cannot be restored: {as_failure(error)!r}"
            ) from error


class _Unusable(Operation):
    """Replaces an operation that cannot be created: fails for each block."""

    input = output = ""

    def __init__(self, why: Exception) -> None:
        self._why = why

    def process(self, block: Block | Events) -> None:
        raise OperationFailed(str(self._why))
