"""`windvane upgrade`: converts the data arrays of a home to the present format."""

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import Settings
from ..errors import StoreFailed, StoreLocked, WindvaneError
from .common.options import home_options
from .common.worker_release import HOLD_S, release_stream
from .data import require_home

if TYPE_CHECKING:
    from ..store.repair.array_upgrade import ArrayUpgrade

LOCK_TIMEOUT_S = 30.0
"""How long the command waits for the worker to release a stream."""
_LOCK_RETRY_S = 0.05


@click.command(short_help="Convert data arrays to the format that other programs read.")
@click.argument("arrays", metavar="[ARRAY…]", nargs=-1)
@home_options
def upgrade(settings: Settings, arrays: tuple[str, ...]) -> None:
    """Convert data arrays of format 1 to format 2: all of the home, or those that are named.

    Arrays of format 2 can be read by zarr, xarray and Dask, and their rows have checksums. The tiers may
    run: rows are copied in the background, and each stream pauses for a moment at the end. After Ctrl-C or a
    crash, run the command again: it continues. Arrays that were set aside (`~1`) stay as they are, and so do
    data streams, which have one format.

    The disk needs room for a copy of the largest array.

    \b
    Examples:
      windvane upgrade
      windvane upgrade turbine.t01.gearbox:spectrum
    """
    from ..store.repair.array_upgrade import ArrayUpgrade
    from ..store.repair.local_store import open_local_store
    from .common.progress import byte_progress, plural

    require_home(settings)
    store = open_local_store(settings.store, settings.home)
    references = list(arrays) or [each for each in store.arrays() if "~" not in each]
    for reference in arrays:
        store.array(reference).close()
    upgraded, failed = 0, 0
    for reference in references:
        stream = reference.partition(":")[0]
        conversion = ArrayUpgrade(store.array_directory(reference), reference, zarr_root=store.root)
        if not conversion.is_needed:
            conversion.remove_former()
            continue
        try:
            with store.array(reference) as array:
                total_bytes = len(array) * array.row_bytes
            with byte_progress(f"upgrading {reference}", total_bytes=total_bytes) as progress:
                conversion.copy(progress.update)
                _exchange(settings, stream, store.stream_directories()[stream], conversion)
            upgraded += 1
        except WindvaneError as error:
            click.echo(f"{reference} stays in format 1: {error}", err=True)
            failed += 1
    click.echo(f"upgraded {plural(upgraded, 'array')}")
    if failed:
        raise StoreFailed(
            f"{plural(failed, 'array')} could not be upgraded, and can be read and written as before. "
            "Run the command again after you have removed the cause"
        )


def _exchange(settings: Settings, stream: str, directory: Path, conversion: "ArrayUpgrade") -> None:
    from ..store.repair.stream_repair import locked_output

    give_up_at_s = time.monotonic() + LOCK_TIMEOUT_S
    try:
        while True:
            release_stream(settings, stream, seconds=HOLD_S)
            with suppress(StoreLocked), locked_output(directory):
                conversion.exchange()
                return
            if time.monotonic() > give_up_at_s:
                raise StoreLocked(
                    f"the worker did not release {stream} within {LOCK_TIMEOUT_S:.0f} s; run the command "
                    "again"
                )
            time.sleep(_LOCK_RETRY_S)
    finally:
        release_stream(settings, stream, seconds=0.0)
