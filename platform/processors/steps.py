"""The steps of a policy as operations at work: what they give for a chunk, and what is kept of them."""

import hashlib
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from ..errors import ModelRefused, OperationFailed, PolicyInvalid
from ..store.policy import Policy, Step, policy_from_mapping, policy_to_mapping
from ..telemetry import RateLimitedLog
from .block import Block, Events, blocks_of
from .chunk_events import ChunkEvents
from .operation import Operation, make_operation, resolve_inputs
from .trained_model import TrainedModel

_log = RateLimitedLog(logging.getLogger("windvane.worker"))

FailedStep = Callable[[str, Exception], None]
"""Told the name of a step that raised, and what."""


class Result(NamedTuple):
    """What a step gave."""

    step: str
    keep: bool
    block: Block


class WantedTraining(NamedTuple):
    """A training that is due, of a step that reads `source`; `given_since` rows came behind the due one."""

    step: Step
    source: str
    fingerprint: bytes
    columns: tuple[str, ...]
    due: int
    given_since: int


FINGERPRINT_BYTES = 16
"""Of the configuration, ahead of every saved state."""
_POLICY_STATE = ""  # no step has an empty name


def in_passes(
    given: dict[str, Block | Events], events: ChunkEvents | None
) -> Iterator[dict[str, Block | Events]]:
    """What steps are given of one chunk; events in slices: so they, and what comes of them, are bounded."""
    if events is None:
        yield given
        return
    for some in events.slices():
        yield {**given, "events": some}
        given = {}


def last_policy(states: Mapping[str, bytes]) -> Policy | None:
    """The policy whose `RunningSteps` gave the states; the catalog may have lost it since."""
    saved = states.get(_POLICY_STATE)
    return None if saved is None else policy_from_mapping(msgspec.json.decode(saved))


class RunningSteps:
    """The operations of a policy, for one data stream. Memory: what the operations keep.

    Where they cannot be made (an operation of the user's own is gone, say), `broken` says why: then they give
    nothing, and the states that they had are kept for when they can.
    """

    def __init__(self, policy: Policy, states: Mapping[str, bytes]) -> None:
        self._policy = policy
        self._steps: list[_RunningStep] = []
        self._kept_states: Mapping[str, bytes] = {}
        self.broken: PolicyInvalid | None = None
        try:
            sources = resolve_inputs(policy.pipeline)
            for step, source in zip(policy.pipeline, sources, strict=True):
                before = next((each for each in self._steps if each.name == source), None)
                self._steps.append(_RunningStep(step, source, before))
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
    def sources(self) -> frozenset[str]:
        """What the steps ask for: "bytes", "events", and names of steps."""
        return frozenset(step.source for step in self._steps)

    def run(self, given: Mapping[str, Block | Events], *, failed: FailedStep) -> Iterator[Result]:
        """What each step gives, in their order, for the bytes or events that are given.

        A step that raises gives nothing and stops no other; MemoryError goes through. None may write into
        the rows that it is given.
        """
        results: dict[str, tuple[Block | Events, ...]] = {name: (one,) for name, one in given.items()}
        for step in self._steps:
            made: list[Block] = []
            # A source gives several blocks where a gap falls between their rows.
            for taken in results.get(step.source, ()):
                try:
                    made += blocks_of(step.operation.process(taken))
                except MemoryError:
                    raise
                except SystemExit as error:  # of the user's own code, which is not to end the worker
                    failed(step.name, OperationFailed(f"it called exit({error.code!r})"))
                except Exception as error:
                    failed(step.name, error)
            results[step.name] = tuple(made)
            for block in made:
                yield Result(step.name, step.keep, block)

    def take_up(self, step: str, saved: bytes) -> None:
        """Goes on with the state of a step that was changed elsewhere.

        Raises ModelRefused where it does not fit; then all is as it was. `saved` is unpickled: it must come
        from someone who may run code here.
        """
        next(running for running in self._steps if running.name == step).take_up(saved)

    def wanted_trainings(self) -> Iterator[WantedTraining]:
        """The trainings that are due."""
        for running in self._steps:
            model = running.operation
            if isinstance(model, TrainedModel) and (wanted := model.wanted) is not None:
                assert model.columns is not None
                yield WantedTraining(
                    running.step, running.source, running.fingerprint, model.columns, *wanted
                )

    def training_failed(self, step: str, fingerprint: bytes, due: int) -> None:
        """That training of the step gave nothing; nobody asks for it where the policy was changed since."""
        for running in self._steps:
            model = running.operation
            if (running.name, running.fingerprint) == (step, fingerprint) and isinstance(model, TrainedModel):
                model.training_failed(due)

    def counts(self) -> dict[str, dict[str, int]]:
        """What each step has counted since its stream began, such as gaps; only what is not 0."""
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
    """An operation with its name, its source, and what its saved state must match to be taken up."""

    def __init__(self, step: Step, source: str, before: "_RunningStep | None") -> None:
        self.step = step
        self.name = step.name
        self.keep = step.keep
        self.source = source
        self.operation: Operation = make_operation(step)
        # With that of the step before it: what a step has learned is of no use on rows of another kind.
        configuration = msgspec.json.encode([step.operation, source, step.parameters], order="sorted")
        above: bytes = before.fingerprint if before else b""
        configured = hashlib.blake2b(above + configuration, digest_size=FINGERPRINT_BYTES)
        self.fingerprint: bytes = configured.digest()

    def dump(self) -> bytes | None:
        """None where an operation of the user's own has a state that cannot be kept: it will begin anew."""
        try:
            return self.fingerprint + pickle.dumps(self.operation.state(), protocol=5)
        except MemoryError:
            raise
        except Exception as error:
            _log.warning((self.name,), f"the state of step {self.name!r} cannot be kept: {error!r}")
            return None

    def restore(self, saved: bytes | None) -> None:
        """A step begins anew where its parameters, or those of a step before it, were changed since."""
        if saved is None or not saved.startswith(self.fingerprint):
            return
        try:
            self.operation.restore(pickle.loads(saved[len(self.fingerprint) :]))
        except Exception as error:  # an estimator's library was updated, say: any class of error can come
            _log.warning((self.name,), f"step {self.name!r} begins anew, its state cannot be read: {error!r}")
            self.operation = make_operation(self.step)  # whatever has become of the other one

    def counts(self) -> dict[str, int]:
        """What the operation has counted, where it is not 0."""
        try:
            return {str(key): int(n) for key, n in self.operation.counts().items() if n}
        except Exception as error:  # of an operation of the user's own
            _log.warning((self.name, "counts"), f"step {self.name!r} cannot say its counts: {error!r}")
            return {}

    def take_up(self, saved: bytes) -> None:
        if not saved.startswith(self.fingerprint):
            raise ModelRefused(f"step {self.name!r}: the policy was changed since its model was taken out")
        before = self.dump()
        try:
            self.operation.take_up(pickle.loads(saved[FINGERPRINT_BYTES:]))
        except Exception as error:  # what is unpickled can be anything
            self.operation = make_operation(self.step)
            self.restore(before)
            raise ModelRefused(f"step {self.name!r}: its model cannot be taken up: {error!r}") from error
