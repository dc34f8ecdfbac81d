"""From an admitted chunk to its valid events: unpack, count, measure, check against the policy.

What is little is done at once on the event loop. The rest goes to the threads and slices of `OffLoop`; the
submission then keeps its turn, so that later chunks of its tag wait.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from ..errors import ChunkRejected
from ..records.decoded_size import is_surely_within
from ..records.event_separation import SeparatedEvents, separating_decodable
from ..records.events import content_key
from ..records.nesting import is_too_deep
from ..rejections import RejectionCode
from ..store.catalog.policy import Policy
from .checks.leading_times import surely_have_times
from .checks.payload import INVALID_EVENTS, Payload, counting, nested_too_deeply
from .chunk import IncomingChunk, RejectedEvents
from .limits.off_loop import OffLoop, give_way, in_one_step
from .policy_book import InForce
from .submission import Submission
from .telemetry import GatewayTelemetry
from .unpacking import Bounds, Unpacker, check_signal, unpack_at_once

INVALID_RECORDS: Final = "schema"
_LARGE_TO_HASH_BYTES = 1024 * 1024


class CheckedChunk(msgspec.Struct, frozen=True):
    """A chunk that may enter, or what is left of it."""

    chunk: IncomingChunk
    policy: Policy
    payload: Payload
    events: int
    rejected: tuple[RejectedEvents, ...]
    """Those of its events that are invalid: they go to the dead letters when the others are published."""
    key: bytes | None
    """Identifies the chunk if it is resent."""


class ChunkCheck:
    """The checks of all chunks; raises ChunkRejected for one that must not enter.

    Memory: what `Unpacker` and `EventCheck` say; what is unpacked is charged to the submission.
    """

    def __init__(
        self,
        telemetry: GatewayTelemetry,
        *,
        max_decompressed_bytes: int,
        max_unpacked_bytes: int,
        now_ns: Callable[[], int],
    ) -> None:
        self._telemetry = telemetry
        self._max_decompressed_bytes = max_decompressed_bytes
        self._now_ns = now_ns
        self._off_loop = OffLoop()
        self._unpacker = Unpacker(self._off_loop, limit_bytes=max_unpacked_bytes)

    async def close(self) -> None:
        """Waits for the threads."""
        await self._off_loop.close()

    async def unpack(self, submission: Submission, policy: Policy) -> Payload:
        """The payload, uncompressed."""
        chunk, limits = submission.chunk, policy.limits
        check_signal(chunk, policy.signals)
        max_bytes = limits.chunk_bytes
        payload: Payload = chunk.payload if chunk.is_plain else await self._unpacked(submission, policy)
        if len(payload) > max_bytes:
            raise ChunkRejected(
                "too-large",
                f"the chunk has {len(payload)} bytes, policy {policy.reference!r} takes {max_bytes}; "
                "send smaller chunks, or raise limits.chunk_bytes",
            )
        if payload is not chunk.payload:
            submission.charge(len(payload))  # both are kept until it is durable
        self._telemetry.unpacked(chunk, payload)
        return payload

    async def _unpacked(self, submission: Submission, policy: Policy) -> Payload:
        limits = policy.limits
        bounds = Bounds(
            limits.chunk_bytes, self._max_decompressed_bytes, limits.events_per_chunk, limits.decoded_bytes
        )
        payload = unpack_at_once(submission.chunk, bounds)
        if payload is None:
            submission.turn.keep()
            await give_way()
            payload = await self._unpacker.unpack(submission, bounds)
        return payload

    async def content_key(self, submission: Submission, payload: Payload) -> bytes:
        """The key by which a repetition with another ID is known."""
        chunk = submission.chunk
        hashing = partial(content_key, chunk.sender, chunk.tag, payload)
        if len(payload) <= _LARGE_TO_HASH_BYTES:
            return hashing()
        submission.turn.keep()
        await give_way()
        return await self._off_loop.in_thread(partial(in_one_step, hashing), who=chunk.who)

    async def check(
        self, submission: Submission, rules: InForce, payload: Payload, key: bytes | None
    ) -> CheckedChunk:
        """The valid events of an unpacked payload: well-formed, not too large, and as the policy asks."""
        chunk, policy = submission.chunk, rules.policy
        rejected: list[RejectedEvents] = []
        events = chunk.events
        # Most small chunks need none of these steps.
        if events is None or chunk.is_replay or is_too_deep(payload, events):
            payload, events = await self._well_formed(submission, policy, payload, rejected)
        else:
            _require_few(events, policy)
        if not is_surely_within(payload, events, limit_bytes=policy.limits.decoded_bytes):
            await self._measure(submission, policy, payload, events)
        if not (rules.check.looks_at_times_alone and surely_have_times(payload, events)):
            slices = rules.check.sifting(payload, events, now_ns=self._now_ns())
            sifted = await self._off_loop.in_slices(slices, who=chunk.who, on_long=submission.turn.keep)
            if sifted is not None:
                code: RejectionCode = INVALID_RECORDS if rules.check.is_of_policy else INVALID_EVENTS
                rejected.append(_without_invalid(chunk, policy, sifted, code))
                payload, events = sifted.valid, sifted.valid_events
        return CheckedChunk(chunk, policy, payload, events, tuple(rejected), key)

    async def _well_formed(
        self, submission: Submission, policy: Policy, payload: Payload, rejected: list[RejectedEvents]
    ) -> tuple[Payload, int]:
        """The events that are well-formed, and how many; the others are added to `rejected`."""
        chunk, keep_turn = submission.chunk, submission.turn.keep
        events, broken = chunk.events, None
        if events is None:
            steps = counting(payload, chunk.size_hint, max_events=policy.limits.events_per_chunk)
            try:
                events = await self._off_loop.in_slices(steps, who=chunk.who, on_long=keep_turn)
            except ChunkRejected as rejection:
                if rejection.code not in ("malformed", INVALID_EVENTS):
                    raise
                broken, events = rejection, 0
        elif is_too_deep(payload, events):
            broken = nested_too_deeply("an event")
        _require_few(events, policy)
        if broken is None and not chunk.is_replay:
            return payload, events
        # A replay is decoded, so that no worker rejects it once more.
        decoding = separating_decodable(
            payload,
            raw_field=policy.field if policy.format == "raw" else None,
            max_event_bytes=policy.limits.decoded_bytes,
        )
        sifted = await self._off_loop.in_slices(decoding, who=chunk.who, on_long=keep_turn)
        if broken is not None and broken.code == "malformed" and not sifted.valid_events:
            raise broken
        if sifted.invalid_events:
            rejected.append(_without_invalid(chunk, policy, sifted, INVALID_EVENTS))
        return sifted.valid, sifted.valid_events

    async def _measure(self, submission: Submission, policy: Policy, payload: Payload, events: int) -> None:
        """Raises ChunkRejected for events that would take too much memory once they are decoded."""
        limit_bytes = policy.limits.decoded_bytes
        submission.turn.keep()
        await give_way()
        found = await self._unpacker.decoded_bytes(submission.chunk, payload, events, limit_bytes=limit_bytes)
        if found > limit_bytes:
            raise ChunkRejected(
                "too-large-decoded",
                f"the chunk of {len(payload)} bytes and {events} events takes more than {limit_bytes} bytes "
                f"of memory once it is decoded, which is what policy {policy.reference!r} takes; send "
                "smaller chunks, or raise limits.decoded_bytes",
            )


def _require_few(events: int, policy: Policy) -> None:
    if events > policy.limits.events_per_chunk:
        raise ChunkRejected(
            "too-many-events",
            f"the chunk has {events} events or more, policy {policy.reference!r} takes "
            f"{policy.limits.events_per_chunk}; send smaller chunks, or raise limits.events_per_chunk",
        )


def _without_invalid(
    chunk: IncomingChunk, policy: Policy, sifted: SeparatedEvents, code: RejectionCode
) -> RejectedEvents:
    """The invalid events; raises ChunkRejected if the chunk is rejected whole because of them."""
    asked = "are not what the policy asks for" if code == INVALID_RECORDS else "cannot be stored"
    reason = f"{sifted.total} {asked}: {sifted.reason}"
    is_whole = not sifted.valid_events and (code == INVALID_EVENTS or chunk.is_replay)
    if is_whole or policy.invalid_records == "refuse":
        raise ChunkRejected(code, reason)
    return RejectedEvents(code, reason, sifted.invalid_events, sifted.invalid)
