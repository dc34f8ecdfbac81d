"""The commands that look at what is stored: `ls` and `cat`."""

import asyncio
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ..config import Settings
from ..errors import ConfigInvalid, HomeNotFound
from .common.bounds import BOUND
from .common.options import home_options

if TYPE_CHECKING:
    from ..records.bounds import Bound
    from ..store.interface import StoreEngine

MIB = 1024 * 1024
NS_PER_S = 1_000_000_000


@click.command(short_help="List data streams, data arrays or policies.")
@click.argument("what", type=click.Choice(["streams", "arrays", "policies"]), required=False)
@click.option("--replaced", is_flag=True, help="Only arrays that were replaced, with their size and time.")
@click.option("--usage", is_flag=True, help="Bytes of each policy, stream or array; what is dropped next.")
@home_options
def ls(settings: Settings, what: str | None, replaced: bool, usage: bool) -> None:
    """List data streams, data arrays or policies; by default streams.

    With --replaced: the arrays that `windvane reprocess`, or a change of a pipeline, has set aside, with
    their bytes on the disk, when they were replaced, and by what. `windvane drop` removes them.

    With --usage: how many bytes the streams and arrays of each policy take, and which segment its retention
    drops next; `ls streams --usage` and `ls arrays --usage` show each stream or array. Only full segments are
    dropped, so a new stream has none.

    A table on a terminal; elsewhere one line each, without a heading, columns between tabs, sizes in bytes,
    times in UTC.

    \b
    Examples:
      windvane ls
      windvane ls arrays
      windvane ls streams | cut -f 1
      windvane ls --replaced
      windvane ls --usage
      windvane ls arrays --usage
    """
    if usage:
        from .usage import print_usage

        print_usage(settings, open_store_of(settings), what)
    elif replaced:
        _print_replaced(settings)
    elif what == "policies":
        print_policies(settings)
    elif what == "arrays":
        _print_arrays(settings)
    else:
        _print_streams(settings)


@click.command(short_help="Write the bytes of a data stream.")
@click.argument("stream", metavar="STREAM")
@click.option(
    "--start",
    "--offset",
    "start",
    type=BOUND,
    metavar="BYTES|TIME",
    help="First byte; negative counts from the end. With a time: the first chunk that arrived then or "
    "later.  [default: the first kept]",
)
@click.option(
    "--stop",
    type=BOUND,
    metavar="BYTES|TIME",
    help="The byte after the last; with a time: chunks that arrived before.  [default: the end]",
)
@click.option("--length", type=click.IntRange(min=0), metavar="BYTES", help="How many.  [default: all]")
@home_options
def cat(
    settings: Settings, stream: str, start: "Bound | None", stop: "Bound | None", length: int | None
) -> None:
    """Write the bytes of a data stream to standard output, as many as there are now.

    A TIME is RFC 3339, in which seconds and offset (UTC) are optional, or ns since 1970.

    \b
    Examples:
      windvane cat voice > voice.wav
      windvane cat app.log --offset -4096
      windvane cat app.log --start 2026-11-01T00:00Z --stop 2026-11-01T06:00Z
      windvane cat turbine.t01.gearbox --offset 0 --length 12800 | od -t d2
    """
    from ..store.selection.time_ranges import byte_range
    from .common.progress import plural

    if stop is not None and length is not None:
        raise ConfigInvalid("--stop and --length exclude each other; give one of them")
    recorded = open_store_of(settings).stream(stream)
    end = recorded.size
    if isinstance(start, int) and start > end:
        raise ConfigInvalid(
            f"--offset {start}: {stream} has {plural(end, 'byte')}; give at most {end}, or a negative "
            "offset, which counts from the end"
        )
    if isinstance(start, int) and start < 0:
        start = max(end + start, recorded.start)
    offsets = byte_range(recorded, start, stop)
    if length is not None:
        offsets = offsets[:length]
    output = sys.stdout.buffer
    for position in range(offsets.start, offsets.stop, MIB):
        output.write(recorded.read(position, min(MIB, offsets.stop - position)))
    output.flush()


