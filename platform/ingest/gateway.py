"""The decision about a chunk: admit → known? → unpack → check → rate → publish.

Both ways in (forward protocol and HTTP) hand their chunks to `Gateway.submit`, and the submission tells them
what became of each. Rejected chunks go to the dead letters.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

import msgspec

from ..bus.interface import Producer
from ..bus.messages.chunks import ChunkMessage
from ..config import GatewaySettings
from ..errors import BusUnavailable, ChunkRejected, RateExceeded
from ..records.events import chunk_key, is_identified_by_id
from ..rejections import REJECTIONS, WITHHELD
from ..store.catalog.policy import Policy, Signal
from ..store.databases.interfaces import DeadLetters
from .admission import admit, find_rules, no_policy
from .chunk import IncomingChunk, RejectedEvents, charge, check_tag, halves
from .chunk_check import CheckedChunk, ChunkCheck
from .dead_letter_queue import DeadLetterQueue, letter_of_chunk, letter_of_events
from .limits.off_loop import Turns, begin, give_way
from .limits.pending_budget import PendingBudget
from .limits.rate_limit import RateLimit
from .limits.rate_queue import RateQueue
from .policy_book import InForce, PolicyBook
from .recent_chunks import RecentChunks
from .rejections import Rejections
from .splitting import publish_chunk, require_fitting
from .submission import Submission
from .telemetry import GatewayTelemetry
from .unpacking import METRICS, check_signal


class Gateway:
    """Decides about chunks, and publishes those that may enter.

    Memory: the payloads of pending chunks and, up to half of it, the messages that are still being received
    (`settings.pending_bytes`; at most a quarter of it waits for a policy's rate), as many bytes again that
    wait for the dead letters at most, what `Unpacker` and `EventCheck` say, and the keys of the last 100,000
    chunks that have one.
    """

    def __init__(
        self,
        *,
        producer: Producer,
        policies: PolicyBook,
        dead_letters: DeadLetters,
        telemetry: GatewayTelemetry,
        settings: GatewaySettings,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self.budget = PendingBudget(settings.pending_bytes)
        self.rejections = Rejections()
        self._producer = producer
        self._policies = policies
        self._letters = DeadLetterQueue(dead_letters, telemetry, limit_bytes=settings.pending_bytes)
        self._now_ns = now_ns
        self._recent: RecentChunks[Submission] = RecentChunks()
        self._rate_queue = RateQueue(settings.pending_bytes // 4)
        self._checks = ChunkCheck(
            telemetry,
            max_decompressed_bytes=settings.max_decompressed_bytes,
            max_unpacked_bytes=settings.pending_bytes // 2,
            now_ns=now_ns,
        )
        self._turns = Turns()
        self._deciding: set[asyncio.Task[None]] = set()
        telemetry.pending_bytes = lambda: self.budget.used_bytes

    def submit(self, chunk: IncomingChunk) -> Submission:
        """Decides about `chunk`. The submission ends

        - with None once the chunk is durable on the bus (or was before: a retransmission), and invalid events
          of it are in the dead letters;
        - with ChunkRejected once its bytes are in the dead letters (`code` says why);
        - with RateExceeded if it exceeds the policy's rates and does not wait: its sender must keep it;
        - with BusUnavailable if none of these could be done: its sender must keep it.

        Chunks of one tag enter in the order in which they were submitted. A small chunk is decided within
        this call, without a task.
        """
        submission = Submission(chunk, self.budget, self._turns.turn(chunk.tag))
        task = begin(self._decide(submission))
        if task is not None:
            self._deciding.add(task)
            task.add_done_callback(self._deciding.discard)
        return submission

    def reject(self, chunk: IncomingChunk, rejection: ChunkRejected) -> Submission:
        """Puts into the dead letters what could not be made a chunk; it ends as that of `submit`."""
        submission = Submission(chunk, self.budget, self._turns.turn(chunk.tag), charged_bytes=0)
        self._reject(submission, rejection)
        submission.decided()
        return submission

    def keep_broken_bytes(self, pending: memoryview, *, sender: str, reason: str) -> None:
        """Puts into the dead letters what came of a message on a connection that had to be closed."""
        payload = bytes(pending[: self.settings.max_message_bytes])
        chunk = IncomingChunk(sender=sender, tag="", payload=payload)
        self.reject(chunk, ChunkRejected("framing", reason))

    def stop_holding(self) -> None:
        """Lets all that wait for a rate go at once, and nothing wait from now on: the gateway stops."""
        self._rate_queue.open()

    async def close(self) -> None:
        """Waits for what is being decided and written."""
        if self._deciding:
            await asyncio.gather(*self._deciding, return_exceptions=True)
        await self._checks.close()
        await self._letters.close()

    async def _decide(self, submission: Submission) -> None:
        """Does all at once if there is little to do; see `off_loop.begin`."""
        chunk, rules = submission.chunk, None
        try:
            check_tag(chunk.tag)
            if chunk.signal > METRICS or chunk.signal < 0:
                # No policy takes it, so the sender must not wait for one.
                check_signal(chunk, get_args(Signal))
            rules = find_rules(self._policies, chunk) or await self._rules_after_refresh(chunk)
            admit(chunk, rules)
            if submission.turn.before is not None:  # a call less for most chunks
                await submission.turn.come()
            await self._take(submission, rules)
        except ChunkRejected as rejection:
            self._reject(submission, rejection, None if rules is None else rules.policy)
        except Exception as error:
            self._fail(submission, error)
        finally:
            submission.decided()

    async def _rules_after_refresh(self, chunk: IncomingChunk) -> InForce:
        """A policy may have been made a moment ago: look before the tag is called unknown."""
        await give_way()
        await self._policies.refresh()
        rules = find_rules(self._policies, chunk)
        if rules is None:
            raise no_policy(chunk)
        return rules

    async def _take(self, submission: Submission, rules: InForce) -> None:
        """Checks the chunk, and lets it enter.

        A run was not sent as one chunk: its invalid messages are rejected one by one.
        """
        chunk = submission.chunk
        try:
            checked = await self._check(submission, rules)
            if checked is not None:
                self._enter(checked, rules.rate, submission)
            return
        except ChunkRejected as rejection:
            if not chunk.is_run or not REJECTIONS[rejection.code].is_of_events:
                raise
        parts = [submission.part(half) for half in halves(chunk)]
        for part in parts:
            try:
                await self._take(part, rules)
            except ChunkRejected as rejection:
                self._reject(part, rejection, rules.policy)
            except Exception as error:
                self._fail(part, error)
        submission.end_with(parts)

    async def _check(self, submission: Submission, rules: InForce) -> CheckedChunk | None:
        """The chunk with its valid events; None if the chunk is known."""
        chunk, policy, key = submission.chunk, rules.policy, None
        if chunk.chunk_id and (policy.suppress_repeats == "chunk-id" or chunk.is_replay):
            key = chunk_key(chunk.sender, chunk.tag, chunk.chunk_id)
            if self._is_repeated(key, submission):
                return None
        payload = await self._checks.unpack(submission, policy)
        if policy.suppress_repeats == "content" and not is_identified_by_id(chunk.chunk_id):
            key = await self._checks.content_key(submission, payload)
            if self._is_repeated(key, submission):
                return None
        checked = await self._checks.check(submission, rules, payload, key)
        if len(checked.payload) > self._producer.max_message_bytes // 2:
            require_fitting(self._producer, self._message(checked), checked.payload)
        return checked

    def _is_repeated(self, key: bytes, submission: Submission) -> bool:
        """Whether a chunk of that key is known; the submission then ends as the first one's."""
        first = self._recent.pending(key)
        if first is None and not self._recent.is_stored(key):
            return False
        self.telemetry.chunk_repeated()
        if first is None:
            submission.succeed()
        else:
            first.add_done_callback(submission.end_as)
        return True

    def _enter(self, checked: CheckedChunk, rate: RateLimit, submission: Submission) -> None:
        """To the bus, now or when the policy's rate allows it."""
        if not checked.events and not checked.rejected:
            submission.succeed()
            return
        self.rejections.note_part(checked.chunk, checked.rejected)
        # Only what is kept: nothing that comes later is a repetition of an empty chunk.
        if checked.key is not None:
            submission.remember(checked.key, self._recent)
        if (
            not checked.events
            or self._rate_queue.is_open
            or rate.try_take(events=checked.events, size=len(checked.payload))
        ):
            self._publish(checked, submission)
        else:
            self._wait_for_rate(checked, rate, submission)

    def _wait_for_rate(self, checked: CheckedChunk, rate: RateLimit, submission: Submission) -> None:
        """Queues a chunk until its policy's rate allows it; its connection is not read meanwhile."""
        chunk, payload_bytes = checked.chunk, len(checked.payload)
        reason = (
            f"policy {checked.policy.reference!r} takes no more now, by limits.events_per_s or bytes_per_s"
        )
        size_bytes = charge(checked.payload, chunk.chunk_id)
        is_full = not self._rate_queue.has_room(size_bytes)
        if is_full and chunk.over_rate == "wait" and chunk.chunk_id is None:
            # Its sender waits for no ack, so it would not send the chunk again.
            raise ChunkRejected("over-rate", f"{reason}, and too much waits already; send more slowly")
        if is_full or chunk.over_rate == "refuse":
            self.telemetry.chunk_rejected("over-rate", chunk, reason, policy=checked.policy.reference)
            wait_s = rate.wait_s(events=checked.events, size=payload_bytes)
            submission.fail(
                RateExceeded(f"{reason}; send it again later", retry_after_s=max(1, math.ceil(wait_s)))
            )
            return
        # A copy, and nothing else of what came: a slice would hold on to all that came with it.
        checked = msgspec.structs.replace(
            checked,
            payload=bytes(checked.payload),
            chunk=msgspec.structs.replace(chunk, payload=b"", body=None),
        )
        submission.chunk = checked.chunk
        submission.waits_for_rate = True

        def go() -> None:
            submission.waits_for_rate = False
            try:
                self._publish(checked, submission)
            except Exception as error:
                self._fail(submission, error)

        self._rate_queue.put(
            rate, events=checked.events, payload_bytes=payload_bytes, size_bytes=size_bytes, go=go
        )

    def _publish(self, checked: CheckedChunk, submission: Submission) -> None:
        """Gives the valid events to the bus, the others to the dead letters; `submission` ends with both."""
        policy, chunk_id = checked.policy, checked.chunk.chunk_id
        durable: asyncio.Future[int] | None = None
        if checked.events:
            by_content = policy.suppress_repeats == "content" and not is_identified_by_id(chunk_id)
            durable = publish_chunk(
                self._producer,
                policy.reference,
                self._message(checked),
                checked.payload,
                durability=policy.durability,
                content_key=checked.key if by_content else None,
            )
            if not checked.rejected and durable.done():  # a bus that keeps nothing
                self._end_published(checked, submission, durable, (), None)
                return
        letters = [self._keep_rejected(checked, each) for each in checked.rejected]
        ended = partial(self._end_published, checked, submission, durable, letters)
        if not letters and durable is not None:
            durable.add_done_callback(ended)
        else:
            asyncio.gather(
                *letters, *([] if durable is None else [durable]), return_exceptions=True
            ).add_done_callback(ended)

    def _end_published(
        self,
        checked: CheckedChunk,
        submission: Submission,
        durable: asyncio.Future[int] | None,
        letters: Sequence[asyncio.Future[None]],
        _: object,
    ) -> None:
        """Ends `submission` with None, or with the first error; that of the bus comes first."""
        error = None
        if durable is not None:
            error = _error_of(durable)
            if error is None:
                self.telemetry.chunk_stored(events=checked.events, size=len(checked.payload))
            else:
                self.telemetry.publish_failed(error)
        if letters and error is None:
            error = next(filter(None, map(_error_of, letters)), None)
            if error is not None:
                self.telemetry.bus_unavailable(error)
        if error is None:
            _tell_outcome(checked)
            submission.succeed()
        else:
            submission.fail(error)

    def _fail(self, submission: Submission, error: Exception) -> None:
        """Ends a chunk that could not be decided or published: its sender must keep it."""
        self.telemetry.bus_unavailable(error)
        submission.fail(BusUnavailable(f"the chunk could not be published: {error}"))

    def _message(self, checked: CheckedChunk) -> ChunkMessage:
        """The message of a chunk, without its payload."""
        chunk = checked.chunk
        return ChunkMessage(
            tag=chunk.tag,
            sender=chunk.sender,
            chunk_id=chunk.chunk_id,
            received_ns=self._now_ns(),
            events=checked.events,
            payload=b"",
        )

    def _keep_rejected(self, checked: CheckedChunk, rejected: RejectedEvents) -> asyncio.Future[None]:
        chunk, reference = checked.chunk, checked.policy.reference
        self.telemetry.chunk_rejected(rejected.code, chunk, rejected.reason, policy=reference)
        return self._letters.keep(letter_of_events(chunk, rejected, reference, self._now_ns()))

    def _reject(self, submission: Submission, rejection: ChunkRejected, policy: Policy | None = None) -> None:
        """Keeps the bytes, then ends `submission` with the rejection."""
        # Its traceback has the frames that hold the submission and the chunk: a cycle, which would keep the
        # buffer that the chunk was received in until Python looks for cycles.
        rejection.__traceback__ = None
        chunk = submission.chunk
        if chunk.is_replay:
            submission.fail(rejection)
            return
        reference = chunk.policy if policy is None else policy.reference
        self.telemetry.chunk_rejected(rejection.code, chunk, str(rejection), policy=reference)
        if rejection.code not in WITHHELD:
            self.rejections.note(chunk, rejection.code)
        kept = self._letters.keep(letter_of_chunk(chunk, rejection, reference, self._now_ns()))
        kept.add_done_callback(lambda done: submission.fail(done.exception() or rejection))


def _tell_outcome(checked: CheckedChunk) -> None:
    outcome = checked.chunk.outcome
    if outcome is not None:
        outcome.stored_events = checked.events
        outcome.rejected_events = sum(each.events for each in checked.rejected)
        outcome.reason = "; ".join(each.reason for each in checked.rejected)


def _error_of(done: "asyncio.Future[Any]") -> BaseException | None:
    return BusUnavailable("the gateway is stopping") if done.cancelled() else done.exception()
