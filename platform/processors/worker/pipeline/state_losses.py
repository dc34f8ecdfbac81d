"""Steps whose saved state was not read, or could not be saved: each is counted and logged, none is silent."""

import logging
from collections import Counter

from ....runtime.event_counters import EventCounters
from ....runtime.instrumentation import EventLog
from .instrumentation import CountsNotRead, StateLost


class StateLosses(EventCounters):
    """Counts of one process, by reason. Any thread may call.

    Reasons: "unknown-version", "unreadable" and "class-refused" of saved states that were not read,
    "not-kept" of states that could not be saved.
    """

    events = (StateLost,)
    by_reason: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self._log = EventLog(logging.getLogger("windvane.worker"))

    def lost(self, *, policy: str, step: str, code: str, error: Exception) -> None:
        """A step starts over, now or at the next restart, since its state is lost for the reason `code`."""
        event = StateLost(policy, step, code, repr(error))
        self.count(event)
        self._log.emit(event)

    def not_counted(self, *, policy: str, step: str, error: Exception) -> None:
        """A user-defined operation raised an error while its counts were read."""
        self._log.emit(CountsNotRead(policy, step, repr(error)))


state_losses = StateLosses()
"""Those of this process: the pipelines of all streams share them."""
