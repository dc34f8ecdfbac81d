"""The decision about a chunk: policy, checks, duplicates, bus; what may not enter goes to the dead letters.

Both doors (forward protocol and HTTP) hand their chunks to `Gateway.submit` and learn from its future what
became of them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import msgspec

from ..bus.envelope import ChunkMessage, encode_chunk
from ..bus.interface import Producer
from ..config import GatewaySettings
from ..errors import BusUnavailable, ChunkRefused
from ..events import chunk_key
from ..store.dead_letters import DeadLetter, DeadLetters
from ..store.policy import Policy
from .payload import count_events, decompress
from .policy_book import PolicyBook
from .telemetry import GatewayTelemetry

NO_POLICY = "no-policy"
_REMEMBERED_CHUNKS = 100_000
_MAX_TAG_BYTES = 200
CHUNK_OVERHEAD_BYTES = 2048
"""What a pending chunk is taken to cost beside its payload, so that tiny ones are bounded too."""
_SIGNALS = {1: "metrics", 2: "traces", 3: "profiles"}


def charge(payload: bytes | memoryview) -> int:
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


class Gateway:
    """Takes chunks, and says what became of each.

    Memory: the payloads of pending chunks (the doors stop reading over `settings.pending_bytes`), as many
    bytes again that wait for the dead letters at most, and the keys of the last 100,000 chunk ids.
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
        self._producer = producer
        self._policies = policies
        self._dead_letters = dead_letters
        self._now_ns = now_ns
        self._writing_dead_letters = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        self._dead_letter_pending_bytes = 0
        self._pending_bytes = 0
        self._recent: OrderedDict[bytes, asyncio.Future[None]] = OrderedDict()
        self._room_waiters: set[Callable[[], None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        telemetry.pending_bytes = lambda: self._pending_bytes

    @property
    def over_budget(self) -> bool:
        """More bytes are pending than the gateway may hold: stop reading, and ask to be told of room."""
        return self._pending_bytes >= self.settings.pending_bytes

    def when_room(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once, when a quarter of the budget is free again."""
        self._room_waiters.add(callback)

    def submit(self, chunk: IncomingChunk) -> asyncio.Future[None]:
        """Decides about `chunk`. The future ends

        - with None once the chunk is durable on the bus (or was before: a retransmission);
        - with ChunkRefused once its bytes are in the dead letters (`code` says why);
        - with BusUnavailable where neither could be done: it is still the sender's.

        Cancelling the future does not take the chunk back.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hold(charge(chunk.payload), future)
        try:
            _check_tag(chunk.tag)
            policy = self._route(chunk)
            if policy is None:
                self._start(self._route_after_refresh(chunk, future))
            else:
                self._accept(chunk, policy, future)
        except ChunkRefused as refusal:
            self._refuse(chunk, refusal, future)
        except Exception as error:
            self._fail(error, future)
        return future

    def keep_broken_bytes(self, pending: memoryview, *, sender: str, reason: str) -> None:
        """What came of a message on a connection that had to be closed goes to the dead letters."""
        chunk = IncomingChunk(
            sender=sender, tag="", payload=bytes(pending[: self.settings.max_message_bytes])
        )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.exception())
        self._refuse(chunk, ChunkRefused("framing", reason), future)

    async def close(self) -> None:
        """Waits for what is being decided and written."""
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._writing_dead_letters.shutdown)

    def _hold(self, size: int, future: asyncio.Future[None]) -> None:
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
        await self._policies.refresh()
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
            self._accept(chunk, policy, future)
        except ChunkRefused as refusal:
            self._refuse(chunk, refusal, future)
        except Exception as error:
            self._fail(error, future)

    def _fail(self, error: Exception, future: asyncio.Future[None]) -> None:
        """Whatever went wrong, it is still the sender's, and the budget has its bytes back."""
        self.telemetry.bus_unavailable(error)
        future.set_exception(BusUnavailable(f"the chunk could not be published: {error}"))

    def _accept(self, chunk: IncomingChunk, policy: Policy, future: asyncio.Future[None]) -> None:
        if chunk.policy is not None and not self._policies.takes(policy, chunk.tag):
            raise ChunkRefused(
                "tag-not-allowed",
                f"policy {policy.reference!r} does not take the tag {chunk.tag!r}; "
                f"its tags: {', '.join(policy.tags)}",
            )
        key = chunk_key(chunk.sender, chunk.tag, chunk.chunk_id) if chunk.chunk_id else None
        if key is not None and (first := self._recent.get(key)) is not None:
            self.telemetry.chunk_repeated()
            first.add_done_callback(lambda done: _pass_on(done, future))
            return
        payload, events = self._check(chunk, policy)
        if not events:
            future.set_result(None)
            return
        if payload is not chunk.payload:
            self._hold(len(payload), future)  # unpacked: both are kept until it is durable
        message = ChunkMessage(
            tag=chunk.tag,
            sender=chunk.sender,
            chunk_id=chunk.chunk_id,
            received_ns=self._now_ns(),
            events=events,
            payload=b"",
        )
        durable = self._producer.publish(
            policy.reference, chunk.tag.encode(), *encode_chunk(message, payload)
        )
        if key is not None:
            self._remember(key, future)
        size = len(payload)

        def published(done: asyncio.Future[int]) -> None:
            error = BusUnavailable("the gateway is stopping") if done.cancelled() else done.exception()
            if error is None:
                self.telemetry.chunk_stored(events=events, size=size)
            else:
                self.telemetry.bus_unavailable(error)
                if key is not None:
                    self._recent.pop(key, None)
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        durable.add_done_callback(published)

    def _remember(self, key: bytes, future: asyncio.Future[None]) -> None:
        self._recent[key] = future
        if len(self._recent) > _REMEMBERED_CHUNKS:
            self._recent.popitem(last=False)

    def _check(self, chunk: IncomingChunk, policy: Policy) -> tuple[bytes | memoryview, int]:
        """The payload, uncompressed, and how many well-formed events it has."""
        limits = policy.limits
        if chunk.signal:
            what = _SIGNALS.get(chunk.signal, f"signal {chunk.signal}")
            raise ChunkRefused("not-logs", f"the chunk carries {what}, no events; send logs only")
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
        events = chunk.events
        if events is None:
            events = count_events(payload, chunk.size_hint)
        if events > limits.events_per_chunk:
            raise ChunkRefused(
                "too-many-events",
                f"the chunk has {events} events, "
                f"policy {policy.reference!r} takes {limits.events_per_chunk}; "
                "send smaller chunks, or raise limits.events_per_chunk",
            )
        return payload, events

    def _refuse(self, chunk: IncomingChunk, refusal: ChunkRefused, future: asyncio.Future[None]) -> None:
        """Keeps the bytes, then ends `future` with the refusal."""
        self.telemetry.refused(code=refusal.code, sender=chunk.sender, tag=chunk.tag, reason=str(refusal))
        size = charge(chunk.payload)
        if self._dead_letter_pending_bytes + size > self.settings.pending_bytes:
            full = BusUnavailable(
                "too much refused input waits to be kept; it is not acked, the sender keeps it"
            )
            self.telemetry.dead_letter_lost(full)
            future.set_exception(full)
            return
        letter = DeadLetter(
            code=refusal.code,
            reason=str(refusal),
            tag=chunk.tag,
            sender=chunk.sender,
            policy=chunk.policy,
            payload=bytes(chunk.payload),
            time_ns=self._now_ns(),
        )
        self._dead_letter_pending_bytes += size
        kept = asyncio.get_running_loop().run_in_executor(
            self._writing_dead_letters, self._dead_letters.add, letter
        )

        def written(done: asyncio.Future[int]) -> None:
            self._dead_letter_pending_bytes -= size
            error = done.exception()
            if error is not None:
                self.telemetry.dead_letter_lost(error)
            if not future.done():
                future.set_exception(
                    BusUnavailable(f"the dead letters failed: {error}") if error else refusal
                )

        kept.add_done_callback(written)


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
