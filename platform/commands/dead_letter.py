"""The commands of dead letters: `dead-letter list|show|replay|drop`.

They read the database of dead letters; a replay is decided by the running gateway.
"""

import http.client
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..config import Settings
from ..errors import BusUnavailable, DeadLetterNotFound, TierFailed, WindvaneError
from ..runtime.announcements import tier_sockets
from .common.options import home_options
from .data import format_time, print_table, require_home

if TYPE_CHECKING:
    from ..store.databases.dead_letter import DeadLetterSummary
    from ..store.databases.interfaces import DeadLetters

Command = TypeVar("Command", bound=Callable[..., Any])

PAGE_LETTERS = 1_000
MAX_ATTEMPTS = 30
"""How often a letter is resent while the gateway asks to retry later."""
MAX_WAIT_S = 10.0
_ANSWER_TIMEOUT_S = 120.0
_SHOWN_REASON_CHARACTERS = 160
_BY_RETRY = "resent by its sender"


@click.group(short_help="List, show, replay and drop rejected input.")
def dead_letter() -> None:
    """Dead letters: rejected input, kept with the reason.

    \b
    Examples:
      windvane dead-letter list
      windvane dead-letter show 7
      windvane dead-letter replay --code no-policy --tag 'turbine.**'
      windvane dead-letter drop 7
    """


def _selection(command: Command) -> Command:
    """Give the command ID…, --all, --code and --tag."""
    for option in (
        click.option("--tag", metavar="PATTERN", help="Only letters of these tags, as in a policy."),
        click.option("--code", metavar="CODE", help="All letters of this code, such as no-policy."),
        click.option("--all", "everything", is_flag=True, help="All letters."),
        click.argument("ids", metavar="[ID]…", nargs=-1, type=click.IntRange(min=1)),
    ):
        command = option(command)
    return command


@dead_letter.command("list")
@click.option("--code", metavar="CODE", help="Only letters of this code.")
@click.option("--tag", metavar="PATTERN", help="Only letters of these tags, as in a policy.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, the newest first."
)
@home_options
def list_letters(settings: Settings, code: str | None, tag: str | None, limit: int) -> None:
    """List the dead letters, the newest first.

    On a terminal, a table; otherwise one line each without a heading, columns separated by tabs, sizes in
    bytes, times in UTC. `times` counts equal letters; the two times are those of the first and the last. The
    reason says if the same chunk has arrived since, because its sender resent it.

    \b
    Examples:
      windvane dead-letter list
      windvane dead-letter list --code malformed --tag 'turbine.**'
      windvane dead-letter list | cut -f 4 | sort | uniq -c
    """
    letters = _open(settings)
    found = list(islice(_matching(letters, code=code, tag=tag), limit))
    arrived = _arrived_since(settings, found)
    rows = [
        (
            letter.id,
            format_time(letter.time_ns),
            format_time(letter.last_time_ns),
            letter.code,
            letter.times,
            letter.size,
            _one_line(letter.tag),
            _one_line(letter.sender),
            _reason(letter, arrived.get(letter.id)),
        )
        for letter in found
    ]
    print_table(
        ("id", "first", "last", "code", "times", "bytes", "tag", "sender", "reason"),
        rows,
        empty=_none_found(settings, code=code, tag=tag),
    )
    kept = letters.statistics()
    if sys.stdout.isatty() or kept.evicted:
        from .common.progress import amount, plural

        left = f"; {plural(kept.evicted, 'letter')} evicted for newer ones so far" if kept.evicted else ""
        bound = f"{amount(kept.bytes)} of {amount(kept.max_bytes)}"
        click.echo(f"{plural(kept.count, 'letter')} kept, {bound}{left}", err=True)


