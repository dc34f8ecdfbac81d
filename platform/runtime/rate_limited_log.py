"""A limit on log lines, so that no input can flood the log."""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType

REPEAT_S = 60.0
"""A key has at most one line in this time."""
MAX_KEYS = 4096
"""Keys that are remembered; the one that was logged longest ago leaves first."""
MAX_LINES = 200
"""Lines within `REPEAT_S`, of all keys together."""
MAX_LINES_OF_A_SOURCE = 50
"""Lines of one source within `REPEAT_S`: a peer that invents names, and so keys, leaves room for others."""


class RateLimitedLog:
    """One line a minute for each key, and MAX_LINES in all; the next line says how many were suppressed.

    Memory: MAX_KEYS keys, and MAX_LINES sources. Any thread may call.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._logged: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()
        self._minute_began_s, self._lines, self._dropped = -REPEAT_S, 0, 0
        self._lines_of: Counter[str] = Counter()

    def write(
        self,
        key: tuple[object, ...],
        message: Callable[[], str],
        *,
        level: int = logging.WARNING,
        source: str | None = None,
        extra: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Logs `message()`, or counts it if `key` had its line within the last minute.

        `source` is what the sender of the input cannot invent, such as its address. `extra` becomes
        attributes of the log record.
        """
        with self._lock:
            suppressed, dropped = self._admit(key, source)
        if dropped:
            self._logger.warning("%d lines of other kinds were suppressed within a minute", dropped)
        if suppressed is None:
            return
        suffix = f" ({suppressed} more like it suppressed)" if suppressed else ""
        self._logger.log(level, "%s%s", message(), suffix, extra={**extra, "suppressed": suppressed})

    def _admit(self, key: tuple[object, ...], source: str | None) -> tuple[int | None, int]:
        """Of `key` the number of suppressed lines, None if this one is suppressed too; and the number of
        dropped lines to report now."""
        now_s = time.monotonic()
        logged_at_s, suppressed = self._logged.get(key, (-REPEAT_S, 0))
        if now_s - logged_at_s < REPEAT_S:
            self._logged[key] = (logged_at_s, suppressed + 1)
            return None, 0
        dropped = 0
        if now_s - self._minute_began_s >= REPEAT_S:
            dropped = self._dropped
            self._minute_began_s, self._lines, self._dropped = now_s, 0, 0
            self._lines_of.clear()
        if self._lines >= MAX_LINES or (
            source is not None and self._lines_of[source] >= MAX_LINES_OF_A_SOURCE
        ):
            self._dropped += 1
            return None, dropped
        self._lines += 1
        if source is not None:
            self._lines_of[source] += 1
        self._logged[key] = (now_s, 0)
        self._logged.move_to_end(key)
        if len(self._logged) > MAX_KEYS:
            self._logged.popitem(last=False)
        return suppressed, dropped
