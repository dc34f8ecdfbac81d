"""The threads that process streams, allocated so that no policy waits for another.

Two fast threads serve all policies in turn, and within a policy its streams in turn, a slice of 50 ms at a
time. If a chunk takes longer than half a second, its thread becomes a slow one and another thread replaces
it. The stream is then slow: only slow threads process it, one for every policy, and a second while fewer than
six are in use. A stream is fast again after twenty quick chunks.

So a step that sleeps, computes in Python, or never returns, delays only its own policy. The exception is a
call into C that keeps Python's global lock: it blocks every thread.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .stream_state import StreamState

FAST_THREADS = 2
SLOW_THREADS = 6
SLOW_THREADS_A_POLICY = 2
MAX_THREADS = 64
"""Upper bound including threads with a slow chunk: each of these was replaced by another thread."""
SLICE_S = 0.05
SLOW_AFTER_S = 0.5
SLOW_STREAMS_A_POLICY = 4
"""A policy with this many slow streams is slow as a whole."""
QUICK_CHUNK_S = 0.1
QUICK_CHUNKS = 20


@dataclass(slots=True, eq=False)
class _Slice:
    stream: StreamState
    policy: str
    began_s: float
    is_fast: bool


class StreamExecutor:
    """Runs `work` on streams that have work, at most one thread for each stream.

    `lock` guards the streams and everything here. `work` receives a stream that its thread has claimed, and
    processes it until its queue is empty or `SLICE_S` has passed. It must not raise.
    """

    def __init__(self, work: Callable[[StreamState], None]) -> None:
        self._work = work
        self.lock = threading.Lock()
        self._wake = threading.Condition(self.lock)
        self._urgent: deque[StreamState] = deque()
        self._fast_queues: OrderedDict[str, deque[StreamState]] = OrderedDict()
        self._slow_queues: OrderedDict[str, deque[StreamState]] = OrderedDict()
        self._slices: set[_Slice] = set()
        self._fast_running = 0
        self._slow_running: Counter[str] = Counter()
        self._slow_streams: Counter[str] = Counter()
        self._threads = 0
        self._closed = False
        self._released = threading.Condition(self.lock)

    def schedule(self, streams: Iterable[StreamState]) -> None:
        """Under the lock: wakes threads for streams that may have work."""
        count = 0
        for stream in streams:
            # A claimed stream is checked again when its thread releases it.
            if stream.claimed:
                continue
            if stream.snapshot_requested and not stream.urgent and not self.is_slow(stream):
                stream.urgent = True
                self._urgent.append(stream)
                count += 1
            elif not stream.scheduled:
                queues = self._slow_queues if self.is_slow(stream) else self._fast_queues
                queues.setdefault(stream.policy, deque()).append(stream)
                stream.scheduled = True
                count += 1
        if count:
            self._start_threads()
            self._wake.notify(min(count, MAX_THREADS))

    def is_slow(self, stream: StreamState) -> bool:
        """Under the lock: whether the stream, or its whole policy, is processed by slow threads."""
        return stream.slow or self._slow_streams[stream.policy] >= SLOW_STREAMS_A_POLICY

    def find_slow_streams(self) -> list[StreamState]:
        """Marks streams with a long-running chunk as slow and returns them. Called several times a second."""
        found = []
        with self.lock:
            now_s = time.monotonic()
            for each in self._slices:
                if each.is_fast and now_s - each.began_s >= SLOW_AFTER_S:
                    began_s = each.stream.chunk_began_s
                    if began_s is not None and now_s - began_s >= SLOW_AFTER_S:
                        each.is_fast = False
                        self._fast_running -= 1
                        self._slow_running[each.policy] += 1
                        self._mark_slow(each.stream)
                        found.append(each.stream)
            if found:
                self._start_threads()
                self._wake.notify_all()
        return found

    def record_duration(self, stream: StreamState, seconds: float) -> None:
        """Under the lock: records how long one chunk took."""
        if seconds >= SLOW_AFTER_S:
            self._mark_slow(stream)
            stream.quick_chunks = 0
        elif stream.slow:
            stream.quick_chunks = stream.quick_chunks + 1 if seconds < QUICK_CHUNK_S else 0
            if stream.quick_chunks >= QUICK_CHUNKS:
                self.mark_fast(stream)

    def mark_fast(self, stream: StreamState) -> None:
        """Under the lock: records that the stream is fast, or closed."""
        if stream.slow:
            stream.slow = False
            stream.quick_chunks = 0
            self._slow_streams[stream.policy] -= 1

    def set_policy(self, stream: StreamState, policy: str) -> None:
        """Under the lock: records that the chunks of the stream now belong to another policy."""
        if stream.policy != policy:
            was_slow = stream.slow
            self.mark_fast(stream)
            stream.policy = policy
            if was_slow:
                self._mark_slow(stream)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Blocks until the condition holds after a thread has released a stream, or until the timeout."""
        with self.lock:
            return self._released.wait_for(condition, timeout_s)

    def release(self, stream: StreamState) -> None:
        """Under the lock: ends the claim on the stream."""
        stream.claimed = False
        if stream.has_work(time.monotonic()):
            self.schedule([stream])
        self._released.notify_all()

    def close(self) -> None:
        """Starts no more work. Running threads are daemons and end by themselves."""
        with self.lock:
            self._closed = True
            self._wake.notify_all()

    def _mark_slow(self, stream: StreamState) -> None:
        if not stream.slow and not stream.abandoned:
            stream.slow = True
            self._slow_streams[stream.policy] += 1

    def _start_threads(self) -> None:
        while (
            not self._closed
            and self._threads < MAX_THREADS
            and self._threads - len(self._slices) < self._free_slots()
        ):
            self._threads += 1
            threading.Thread(target=self._run, name=f"stream-{self._threads}", daemon=True).start()

    def _free_slots(self) -> int:
        """Returns the number of threads that may start a slice now."""
        fast = FAST_THREADS - self._fast_running if self._urgent or self._fast_queues else 0
        return max(fast, 0) + sum(self._may_start_slow(policy) for policy in self._slow_queues)

    def _run(self) -> None:
        while (claimed := self._wait_for_slice()) is not None:
            self._work(claimed.stream)
            with self.lock:
                self._slices.discard(claimed)
                if claimed.is_fast:
                    self._fast_running -= 1
                else:
                    self._slow_running[claimed.policy] -= 1
                self.release(claimed.stream)

    def _wait_for_slice(self) -> _Slice | None:
        """Returns the next stream to process; None if this thread is to end."""
        with self.lock:
            while not self._closed:
                if (claimed := self._claim_next()) is not None:
                    return claimed
                self._wake.wait()
            self._threads -= 1
            return None

    def _claim_next(self) -> _Slice | None:
        """Under the lock: claims and returns the next stream; None if no stream may start now."""
        stream = None
        is_fast = self._fast_running < FAST_THREADS
        if is_fast:
            stream = self._next_urgent() or self._next_of(self._fast_queues, lambda _: True)
        if stream is None:
            is_fast = False
            stream = self._next_of(self._slow_queues, self._may_start_slow)
        if stream is None:
            return None
        claimed = _Slice(stream, stream.policy, time.monotonic(), is_fast)
        self._slices.add(claimed)
        if is_fast:
            self._fast_running += 1
        else:
            self._slow_running[stream.policy] += 1
        stream.claimed = True
        return claimed

    def _may_start_slow(self, policy: str) -> bool:
        """A policy always gets one thread; it gets a second only while few threads are in use."""
        running = self._slow_running[policy]
        return not running or (running < SLOW_THREADS_A_POLICY and self._slow_running.total() < SLOW_THREADS)

    def _next_urgent(self) -> StreamState | None:
        while self._urgent:
            stream = self._urgent.popleft()
            stream.urgent = False
            if not stream.claimed:
                return stream
        return None

    def _next_of(
        self, queues: OrderedDict[str, deque[StreamState]], may_start: Callable[[str], bool]
    ) -> StreamState | None:
        for _ in range(len(queues)):
            policy = next(iter(queues))
            queues.move_to_end(policy)
            waiting = queues[policy]
            while waiting and may_start(policy):
                stream = waiting.popleft()
                stream.scheduled = False
                if not stream.claimed:
                    if not waiting:
                        del queues[policy]
                    return stream
            if not waiting:
                del queues[policy]
        return None
