"""The log of a process: standard error, one line for each record, in console format or as JSON.

What a command says to its user before and after it logs goes the same way (`say`).

Records are those of the standard library's logging, of Windvane and of its dependencies; structlog renders
them. A record that has an event (`windvane.runtime.instrumentation`) gets its code and its fields.
"""

import asyncio
import logging
import math
import os
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from ...config import LogFormat
from ...errors import WindvaneError
from ...runtime.instrumentation import EVENT_ATTRIBUTE, Event, EventLog, LogLine

if TYPE_CHECKING:
    from structlog.dev import ColumnFormatter
    from structlog.typing import EventDict, Processor

REPEAT_S = 60.0

_JSON_PROCESS = f"{__name__}.process"
"""Key in the metadata of click's context: the name of the process in JSON log lines."""

_HIDDEN = "…"
_SECRETS = (
    re.compile(r"://[^/\s:@]*:([^/\s@]+)@"),  # the password in a URL
    re.compile(r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer)?\s*([^\s'\",}]+)"),
    re.compile(r"(?i)[?&](?:token|access_token|password|secret|signature|sig)=([^&\s'\"]+)"),
)

_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
"""SGR parameters of the levels."""


def log_formatter(
    process: str, *, log_format: LogFormat = "console", has_colours: bool = False
) -> logging.Formatter:
    """Formats the log records of `process`, such as "gateway".

    "console": `2026-11-22T10:48:00.123Z WARNING gateway: message`; a traceback follows its message with ` | `
    for the line breaks. "json": an object with `time`, `level`, `process`, `logger` and `message`; for an
    event also `event`, its code, and its fields; for an error its `exception`.

    Messages can contain what senders chose (tags, names): control characters are escaped, so that one record
    never looks like two.
    """
    from structlog.processors import JSONRenderer, format_exc_info  # structlog is not for every command
    from structlog.stdlib import ProcessorFormatter

    def describe(_: Any, level: str, event_dict: "EventDict") -> "EventDict":
        record: logging.LogRecord = event_dict["_record"]
        described: EventDict = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": level,
            "process": process,
            "logger": record.name,
            "message": event_dict["event"],
        }
        if isinstance(event := getattr(record, EVENT_ATTRIBUTE, None), Event):
            described.update({"event": event.event_code(), **event.fields()})
        if suppressed := getattr(record, "suppressed", 0):
            described["suppressed"] = suppressed
        if "exc_info" in event_dict:
            described["exc_info"] = event_dict["exc_info"]
        return described

    render: list[Processor]
    if log_format == "json":
        render = [_hide_secrets, JSONRenderer()]
    else:
        render = [_join_to_one_line, _hide_secrets, _console_renderer(has_colours=has_colours)]
    return ProcessorFormatter(processors=[describe, format_exc_info, *render])


def _join_to_one_line(_: Any, __: str, event_dict: "EventDict") -> "EventDict":
    text = "\n".join(filter(None, (event_dict["message"], event_dict.pop("exception", ""))))
    text = text.replace("\n", " | ")
    event_dict["message"] = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    return event_dict


def _hide_secrets(_: Any, __: str, event_dict: "EventDict") -> "EventDict":
    """Credentials that errors of dependencies can contain, such as the password in a database's URL."""
    for name, value in event_dict.items():
        if isinstance(value, str):
            event_dict[name] = without_secrets(value)
    return event_dict


def without_secrets(text: str) -> str:
    """`text` with credentials replaced by `…`.

    >>> without_secrets("cannot connect to postgresql://wind:s3cret@db/catalog")
    'cannot connect to postgresql://wind:…@db/catalog'
    """
    for secret in _SECRETS:
        text = secret.sub(lambda found: found[0].replace(found[1], _HIDDEN), text)
    return text


def _console_renderer(*, has_colours: bool) -> "Processor":
    from structlog.dev import Column, ConsoleRenderer

    def styled(sgr: str, text: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if has_colours else text

    columns: dict[str, ColumnFormatter] = {
        "time": lambda _, value: styled("2", str(value)),
        "level": lambda _, value: styled(_COLOURS.get(str(value), "0"), str(value).upper()),
        "process": lambda _, value: styled("1", f"{value}:"),
        "message": lambda _, value: str(value),
        "": lambda _, __: "",  # the fields of the event are words of its message
    }
    return ConsoleRenderer(columns=[Column(key, formatter) for key, formatter in columns.items()])


def shows_colours(stream: TextIO) -> bool:
    """Whether `stream` is a terminal whose user has not turned colours off (NO_COLOR, TERM=dumb)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class HttpMisused(Event, frozen=True):
    """A peer sent data to the web port that is not HTTP."""

    line = LogLine(
        logging.WARNING,
        "{peer} sent data that is not HTTP ({error}); is it a forwarder? The forward port is another",
    )

    peer: str
    error: str


class ErrorNotHandled(Event, frozen=True):
    """A background task ended with an error that says what to do; the cause is reported elsewhere too."""

    line = LogLine(logging.WARNING, "given up: {reason}", key=("error", "reason_start"))

    error: str
    reason: str

    @property
    def reason_start(self) -> str:
        """Enough of the reason to tell it from others."""
        return self.reason[:200]


class NoHttpFilter(logging.Filter):
    """Keeps data that is not HTTP out of the log: aiohttp would print it, with credentials and payloads.

    A forwarder that was pointed at the web port costs one line a minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._log = EventLog(logging.getLogger("windvane.http"))
        self._logged_at_s = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Admits all records but errors of parsing a request."""
        # Imported late, since every command loads this module, and few of them serve HTTP.
        from aiohttp.http_exceptions import HttpProcessingError

        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        if record.created - self._logged_at_s >= REPEAT_S:
            self._logged_at_s = record.created
            peer = record.args[0] if isinstance(record.args, tuple) and record.args else "a client"
            self._log.emit(HttpMisused(str(peer), type(error).__name__))
        return False


def say_lost_errors_in_words(loop: asyncio.AbstractEventLoop) -> None:
    """Errors that no task awaited, of the platform or with a message of ours, become one line, no traceback.

    Their cause is reported elsewhere; the line says what else failed. All others are defects
    of the program, whose traceback is logged.
    """
    from ...runtime.health_conditions import code_of

    log = EventLog(logging.getLogger("windvane"))

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, WindvaneError) or code_of(error) is not None:
            log.emit(ErrorNotHandled(type(error).__name__, str(error)))
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def configure_logging(process: str, *, debug: bool, log_format: LogFormat = "console") -> None:
    """Log to standard error as `process`: our own records from INFO up, or from DEBUG, others' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_formatter(process, log_format=log_format, has_colours=shows_colours(sys.stderr)))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("windvane").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("aiohttp.server").addFilter(NoHttpFilter())
    logging.captureWarnings(True)  # of Python: they would be text between the lines


def say_in(log_format: LogFormat) -> None:
    """Choose how `say` writes for the rest of the command that runs."""
    context = click.get_current_context(silent=True)
    if context is not None and log_format == "json":
        context.meta[_JSON_PROCESS] = context.info_name


def says_json() -> bool:
    """Whether the command that runs writes JSON log lines only."""
    context = click.get_current_context(silent=True)
    return context is not None and _JSON_PROCESS in context.meta


def say(text: str, *, level: int = logging.INFO) -> None:
    """Write one line to standard error: `windvane: TEXT`, or a log line if the command logs JSON."""
    if says_json():
        process = str(click.get_current_context().meta[_JSON_PROCESS])
        record = logging.LogRecord("windvane.commands", level, "", 0, text, None, None)
        click.echo(log_formatter(process, log_format="json").format(record), err=True)
        return
    name = click.style("windvane:", fg="red", bold=True) if level >= logging.ERROR else "windvane:"
    click.echo(f"{name} {text}", err=True)
