"""`windvane drop`: removes data arrays that others have replaced."""

import re
import sys
from collections.abc import Sequence
from contextlib import closing

import click

from ..config import Settings
from ..errors import ConfigInvalid
from .common.options import home_options
from .data import require_home

_REPLACED = re.compile(r"[^:]+:.+~([1-9][0-9]*|rebuilt)")


@click.command(short_help="Remove arrays that were replaced.")
@click.argument("arrays", metavar="ARRAY…", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_options
def drop(settings: Settings, arrays: Sequence[str], yes: bool) -> None:
    """Permanently remove data arrays that `reprocess`, or a change of a pipeline, has set aside.

    `windvane ls --replaced` lists them. ARRAY~rebuilt, which `reprocess --side-by-side` leaves, can be
    removed too. Arrays that the worker writes to are never removed.

    \b
    Examples:
      windvane drop turbine.t01.gearbox:spectrum~1
      windvane drop voice:spectrum~1 voice:features~1 --yes
    """
    from ..store.databases.checkpoint import SqlCheckpointDatabase
    from ..store.interface import REBUILT, open_store
    from .common.progress import amount, plural

    require_home(settings)
    store = open_store(settings.store, settings.home)
    sizes: dict[str, int] = {}
    with closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints:
        for reference in arrays:
            store.array(reference).close()
            committed = checkpoints.stream(reference.partition(":")[0])
            current = {length.uid: name for name, length in (committed.outputs if committed else {}).items()}
            in_use_as = current.get(store.array_uid(reference) or b"")
            if committed is None and reference.endswith(REBUILT):
                in_use_as = reference.removesuffix(REBUILT)  # no checkpoint says otherwise
            if in_use_as is not None or not _REPLACED.fullmatch(reference):
                raise ConfigInvalid(
                    f"{reference} is not removed: it is the current output {in_use_as or reference}. "
                    "`windvane ls --replaced` lists what can be removed"
                )
            sizes[reference] = store.array_bytes(reference)
        what = f"{plural(len(sizes), 'array')}, {amount(sum(sizes.values()))} on the disk"
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigInvalid(f"{what}: nothing was removed; add --yes to remove without confirmation")
            click.confirm(f"Permanently remove {what}?", abort=True, err=True)
        for reference, size in sizes.items():
            store.drop_array(reference)
            click.echo(f"removed {reference} ({amount(size)})")
