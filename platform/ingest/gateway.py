"""The decision about a chunk: policy, checks, duplicates, bus; what may not enter goes to the dead letters.

Both doors (forward protocol and HTTP) hand their chunks to `Gateway.submit` and learn from its future what
became of them.
"""

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import msgspec

from ..bus.interface import Producer
from ..bus.messages.chunks import ChunkMessage
from ..config import GatewaySettings
from ..errors import BusUnavailable, ChunkRefused, RateExceeded
from ..records.decoded_size import is_surely_within
from ..records.events import chunk_key, content_key, is_stored_anew
from ..records.nesting import is_too_deep
from ..records.undecodable_events import Sifted, sifting_decodable
from ..store.catalog.policy import Policy, Signal
from ..store.databases.dead_letters import MAX_PAYLOAD_BYTES, DeadLetters
from .checks.leading_times import surely_have_times
from .checks.payload import INVALID_EVENTS, Payload, counting, nested_too_deeply
from .chunk import IncomingChunk, RejectedEvents, charge, check_tag, halves
from .dead_letter_queue import (
    NO_POLICY,
    NOT_ACKED,
    SENDER_NOT_ALLOWED,
    DeadLetterQueue,
    letter_of_chunk,
    letter_of_events,
)
from .limits.off_loop import OffLoop, Turn, Turns, begin, give_way, in_one_step
from .limits.rate_limit import RateLimit
from .limits.rate_queue import HeldChunks
from .limits.receive_budget import ReceiveBudget
from .policy_book import InForce, PolicyBook
from .recent_chunks import RecentChunks
from .rejections import Rejections
from .splitting import publish_chunk, require_fitting
from .telemetry import GatewayTelemetry
from .unpacking import LOGS, METRICS, Bounds, Unpacker, check_signal, unpack_at_once

INVALID_RECORDS = "schema"
_OF_SOME_EVENTS = frozenset(
    [INVALID_RECORDS, INVALID_EVENTS, "too-large", "too-large-decoded", "too-many-events", "event-too-large"]
)
_LARGE_TO_HASH_BYTES = 1024 * 1024


class _Checked(msgspec.Struct, frozen=True):
    """A chunk that may enter, or what is left of it."""

    chunk: IncomingChunk
    policy: Policy
    payload: bytes | bytearray | memoryview
    events: int
    rejected: tuple[RejectedEvents, ...]
    """Those of its events that are invalid: they go to the dead letters when the others are published."""
    key: bytes | None
    """By which it is known when it is sent again."""


