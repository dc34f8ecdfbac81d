"""Training on demand: the training that the schedule would request, with the rows of the last checkpoint."""

from pathlib import Path

from ....errors import ModelNotFound
from ....store.interface import StoreAddress
from ...learning.trained_model import TrainedModel, TrainedState
from ...learning.training import TrainingRequest
from ...operations.base.state_codec import decode_state
from ...operations.base.steps import resolve_inputs
from ..pipeline.steps import FINGERPRINT_BYTES
from .committed_state import committed_stream

OPERATION = "trained_model"


def request_now(
    checkpoints: Path | str, store: StoreAddress, models: Path, reference: str
) -> TrainingRequest:
    """The training of `stream:step`, from all rows that the last checkpoint covers.

    Raises:
        ModelNotFound: no such stream or step, or one that is not trained or has had no rows yet.
        ModelRejected: another user can write the database of checkpoints.
        PolicyInvalid: an operation of the pipeline was removed.
    """
    stream, _, name = reference.rpartition(":")
    committed, policy = committed_stream(checkpoints, stream)
    sources = dict(zip((step.name for step in policy.pipeline), resolve_inputs(policy.pipeline), strict=True))
    steps = {step.name: step for step in policy.pipeline if step.operation == OPERATION}
    if name not in steps:
        there = ", ".join(f"{stream}:{step}" for step in steps) or "none"
        raise ModelNotFound(f"{stream} has no {OPERATION} named {name!r}; there is {there}")
    saved = committed.states.get(name, b"")
    state = decode_state(TrainedModel, saved[FINGERPRINT_BYTES:]) if saved else None
    source = f"{stream}:{sources[name]}"
    length = committed.outputs.get(source)
    if not isinstance(state, TrainedState) or state.columns is None or length is None:
        raise ModelNotFound(f"{reference} has had no rows yet")
    return TrainingRequest(
        reference=reference,
        source=source,
        stop=length.length,
        due=0,
        columns=state.columns,
        step=steps[name],
        fingerprint=saved[:FINGERPRINT_BYTES].hex(),
        store=store.url,
        home=str(store.home),
        models=str(models),
    )
