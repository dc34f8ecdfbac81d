"""Reads the last checkpoint of one stream, from outside the worker."""

from contextlib import closing
from pathlib import Path

from ....errors import ModelNotFound
from ....store.catalog.policy import Policy
from ....store.databases.checkpoint import SqlCheckpointDatabase
from ....store.databases.checkpoint_records import StreamCheckpoint
from ....store.file_owner import check_own_database
from ..pipeline.steps import last_policy


def committed_stream(checkpoints: Path | str, stream: str) -> tuple[StreamCheckpoint, Policy]:
    """The checkpoint of the stream, and the policy that it was under.

    `checkpoints` is the path of the database, or its URL. The estimators in its states are pickles, so no
    other user may be able to write a file. Raises ModelNotFound if there is no such stream, FileUntrusted (a
    ModelRejected) if another user can write it.
    """
    if isinstance(checkpoints, Path):
        if not checkpoints.exists():
            raise ModelNotFound(
                f"there is no checkpoint yet in {checkpoints.parent}: a worker makes it once it has worked"
            )
        check_own_database(checkpoints)
    with closing(SqlCheckpointDatabase(checkpoints)) as database:
        committed = database.stream(stream)
    policy = last_policy(committed.states) if committed is not None else None
    if committed is None or policy is None:
        raise ModelNotFound(f"no checkpoint knows the stream {stream!r}; name a model as STREAM:STEP")
    return committed, policy
