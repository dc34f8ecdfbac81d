"""Steps whose saved state was not read, or could not be saved: each is counted and logged, none is silent."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping

from ....runtime.telemetry import RateLimitedLog


class StateLosses:
    """Counts of one process, by reason; thread-safe.

    Reasons: "unknown-version", "unreadable" and "class-refused" of saved states that were not read,
    "not-kept" of states that could not be saved.
    """

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self._by_reason: Counter[str] = Counter()
        self._log = RateLimitedLog(logging.getLogger("windvane.worker"))

    @property
    def by_reason(self) -> Mapping[str, int]:
        """How often each reason came up since the process began."""
        with self._counting:
            return dict(self._by_reason)

    def lost(self, *, policy: str, step: str, code: str, error: Exception) -> None:
        """A step starts over, now or at the next restart, since its state is lost for this reason."""
        with self._counting:
            self._by_reason[code] += 1
        what = "cannot be kept" if code == "not-kept" else "cannot be read, so the step starts over"
        self._log.warning(
            (policy, step, code), f"policy {policy!r}: the state of step {step!r} {what} ({code}): {error!r}"
        )

    def not_counted(self, *, policy: str, step: str, error: Exception) -> None:
        """A user's operation raised when it was asked for its counts."""
        self._log.warning(
            (policy, step, "counts"), f"policy {policy!r}: step {step!r} cannot give its counts: {error!r}"
        )


state_losses = StateLosses()
"""Those of this process: the pipelines of all streams share them."""
