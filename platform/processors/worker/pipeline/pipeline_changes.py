"""What a stream's history records of a pipeline: its policy, and the versions of its operations."""

import hashlib
import inspect
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import msgspec

from ....errors import ExtensionInvalid
from ....store.catalog.policy import Policy
from ....store.databases.checkpoint_records import StreamCheckpoint
from ....store.databases.stream_history import Begins, PipelineChange, StreamHistory
from ....store.interface import StreamWriter
from ...operations.base.registry import is_built_in, operation_class

DIGEST_BYTES = 16


def policy_digest(policy: Policy) -> bytes:
    """Identifies what of the policy decides on rows: 16 bytes of BLAKE2b.

    Settings that a later version adds to policies must not change it.
    """
    steps = [[step.operation, step.name, step.input, step.keep, step.parameters] for step in policy.pipeline]
    body = msgspec.json.encode([policy.format, policy.field, steps], order="sorted")
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def operation_version(name: str) -> str:
    """The version of an operation: that of Windvane, or the hash of the file that defines it."""
    if is_built_in(name):
        return f"windvane {version('windvane')}"
    try:
        file = inspect.getsourcefile(operation_class(name))
        if file is None:
            return "unknown"
        path = Path(file)
        return f"{path.name} {_hash_of(path, path.stat().st_mtime_ns)}"
    except (LookupError, ExtensionInvalid, TypeError, OSError):  # it was removed, or has no file
        return "unknown"


@lru_cache(maxsize=256)
def _hash_of(file: Path, _modified_ns: int) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()


def pipeline_change(policy: Policy, *, chunk: int, begins: Begins = "") -> PipelineChange:
    """What is recorded when the policy's pipeline processes a stream from `chunk` on."""
    versions = {step.name: operation_version(step.operation) for step in policy.pipeline}
    return PipelineChange(chunk, policy.reference, policy_digest(policy), versions, begins)


def history_at_opening(
    policy: Policy, archive: StreamWriter, committed: StreamCheckpoint | None
) -> StreamHistory:
    """The history of a stream whose pipeline was opened just now, at the end of its archive."""
    before = committed or StreamCheckpoint()
    begins: Begins = "states" if archive.chunks and not before.states else ""
    change = pipeline_change(policy, chunk=archive.chunks, begins=begins)
    return before.history.of_stream(archive.uid).with_pipeline(change)
