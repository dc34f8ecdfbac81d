"""The threads that process streams, allocated so that no policy waits for another.

A fast lane of two threads serves all policies in turn, and within a policy its streams in turn, a slice of 50
ms at a time. A chunk that takes longer than half a second moves to the slow lane with the thread that
processes it; another thread replaces it. Only slow streams use the slow lane: one thread for every policy,
and a second while fewer than six are in use. A stream is fast again after twenty quick chunks.

So a step that sleeps, computes in Python, or never returns, delays only its own policy. The exception is a
call into C that keeps Python's global lock: it blocks every thread.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .stream_work import StreamWork

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
    stream: StreamWork
    policy: str
    began_s: float
    is_fast: bool


class Lanes:
    """Runs `work` on streams that have work, at most one thread for each stream.

    `lock` guards the streams and everything here. `work` receives a stream that its thread has claimed, and
    processes it until its queue is empty or `SLICE_S` has passed. It must not raise.
    """

    def __init__(self, work: Callable[[StreamWork], None]) -> None:
        self._work = work
        self.lock = threading.Lock()
        self._wake = threading.Condition(self.lock)
        self._urgent: deque[StreamWork] = deque()
        self._fast: OrderedDict[str, deque[StreamWork]] = OrderedDict()
        self._slow: OrderedDict[str, deque[StreamWork]] = OrderedDict()
        self._slices: set[_Slice] = set()
        self._fast_running = 0
        self._slow_running: Counter[str] = Counter()
        self._slow_streams: Counter[str] = Counter()
        self._threads = 0
        self._closed = False
        self._quiet = threading.Condition(self.lock)

    def schedule(self, streams: Iterable[StreamWork]) -> None:
        """Under the lock: wakes threads for streams that may have work."""
        count = 0
        for stream in streams:
            # A claimed stream is checked again when its thread releases it.
            if stream.claimed:
                continue
            if stream.snapshot_wanted and not stream.urgent and not self.is_slow(stream):
                stream.urgent = True
                self._urgent.append(stream)
                count += 1
            elif not stream.scheduled:
                lane = self._slow if self.is_slow(stream) else self._fast
                lane.setdefault(stream.policy, deque()).append(stream)
                stream.scheduled = True
                count += 1
        if count:
            self._start_threads()
            self._wake.notify(min(count, MAX_THREADS))

    def is_slow(self, stream: StreamWork) -> bool:
        """Under the lock: whether the stream, or its whole policy, belongs to the slow lane."""
        return stream.slow or self._slow_streams[stream.policy] >= SLOW_STREAMS_A_POLICY

    def look(self) -> list[StreamWork]:
        """Several times a second: moves streams with a long-running chunk to the slow lane, and returns these
        streams.
        """
        moved = []
        with self.lock:
            now_s = time.monotonic()
            for each in self._slices:
                if each.is_fast and now_s - each.began_s >= SLOW_AFTER_S:
                    began_s = each.stream.chunk_began_s
                    if began_s is not None and now_s - began_s >= SLOW_AFTER_S:
                        each.is_fast = False
                        self._fast_running -= 1
                        self._slow_running[each.policy] += 1
                        self._became_slow(each.stream)
                        moved.append(each.stream)
            if moved:
                self._start_threads()
                self._wake.notify_all()
        return moved

    def chunk_done(self, stream: StreamWork, seconds: float) -> None:
        """Under the lock: records how long one chunk took."""
        if seconds >= SLOW_AFTER_S:
            self._became_slow(stream)
            stream.quick_chunks = 0
        elif stream.slow:
            stream.quick_chunks = stream.quick_chunks + 1 if seconds < QUICK_CHUNK_S else 0
            if stream.quick_chunks >= QUICK_CHUNKS:
                self.forget(stream)

    def forget(self, stream: StreamWork) -> None:
        """Under the lock: records that the stream is fast, or closed."""
        if stream.slow:
            stream.slow = False
            stream.quick_chunks = 0
            self._slow_streams[stream.policy] -= 1

    def move(self, stream: StreamWork, policy: str) -> None:
        """Under the lock: records that the chunks of the stream now belong to another policy."""
        if stream.policy != policy:
            was_slow = stream.slow
            self.forget(stream)
            stream.policy = policy
            if was_slow:
                self._became_slow(stream)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Blocks until the condition holds after a thread has released a stream, or until the timeout."""
        with self.lock:
            return self._quiet.wait_for(condition, timeout_s)

    def release(self, stream: StreamWork) -> None:
        """Under the lock: ends the claim on the stream."""
        stream.claimed = False
        if stream.has_work(time.monotonic()):
            self.schedule([stream])
        self._quiet.notify_all()

    def close(self) -> None:
        """Starts no more work. Running threads are daemons and end by themselves."""
        with self.lock:
            self._closed = True
            self._wake.notify_all()

    def _became_slow(self, stream: StreamWork) -> None:
        if not stream.slow and not stream.abandoned:
            stream.slow = True
            self._slow_streams[stream.policy] += 1

    def _start_threads(self) -> None:
        while (
            not self._closed
            and self._threads < MAX_THREADS
            and self._threads - len(self._slices) < self._wanted()
        ):
            self._threads += 1
            threading.Thread(target=self._run, name=f"lane-{self._threads}", daemon=True).start()

    def _wanted(self) -> int:
        """Returns the number of threads that can start work now."""
        fast = FAST_THREADS - self._fast_running if self._urgent or self._fast else 0
        return max(fast, 0) + sum(self._may_begin_slow(policy) for policy in self._slow)

    def _run(self) -> None:
        while (taken := self._wait_for_slice()) is not None:
            self._work(taken.stream)
            with self.lock:
                self._slices.discard(taken)
                if taken.is_fast:
                    self._fast_running -= 1
                else:
                    self._slow_running[taken.policy] -= 1
                self.release(taken.stream)

    def _wait_for_slice(self) -> _Slice | None:
        """Returns the next stream to process; None if this thread is to end."""
        with self.lock:
            while not self._closed:
                if (taken := self._take()) is not None:
                    return taken
                self._wake.wait()
            self._threads -= 1
            return None

    def _take(self) -> _Slice | None:
        """Under the lock: claims and returns the next stream; None if no stream may start now."""
        stream = None
        is_fast = self._fast_running < FAST_THREADS
        if is_fast:
            stream = self._take_urgent() or self._take_from(self._fast, lambda _: True)
        if stream is None:
            is_fast = False
            stream = self._take_from(self._slow, self._may_begin_slow)
        if stream is None:
            return None
        taken = _Slice(stream, stream.policy, time.monotonic(), is_fast)
        self._slices.add(taken)
        if is_fast:
            self._fast_running += 1
        else:
            self._slow_running[stream.policy] += 1
        stream.claimed = True
        return taken

    def _may_begin_slow(self, policy: str) -> bool:
        """A policy always gets one thread; it gets a second only while few threads are in use."""
        running = self._slow_running[policy]
        return not running or (running < SLOW_THREADS_A_POLICY and self._slow_running.total() < SLOW_THREADS)

    def _take_urgent(self) -> StreamWork | None:
        while self._urgent:
            stream = self._urgent.popleft()
            stream.urgent = False
            if not stream.claimed:
                return stream
        return None

    def _take_from(
        self, lane: OrderedDict[str, deque[StreamWork]], may_begin: Callable[[str], bool]
    ) -> StreamWork | None:
        for _ in range(len(lane)):
            policy = next(iter(lane))
            lane.move_to_end(policy)
            waiting = lane[policy]
            while waiting and may_begin(policy):
                stream = waiting.popleft()
                stream.scheduled = False
                if not stream.claimed:
                    if not waiting:
                        del lane[policy]
                    return stream
            if not waiting:
                del lane[policy]
        return None