@dead_letter.command()
@click.argument("id", metavar="ID", type=click.IntRange(min=1))
@click.option("--payload", is_flag=True, help="Write only the rejected bytes, to standard output.")
@home_options
def show(settings: Settings, id: int, payload: bool) -> None:
    """Show one dead letter: why it was rejected, its first events, and the traceback of a failed step.

    \b
    Examples:
      windvane dead-letter show 7
      windvane dead-letter show 7 --payload > rejected.bin
    """
    from ..store.databases.excerpt import excerpt_of

    letter = _open(settings).get(id)
    arrived_ns = _arrived_since(settings, [letter]).get(letter.id)
    if payload:
        sys.stdout.buffer.write(letter.payload)
        sys.stdout.buffer.flush()
        return
    size = str(letter.size)
    if letter.kept_bytes < letter.size:
        size += f" ({letter.kept_bytes} kept)"
    again = "can be replayed" if letter.obstacle is None else f"cannot be replayed: {letter.obstacle}"
    facts = {
        "id": str(letter.id),
        "code": letter.code,
        "reason": letter.reason,
        "tag": letter.tag,
        "sender": letter.sender,
        "identity": letter.identity,
        "policy": letter.policy,
        "first": format_time(letter.time_ns),
        "last": format_time(letter.last_time_ns),
        "times": str(letter.times),
        "bytes": size,
        "chunk id": repr(letter.chunk_id)[2:-1] if letter.chunk_id is not None else None,
        "compression": letter.compression if letter.compression != "text" else None,
        "format": letter.format,
        "arrived": None if arrived_ns is None else f"{format_time(arrived_ns)}, {_BY_RETRY}",
        "replay": again,
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{click.style(f'{name:12}', bold=True)} {_one_line(value)}")
    click.echo()
    for line in excerpt_of(letter.payload, compression=letter.compression, format=letter.format):
        click.echo(f"  {line}")
    if letter.detail:
        click.echo()
        for line in letter.detail.splitlines():
            click.echo(f"  {_one_line(line)}")


@dead_letter.command()
@_selection
@home_options
def replay(
    settings: Settings, ids: tuple[int, ...], everything: bool, code: str | None, tag: str | None
) -> None:
    """Replay dead letters, oldest first, through the current policies.

    A letter is removed once its events are durable; a letter that is rejected again stays. If some events of
    a letter are rejected again, the others are stored, and these become a new letter. Sender, tag and chunk
    ID are kept, so that a chunk that its sender resent is not stored twice. The gateway must be running.
    Exit code 1: something was rejected again.

    \b
    Examples:
      windvane dead-letter replay 7 8
      windvane dead-letter replay --code no-policy --tag 'turbine.**'
      windvane dead-letter replay --all
    """
    from .common.progress import byte_progress, plural

    letters = _open(settings)
    chosen = _chosen(letters, ids, everything=everything, code=code, tag=tag)
    if not chosen:
        click.echo(f"{_none_found(settings, code=code, tag=tag)}: nothing was replayed", err=True)
        return
    gateway = _Gateway(settings)
    sent = failed = rejected = done_bytes = 0
    skipped: Counter[str] = Counter()
    try:
        with byte_progress("replay", total_bytes=sum(letter.size for letter in chosen)) as progress:
            for letter in chosen:
                if letter.obstacle is not None and not ids:
                    skipped[letter.code] += 1
                else:
                    try:
                        again = gateway.replay(letter.id)
                        sent += 1
                        if letter.left_out is not None:
                            progress.say(f"letter {letter.id}: {letter.left_out}")
                        if again is not None:
                            rejected += again.rejected_events
                            progress.say(
                                f"letter {letter.id}: {plural(again.stored_events, 'event')} stored, "
                                f"{again.rejected_events} rejected again, as a new letter: {again.reason}"
                            )
                    except (_RejectedAgain, DeadLetterNotFound) as error:
                        failed += 1
                        progress.say(str(error))
                done_bytes += letter.size
                progress.update(done_bytes)
    finally:
        gateway.close()
        if sent or len(chosen) > 1:
            in_part = f" but for {plural(rejected, 'event')}" if rejected else ""
            click.echo(f"{plural(sent, 'letter')} replayed and durable{in_part}, {failed} stayed", err=True)
    if skipped:
        kinds = ", ".join(f"{count} {code}" for code, count in skipped.items())
        click.echo(f"not replayed: {kinds}; `windvane dead-letter show ID` says why", err=True)
    if failed or rejected:
        raise click.exceptions.Exit(1)


@dead_letter.command()
@_selection
@home_options
def drop(
    settings: Settings, ids: tuple[int, ...], everything: bool, code: str | None, tag: str | None
) -> None:
    """Remove dead letters permanently.

    \b
    Examples:
      windvane dead-letter drop 7 8
      windvane dead-letter drop --code framing
      windvane dead-letter drop --all
    """
    from .common.progress import plural

    letters = _open(settings)
    chosen = _chosen(letters, ids, everything=everything, code=code, tag=tag)
    dropped = letters.drop_all([letter.id for letter in chosen])
    click.echo(f"dropped {plural(dropped, 'letter')}")


class _RejectedAgain(WindvaneError):
    """The gateway did not take the letter, which stays."""


class _InPart(NamedTuple):
    """Some events of a letter were rejected again."""

    stored_events: int
    rejected_events: int
    reason: str


class _Gateway:
    """A connection to the socket of the running gateway."""

    def __init__(self, settings: Settings) -> None:
        self._run_dir = settings.run_dir
        self._connection: http.client.HTTPConnection | None = None

    def replay(self, id: int) -> "_InPart | None":
        """Return when the letter is durable; gives the counts if a part of it was rejected again.

        Raises _RejectedAgain, DeadLetterNotFound, or TierFailed.
        """
        for _ in range(MAX_ATTEMPTS):
            status, answer, retry_after_s = self._post(f"/dead-letters/{id}/replay")
            if status == http.client.NO_CONTENT:
                return None
            if status == http.client.OK:
                return _InPart(
                    int(answer["stored_events"]), int(answer["rejected_events"]), str(answer["reason"])
                )
            detail = str(answer.get("detail", f"the gateway answered {status}"))
            if status == http.client.NOT_FOUND:
                raise DeadLetterNotFound(detail)
            if status not in (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE):
                raise _RejectedAgain(detail)
            time.sleep(min(retry_after_s, MAX_WAIT_S))
        raise BusUnavailable(f"the gateway accepts no more: {detail}; letter {id} and later ones stay")

    def _post(self, path: str) -> tuple[int, dict[str, Any], float]:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("gateway", timeout=_ANSWER_TIMEOUT_S)
                self._connection.sock = self._connect()
            self._connection.request("POST", path)
            answer = self._connection.getresponse()
            body = answer.read()
            if answer.will_close:
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TierFailed(
                f"no gateway answers in {self._run_dir} ({error}); a replay goes through it: start it "
                "with `windvane up` or `windvane gateway`. The letters stay"
            ) from error
        try:
            told = json.loads(body) if body else {}
        except ValueError:
            told = {}
        return answer.status, told, float(answer.headers.get("Retry-After", "1"))

    def _connect(self) -> socket.socket:
        failure = OSError("there is no socket")
        for path in tier_sockets(self._run_dir, "gateway").values():
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_ANSWER_TIMEOUT_S)
            try:
                connection.connect(str(path))
            except OSError as error:  # it was killed; another may run
                connection.close()
                failure = error
            else:
                return connection
        raise failure

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _arrived_since(settings: Settings, letters: "Sequence[DeadLetterSummary]") -> Mapping[int, int]:
    from ..store.interface import open_store
    from ..store.repair.arrived_chunks import arrived_since

    return arrived_since(open_store(settings.store, settings.home), letters) if letters else {}


