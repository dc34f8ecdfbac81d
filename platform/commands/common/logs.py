"""The log of a process: standard error, one line for each record, whatever the record holds."""

import asyncio
import logging
import math
import sys
import time
from typing import Any

from ...errors import WindvaneError
from ...runtime.rate_limited_log import RateLimitedLog

REPEAT_S = 60.0


class LineFormatter(logging.Formatter):
    """`2026-11-22T10:48:00.123Z WARNING gateway: message`; control characters are escaped.

    What senders chose (tags, names) can stand in messages, so a record must not be able to look like two.
    """

    def __init__(self, process: str) -> None:
        super().__init__(
            f"%(asctime)s.%(msecs)03dZ %(levelname)s {process}: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
        )
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows its message with ` | ` for the line breaks."""
        text = super().format(record).replace("\n", " | ")
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class NoHttpFilter(logging.Filter):
    """Keeps what is no HTTP out of the log: aiohttp would print all of it, credentials and payloads too.

    A forwarder that was pointed at the web port costs one line a minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said_at_s = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets through all but errors of parsing a request."""
        # Here, since every command comes by, and few of them serve HTTP: only who logs so has aiohttp loaded.
        from aiohttp.http_exceptions import HttpProcessingError

        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        if record.created - self._said_at_s >= REPEAT_S:
            self._said_at_s = record.created
            peer = record.args[0] if isinstance(record.args, tuple) and record.args else "somebody"
            logging.getLogger("windvane.http").warning(
                "%s sent what is no HTTP (%s); is it a forwarder? The forward port is another",
                peer,
                type(error).__name__,
            )
        return False


def say_lost_errors_in_words(loop: asyncio.AbstractEventLoop) -> None:
    """Errors that no task took, of the platform or with a message of ours, become one line, not a traceback.

    Their cause is reported by who met it first; the line says what failed besides. All else is a mistake in
    the program, whose traceback is logged as ever.
    """
    from ...runtime.health_conditions import code_of  # not for every command: it loads the metrics

    lost = RateLimitedLog(logging.getLogger("windvane"))

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, WindvaneError) or code_of(error) is not None:
            lost.warning((type(error).__name__, str(error)[:200]), f"given up: {error}")
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def configure_logging(process: str, *, debug: bool) -> None:
    """Log to standard error as `process`: our own records from INFO up, or from DEBUG, others' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(process))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("windvane").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("aiohttp.server").addFilter(NoHttpFilter())
