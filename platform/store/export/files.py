"""Exports on a disk: a file of one array, or a folder of several.

A draft next to the target gets its name when it is whole and durable. So an export that fails, or that Ctrl-C
ends, leaves nothing that looks whole, and a former file as it was.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ...directories import sync_directory
from ...errors import ColumnNotFound, ExportFailed, WindvaneError
from .formats import FORMATS, ExportFormat
from .rows_to_export import RowsToExport
from .zarr_group import write_zarr_directory

ZARR_DIRECTORY_SUFFIX = ".zarr"
"""A Zarr group as a directory; with the suffix `.zarr.zip` it is a zip file."""


def format_of(file_name: str) -> ExportFormat:
    """The format that the suffix of a file or directory names, in any case. Raises ExportFailed."""
    lower = file_name.lower()
    if lower.endswith(ZARR_DIRECTORY_SUFFIX):
        return FORMATS["zarr"]
    found = next((made for made in FORMATS.values() if lower.endswith(made.suffix)), None)
    if found is None:
        suffixes = ", ".join([*(made.suffix for made in FORMATS.values()), ZARR_DIRECTORY_SUFFIX])
        raise ExportFailed(f"{file_name} has none of the suffixes {suffixes}, which name the format")
    return found


def export_file(export: RowsToExport, target: Path, made: ExportFormat) -> Iterator[int]:
    """Write `target`; yields, block by block, how many rows were written.

    A file is replaced; a directory that exists is not. Raises ExportFailed.
    """
    with _draft_of(target) as draft:
        if _is_directory(made, target):
            _require_free(target)
            draft.mkdir()
        yield from _write(export, draft, made, is_directory=draft.is_dir())


def export_folder(
    exports: Sequence[RowsToExport], folder: Path, made: ExportFormat
) -> Iterator[tuple[RowsToExport, int, WindvaneError | None]]:
    """Write one file for each array to a new folder: `OUTPUT/stream=STREAM/rows.SUFFIX`.

    Yields, block by block, an array and how many of its rows were written; an array that the format cannot
    hold, or that lacks a chosen column, is left out, and its error is yielded. Raises ExportFailed if the
    folder exists, or nothing can be written.
    """
    _require_free(folder)
    left_out = 0
    with _draft_of(folder) as draft:
        draft.mkdir()
        for export in exports:
            file = draft / path_in_folder(export.source.reference, made)
            file.parent.mkdir(parents=True)
            is_directory = _is_directory(made, file)
            if is_directory:
                file.mkdir()
            try:
                for count in _write(export, file, made, is_directory=is_directory):
                    yield export, count, None
            except (ColumnNotFound, ExportFailed) as error:
                shutil.rmtree(file.parent)
                left_out += 1
                yield export, 0, error
        if left_out == len(exports):
            raise ExportFailed(
                f"none of these arrays can be exported as {made.name}; choose another --format"
            )


def path_in_folder(reference: str, made: ExportFormat) -> Path:
    """Where the file of an array is in a folder: other programs read `stream=…` as a column.

    >>> str(path_in_folder("park/7:features", FORMATS["parquet"]))
    'features/stream=park%2F7/rows.parquet'
    """
    stream, _, output = reference.partition(":")
    suffix = ZARR_DIRECTORY_SUFFIX if made.name == "zarr" else made.suffix
    return Path(quote(output, safe="~"), f"stream={quote(stream, safe='')}", f"rows{suffix}")


def _is_directory(made: ExportFormat, target: Path) -> bool:
    return made.name == "zarr" and not target.name.lower().endswith(made.suffix)


def _write(export: RowsToExport, target: Path, made: ExportFormat, *, is_directory: bool) -> Iterator[int]:
    if is_directory:
        yield from write_zarr_directory(export, target)
        os.sync()
    else:
        with target.open("wb") as output:
            yield from made.write(export, output)
            output.flush()
            os.fsync(output.fileno())


def _require_free(directory: Path) -> None:
    if directory.exists():
        raise ExportFailed(f"{directory} exists, and an export does not replace a directory; name another")


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A path for the draft of `target`, which gets its name at the end. Raises ExportFailed for OSError."""
    draft = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        yield draft
        draft.replace(target)
        sync_directory(target.parent)
    except WindvaneError:
        raise
    except OSError as error:
        raise ExportFailed(
            f"{target} cannot be written: {error.strerror or error}; name a file in a folder that exists, "
            "that you may write and that has room"
        ) from error
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
