"""What was refused, on its way into the dead letters: one thread writes, the event loop waits for no disk."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ..errors import BusUnavailable
from ..store.dead_letters import DeadLetter, DeadLetters
from .chunk import charge
from .telemetry import GatewayTelemetry

NO_POLICY = "no-policy"
SENDER_NOT_ALLOWED = "sender-not-allowed"
NOT_ACKED = frozenset({NO_POLICY, SENDER_NOT_ALLOWED})
"""Refusals after which the sender keeps its chunk, so that it enters once somebody lets it in."""


class DeadLetterQueue:
    """Memory: letters of `limit_bytes` wait at most.

    Of those that their senders keep too, an eighth of it: whoever is not let in cannot hold up the letters
    that others' acks wait for.
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
        is_dispensable = letter.code in NOT_ACKED
        limit_bytes = self._limit_bytes // 8 if is_dispensable else self._limit_bytes
        if self._pending_bytes and self._pending_bytes + size > limit_bytes:
            if is_dispensable:
                self._telemetry.letter_left_out()
                kept.set_result(None)
            else:
                full = BusUnavailable(
                    "too much refused input waits to be kept; it is not acked, the sender keeps it"
                )
                self._telemetry.dead_letter_lost(full)
                kept.set_exception(full)
            return kept
        self._pending_bytes += size
        writing = asyncio.get_running_loop().run_in_executor(self._writing, self._dead_letters.add, letter)

        def written(done: asyncio.Future[int]) -> None:
            self._pending_bytes -= size
            error = done.exception()
            if error is None:
                kept.set_result(None)
            else:
                self._telemetry.dead_letter_lost(error)
                kept.set_exception(BusUnavailable(f"the dead letters failed: {error}"))

        writing.add_done_callback(written)
        return kept

    async def close(self) -> None:
        """Waits for what is being written."""
        await asyncio.to_thread(self._writing.shutdown)
