"""A log that whoever sends garbage cannot flood."""

import logging
import time
from collections import Counter, OrderedDict

REPEAT_S = 60.0
"""How long a key waits for its next line."""
MAX_KEYS = 4096
"""Keys that are remembered; the one that was logged longest ago is forgotten first."""
MAX_LINES = 200
"""Lines within `REPEAT_S`, of all keys together."""
MAX_LINES_OF_A_SOURCE = 50
"""Of these, lines of one source: a peer that makes up names, and so keys, leaves room for others."""


class RateLimitedLog:
    """One line a minute for each key, and MAX_LINES in all; the next line says how many were left out.

    Memory: MAX_KEYS keys, and MAX_LINES sources.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._minute_began_s, self._lines, self._dropped = -REPEAT_S, 0, 0
        self._lines_of: Counter[str] = Counter()

    def info(self, message: str) -> None:
        """Logs `message`, which no input can bring about, without a limit."""
        self._logger.info("%s", message)

    def warning(self, key: tuple[str, ...], message: str, *, source: str | None = None) -> None:
        """Logs `message`, or counts it where `key` had its line within the last minute.

        `source` is what the sender of the input cannot make up, such as its address.
        """
        now = time.monotonic()
        said_at, left_out = self._said.get(key, (-REPEAT_S, 0))
        if now - said_at < REPEAT_S:
            self._said[key] = (said_at, left_out + 1)
            return
        if now - self._minute_began_s >= REPEAT_S:
            if self._dropped:
                self._logger.warning("%d lines of other kinds were left out in a minute", self._dropped)
            self._minute_began_s, self._lines, self._dropped = now, 0, 0
            self._lines_of.clear()
        if self._lines >= MAX_LINES or (
            source is not None and self._lines_of[source] >= MAX_LINES_OF_A_SOURCE
        ):
            self._dropped += 1
            return
        self._lines += 1
        if source is not None:
            self._lines_of[source] += 1
        suffix = f" ({left_out} more like it left out)" if left_out else ""
        self._logger.warning("%s%s", message, suffix)
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        if len(self._said) > MAX_KEYS:
            self._said.popitem(last=False)