def print_policies(settings: Settings) -> None:
    """What `ls policies` and `policy list` print."""
    from ..store.catalog.catalog import Catalog
    from ..store.catalog.policy import policy_from_mapping

    async def read() -> list[tuple[str, str, str, str, str]]:
        catalog = await Catalog.open(settings.catalog_url)
        try:
            rows: list[tuple[str, str, str, str, str]] = []
            after: str | None = None
            while page := await catalog.list("policy", after=after):
                for document in page:
                    made = policy_from_mapping(document.body)
                    steps = " ".join(step.name for step in made.pipeline)
                    rows.append((made.reference, " ".join(made.tags), made.format, steps, document.title))
                after = page[-1].reference
            return rows
        finally:
            await catalog.close()

    require_home(settings, what="policies")
    print_table(
        ("policy", "tags", "format", "pipeline", "title"),
        asyncio.run(read()),
        empty=f"no policies in {_where(settings)}; create one with `windvane policy create`",
    )


def _print_streams(settings: Settings) -> None:
    store = open_store_of(settings)
    rows = []
    for reference in store.streams():
        stream = store.stream(reference)
        last = "" if stream.last_arrival_ns is None else format_time(stream.last_arrival_ns)
        policy = str(stream.attrs.get("policy") or "")
        rows.append((reference, stream.size, stream.chunks, stream.events, last, policy))
    empty = "" if rows else f"no data streams in {settings.home}; {_what_is_to_come(settings)}"
    print_table(("stream", "bytes", "chunks", "events", "last arrival", "policy"), rows, empty=empty)


def _what_is_to_come(settings: Settings) -> str:
    from .common.progress import plural
    from .common.tier_answers import waiting_chunks

    if waiting := waiting_chunks(settings.run_dir):
        return f"{plural(waiting, 'chunk')} {'waits' if waiting == 1 else 'wait'} to be stored by the worker"
    return "send something with `windvane send`"


def _print_arrays(settings: Settings) -> None:
    store = open_store_of(settings)
    rows = []
    for reference in store.arrays():
        array = store.array(reference)
        kind = "record" if array.dtype.names else array.dtype.name
        shape = "×".join(str(extent) for extent in array.row_shape) or "1"
        last = format_time(int(array.times_ns[len(array) - 1])) if len(array) > array.start else ""
        rows.append((reference, len(array), shape, kind, last))
    print_table(
        ("array", "rows", "shape of a row", "dtype", "last row"),
        rows,
        empty=f"no data arrays in {settings.home}; a policy's pipeline makes them from what is sent",
    )


def _print_replaced(settings: Settings) -> None:
    store = open_store_of(settings)
    rows = [
        (reference, store.array_bytes(reference), format_time(each.replaced_ns), each.by or "")
        for reference, each in store.replaced().items()
    ]
    print_table(
        ("array", "bytes on disk", "replaced", "by"),
        rows,
        empty=f"no replaced arrays in {settings.home}",
    )


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str | int]], *, empty: str) -> None:
    """A table on a terminal; elsewhere a line each, columns between tabs, without the headings.

    If there are no rows, `empty` goes to standard error: standard output stays what a program can read.
    """
    lines = list(rows)
    if not lines:
        click.echo(empty, err=True)
        return
    if not sys.stdout.isatty():
        for line in lines:
            click.echo("\t".join(str(cell) for cell in line))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, cell in zip(headings, lines[0], strict=True):
        table.add_column(heading, justify="right" if isinstance(cell, int) else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else cell) for cell in line))
    Console().print(table)


def _where(settings: Settings) -> str:
    """Where its policies are, without the secrets of a URL."""
    return str(settings.home) if not settings.has_catalog_elsewhere else "the catalog"


def format_time(time_ns: int) -> str:
    """UTC, to the millisecond."""
    seconds, nanoseconds = divmod(time_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds // 1_000_000:03d}Z"


def open_store_of(settings: Settings) -> "StoreEngine":
    """The store of a home that exists. Raises HomeNotFound."""
    from ..store.interface import open_store

    require_home(settings)
    return open_store(settings.store, settings.home)


def require_home(settings: Settings, *, what: str = "data") -> None:
    """Looking must not make a home: a mistyped --home would show an empty one. Raises `HomeNotFound`."""
    if what == "policies" and settings.has_catalog_elsewhere:
        return  # they are not kept in the home
    if not settings.home.is_dir():
        raise HomeNotFound(
            f"there is no home directory {settings.home}; `windvane up` makes it, --home names another"
        )
    is_home = any((settings.home / name).exists() for name in ("store", "catalog.sqlite"))
    if not is_home and not settings.has_catalog_elsewhere:
        raise HomeNotFound(
            f"{settings.home} is not a Windvane home: it has neither store/ nor catalog.sqlite; name another "
            "with --home, or create one with `windvane up` or `windvane policy create`"
        )
