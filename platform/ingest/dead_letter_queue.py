"""Queue of dead letters on their way to the disk: a thread writes them, so the event loop never waits."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from ..errors import BusUnavailable, ChunkRejected, DiskReserveUsed
from ..rejections import REJECTIONS, WITHHELD
from ..store.databases.dead_letter import DeadLetter
from ..store.databases.interfaces import DeadLetters
from .bodies.formats import EVENTS
from .chunk import IncomingChunk, RejectedEvents, charge
from .telemetry import GatewayTelemetry

SAMPLE_BYTES = 512
"""Of metrics and traces that are not taken so much is kept, once for each sender and tag."""
_OCCURRENCE_BYTES = 16


class DeadLetterQueue:
    """Memory: letters of `limit_bytes` wait at most.

    Letters with a code in WITHHELD have an eighth of it: senders that are not authorized cannot delay the
    letters that the acks of other senders wait for.
    """

    def __init__(self, dead_letters: DeadLetters, telemetry: GatewayTelemetry, *, limit_bytes: int) -> None:
        self._dead_letters = dead_letters
        self._telemetry = telemetry
        self._limit_bytes = limit_bytes
        self._pending_bytes = 0
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")

    def keep(self, letter: DeadLetter) -> asyncio.Future[None]:
        """Writes a letter; the future ends with None, or BusUnavailable where it cannot be kept."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = charge(letter.payload, letter.chunk_id)
        is_dispensable = letter.code in WITHHELD
        limit_bytes = self._limit_bytes // 8 if is_dispensable else self._limit_bytes
        if self._pending_bytes and self._pending_bytes + size > limit_bytes:
            if is_dispensable:
                self._telemetry.letter_left_out(letter)
                kept.set_result(None)
            else:
                full = BusUnavailable(
                    "too much rejected input waits to be kept; it is not acked: send it again"
                )
                self._telemetry.dead_letter_lost(full)
                kept.set_exception(full)
            return kept
        if (disk := self._telemetry.disk) is not None and disk.is_full:
            return self._lose(letter, kept)
        self._pending_bytes += size
        writing = asyncio.get_running_loop().run_in_executor(self._writing, self._dead_letters.add, letter)

        def written(done: asyncio.Future[int]) -> None:
            self._pending_bytes -= size
            error = done.exception()
            if error is None:
                self._telemetry.dead_letter_kept()
                kept.set_result(None)
            else:
                self._telemetry.dead_letter_lost(error)
                kept.set_exception(BusUnavailable(f"the dead letters failed: {error}"))

        writing.add_done_callback(written)
        return kept

    def _lose(self, letter: DeadLetter, kept: asyncio.Future[None]) -> asyncio.Future[None]:
        """The disk is full: what may be left out is, all else is not acked."""
        if letter.code in WITHHELD:
            self._telemetry.letter_left_out(letter)
            kept.set_result(None)
        else:
            kept.set_exception(
                DiskReserveUsed(
                    "the disk is full, so rejected input cannot be kept; it is not acked: send it again"
                )
            )
        return kept

    async def close(self) -> None:
        """Waits for what is being written."""
        await asyncio.to_thread(self._writing.shutdown)


def letter_of_chunk(
    chunk: IncomingChunk, rejection: ChunkRejected, policy: str | None, time_ns: int
) -> DeadLetter:
    """The dead letter of a chunk that was rejected whole, unchanged: a posted body is kept as the body.

    Metrics and traces that match no policy are sampled: they arrive every few seconds, all alike.
    """
    body = chunk.body
    payload: bytes | bytearray | memoryview = chunk.payload if body is None else body.data
    size = None if body is None else body.size_bytes
    sample_of = ""
    if chunk.signal and REJECTIONS[rejection.code].is_sampled:
        sample_of, size, payload = f"signal {chunk.signal}", len(payload), payload[:SAMPLE_BYTES]
    return DeadLetter(
        code=rejection.code,
        reason=str(rejection),
        tag=chunk.tag,
        sender=chunk.sender,
        policy=policy,
        payload=bytes(payload),
        time_ns=time_ns,
        chunk_id=chunk.chunk_id,
        compression=chunk.compression if body is None else body.compression,
        signal=chunk.signal,
        format="" if body is None else str(body.format),
        identity=chunk.identity,
        size=size,
        sample_of=sample_of,
        occurrence=_occurrence(chunk),
    )


def letter_of_events(chunk: IncomingChunk, rejected: RejectedEvents, policy: str, time_ns: int) -> DeadLetter:
    """Some events of a chunk: without its id, under which the others are known."""
    return DeadLetter(
        code=rejected.code,
        reason=rejected.reason,
        tag=chunk.tag,
        sender=chunk.sender,
        policy=policy,
        payload=rejected.payload,
        time_ns=time_ns,
        # Says that its sender named the policy, to which a replay goes then too.
        format=rejected.format or (EVENTS if chunk.policy is not None else ""),
        identity=chunk.identity,
        # A sender that asked for an ack may send the whole chunk again: its id tells that from other data.
        occurrence=_occurrence(chunk) or chunk.chunk_id or b"",
    )


def _occurrence(chunk: IncomingChunk) -> bytes:
    """Random bytes for a chunk that requests no ack: its sender sends it once, so an equal chunk is new data.

    Over HTTP a sender without IDs receives the rejection and may resend the same body.
    """
    is_sent_once = chunk.chunk_id is None and chunk.policy is None and not chunk.is_replay
    return os.urandom(_OCCURRENCE_BYTES) if is_sent_once else b""
