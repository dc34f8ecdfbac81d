"""The commands of alarms: `alarm list|show|acknowledge|comment|shelve|unshelve|clear`.

They work on the catalog, as the web tier does, so they need no tier that runs.
"""

import asyncio
import getpass
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..config import Settings
from ..store.catalog.alarms import GRADES
from .common.options import home_options
from .data import format_time, print_table, require_home

if TYPE_CHECKING:
    from ..store.catalog.alarm_book import AlarmBook
    from ..store.catalog.alarms import Alarm, HistoryEntry

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")

_STATES = ("open", "raised", "acknowledged", "shelved", "cleared", "all")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


@click.group(short_help="List, show, acknowledge, comment, shelve and clear alarms.")
def alarm() -> None:
    """Alarms that the rows of a stream raised, with their evidence and the comments of operators.

    \b
    Examples:
      windvane alarm list
      windvane alarm show turbine.t1.gearbox:condition:5f3a09c1:1234
      windvane alarm acknowledge turbine.t1.gearbox:condition:5f3a09c1:1234 --text 'on my way'
      windvane alarm shelve turbine.t1.gearbox:condition:5f3a09c1:1234 --for 8h
    """


def _seconds(_context: click.Context, _option: click.Parameter, value: str) -> float:
    """`90s`, `30m`, `8h` or `7d`, as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{value!r} is not a duration; write it as 90s, 30m, 8h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def _by_hand(command: Command) -> Command:
    """Give the command REFERENCE, --by and --text."""
    for option in (
        home_options,
        click.option("--text", default="", metavar="TEXT", help="What there is to say about it."),
        click.option("--by", metavar="NAME", help="Who says so.  [default: the name of the user]"),
        click.argument("reference", metavar="ALARM"),
    ):
        command = option(command)
    return command


@alarm.command("list")
@click.option("--state", type=click.Choice(_STATES), default="open", show_default=True, help="Which alarms.")
@click.option("--stream", metavar="STREAM", help="Only alarms of this data stream.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, the newest first."
)
@home_options
def list_alarms(settings: Settings, state: str, stream: str | None, limit: int) -> None:
    """List alarms, those that were changed last first.

    A table on a terminal; elsewhere one line each, without a heading, columns between tabs, times in UTC.

    \b
    Examples:
      windvane alarm list
      windvane alarm list --state all --stream turbine.t1.gearbox
      windvane alarm list --state raised | cut -f 1
    """
    from ..store.catalog.alarm_book import alarm_of
    from ..store.catalog.alarms import OPEN_STATES, STATES

    states = {"open": OPEN_STATES, "all": STATES}.get(state) or (state,)
    found = _with_book(settings, lambda book: book.latest(states=states, stream=stream, limit=limit))
    print_table(
        ("alarm", "grade", "state", "raised", "peak", "leading", "last"),
        [
            (
                one.reference,
                GRADES[one.grade or one.worst],
                one.state,
                format_time(one.raised_ns),
                _number(one.peak),
                one.leading or "",
                _entry(one.history[-1]),
            )
            for one in map(alarm_of, found)
        ],
        empty=_none_found(settings, state, stream),
    )


@alarm.command()
@click.argument("reference", metavar="ALARM")
@home_options
def show(settings: Settings, reference: str) -> None:
    """Show one alarm: what was judged, what stood out, where to look, and its history.

    \b
    Examples:
      windvane alarm show turbine.t1.gearbox:condition:5f3a09c1:1234
    """
    from ..store.catalog.alarm_book import alarm_of

    one = alarm_of(_with_book(settings, lambda book: book.get(reference)))
    facts = {
        "alarm": one.reference,
        "state": one.state if one.shelved_until_ns is None else f"{one.state} until {_until(one)}",
        "grade": f"{GRADES[one.grade]} (at worst {GRADES[one.worst]})",
        "stream": one.stream,
        "policy": one.policy,
        "raised": f"{format_time(one.raised_ns)}, row {one.row} of {one.stream}:{one.output}",
        "changed": format_time(one.changed_ns),
        one.column: f"{_number(one.value)} (warning {_number(one.warning)}, danger {_number(one.danger)})",
        "at worst": None if one.peak is None else _peak(one),
        "leading": one.leading,
        "rul": _life(one),
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{click.style(f'{name:12}', bold=True)} {_one_line(value)}")
    _section("stands out", [_contribution(each) for each in one.contributions])
    rows = [f"{each.array}[{each.first}:{each.first + each.count}]" for each in one.evidence]
    _section("evidence", rows)
    _section("history", [f"{format_time(each.at_ns)}  {_entry(each)}" for each in one.history])


@alarm.command()
@_by_hand
def acknowledge(settings: Settings, reference: str, by: str | None, text: str) -> None:
    """Acknowledge an alarm; it needs a new acknowledgement when it gets worse.

    \b
    Examples:
      windvane alarm acknowledge t1:condition:5f3a09c1:1234
      windvane alarm acknowledge t1:condition:5f3a09c1:1234 --by ada --text 'on my way'
    """
    from ..store.catalog import alarms

    _act(settings, reference, alarms.acknowledge, by, text)


@alarm.command()
@_by_hand
def comment(settings: Settings, reference: str, by: str | None, text: str) -> None:
    """Comment on an alarm.

    \b
    Examples:
      windvane alarm comment t1:condition:5f3a09c1:1234 --text 'looks like the outer race'
    """
    from ..store.catalog import alarms

    _act(settings, reference, alarms.comment, by, text)


@alarm.command()
@click.option(
    "--for",
    "for_s",
    callback=_seconds,
    required=True,
    metavar="TIME",
    help="How long: 90s, 30m, 8h or 7d; a year at most.",
)
@_by_hand
def shelve(settings: Settings, reference: str, by: str | None, text: str, for_s: float) -> None:
    """Shelve an alarm for some time, or until it gets worse.

    \b
    Examples:
      windvane alarm shelve t1:condition:5f3a09c1:1234 --for 8h
      windvane alarm shelve t1:condition:5f3a09c1:1234 --for 7d --text 'parts are ordered'
    """
    from ..store.catalog import alarms

    until_ns = alarms.shelf_end_ns(for_s, now_ns=time.time_ns())
    _act(settings, reference, partial(alarms.shelve, until_ns=until_ns), by, text)


@alarm.command()
@_by_hand
def unshelve(settings: Settings, reference: str, by: str | None, text: str) -> None:
    """Unshelve an alarm before its time.

    \b
    Examples:
      windvane alarm unshelve t1:condition:5f3a09c1:1234
    """
    from ..store.catalog import alarms

    _act(settings, reference, alarms.unshelve, by, text)


@alarm.command()
@_by_hand
def clear(settings: Settings, reference: str, by: str | None, text: str) -> None:
    """Clear an alarm; it is raised again if the rows get worse.

    \b
    Examples:
      windvane alarm clear t1:condition:5f3a09c1:1234 --text 'a bird'
    """
    from ..store.catalog import alarms

    _act(settings, reference, alarms.clear, by, text)


def _act(
    settings: Settings, reference: str, action: "Callable[..., Alarm]", by: str | None, text: str
) -> None:
    who = by or getpass.getuser()

    def change(one: "Alarm") -> "Alarm":
        return action(one, by=who, text=text, now_ns=time.time_ns())

    document = _with_book(settings, lambda book: book.change(reference, change))
    click.echo(f"{document.reference} is {document.state}")


def _none_found(settings: Settings, state: str, stream: str | None) -> str:
    which = "" if state == "all" else f"{state} "
    of = "" if stream is None else f" of {stream}"
    where = settings.home if not settings.has_catalog_elsewhere else "the catalog"
    more = "" if state == "all" else "; --state all lists all of them"
    return f"no {which}alarms{of} in {where}{more}"


def _with_book(settings: Settings, use: "Callable[[AlarmBook], Awaitable[Result]]") -> Result:
    require_home(settings, what="policies")
    from ..store.catalog.alarm_book import AlarmBook
    from ..store.catalog.catalog import Catalog

    async def run() -> Result:
        catalog = await Catalog.open(settings.catalog_url)
        try:
            return await use(AlarmBook(catalog))
        finally:
            await catalog.close()

    return asyncio.run(run())


def _section(heading: str, lines: Sequence[str]) -> None:
    if lines:
        click.echo(f"\n{click.style(heading, bold=True)}")
        for line in lines:
            click.echo(f"  {_one_line(line)}")


def _entry(entry: "HistoryEntry") -> str:
    said = f"{entry.action} by {entry.by}" if entry.time_ns is None else entry.action
    value = f" at {_number(entry.value)}" if entry.value is not None else ""
    return _one_line(f"{said}{value}{f': {entry.text}' if entry.text else ''}")


def _contribution(each: Any) -> str:
    return (
        f"{each.column:24} {_number(each.value):>10}, usually {_number(each.usual)}: "
        f"{each.deviation:+.1f} spreads"
    )


def _peak(one: "Alarm") -> str:
    at = "" if one.peak_ns is None else f" at {format_time(one.peak_ns)}"
    return f"{_number(one.peak)}{at}"


def _life(one: "Alarm") -> str | None:
    if one.rul_s is None:
        return None
    low, high = one.rul_low_s, one.rul_high_s
    between = "" if low is None or high is None else f" ({_length(low)} to {_length(high)})"
    return f"{_length(one.rul_s)} of running{between}"


def _length(seconds: float) -> str:
    if seconds < 2 * _UNITS_S["h"]:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * _UNITS_S["d"] else f"{seconds / _UNITS_S['d']:.1f} d"


def _until(one: "Alarm") -> str:
    return format_time(one.shelved_until_ns or 0)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _one_line(text: str) -> str:
    """Replace characters that a terminal could interpret, and line breaks."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
