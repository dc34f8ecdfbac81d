"""Progress of a long command: a bar on a terminal, otherwise nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class ByteProgress:
    """Bytes done so far; and the way to say something without tearing the bar."""

    def __init__(self, progress: Progress | None, description: str, total_bytes: int | None) -> None:
        self._progress = progress
        if progress is not None:
            self._task = progress.add_task(description, total=total_bytes)

    def update(self, done_bytes: int) -> None:
        """Show that `done_bytes` in all are done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done_bytes)

    def advance(self, more_bytes: int) -> None:
        """Show that `more_bytes` more are done."""
        if self._progress is not None:
            self._progress.advance(self._task, more_bytes)

    def say(self, message: str) -> None:
        """One line on standard error, above the bar."""
        if self._progress is not None:
            self._progress.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(message, err=True)


@contextmanager
def byte_progress(description: str, *, total_bytes: int | None) -> Iterator[ByteProgress]:
    """A bar with megabytes, their rate and the time left; `total_bytes` is None if it is unknown."""
    if not sys.stderr.isatty():
        yield ByteProgress(None, description, total_bytes)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield ByteProgress(progress, description, total_bytes)


def plural(count: int, noun: str) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def amount(size_bytes: float) -> str:
    """`12 bytes`, `3.4 kB`, `137.1 MB`; a kilobyte is 1,000 bytes."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} bytes"
    return f"{size_bytes / 1e3:,.1f} kB" if size_bytes < 1e6 else f"{size_bytes / 1e6:,.1f} MB"
