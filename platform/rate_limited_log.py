"""A log that whoever sends garbage cannot flood."""

import logging
import time
from collections import OrderedDict

_REPEAT_S = 60.0
_MAX_REMEMBERED = 4096
_MAX_LINES = 200


class RateLimitedLog:
    """One line a minute for each key, and 200 in all; the next line says how many were left out.

    Remembers 4,096 keys.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._minute_began_s, self._lines, self._dropped = -_REPEAT_S, 0, 0

    def warning(self, key: tuple[str, ...], message: str) -> None:
        """Logs `message`, or counts it where `key` had its line within the last minute."""
        now = time.monotonic()
        said_at, left_out = self._said.get(key, (-_REPEAT_S, 0))
        if now - said_at < _REPEAT_S:
            self._said[key] = (said_at, left_out + 1)
            return
        if now - self._minute_began_s >= _REPEAT_S:
            if self._dropped:
                self._logger.warning("%d lines of other kinds were left out in a minute", self._dropped)
            self._minute_began_s, self._lines, self._dropped = now, 0, 0
        if self._lines >= _MAX_LINES:  # whoever makes up names makes up keys
            self._dropped += 1
            return
        self._lines += 1
        suffix = f" ({left_out} more like it left out)" if left_out else ""
        self._logger.warning("%s%s", message, suffix)
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        if len(self._said) > _MAX_REMEMBERED:
            self._said.popitem(last=False)