class Gateway:
    """Takes chunks, and says what became of each.

    Memory: the payloads of pending chunks and, up to half of it, the messages that are still being received
    (the doors stop reading over `settings.pending_bytes`; at most a quarter of it waits for a policy's rate),
    as many bytes again that wait for the dead letters at most, what `Unpacker` and `EventCheck` say, and the
    keys of the last 100,000 chunks that have one.
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
        self.receiving = ReceiveBudget(settings.pending_bytes // 2)
        self._producer = producer
        self._policies = policies
        self._letters = DeadLetterQueue(dead_letters, telemetry, limit_bytes=settings.pending_bytes)
        self._now_ns = now_ns
        self._pending_bytes = 0
        self._recent = RecentChunks()
        self.rejections = Rejections()
        self._held = HeldChunks(settings.pending_bytes // 4)
        self._off_loop = OffLoop()
        self._unpacker = Unpacker(self._off_loop, limit_bytes=settings.pending_bytes // 2)
        self._turns = Turns()
        self._room_waiters: set[Callable[[], None]] = set()
        self._undecided: dict[asyncio.Future[None], asyncio.Task[None]] = {}
        telemetry.pending_bytes = lambda: self._pending_bytes + self.receiving.used_bytes

    @property
    def over_budget(self) -> bool:
        """More bytes are pending than the gateway may hold: stop reading, and ask to be told of room."""
        # Half of it is never taken by what is being received: pending bytes become durable by themselves,
        # so there is always an end to being over.
        receiving_bytes = min(self.receiving.used_bytes, self.receiving.limit_bytes)
        return self._pending_bytes >= self.settings.pending_bytes - receiving_bytes

    def when_room(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once, when a quarter of the budget is free again."""
        self._room_waiters.add(callback)

    def submit(self, chunk: IncomingChunk) -> asyncio.Future[None]:
        """Decides about `chunk`. The future ends

        - with None once the chunk is durable on the bus (or was before: a retransmission), and invalid events
          of it are in the dead letters;
        - with ChunkRefused once its bytes are in the dead letters (`code` says why);
        - with RateExceeded where it is over the policy's rates and does not wait: it is still the sender's;
        - with BusUnavailable where none of these could be done: it is still the sender's.

        Cancelling the future does not take the chunk back. Chunks of one tag enter in the order in which they
        were submitted.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count(charge(chunk.payload, chunk.chunk_id), future)
        task = begin(self._decide(chunk, future))
        if task is not None:
            self._undecided[future] = task
            task.add_done_callback(lambda _: self._undecided.pop(future))
        return future

    def is_held(self, future: asyncio.Future[None]) -> bool:
        """Whether a chunk that was submitted waits for its policy's rate: its sender is to wait too."""
        return future in self._held

    def after_decision(self, future: asyncio.Future[None], callback: Callable[[], None]) -> bool:
        """Where it takes long to decide about a chunk: True, and `callback` is called once it has a place.

        Its sender is to wait so long, lest one sender has all that decides about large chunks.
        """
        task = self._undecided.get(future)
        if task is None:
            return False
        task.add_done_callback(lambda _: callback())
        return True

    def stop_holding(self) -> None:
        """Lets all that wait for a rate go at once, and nothing wait from now on: the gateway stops."""
        self._held.open()

    def keep_broken_bytes(self, pending: memoryview, *, sender: str, reason: str) -> None:
        """What came of a message on a connection that had to be closed goes to the dead letters."""
        payload = bytes(pending[: self.settings.max_message_bytes])
        chunk = IncomingChunk(sender=sender, tag="", payload=payload)
        future = self.refuse(chunk, ChunkRefused("framing", reason))
        future.add_done_callback(lambda done: done.exception())

    def refuse(self, chunk: IncomingChunk, refusal: ChunkRefused) -> asyncio.Future[None]:
        """What a door could make nothing of goes to the dead letters; the future ends as that of `submit`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refuse(chunk, refusal, future)
        return future

    async def close(self) -> None:
        """Waits for what is being decided and written."""
        if self._undecided:
            await asyncio.gather(*self._undecided.values(), return_exceptions=True)
        await self._off_loop.close()
        await self._letters.close()

    def _count(self, size: int, future: asyncio.Future[None]) -> None:
        """Counts `size` bytes against the budget until the chunk is decided."""
        self._pending_bytes += size
        future.add_done_callback(lambda _: self._leave(size))

    def _leave(self, size: int) -> None:
        self._pending_bytes -= size
        if self._room_waiters and self._pending_bytes < 3 * self.settings.pending_bytes // 4:
            waiters, self._room_waiters = self._room_waiters, set()
            for callback in waiters:
                callback()

    async def _decide(self, chunk: IncomingChunk, future: asyncio.Future[None]) -> None:
        """Does all at once where there is little to do; see `off_loop.begin`."""
        policy = None
        try:
            check_tag(chunk.tag)
            if chunk.signal not in (LOGS, METRICS):
                check_signal(
                    chunk, get_args(Signal)
                )  # no policy takes it, so the sender must not wait for one
            policy = self._route(chunk) or await self._route_after_refresh(chunk)
            rules = self._policies.in_force(policy)
            self._admit(chunk, rules)
            turn = self._turns.turn(chunk.tag)
            try:
                await turn.come()
                await self._take(chunk, rules, turn, future)
            finally:
                turn.end()
        except ChunkRefused as refusal:
            self._refuse(chunk, refusal, future, policy)
        except Exception as error:
            self._fail(error, future)

    async def _take(
        self, chunk: IncomingChunk, rules: InForce, turn: Turn, future: asyncio.Future[None]
    ) -> None:
        """Checks the chunk, and lets it enter.

        Nobody sent a run as one chunk: only those of its messages that are refused by themselves are.
        """
        try:
            checked = await self._check(chunk, rules, turn, future)
            if checked is not None:
                self._enter(checked, rules.rate, future)
            return
        except ChunkRefused as refusal:
            if not chunk.is_run or refusal.code not in _OF_SOME_EVENTS:
                raise
        parts: list[asyncio.Future[None]] = []
        for half in halves(chunk):
            part: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            parts.append(part)
            try:
                await self._take(half, rules, turn, part)
            except ChunkRefused as refusal:
                self._refuse(half, refusal, part, rules.policy)
        both = asyncio.gather(*parts, return_exceptions=True)
        both.add_done_callback(lambda _: _pass_on(next(filter(_error_of, parts), parts[0]), future))

    def _route(self, chunk: IncomingChunk) -> Policy | None:
        if chunk.policy is None:
            return self._policies.match(chunk.tag)
        return self._policies.get(chunk.policy)

    async def _route_after_refresh(self, chunk: IncomingChunk) -> Policy:
        """A policy may have been made a moment ago: look before the tag is called unknown."""
        await give_way()
        await self._policies.refresh()
        policy = self._route(chunk)
        if policy is not None:
            return policy
        if chunk.policy is not None:
            raise ChunkRefused(NO_POLICY, f"there is no policy {chunk.policy!r}; see `windvane policy list`")
        raise ChunkRefused(
            NO_POLICY,
            f"no policy takes the tag {chunk.tag!r}; make one with `windvane policy create`"
            f"{_who_keeps(chunk)}",
        )

    def _admit(self, chunk: IncomingChunk, rules: InForce) -> None:
        """Whether the sender may send this tag, before anything of the payload is looked at."""
        policy = rules.policy
        if not rules.admission.allows(chunk.sender, chunk.identity):
            who = "the anonymous sender" if chunk.identity is None else repr(chunk.identity)
            raise ChunkRefused(
                SENDER_NOT_ALLOWED,
                f"policy {policy.reference!r} does not allow {who} at {chunk.sender} to send {chunk.tag!r}; "
                f"add the identity or the network to a rule of `allow`{_who_keeps(chunk)}",
            )
        if chunk.policy is not None and not self._policies.takes(policy, chunk.tag):
            raise ChunkRefused(
                "tag-not-allowed",
                f"policy {policy.reference!r} does not take the tag {chunk.tag!r}; "
                f"its tags: {', '.join(policy.tags)}",
            )

    async def _check(
        self, chunk: IncomingChunk, rules: InForce, turn: Turn, future: asyncio.Future[None]
    ) -> _Checked | None:
        """All its events, well-formed, and valid where the policy says what that is; None: they are known."""
        policy = rules.policy
        key = None
        by_id = policy.suppress_repeats == "chunk-id" or chunk.is_replay
        if by_id and chunk.chunk_id:
            key = chunk_key(chunk.sender, chunk.tag, chunk.chunk_id)
            if self._is_repeated(key, future):
                return None
        payload = await self._unpack(chunk, policy, turn, future)
        if policy.suppress_repeats == "content" and not is_stored_anew(chunk.chunk_id):
            key = await self._content_key(chunk, payload, turn)
            if self._is_repeated(key, future):
                return None
        rejected: list[RejectedEvents] = []
        payload, events = await self._count_events(chunk, rules, payload, turn, rejected)
        await self._check_decoded_size(chunk, policy, payload, events, turn)
        if not (rules.check.looks_at_times_alone and surely_have_times(payload, events)):
            slices = rules.check.sifting(payload, events, now_ns=self._now_ns())
            sifted = await self._off_loop.in_slices(slices, who=chunk.who, on_long=turn.keep)
            if sifted is not None:
                code = INVALID_RECORDS if rules.check.is_of_policy else INVALID_EVENTS
                rejected.append(self._reject(chunk, policy, sifted, code))
                payload, events = sifted.valid, sifted.valid_events
        if len(payload) > self._producer.max_message_bytes // 2:
            require_fitting(self._producer, self._message(chunk, events), payload)
        return _Checked(chunk, policy, payload, events, tuple(rejected), key)

    async def _count_events(
        self,
        chunk: IncomingChunk,
        rules: InForce,
        payload: Payload,
        turn: Turn,
        rejected: list[RejectedEvents],
    ) -> tuple[Payload, int]:
        """The payload and its events; without those that are no msgpack, which are added to `rejected`."""
        events, policy = chunk.events, rules.policy
        max_events = policy.limits.events_per_chunk
        broken: ChunkRefused | None = None
        if events is None:
            steps = counting(payload, chunk.size_hint, max_events=max_events)
            try:
                events = await self._off_loop.in_slices(steps, who=chunk.who, on_long=turn.keep)
            except ChunkRefused as refusal:
                if refusal.code not in ("malformed", INVALID_EVENTS):
                    raise
                broken, events = refusal, 0
        elif is_too_deep(payload, events):
            broken = nested_too_deeply("an event")
        if events > max_events:
            raise ChunkRefused(
                "too-many-events",
                f"the chunk has {events} events or more, policy {policy.reference!r} takes {max_events}; "
                "send smaller chunks, or raise limits.events_per_chunk",
            )
        if broken is None and not chunk.is_replay:
            return payload, events
        # What is sent again by hand is decoded, so that no worker rejects it once more.
        decoding = sifting_decodable(
            payload,
            raw_field=policy.field if policy.format == "raw" else None,
            max_event_bytes=policy.limits.decoded_bytes,
        )
        sifted = await self._off_loop.in_slices(decoding, who=chunk.who, on_long=turn.keep)
        if broken is not None and broken.code == "malformed" and not sifted.valid_events:
            raise broken
        if sifted.invalid_events:
            rejected.append(self._reject(chunk, policy, sifted, INVALID_EVENTS))
        return sifted.valid, sifted.valid_events

    def _reject(self, chunk: IncomingChunk, policy: Policy, sifted: Sifted, code: str) -> RejectedEvents:
        """The invalid events; ChunkRefused where the chunk is to be refused whole for them."""
        asked = "are not what the policy asks for" if code == INVALID_RECORDS else "cannot be stored"
        reason = f"{sifted.total} {asked}: {sifted.reason}"
        is_whole = not sifted.valid_events and (code == INVALID_EVENTS or chunk.is_replay)
        if is_whole or policy.invalid_records == "refuse":
            raise ChunkRefused(code, reason)
        return RejectedEvents(code, reason, sifted.invalid_events, sifted.invalid)

    async def _unpack(
        self, chunk: IncomingChunk, policy: Policy, turn: Turn, future: asyncio.Future[None]
    ) -> bytes | bytearray | memoryview:
        """The payload, uncompressed."""
        check_signal(chunk, policy.signals)
        limits = policy.limits
        max_bytes = limits.chunk_bytes
        bounds = Bounds(
            max_bytes, self.settings.max_decompressed_bytes, limits.events_per_chunk, limits.decoded_bytes
        )
        payload = unpack_at_once(chunk, bounds)
        if payload is None:
            turn.keep()
            await give_way()
            payload = await self._unpacker.unpack(chunk, future, bounds)
        if len(payload) > max_bytes:
            raise ChunkRefused(
                "too-large",
                f"the chunk has {len(payload)} bytes, policy {policy.reference!r} takes {max_bytes}; "
                "send smaller chunks, or raise limits.chunk_bytes",
            )
        self.telemetry.unpacked(chunk, payload)
        if payload is not chunk.payload:
            self._count(len(payload), future)  # both are kept until it is durable
        return payload

    async def _check_decoded_size(
        self,
        chunk: IncomingChunk,
        policy: Policy,
        payload: bytes | bytearray | memoryview,
        events: int,
        turn: Turn,
    ) -> None:
        """Raises ChunkRefused for events that would take too much memory once they are decoded."""
        limit_bytes = policy.limits.decoded_bytes
        if is_surely_within(payload, events, limit_bytes=limit_bytes):
            return
        turn.keep()
        await give_way()
        found = await self._unpacker.decoded_bytes(chunk, payload, events, limit_bytes=limit_bytes)
        if found > limit_bytes:
            raise ChunkRefused(
                "too-large-decoded",
                f"the chunk of {len(payload)} bytes and {events} events takes more than {limit_bytes} bytes "
                f"of memory once it is decoded, which is what policy {policy.reference!r} takes; send "
                "smaller chunks, or raise limits.decoded_bytes",
            )

    async def _content_key(
        self, chunk: IncomingChunk, payload: bytes | bytearray | memoryview, turn: Turn
    ) -> bytes:
        hashing = partial(content_key, chunk.sender, chunk.tag, payload)
        if len(payload) <= _LARGE_TO_HASH_BYTES:
            return hashing()
        turn.keep()
        await give_way()
        return await self._off_loop.in_thread(partial(in_one_step, hashing), who=chunk.who)

    def _is_repeated(self, key: bytes, future: asyncio.Future[None]) -> bool:
        """Whether a chunk of that key is known; `future` then ends as the first one's."""
        first = self._recent.find(key)
        if first is None:
            return False
        self.telemetry.chunk_repeated()
        first.add_done_callback(lambda done: _pass_on(done, future))
        return True

    def _enter(self, checked: _Checked, rate: RateLimit, future: asyncio.Future[None]) -> None:
        """To the bus, now or when the policy's rate allows it."""
        if not checked.events and not checked.rejected:
            future.set_result(None)
            return
        self.rejections.note_part(checked.chunk, checked.rejected)
        # Only what is kept: nothing that comes later is a repetition of an empty chunk.
        if checked.key is not None:
            self._recent.remember(checked.key, future)
        if (
            not checked.events
            or self._held.is_open
            or rate.try_take(events=checked.events, size=len(checked.payload))
        ):
            self._publish(checked, future)
        else:
            self._hold(checked, rate, future)

    def _hold(self, checked: _Checked, rate: RateLimit, future: asyncio.Future[None]) -> None:
        """Keeps a chunk until its policy's rate lets it through; its door reads no more meanwhile."""
        chunk, payload_bytes = checked.chunk, len(checked.payload)
        reason = (
            f"policy {checked.policy.reference!r} takes no more now, by limits.events_per_s or bytes_per_s"
        )
        size = charge(checked.payload, chunk.chunk_id)
        is_full = not self._held.has_room(size)
        if is_full and chunk.over_rate == "wait" and chunk.chunk_id is None:
            # Nobody waits for an ack, so nobody would send it again.
            raise ChunkRefused("over-rate", f"{reason}, and too much waits already; send more slowly")
        if is_full or chunk.over_rate == "refuse":
            self.telemetry.refused("over-rate", chunk, reason, policy=checked.policy.reference)
            wait_s = rate.wait_s(events=checked.events, size=payload_bytes)
            future.set_exception(
                RateExceeded(f"{reason}; send it again later", retry_after_s=max(1, math.ceil(wait_s)))
            )
            return
        # A copy, and nothing else of what came: a slice would hold on to all that came with it.
        checked = msgspec.structs.replace(
            checked,
            payload=bytes(checked.payload),
            chunk=msgspec.structs.replace(chunk, payload=b"", body=None),
        )

        def go() -> None:
            try:
                self._publish(checked, future)
            except Exception as error:
                self._fail(error, future)

        self._held.hold(future, rate, events=checked.events, payload_bytes=payload_bytes, size=size, go=go)

    def _publish(self, checked: _Checked, future: asyncio.Future[None]) -> None:
        """Gives the valid events to the bus, the others to the dead letters; `future` ends with both."""
        chunk, policy = checked.chunk, checked.policy
        parts: list[asyncio.Future[Any]] = []
        if checked.events:
            by_content = policy.suppress_repeats == "content" and not is_stored_anew(chunk.chunk_id)
            durable = publish_chunk(
                self._producer,
                policy.reference,
                self._message(chunk, checked.events),
                checked.payload,
                durability=policy.durability,
                content_key=checked.key if by_content else None,
            )
            parts.append(durable)
        parts += [self._keep_rejected(chunk, policy, each) for each in checked.rejected]
        self._end_with(parts, checked, future)

    def _end_with(
        self, parts: list[asyncio.Future[Any]], checked: _Checked, future: asyncio.Future[None]
    ) -> None:
        """Ends `future` when all parts have ended: with None, or with the first error.

        The first part is that of the bus, where the chunk has valid events.
        """
        unfinished = len(parts)

        def part_done(_: asyncio.Future[Any]) -> None:
            nonlocal unfinished
            unfinished -= 1
            if unfinished:
                return
            error = next(filter(None, map(_error_of, parts)), None)
            if checked.events and _error_of(parts[0]) is None:
                self.telemetry.chunk_stored(events=checked.events, size=len(checked.payload))
            if error is not None and checked.events and error is _error_of(parts[0]):
                self.telemetry.publish_failed(error)
            elif error is not None:
                self.telemetry.bus_unavailable(error)
            if future.done():
                return
            if error is None:
                _tell_outcome(checked)
                future.set_result(None)
            else:
                future.set_exception(error)

        for part in parts:
            part.add_done_callback(part_done)

    def _fail(self, error: Exception, future: asyncio.Future[None]) -> None:
        """Whatever went wrong, it is still the sender's, and the budget has its bytes back."""
        self.telemetry.bus_unavailable(error)
        if not future.done():
            future.set_exception(BusUnavailable(f"the chunk could not be published: {error}"))

    def _message(self, chunk: IncomingChunk, events: int) -> ChunkMessage:
        """The message of a chunk, without its payload."""
        return ChunkMessage(
            tag=chunk.tag,
            sender=chunk.sender,
            chunk_id=chunk.chunk_id,
            received_ns=self._now_ns(),
            events=events,
            payload=b"",
        )

    def _keep_rejected(
        self, chunk: IncomingChunk, policy: Policy, rejected: RejectedEvents
    ) -> asyncio.Future[None]:
        self.telemetry.refused(rejected.code, chunk, rejected.reason, policy=policy.reference)
        return self._letters.keep(letter_of_events(chunk, rejected, policy.reference, self._now_ns()))

    def _refuse(
        self,
        chunk: IncomingChunk,
        refusal: ChunkRefused,
        future: asyncio.Future[None],
        policy: Policy | None = None,
    ) -> None:
        """Keeps the bytes, then ends `future` with the refusal."""
        # Its traceback has the frames that hold `future` and the chunk: a cycle, which would keep the buffer
        # that the chunk was received in until Python looks for cycles.
        refusal.__traceback__ = None
        if chunk.is_replay:
            future.set_exception(refusal)
            return
        reference = chunk.policy if policy is None else policy.reference
        self.telemetry.refused(refusal.code, chunk, str(refusal), policy=reference)
        if refusal.code not in NOT_ACKED:
            self.rejections.note(chunk, refusal.code)
        kept = self._letters.keep(letter_of_chunk(chunk, refusal, reference, self._now_ns()))

        def written(done: asyncio.Future[None]) -> None:
            error = done.exception()
            if not future.done():
                future.set_exception(error or refusal)

        kept.add_done_callback(written)


