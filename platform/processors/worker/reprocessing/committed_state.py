"""Reads the last checkpoint of one stream, from outside the worker."""

from pathlib import Path

from ....errors import ModelNotFound
from ....store.catalog.policy import Policy
from ....store.databases.checkpoint import CheckpointStore
from ....store.databases.checkpoint_records import StreamCheckpoint
from ....store.files.file_owner import check_own_database
from ..pipeline.steps import last_policy


def committed_stream(checkpoint_file: Path, stream: str) -> tuple[StreamCheckpoint, Policy]:
    """The checkpoint of the stream, and the policy that it was under.

    The estimators in its states are pickles, so no other user may be able to write the database. Raises
    ModelNotFound if there is no such stream, FileUntrusted (a ModelRejected) if another user can write it.
    """
    if not checkpoint_file.exists():
        raise ModelNotFound(
            f"there is no checkpoint yet in {checkpoint_file.parent}: a worker makes it once it has worked"
        )
    check_own_database(checkpoint_file)
    checkpoints = CheckpointStore(checkpoint_file)
    try:
        committed = checkpoints.stream(stream)
    finally:
        checkpoints.close()
    policy = last_policy(committed.states) if committed is not None else None
    if committed is None or policy is None:
        raise ModelNotFound(f"no checkpoint knows the stream {stream!r}; name a model as STREAM:STEP")
    return committed, policy
