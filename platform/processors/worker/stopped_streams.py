"""Retries stopped streams: the disk may have room again, or a file was restored or repaired."""

import threading
import time
from collections.abc import Callable

from .open_streams import OpenStreams
from .stream_executor import StreamExecutor
from .stream_state import FIRST_RETRY_S, StreamState

MAX_RETRY_S = 60.0
RETRIES_AT_ONCE = 16
_POLL_S = 0.5


class StoppedStreams:
    """Resumes streams, a few at a time, each after a pause that doubles.

    First it opens the stream's files (`probe`). If that succeeds, the partition is reread from the stream's
    committed position; the other streams of the partition skip the chunks that they have.
    """

    def __init__(
        self, streams: OpenStreams, executor: StreamExecutor, probe: Callable[[StreamState], bool]
    ) -> None:
        self._streams = streams
        self._executor = executor
        self._probe = probe
        self._closed = threading.Event()

    def start(self) -> None:
        """Starts a daemon thread that retries: opening a stream may take long."""
        threading.Thread(target=self._run, name="stopped-streams", daemon=True).start()

    def close(self) -> None:
        """Ends the retries."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(_POLL_S):
            self.retry()

    def retry(self) -> None:
        """Retries the streams that are due."""
        for stream in self._claim_due(time.monotonic()):
            works = self._probe(stream)
            if stream.abandoned:  # during the probe: no other thread closes its files
                self._streams.close(stream)
            with self._executor.lock:
                stream.retry_s = min(2 * max(stream.retry_s, FIRST_RETRY_S), MAX_RETRY_S)
                if works:
                    self._streams.request_reread(stream)
                elif stream.stopped is not None:
                    stream.stopped = stream.stopped.after_retry(time.monotonic())
                self._executor.release(stream)

    def _claim_due(self, now_s: float) -> list[StreamState]:
        with self._executor.lock:
            due = [
                stream
                for stream in self._streams
                if stream.stopped is not None
                and stream.committing is None
                and not stream.claimed
                and now_s - stream.stopped.tried_s >= max(stream.retry_s, FIRST_RETRY_S)
            ][:RETRIES_AT_ONCE]
            for stream in due:
                stream.claimed = True
        return due
