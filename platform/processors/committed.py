"""What the last checkpoint has of one stream, for who looks at it beside the worker."""

from pathlib import Path

from ..errors import ModelNotFound
from ..store.checkpoint import CheckpointStore, StreamCheckpoint
from ..store.model_files import check_own
from ..store.policy import Policy
from .steps import last_policy


def committed_stream(checkpoint_file: Path, stream: str) -> tuple[StreamCheckpoint, Policy]:
    """The checkpoint of the stream, and the policy that it was under.

    Its states are pickles, so the file must be the user's own. Raises ModelNotFound where there is no such
    stream, ModelRefused where somebody else could have written the file.
    """
    if not checkpoint_file.exists():
        raise ModelNotFound(
            f"there is no checkpoint yet in {checkpoint_file.parent}: a worker makes it once it has worked"
        )
    check_own(checkpoint_file)
    checkpoints = CheckpointStore(checkpoint_file)
    try:
        committed = checkpoints.stream(stream)
    finally:
        checkpoints.close()
    policy = last_policy(committed.states) if committed is not None else None
    if committed is None or policy is None:
        raise ModelNotFound(f"no checkpoint knows the stream {stream!r}; name a model as STREAM:STEP")
    return committed, policy
