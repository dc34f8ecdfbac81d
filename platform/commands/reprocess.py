"""`windvane reprocess`: recomputes the outputs of a stream from its archive."""

from contextlib import closing
from typing import TYPE_CHECKING

import click

from ..config import Settings
from .common.options import home_options
from .common.worker_release import HOLD_S, release_stream
from .data import format_time, require_home
from .operation import policy_of_stream, summary_of_rows

if TYPE_CHECKING:
    from ..store.interface import StoreEngine


@click.command(short_help="Make the outputs of a stream again, by its policy as it is now.")
@click.argument("stream", metavar="STREAM")
@click.option("--side-by-side", is_flag=True, help="Keep the old outputs; the new ones are OUTPUT~rebuilt.")
@click.option("--force", is_flag=True, help="Replace the old ones even if rows are lost.")
@home_options
def reprocess(settings: Settings, stream: str, side_by_side: bool, force: bool) -> None:
    """Recompute the outputs of STREAM from its archive, by its current policy.

    The new outputs are written next to the old ones while all tiers run; then they replace the old ones,
    which are set aside as OUTPUT~1 (or ~2, …). Data that arrives meanwhile is in both. Outputs that an
    earlier reprocessing set aside are removed: `windvane ls --replaced` lists them.

    If a step would have fewer rows than before, or NaN for numbers, nothing is replaced: the command reports
    how many rows of which array, and why. --force replaces them anyway. Rows whose bytes retention has
    dropped cannot be recomputed; those that the policy still keeps count as lost.

    \b
    Examples:
      windvane reprocess turbine.t01.gearbox
      windvane reprocess voice --side-by-side
    """
    reprocess_stream(settings, stream, side_by_side=side_by_side, force=force)


def reprocess_stream(
    settings: Settings,
    stream: str,
    *,
    side_by_side: bool = False,
    force: bool = False,
    store: "StoreEngine | None" = None,
) -> None:
    """What `windvane reprocess` does. `store` decides what becomes of the arrays that it would remove."""
    from ..processors.operations.base.user_operations import UserOperations
    from ..processors.worker.reprocessing.reprocess import Reprocessing
    from ..store.databases.checkpoint import SqlCheckpointDatabase
    from ..store.interface import open_store
    from .common.interrupts import interrupted_between_blocks
    from .common.progress import byte_progress

    require_home(settings)
    UserOperations(settings.operations_dir).refresh()
    store = store or open_store(settings.store, settings.home)
    recorded = store.stream(stream)
    policy = policy_of_stream(settings, str(recorded.attrs.get("policy")))
    with (
        closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints,
        Reprocessing(store, stream, policy, checkpoints) as again,
    ):
        with (
            byte_progress(f"reprocessing {stream}", total_bytes=recorded.size) as progress,
            interrupted_between_blocks() as check,
        ):

            def done(bytes_done: int) -> None:
                progress.update(bytes_done)
                check()

            again.run(done)
        if not side_by_side:
            try:
                again.put_in_place(lambda: release_stream(settings, stream, seconds=HOLD_S), force=force)
            finally:
                release_stream(settings, stream, seconds=0.0)
        for step, reason in again.failed.items():
            click.echo(f"step {step!r} failed on some of it: {reason}", err=True)
        where = "next to the old ones, as …~rebuilt" if side_by_side else "in place"
        click.echo(f"rows made: {summary_of_rows(again.rows)} ({where})")
        if again.archive_begins_ns is not None:
            click.echo(
                f"retention has dropped the beginning of {stream}: rows from before "
                f"{format_time(again.archive_begins_ns)} are not recomputed",
                err=True,
            )
        if again.set_aside:
            click.echo(f"the old ones: {', '.join(again.set_aside)}")
        if again.dropped:
            click.echo(f"removed, of earlier reprocessings: {', '.join(again.dropped)}")
