"""The decision about a chunk: policy, checks, duplicates, bus; what may not enter goes to the dead letters.

Both doors (forward protocol and HTTP) hand their chunks to `Gateway.submit` and learn from its future what
became of them.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import msgspec

from ..bus.envelope import ChunkMessage
from ..bus.interface import Producer
from ..config import GatewaySettings
from ..errors import BusUnavailable, ChunkRefused, RateExceeded
from ..events import chunk_key, content_key, is_stored_anew
from ..store.dead_letters import DeadLetter, DeadLetters
from ..store.policy import Policy
from .http_formats import EVENTS
from .payload import count_events, decompress
from .policy_book import InForce, PolicyBook
from .rate_limit import RateLimit
from .receive_budget import ReceiveBudget
from .schema import Sifted
from .splitting import publish_chunk, require_fitting
from .telemetry import GatewayTelemetry

NO_POLICY = "no-policy"
SENDER_NOT_ALLOWED = "sender-not-allowed"
INVALID_RECORDS = "schema"
NOT_ACKED = frozenset({NO_POLICY, SENDER_NOT_ALLOWED})
"""Refusals after which the sender keeps its chunk, so that it enters once somebody lets it in."""
_REMEMBERED_CHUNKS = 100_000
_MAX_TAG_BYTES = 200
CHUNK_OVERHEAD_BYTES = 2048
"""What a pending chunk is taken to cost beside its payload, so that tiny ones are bounded too."""
_SIGNALS = {1: "metrics", 2: "traces", 3: "profiles"}


def charge(payload: bytes | bytearray | memoryview) -> int:
    """What a pending chunk counts for, against the window and the budget."""
    return len(payload) + CHUNK_OVERHEAD_BYTES


class IncomingChunk(msgspec.Struct, frozen=True):
    """What a door took in, before anything was decided."""

    sender: str
    tag: str
    payload: bytes | memoryview
    events: int | None = None
    """Known and checked already, else None."""
    size_hint: int | None = None
    chunk_id: bytes | None = None
    compression: str = "text"
    signal: int = 0
    policy: str | None = None
    """The policy that the sender named; None: the tag decides."""
    identity: str | None = None
    """Who proved to send it: the user of the handshake, else the name in the client certificate, else the
    hostname that had its own or the shared key; None where the door asks for no authentication."""
    over_rate: Literal["wait", "refuse"] = "wait"
    """What to do over the policy's rates: keep it in line, or fail with RateExceeded at once."""
    body: "PostedBody | None" = None
    """What the payload was made from: a dead letter keeps that in its place."""
    is_replay: bool = False
    """It comes from the dead letters, where it stays if it is refused again."""


class _Checked(msgspec.Struct, frozen=True):
    """A chunk that may enter, or what is left of it."""

    chunk: IncomingChunk
    policy: Policy
    payload: bytes | memoryview
    events: int
    sifted: Sifted | None
    """Where some of its events were invalid: those go to the dead letters when the others are published."""
    key: bytes | None
    """By which it is known when it is sent again."""


class PostedBody(msgspec.Struct, frozen=True):
    """A body as it was posted, before a door made events of it."""

    data: bytes | bytearray
    compression: str
    format: str
    size_bytes: int | None = None
    """Of the whole, where `data` is only its beginning."""


