"""A copy of a model of the platform: to inspect, to change, to put."""

from pathlib import Path
from typing import Any

from ..errors import ModelNotFound, ModelRejected
from ..processors.learning.model import Model as ModelOperation
from ..processors.learning.model import ModelState
from ..processors.operations.base.state_codec import decode_state, encode_state
from ..processors.operations.base.steps import make_operation
from ..processors.worker.pipeline.steps import FINGERPRINT_BYTES
from ..processors.worker.reprocessing.committed_state import committed_stream
from ..store.model_files import ModelFiles


class Model:
    """A copy of the model of a `model` step at the last checkpoint; it does not continue to learn.

    Attributes:
        reference: `stream:step`.
        estimator: of River (with its scaler: a `Pipeline`) or of scikit-learn. It may be changed, or replaced
            by another of its class, before `put`.
        scaler: of an estimator of scikit-learn, or None; River's is in the estimator. It may be changed, but
            not replaced.
        columns: of the rows that it learns from.
        outputs: of the rows that it gives.
        rows_learned: so far.
    """

    def __init__(self, home: Path, reference: str, fingerprint: bytes, operation: ModelOperation) -> None:
        self.reference = reference
        self._home = home
        self._fingerprint = fingerprint
        self._operation = operation
        learner = operation.learner
        self.estimator: Any = learner.estimator
        self.scaler: Any = getattr(learner, "scaler", None)
        self.columns = learner.columns
        self.outputs = learner.outputs
        self.rows_learned = operation.rows_learned
        self._class = type(self.estimator)

    def put(self) -> None:
        """Replace the platform's model by this one: the worker loads it with the next chunk of the stream.

        What the platform's own copy has learned since the checkpoint is lost. A later `put` replaces one that
        is still pending.

        Raises:
            ModelRejected: the estimator is of another class than it was, or others can write to HOME/models.
        """
        if type(self.estimator) is not self._class:
            raise ModelRejected(
                f"{self.reference}: the estimator was a {self._class.__name__}, and a "
                f"{type(self.estimator).__name__} cannot take its place; change the policy's step instead"
            )
        self._operation.learner.estimator = self.estimator
        state = self._operation.fresh_state()
        saved = self._fingerprint + encode_state(ModelOperation, state)
        ModelFiles(self._home / "models").put(self.reference, saved)

    def __repr__(self) -> str:
        return (
            f"model {self.reference}: {self.rows_learned:,} rows learned of {', '.join(self.columns)}\n"
            f"  gives {', '.join(self.outputs)}\n  {self.estimator!r}"
        )


def open_model(home: Path, checkpoints: Path | str, reference: str) -> Model:
    """The model of `stream:step` as the last checkpoint has it.

    Raises:
        ModelNotFound: no such stream or step, or the step has no model or has learned nothing.
        ModelRejected: another user can write the database of checkpoints.
    """
    stream, _, step_name = reference.rpartition(":")
    committed, policy = committed_stream(checkpoints, stream)
    models = [step for step in policy.pipeline if step.operation == "model"]
    step = next((step for step in models if step.name == step_name), None)
    if step is None:
        there = ", ".join(f"{stream}:{step.name}" for step in models) or "none"
        raise ModelNotFound(f"{stream} has no model named {step_name!r}; there is {there}")
    saved = committed.states.get(step.name, b"")
    state = decode_state(ModelOperation, saved[FINGERPRINT_BYTES:]) if saved else None
    if not isinstance(state, ModelState) or state.columns is None:
        raise ModelNotFound(f"{reference} has learned nothing yet")
    operation = make_operation(step)
    assert isinstance(operation, ModelOperation)
    operation.restore(state)
    return Model(home, reference, saved[:FINGERPRINT_BYTES], operation)
