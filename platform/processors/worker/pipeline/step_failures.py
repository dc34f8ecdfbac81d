"""Which steps fail: the newest failure of each step of each stream, and whether the step has worked since."""

import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from copy import copy
from typing import NamedTuple

from ....runtime.statuses import StepFailure

MAX_MESSAGE = 500
"""Characters that are kept of an error's message."""

WHOLE_CHUNK = ("archive", "publish", "pipeline", "bytes", "events")
"""Parts that can fail in addition to the steps of a policy: archive, publication, all steps, their inputs."""


class _Step(NamedTuple):
    stream: str
    step: str
    of_training: bool


class StepFailures:
    """Bounded by `most` steps: the one that failed longest ago leaves first. Any thread may call."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        """The streams with a failure and no success since."""
        self._newest: OrderedDict[_Step, StepFailure] = OrderedDict()

    def add(self, stream: str, step: str, message: str, *, of_training: bool = False) -> None:
        """The step of the stream failed once more, or its training did."""
        key = _Step(stream, step, of_training)
        with self._lock:
            before = self._newest.pop(key, None)
            self._newest[key] = StepFailure(
                stream=stream,
                step=step,
                message=message[:MAX_MESSAGE],
                time_ns=time.time_ns(),
                times=1 if before is None else before.times + 1,
            )
            self._failing.add(stream)
            if len(self._newest) > self._most:
                oldest, _ = self._newest.popitem(last=False)
                self._update_failing(oldest.stream)

    def recover(self, stream: str, steps: Collection[str], *, of_training: bool = False) -> None:
        """The steps of the stream processed a chunk. Costs one set lookup while none of them has failed."""
        if stream not in self._failing:
            return
        with self._lock:
            for step in steps:
                failure = self._newest.get(_Step(stream, step, of_training))
                if failure is not None and failure.recovered_ns is None:
                    failure.recovered_ns = time.time_ns()
            self._update_failing(stream)

    def forget_others(self, stream: str, steps: Collection[str]) -> None:
        """The stream has these steps now, and no others."""
        with self._lock:
            for key in [key for key in self._newest if key.stream == stream]:
                if key.step not in steps and key.step not in WHOLE_CHUNK:
                    del self._newest[key]
            self._update_failing(stream)

    def listed(self) -> list[StepFailure]:
        """The newest failure of each step, the oldest of them first."""
        with self._lock:
            return [copy(failure) for failure in self._newest.values()]

    def _update_failing(self, stream: str) -> None:
        if not any(
            key.stream == stream and failure.recovered_ns is None for key, failure in self._newest.items()
        ):
            self._failing.discard(stream)