def _who_keeps(chunk: IncomingChunk) -> str:
    """Where a chunk is that came over the forward protocol and is not acked, to stand behind what to do."""
    if chunk.is_replay or chunk.policy is not None:
        return ""
    if chunk.chunk_id is None and chunk.signal:
        return (
            ". Its sender asked for no ack and does not keep it, and of metrics and traces that are not "
            "taken a sample alone is kept here: set require_ack_response in the sender"
        )
    if chunk.chunk_id is None and len(chunk.payload) > MAX_PAYLOAD_BYTES:
        return (
            ". Its sender asked for no ack and does not keep it, and here its beginning alone is kept: set "
            "require_ack_response in the sender, and let it send smaller chunks"
        )
    if chunk.chunk_id is None:
        return (
            ". Its sender asked for no ack and does not keep it: replay the dead letter then, and set "
            "require_ack_response in the sender"
        )
    return (
        ". It is not acked and its connection is closed, so that the sender keeps it and retries, within its "
        "own retry limit"
    )


def _tell_outcome(checked: _Checked) -> None:
    outcome = checked.chunk.outcome
    if outcome is not None:
        outcome.stored_events = checked.events
        outcome.rejected_events = sum(each.events for each in checked.rejected)
        outcome.reason = "; ".join(each.reason for each in checked.rejected)


def _error_of(done: "asyncio.Future[Any]") -> BaseException | None:
    return BusUnavailable("the gateway is stopping") if done.cancelled() else done.exception()


def _pass_on(done: "asyncio.Future[None]", future: "asyncio.Future[None]") -> None:
    if future.done():
        return
    if error := done.exception():
        future.set_exception(error)
    else:
        future.set_result(None)