class Gateway:
    """Takes chunks, and says what became of each.

    Memory: the payloads of pending chunks and, up to half of it, the messages that are still being received
    (the doors stop reading over `settings.pending_bytes`; at most a quarter of it waits for a policy's rate),
    as many bytes again that wait for the dead letters at most, and the keys of the last 100,000 chunks that
    have one.
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
        self._dead_letters = dead_letters
        self._now_ns = now_ns
        self._writing_dead_letters = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        self._dead_letter_pending_bytes = 0
        self._pending_bytes = 0
        self._recent: OrderedDict[bytes, asyncio.Future[None]] = OrderedDict()
        self._held: dict[asyncio.Future[None], RateLimit] = {}
        self._held_bytes = 0
        self._routing: set[asyncio.Future[None]] = set()
        self._stopping = False
        self._room_waiters: set[Callable[[], None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
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

        Cancelling the future does not take the chunk back.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count(charge(chunk.payload), future)
        policy = None
        try:
            _check_tag(chunk.tag)
            policy = self._route(chunk)
            if policy is None:
                self._routing.add(future)
                self._start(self._route_after_refresh(chunk, future))
            else:
                self._accept(chunk, self._policies.in_force(policy), future)
        except ChunkRefused as refusal:
            self._refuse(chunk, refusal, future, policy)
        except Exception as error:
            self._fail(error, future)
        return future

    def is_held(self, future: asyncio.Future[None]) -> bool:
        """Whether a chunk that was submitted waits for its policy's rate, or for its policy to be looked up.

        Its sender is to wait too.
        """
        return future in self._held or future in self._routing

    def stop_holding(self) -> None:
        """Lets all that wait for a rate go at once, and nothing wait from now on: the gateway stops."""
        self._stopping = True
        for rate in set(self._held.values()):
            rate.open()

    def keep_broken_bytes(self, pending: memoryview, *, sender: str, reason: str) -> None:
        """What came of a message on a connection that had to be closed goes to the dead letters."""
        chunk = IncomingChunk(
            sender=sender, tag="", payload=bytes(pending[: self.settings.max_message_bytes])
        )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.exception())
        self._refuse(chunk, ChunkRefused("framing", reason), future)

    def refuse(self, chunk: IncomingChunk, refusal: ChunkRefused) -> asyncio.Future[None]:
        """What a door could make nothing of goes to the dead letters; the future ends as that of `submit`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refuse(chunk, refusal, future)
        return future

    async def close(self) -> None:
        """Waits for what is being decided and written."""
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._writing_dead_letters.shutdown)

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

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _route(self, chunk: IncomingChunk) -> Policy | None:
        if chunk.policy is None:
            return self._policies.match(chunk.tag)
        return self._policies.get(chunk.policy)

    async def _route_after_refresh(self, chunk: IncomingChunk, future: asyncio.Future[None]) -> None:
        """A policy may have been made a moment ago: look before the tag is called unknown."""
        try:
            await self._policies.refresh()
        finally:
            self._routing.discard(future)
        policy = None
        try:
            policy = self._route(chunk)
            if policy is None and chunk.policy is not None:
                raise ChunkRefused(
                    NO_POLICY, f"there is no policy {chunk.policy!r}; see `windvane policy list`"
                )
            if policy is None:
                raise ChunkRefused(
                    NO_POLICY,
                    f"no policy takes the tag {chunk.tag!r}; make one with `windvane policy create`. "
                    "It is not acked, so that the sender keeps it until then",
                )
            self._accept(chunk, self._policies.in_force(policy), future)
        except ChunkRefused as refusal:
            self._refuse(chunk, refusal, future, policy)
        except Exception as error:
            self._fail(error, future)

    def _fail(self, error: Exception, future: asyncio.Future[None]) -> None:
        """Whatever went wrong, it is still the sender's, and the budget has its bytes back."""
        self.telemetry.bus_unavailable(error)
        if not future.done():
            future.set_exception(BusUnavailable(f"the chunk could not be published: {error}"))

    def _accept(self, chunk: IncomingChunk, rules: InForce, future: asyncio.Future[None]) -> None:
        policy = rules.policy
        if chunk.policy is not None and not self._policies.takes(policy, chunk.tag):
            raise ChunkRefused(
                "tag-not-allowed",
                f"policy {policy.reference!r} does not take the tag {chunk.tag!r}; "
                f"its tags: {', '.join(policy.tags)}",
            )
        if not rules.admission.allows(chunk.sender, chunk.identity):
            who = "nobody known" if chunk.identity is None else repr(chunk.identity)
            raise ChunkRefused(
                SENDER_NOT_ALLOWED,
                f"policy {policy.reference!r} does not let {who} at {chunk.sender} send {chunk.tag!r}; "
                "add the identity or the network to a rule of `allow`",
            )
        key = None
        by_id = policy.suppress_repeats == "chunk-id" or chunk.is_replay
        if by_id and chunk.chunk_id:
            key = chunk_key(chunk.sender, chunk.tag, chunk.chunk_id)
            if self._is_repeated(key, future):
                return
        payload = self._unpack(chunk, policy)
        if policy.suppress_repeats == "content" and not is_stored_anew(chunk.chunk_id):
            key = content_key(chunk.sender, chunk.tag, payload)
            if self._is_repeated(key, future):
                return
        if payload is not chunk.payload:
            self._count(len(payload), future)  # unpacked: both are kept until it is durable
        checked = self._check(chunk, payload, rules, key)
        if not checked.events and checked.sifted is None:
            future.set_result(None)
        elif (
            not checked.events
            or rules.rate.try_take(events=checked.events, size=len(checked.payload))
            or self._stopping
        ):
            self._publish(checked, future)
        else:
            self._hold(checked, rules.rate, future)

    def _is_repeated(self, key: bytes, future: asyncio.Future[None]) -> bool:
        """Whether a chunk of that key is known; `future` then ends as the first one's."""
        first = self._recent.get(key)
        if first is None:
            return False
        self.telemetry.chunk_repeated()
        first.add_done_callback(lambda done: _pass_on(done, future))
        return True

    def _remember(self, key: bytes, future: asyncio.Future[None]) -> None:
        self._recent[key] = future
        if len(self._recent) > _REMEMBERED_CHUNKS:
            self._recent.popitem(last=False)

    def _hold(self, checked: _Checked, rate: RateLimit, future: asyncio.Future[None]) -> None:
        """Keeps a chunk until its policy's rate lets it through; its door reads no more meanwhile."""
        chunk, size = checked.chunk, len(checked.payload)
        reason = (
            f"policy {checked.policy.reference!r} takes no more now, by limits.events_per_s or bytes_per_s"
        )
        full = self._held_bytes + size > self.settings.pending_bytes // 4
        if full and chunk.over_rate == "wait" and chunk.chunk_id is None:
            # Nobody waits for an ack, so nobody would send it again.
            raise ChunkRefused("over-rate", f"{reason}, and too much waits already; send more slowly")
        if full or chunk.over_rate == "refuse":
            self.telemetry.refused(code="over-rate", sender=chunk.sender, tag=chunk.tag, reason=reason)
            wait_s = rate.wait_s(events=checked.events, size=size)
            future.set_exception(
                RateExceeded(f"{reason}; send it again later", retry_after_s=max(1, math.ceil(wait_s)))
            )
            return
        # A copy: a slice would hold on to all that came with it.
        checked = msgspec.structs.replace(checked, payload=bytes(checked.payload))
        self._held[future] = rate
        self._held_bytes += size
        if checked.key is not None:
            self._remember(checked.key, future)

        def go() -> None:
            del self._held[future]
            self._held_bytes -= size
            self._publish(checked, future)

        rate.put_in_line(events=checked.events, size=size, go=go)

    def _publish(self, checked: _Checked, future: asyncio.Future[None]) -> None:
        chunk, policy, key = checked.chunk, checked.policy, checked.key
        parts: list[asyncio.Future[Any]] = []
        if checked.sifted is not None:
            parts.append(self._keep_invalid(chunk, policy, checked.sifted))
        if checked.events:
            durable = publish_chunk(
                self._producer,
                policy.reference,
                self._message(chunk, checked.events),
                checked.payload,
                durability=policy.durability,
            )
            parts.append(durable)
        if key is not None:
            self._remember(key, future)
        unfinished = len(parts)

        def part_done(_: asyncio.Future[Any]) -> None:
            nonlocal unfinished
            unfinished -= 1
            if unfinished:
                return
            error = next(filter(None, map(_error_of, parts)), None)
            if checked.events and _error_of(durable) is None:
                self.telemetry.chunk_stored(events=checked.events, size=len(checked.payload))
            if error is not None:
                self.telemetry.bus_unavailable(error)
                if key is not None:
                    self._recent.pop(key, None)
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        for part in parts:
            part.add_done_callback(part_done)

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

    def _unpack(self, chunk: IncomingChunk, policy: Policy) -> bytes | memoryview:
        """The payload, uncompressed."""
        if chunk.signal:
            what = _SIGNALS.get(chunk.signal, f"signal {chunk.signal}")
            raise ChunkRefused("not-logs", f"the chunk carries {what}, no events; send logs only")
        limits = policy.limits
        payload = chunk.payload
        if chunk.compression != "text":
            limit = min(limits.chunk_bytes, self.settings.max_decompressed_bytes)
            payload = decompress(payload, chunk.compression, max_bytes=limit)
        if len(payload) > limits.chunk_bytes:
            raise ChunkRefused(
                "too-large",
                f"the chunk has {len(payload)} bytes, "
                f"policy {policy.reference!r} takes {limits.chunk_bytes}; "
                "send smaller chunks, or raise limits.chunk_bytes",
            )
        return payload

    def _check(
        self, chunk: IncomingChunk, payload: bytes | memoryview, rules: InForce, key: bytes | None
    ) -> _Checked:
        """All its events, well-formed, and valid where the policy says what that is."""
        policy = rules.policy
        events = chunk.events
        if events is None:
            events = count_events(payload, chunk.size_hint)
        if events > policy.limits.events_per_chunk:
            raise ChunkRefused(
                "too-many-events",
                f"the chunk has {events} events, "
                f"policy {policy.reference!r} takes {policy.limits.events_per_chunk}; "
                "send smaller chunks, or raise limits.events_per_chunk",
            )
        sifted = None
        if rules.check is not None:
            sifted = rules.check.sift(payload, events, now_ns=self._now_ns())
        if sifted is not None:
            if policy.invalid_records == "refuse" or (chunk.is_replay and not sifted.valid_events):
                raise ChunkRefused(INVALID_RECORDS, _about_invalid(sifted))
            payload, events = sifted.valid, sifted.valid_events
        if len(payload) > self._producer.max_message_bytes // 2:
            require_fitting(self._producer, self._message(chunk, events), payload)
        return _Checked(chunk, policy, payload, events, sifted, key)

    def _keep_invalid(self, chunk: IncomingChunk, policy: Policy, sifted: Sifted) -> asyncio.Future[None]:
        reason = _about_invalid(sifted)
        self.telemetry.refused(code=INVALID_RECORDS, sender=chunk.sender, tag=chunk.tag, reason=reason)
        return self._keep(
            DeadLetter(
                code=INVALID_RECORDS,
                reason=reason,
                tag=chunk.tag,
                sender=chunk.sender,
                policy=policy.reference,
                # Without the chunk's id, under which the valid ones are known.
                payload=sifted.invalid,
                time_ns=self._now_ns(),
                # Says that its sender named the policy, to which a replay goes then too.
                format=EVENTS if chunk.policy is not None else "",
                identity=chunk.identity,
            )
        )

    def _refuse(
        self,
        chunk: IncomingChunk,
        refusal: ChunkRefused,
        future: asyncio.Future[None],
        policy: Policy | None = None,
    ) -> None:
        """Keeps the bytes, then ends `future` with the refusal."""
        if chunk.is_replay:
            future.set_exception(refusal)
            return
        body = chunk.body or PostedBody(bytes(chunk.payload), chunk.compression, "")
        self.telemetry.refused(code=refusal.code, sender=chunk.sender, tag=chunk.tag, reason=str(refusal))
        kept = self._keep(
            DeadLetter(
                code=refusal.code,
                reason=str(refusal),
                tag=chunk.tag,
                sender=chunk.sender,
                policy=chunk.policy if policy is None else policy.reference,
                payload=bytes(body.data),
                time_ns=self._now_ns(),
                chunk_id=chunk.chunk_id,
                compression=body.compression,
                signal=chunk.signal,
                format=body.format,
                identity=chunk.identity,
                size=body.size_bytes,
            )
        )

        def written(done: asyncio.Future[None]) -> None:
            error = done.exception()
            if not future.done():
                future.set_exception(error or refusal)

        kept.add_done_callback(written)

    def _keep(self, letter: DeadLetter) -> asyncio.Future[None]:
        """Writes a dead letter; the future ends with None, or BusUnavailable where it cannot be kept."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = charge(letter.payload)
        if self._dead_letter_pending_bytes + size > self.settings.pending_bytes:
            full = BusUnavailable(
                "too much refused input waits to be kept; it is not acked, the sender keeps it"
            )
            self.telemetry.dead_letter_lost(full)
            kept.set_exception(full)
            return kept
        self._dead_letter_pending_bytes += size
        writing = asyncio.get_running_loop().run_in_executor(
            self._writing_dead_letters, self._dead_letters.add, letter
        )

        def written(done: asyncio.Future[int]) -> None:
            self._dead_letter_pending_bytes -= size
            error = done.exception()
            if error is None:
                kept.set_result(None)
            else:
                self.telemetry.dead_letter_lost(error)
                kept.set_exception(BusUnavailable(f"the dead letters failed: {error}"))

        writing.add_done_callback(written)
        return kept


def _about_invalid(sifted: Sifted) -> str:
    total = sifted.valid_events + sifted.invalid_events
    return f"{sifted.invalid_events} of {total} events are not what the policy asks for: {sifted.reason}"


def _error_of(done: "asyncio.Future[Any]") -> BaseException | None:
    return BusUnavailable("the gateway is stopping") if done.cancelled() else done.exception()


def _pass_on(done: "asyncio.Future[None]", future: "asyncio.Future[None]") -> None:
    if future.done():
        return
    if error := done.exception():
        future.set_exception(error)
    else:
        future.set_result(None)


def _check_tag(tag: str) -> None:
    """A tag names the data stream: it must be printable, short, and leave ':' to the outputs."""
    if not tag or len(tag.encode()) > _MAX_TAG_BYTES or ":" in tag or not tag.isprintable():
        raise ChunkRefused(
            "bad-tag",
            f"the tag {tag!r:.80} must have 1 to {_MAX_TAG_BYTES} printable bytes and no ':'; rename it",
        )
