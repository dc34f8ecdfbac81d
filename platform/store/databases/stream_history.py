"""The part of a checkpoint about the past of a stream: its senders, and the pipelines that processed it.

Both change seldom: a stream has one sender as a rule, and a policy is edited now and then. So a checkpoint
has one entry for each change, with the number of the first chunk that it is true of. It is of the same
moment as the rest of the checkpoint: chunks that are read again after a crash are noted again.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

MAX_CHANGES = 100
"""How many changes of each kind are kept, 30 to 200 bytes each; older ones are forgotten."""

Begins = Literal["", "states", "outputs"]
"""What a pipeline began without: the states of its steps, or its outputs too; "" continued both."""


class SenderChange(NamedTuple):
    """The chunks from this one on came from `sender`."""

    chunk: int
    sender: str


class PipelineChange(NamedTuple):
    """The chunks from this one on were processed by the pipeline of that policy.

    `digest` identifies its format and its pipeline. `versions` has the version of each step's operation, by
    step.
    """

    chunk: int
    policy: str
    digest: bytes
    versions: dict[str, str]
    begins: Begins = ""


@dataclass(frozen=True, slots=True)
class StreamHistory:
    """The changes of one stream, oldest first. `uid` is that of its archive: another one has another past."""

    uid: bytes = b""
    senders: tuple[SenderChange, ...] = ()
    pipelines: tuple[PipelineChange, ...] = ()

    def of_stream(self, uid: bytes) -> Self:
        """This history if it is that of the archive `uid`; else an empty one."""
        return self if self.uid == uid else type(self)(uid)

    def with_sender(self, chunk: int, sender: str) -> Self:
        """The history after `chunk` has come from `sender`."""
        if self.senders and self.senders[-1].sender == sender:
            return self
        return replace(self, senders=(*self.senders, SenderChange(chunk, sender))[-MAX_CHANGES:])

    def with_pipeline(self, change: PipelineChange) -> Self:
        """The history after a pipeline was opened that processes the next chunks."""
        before = self.pipelines
        if before and before[-1].chunk == change.chunk:  # it has processed no chunk
            before = before[:-1]
        if before and before[-1][1:4] == change[1:4] and not change.begins:
            return replace(self, pipelines=before)
        return replace(self, pipelines=(*before, change)[-MAX_CHANGES:])

    def reprocessed(self, change: PipelineChange) -> Self:
        """The history after all outputs were computed again, from the chunk of `change` on."""
        return replace(self, pipelines=(change._replace(begins="outputs"),))

    def sender(self, chunk: int) -> str | None:
        """Who sent the chunk; None if that is not known."""
        at = bisect_right(self.senders, chunk, key=lambda change: change.chunk) - 1
        return self.senders[at].sender if at >= 0 else None

    def pipeline(self, chunk: int) -> PipelineChange | None:
        """The pipeline that processed the chunk; None if that is not known."""
        at = bisect_right(self.pipelines, chunk, key=lambda change: change.chunk) - 1
        return self.pipelines[at] if at >= 0 else None
