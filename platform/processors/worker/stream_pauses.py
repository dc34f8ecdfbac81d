"""Streams that are paused for a time: another process writes them, or a chunk of them is to be retried."""

import time

from .stream_executor import StreamExecutor
from .stream_state import StreamState

_RESERVED = "another process, such as `windvane reprocess`, writes it"


class StreamPauses:
    """Pauses streams and resumes them when their time has passed. Guarded by the lock of the executor.

    Memory: the paused streams, and the names that are reserved for another process.
    """

    def __init__(self, executor: StreamExecutor) -> None:
        self._executor = executor
        self._paused: set[StreamState] = set()
        self._reserved_until_s: dict[str, float] = {}

    def pause(self, stream: StreamState, seconds: float, reason: str) -> None:
        """Under the lock: pauses the stream for this time."""
        stream.paused_until_s, stream.wait_reason = time.monotonic() + seconds, reason
        self._paused.add(stream)

    def reserve(self, reference: str, seconds: float, stream: StreamState | None) -> None:
        """Under the lock: reserves the name for another process for this time, and pauses its stream."""
        now_s = time.monotonic()
        self._reserved_until_s = {name: at for name, at in self._reserved_until_s.items() if at > now_s}
        self._reserved_until_s[reference] = now_s + seconds
        if stream is not None:
            self.pause(stream, seconds, _RESERVED)

    def apply_reservation(self, stream: StreamState) -> None:
        """Under the lock: pauses a new stream if its name is reserved."""
        seconds = self._reserved_until_s.get(stream.reference, 0.0) - time.monotonic()
        if seconds > 0:
            self.pause(stream, seconds, _RESERVED)

    def resume_due(self) -> None:
        """Resumes streams whose pause has ended. Called several times a second."""
        now_s = time.monotonic()
        with self._executor.lock:
            due = [stream for stream in self._paused if stream.paused_until_s <= now_s]
            self._paused.difference_update(due)
            for stream in due:
                stream.paused_until_s, stream.wait_reason = 0.0, None
            self._executor.schedule(stream for stream in due if stream.has_work(now_s))
