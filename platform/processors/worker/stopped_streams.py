"""Retries stopped streams: the disk may have room again, or a file was restored or repaired."""

import threading
import time
from collections.abc import Callable

from .lanes import Lanes
from .open_streams import OpenStreams
from .stream_work import FIRST_RETRY_S, StreamWork

MAX_RETRY_S = 60.0
RETRIES_AT_ONCE = 16
_LOOK_S = 0.5


class StoppedStreams:
    """Resumes streams, a few at a time, each after a pause that doubles.

    First it opens the stream's files (`probe`). If that succeeds, the partition is reread from the stream's
    committed position; the other streams of the partition skip the chunks that they have.
    """

    def __init__(self, streams: OpenStreams, lanes: Lanes, probe: Callable[[StreamWork], bool]) -> None:
        self._streams = streams
        self._lanes = lanes
        self._probe = probe
        self._closed = threading.Event()

    def start(self) -> None:
        """Starts a daemon thread that retries: opening a stream may take long."""
        threading.Thread(target=self._run, name="stopped-streams", daemon=True).start()

    def close(self) -> None:
        """Ends the retries."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_S):
            self.retry()

    def retry(self) -> None:
        """Retries the streams that are due."""
        for stream in self._claim_due(time.monotonic()):
            works = self._probe(stream)
            if stream.abandoned:  # during the probe: no other thread closes its files
                self._streams.close(stream)
            with self._lanes.lock:
                stream.retry_s = min(2 * max(stream.retry_s, FIRST_RETRY_S), MAX_RETRY_S)
                if works:
                    self._streams.resume(stream)
                elif stream.stopped is not None:
                    stream.stopped = stream.stopped.again(time.monotonic())
                self._lanes.release(stream)

    def _claim_due(self, now_s: float) -> list[StreamWork]:
        with self._lanes.lock:
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
