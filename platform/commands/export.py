"""`windvane export`: data arrays as files of other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import Settings
from ..errors import ConfigInvalid
from .common.bounds import BOUND
from .common.options import home_options
from .data import open_store_of

if TYPE_CHECKING:
    from ..records.bounds import Bound
    from ..store.export.formats import ExportFormat
    from ..store.export.rows_to_export import RowsToExport
    from ..store.interface import StoreEngine

FORMAT_NAMES = ("npy", "csv", "parquet", "arrow", "zarr", "wav", "mdf")
FOLDER_FORMAT = "parquet"


@click.command(short_help="Write data arrays to files of other programs.")
@click.argument("references", metavar="[ARRAY|STREAM]...", nargs=-1)
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMAT_NAMES),
    help=f"[default: the one that the suffix names; in a folder {FOLDER_FORMAT}]",
)
@click.option("--policy", metavar="POLICY", help="All arrays of the streams of this policy, to a folder.")
@click.option(
    "--start",
    type=BOUND,
    metavar="ROW|TIME",
    help="First row; negative counts from the end. With a time: the first row of that time or later.  "
    "[default: the first kept]",
)
@click.option(
    "--stop",
    type=BOUND,
    metavar="ROW|TIME",
    help="The row after the last; with a time: rows before that time.  [default: the end]",
)
@click.option("--column", metavar="NAME", multiple=True, help="Only this column; may be repeated.")
@home_options
def export(
    settings: Settings,
    references: Sequence[str],
    target: Path,
    format_name: str | None,
    policy: str | None,
    start: "Bound | None",
    stop: "Bound | None",
    column: Sequence[str],
) -> None:
    """Write one data array to the file TARGET, or several to the new folder TARGET.

    The suffix of the file names the format: .npy, .csv, .parquet, .arrow (Arrow IPC), .zarr (Zarr v3, a
    directory), .zarr.zip, .wav (samples only) or .mf4 (MDF4). All but .npy and .wav have the time of each
    row: time_ns, nanoseconds since 1970, or time, a timestamp. A column with that name, or one that occurs
    twice, gets a number: time_2. Nested fields are columns with dotted names. A TIME is RFC 3339, in which
    seconds and offset (UTC) are optional, or ns since 1970.

    With a STREAM (all its arrays), several arrays or --policy, TARGET is a folder of files
    OUTPUT/stream=STREAM/rows.SUFFIX, which DuckDB and Polars read as one table for each output.

    Parquet and Arrow need pyarrow, Zarr needs zarr, MDF4 needs asammdf: pip install 'windvane[export]'.

    \b
    Examples:
      windvane export voice:spectrum voice.npy
      windvane export turbine.t02.gearbox:features features.parquet --column rms --column peak
      windvane export voice:spectrum hour.zarr --start 2026-11-01T00:00Z --stop 2026-11-01T01:00Z
      windvane export turbine.t02.gearbox gearbox
      windvane export --policy turbine turbines --format arrow --start 2026-11-01
    """
    from ..store.export.formats import FORMATS
    from ..store.export.rows_to_export import RowsToExport
    from ..store.selection.time_ranges import rows_between

    store = open_store_of(settings)
    if not references and policy is None:
        raise ConfigInvalid("nothing to export: name an array, a stream, or a policy with --policy")

    def rows_of(reference: str) -> RowsToExport:
        source = store.array(reference)
        return RowsToExport(source, rows_between(source, start, stop), column)

    made = FORMATS[format_name] if format_name else None
    if policy is None and len(references) == 1 and ":" in references[0]:
        _export_file(rows_of(references[0]), target, made)
        return
    chosen = [rows_of(reference) for reference in _arrays(store, references, policy)]
    _export_folder(chosen, target, made or FORMATS[FOLDER_FORMAT])


def _export_file(export: "RowsToExport", target: Path, made: "ExportFormat | None") -> None:
    from ..store.export.files import export_file, format_of
    from ..store.export.formats import renamed_columns
    from .common.progress import byte_progress, plural

    made = made or format_of(target.name)
    reference, row_bytes, done = export.source.reference, export.source.row_bytes, 0
    with byte_progress(f"{reference} → {target.name}", total_bytes=len(export.rows) * row_bytes) as progress:
        for written in export_file(export, target, made):
            done += written
            progress.update(done * row_bytes)
    click.echo(f"wrote {plural(len(export.rows), 'row')} of {reference} to {target}", err=True)
    for name, before in renamed_columns(export, made).items():
        if not before:
            click.echo(f"a column has no name; it is {name!r} in the file", err=True)
            continue
        click.echo(f"the column {before!r} is {name!r} in the file, where that name is taken", err=True)


def _export_folder(chosen: Sequence["RowsToExport"], target: Path, made: "ExportFormat") -> None:
    from ..store.export.files import export_folder
    from .common.progress import byte_progress, plural

    total_bytes = sum(len(each.rows) * each.source.row_bytes for each in chosen)
    left_out = done_bytes = 0
    with byte_progress(
        f"{plural(len(chosen), 'array')} → {target.name}", total_bytes=total_bytes
    ) as progress:
        for export, written, error in export_folder(chosen, target, made):
            done_bytes += written * export.source.row_bytes
            progress.update(done_bytes)
            if error is not None:
                left_out += 1
                progress.say(f"left out {export.source.reference}: {error}")
    click.echo(f"wrote {plural(len(chosen) - left_out, 'array')} to {target}", err=True)


def _arrays(store: "StoreEngine", references: Sequence[str], policy: str | None) -> list[str]:
    """The arrays that are named, those of the named streams, and those of the streams of the policy."""
    streams = [reference for reference in references if ":" not in reference]
    for reference in streams:
        store.stream(reference).close()  # raises StreamNotFound
    if policy is not None:
        of_policy = [reference for reference in store.streams() if _policy_of(store, reference) == policy]
        if not of_policy:
            raise ConfigInvalid(
                f"no stream has the policy {policy!r}; `windvane ls` shows the policy of each"
            )
        streams += of_policy
    replaced = store.replaced()
    arrays = [reference for reference in references if ":" in reference]
    for stream in streams:
        arrays += [reference for reference in store.arrays(stream) if reference not in replaced]
    if not arrays:
        raise ConfigInvalid(
            f"{', '.join(streams)}: no arrays; a policy's pipeline makes them from what is sent"
        )
    return list(dict.fromkeys(arrays))


def _policy_of(store: "StoreEngine", reference: str) -> object:
    with store.stream(reference) as stream:
        return stream.attrs.get("policy")
