"""Writes chunks that the worker rejects, or that a step cannot process, to the dead letters."""

from collections.abc import Mapping

from ...bus.messages.chunks import ChunkMessage
from ...bus.messages.flush import flushed_until_ns
from ...errors import WindvaneError
from ...rejections import REJECTIONS, RejectionCode
from ...store.databases.dead_letter import DeadLetter
from ...store.databases.interfaces import DeadLetters
from .instrumentation import ChunkDeadLettered, DeadLetterNotWritten
from .pipeline.pipeline import StreamPipeline
from .pipeline.telemetry import WorkerTelemetry

_CODE_OF_STEP: Mapping[str, RejectionCode] = {"archive": "not-archived", "publish": "not-published"}


class ChunkDeadLetters:
    """The dead letters of one worker. Any thread may call."""

    def __init__(self, letters: DeadLetters, telemetry: WorkerTelemetry) -> None:
        self._letters = letters
        self._telemetry = telemetry

    def add(
        self, chunk: ChunkMessage, code: RejectionCode, reason: str, *, policy: str, detail: str = ""
    ) -> None:
        """Adds a chunk; does nothing for a flush message. Raises the errors of the database, unless the chunk
        is archived.
        """
        if flushed_until_ns(chunk) is not None:
            return
        self._telemetry.emit(ChunkDeadLettered(code, chunk.tag, reason))
        letter = DeadLetter(
            code=code,
            reason=reason,
            tag=chunk.tag,
            sender=chunk.sender,
            policy=policy,
            payload=chunk.payload,
            time_ns=chunk.received_ns,
            detail=detail,
            # The same message reread is the same dead letter; equal bytes of another chunk are a different
            # one.
            occurrence=chunk.chunk_id or str(chunk.received_ns).encode(),
        )
        try:
            self._letters.add(letter)
        except WindvaneError as error:
            if not REJECTIONS[code].is_archived:
                raise  # no other copy of the chunk is stored, so the stream stops
            self._telemetry.emit(DeadLetterNotWritten(str(error)))

    def add_failure(
        self, pipeline: StreamPipeline, step: str, chunk: ChunkMessage, error: Exception, detail: str
    ) -> None:
        """Adds a chunk on which a step of the pipeline failed, and counts the failure."""
        self._telemetry.step_failed(stream=pipeline.reference, step=step, error=error)
        reason = f"step {step!r} of policy {pipeline.policy.reference!r} failed: {error}"
        code = _CODE_OF_STEP.get(step, "step-failed")
        self.add(chunk, code, reason, policy=pipeline.policy.reference, detail=detail)
