"""`windvane explain`: the bytes that a row of a data array came from."""

from typing import TYPE_CHECKING

import click

from ..config import Settings
from ..errors import InputInvalid, RangeGone
from .common.options import tier_options
from .data import require_home

if TYPE_CHECKING:
    from ..store.row_origin import ByteSpan, ChunkOrigin, RowOrigin


@click.command(
    short_help="Show what a row of a data array came from.", context_settings={"ignore_unknown_options": True}
)
@click.argument("array", metavar="ARRAY")
@click.argument("row", metavar="ROW", type=int)
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
@tier_options("store", "database", "catalog")
def explain(settings: Settings, array: str, row: int, is_json: bool) -> None:
    """Show the bytes of the data stream that row ROW of ARRAY came from.

    Shows the chunks that brought them, with their IDs, senders and times of arrival; the policy and the
    revision that it had, and the operations with their versions. A negative ROW counts from the end.

    Replays the stream from its beginning to the row, while all tiers run, and compares the row that this
    gives with the stored one. Only rows that a checkpoint covers have an origin. Exit code 1 means that the
    row differs.

    \b
    Examples:
      windvane explain turbine.t01.gearbox:spectrum 1200
      windvane explain voice:features --json -- -1
    """
    import msgspec

    origin = _origin(settings, array, row, quiet=is_json)
    if is_json:
        click.echo(msgspec.json.encode(origin).decode())
    else:
        for line in lines_of(origin):
            click.echo(line)
    if not origin.is_equal:
        raise click.exceptions.Exit(1)


def _origin(settings: Settings, reference: str, row: int, *, quiet: bool) -> "RowOrigin":
    from ..processors.operations.base.user_operations import UserOperations
    from ..processors.worker.reprocessing.row_origin import find_origin
    from ..store.databases.committed import committed_checkpoint
    from ..store.interface import open_store
    from .common.interrupts import interrupted_between_blocks
    from .common.policy_revisions import known_policies
    from .common.progress import byte_progress

    require_home(settings)
    UserOperations(settings.operations_dir).refresh()
    store = open_store(settings.store, settings.home)
    store.array(reference).close()
    stream = reference.partition(":")[0]
    committed = committed_checkpoint(settings.checkpoint_place, stream)
    policies = known_policies(settings, committed)
    if row < 0 and committed is not None and reference in committed.outputs:
        row += committed.outputs[reference].length
    total = None if quiet else store.stream(stream).size
    with (
        byte_progress(f"replaying {stream}", total_bytes=total) as progress,
        interrupted_between_blocks() as check,
    ):

        def each_chunk(bytes_done: int) -> None:
            if not quiet:
                progress.update(bytes_done)
            check()

        try:
            return find_origin(store, reference, row, committed, policies, each_chunk=each_chunk)
        except RangeGone:
            raise
        except IndexError as error:
            raise InputInvalid(str(error)) from error


def lines_of(origin: "RowOrigin") -> list[str]:
    """The origin for a terminal, a line each."""
    from .common.progress import plural

    policy = origin.policy
    revision = "a revision that the catalog does not keep"
    if policy.revision is not None:
        revision = f"revision {policy.revision}"
    lines = [
        f"{origin.array} row {origin.row}, {origin.time}",
        f"  computed from  {_span(origin.direct)} of {origin.stream}",
        f"  depends on     {_span(origin.bytes)}" + "".join(f"; {each}" for each in _because(origin)),
        f"  policy         {policy.reference}, {revision}, since chunk {policy.since_chunk}",
    ]
    for step in origin.steps:
        lines.append(f"  step           {step.name}: {step.operation} ({step.version or 'version unknown'})")
        lines.append(f"                   depends on {step.depends_on}")
    lines += [f"  note           {step}: {note}" for step, note in origin.notes.items()]
    lines.append(f"  {plural(origin.chunks_total, 'chunk')}")
    lines += [f"    {_chunk(chunk)}" for chunk in origin.chunks]
    if origin.sender_note:
        lines.append(f"  sender         {origin.sender_note}")
    lines.append(
        "  ✓ computed again, the row is equal to the last bit"
        if origin.is_equal
        else f"  ✗ {origin.difference}"
    )
    return lines


def _because(origin: "RowOrigin") -> list[str]:
    return [
        f"{step} keeps {'all that came before' if what == 'all' else 'what came since the last gap'}"
        for step, what in origin.because.items()
    ]


def _span(span: "ByteSpan") -> str:
    return f"bytes {span.start:,} to {span.stop - 1:,}"


def _chunk(chunk: "ChunkOrigin") -> str:
    id = "a part of a chunk" if chunk.is_part else chunk.id or "no chunk ID"
    damaged = "" if chunk.is_intact else ", DAMAGED: its checksum differs"
    return (
        f"{chunk.number}: {id}, from {chunk.sender or 'unknown'}, arrived {chunk.arrived}, "
        f"{chunk.size:,} bytes from {chunk.offset:,}{damaged}"
    )
