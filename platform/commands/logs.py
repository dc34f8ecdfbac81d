"""The log of a process: standard error, one line for each record, whatever the record holds."""

import logging
import sys
import time


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


def configure_logging(process: str, *, debug: bool) -> None:
    """Log to standard error as `process`: our own records from INFO up, or from DEBUG, others' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(process))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("windvane").setLevel(logging.DEBUG if debug else logging.INFO)