def _reason(letter: "DeadLetterSummary", arrived_ns: int | None) -> str:
    shown = _one_line(letter.reason, on_terminal=_SHOWN_REASON_CHARACTERS)
    return shown if arrived_ns is None else f"{shown} (arrived {format_time(arrived_ns)}, {_BY_RETRY})"


def _none_found(settings: Settings, *, code: str | None, tag: str | None) -> str:
    wanted = [f"of code {code}"] if code is not None else []
    if tag is not None:
        wanted.append(f"of a tag that {tag} matches")
    return " ".join(["no dead letters", *wanted, f"in {settings.home}"])


def _open(settings: Settings) -> "DeadLetters":
    from ..store.databases.dead_letters import SqlDeadLetters

    require_home(settings)
    return SqlDeadLetters(settings.dead_letter_place, max_bytes=settings.dead_letter_bytes)


def _matching(letters: "DeadLetters", *, code: str | None, tag: str | None) -> Iterator["DeadLetterSummary"]:
    """Newest first."""
    from ..store.catalog.tag_pattern import TagPattern

    pattern = TagPattern(tag) if tag is not None else None
    before: int | None = None
    while page := letters.list(limit=PAGE_LETTERS, before=before, code=code):
        for letter in page:
            if pattern is None or pattern.matches(letter.tag):
                yield letter
        before = page[-1].id


def _chosen(
    letters: "DeadLetters", ids: Sequence[int], *, everything: bool, code: str | None, tag: str | None
) -> list["DeadLetterSummary"]:
    """Oldest first, so that what goes into a stream keeps its order."""
    if ids and (everything or code is not None or tag is not None):
        raise click.UsageError("give either IDs or --all, --code and --tag, not both")
    if ids:
        return [letters.get(id) for id in sorted(set(ids))]
    if not everything and code is None and tag is None:
        raise click.UsageError(
            "say which: ID…, --all, --code or --tag; `windvane dead-letter list` shows them"
        )
    return sorted(_matching(letters, code=code, tag=tag), key=lambda letter: letter.id)


def _one_line(text: str, *, on_terminal: int | None = None) -> str:
    """Nothing that a terminal could take for a command, a tab for a column, or a line for another one."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text)
    if on_terminal is not None and sys.stdout.isatty() and len(shown) > on_terminal:
        return f"{shown[: on_terminal - 1]}\u2026"
    return shown
