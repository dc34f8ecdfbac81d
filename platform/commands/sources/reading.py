"""A file, or standard input, in the format that the user says it has."""

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import click

from ...errors import InputInvalid
from ..common.progress import byte_progress
from .chunks import Chunk, Losses, Read
from .csv_table import Table, TableOptions, open_table
from .records import jsonl_chunks, line_chunks, raw_chunks


@dataclass(slots=True)
class Reading:
    """What is read, chunk by chunk, and what became of it so far."""

    batches: Iterator[list[Chunk]]
    losses: Losses = field(default_factory=Losses)
    table: Table | None = None

    def described(self) -> Sequence[str]:
        """What was understood of it, as lines."""
        return [] if self.table is None else self.table.describe()

    def remarks(self) -> Sequence[str]:
        """What is worth a look after all was read, as lines."""
        return [] if self.table is None else self.table.misfits()

    def failure(self) -> str:
        """Why the command failed although everything sent is stored; "" if it succeeded."""
        if self.losses.lines:
            return str(self.losses)
        if self.table is not None and self.table.has_given_misfits:
            return "some cells are not of the type that --type says, and went as text"
        return ""


@dataclass(frozen=True, slots=True)
class Source:
    """An open file or pipe."""

    name: str
    file: BinaryIO
    size_bytes: int | None
    """None for a pipe."""
    rewind: Callable[[], None] | None
    """Goes back to where it stood; None for a pipe."""

    def start(
        self,
        format: str,
        *,
        chunk_bytes: int,
        options: TableOptions,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> Reading:
        """Begins to read. Raises InputInvalid if a table cannot be understood.

        `on_read` receives how many bytes of a table were scanned so far, which takes a second for 3 MB.
        """
        # What a pipe has so far is better than a whole block later.
        read: Read = getattr(self.file, "read1", self.file.read) if self.rewind is None else self.file.read
        losses = Losses()
        if format == "csv":
            looking = _Counting(read, on_read)
            table = open_table(looking.read, options, rewind=self.rewind)
            looking.tell = lambda _: None
            return Reading(table.chunks(chunk_bytes=chunk_bytes, losses=losses), losses, table)
        if format == "jsonl":
            batches = jsonl_chunks(
                read,
                chunk_bytes=chunk_bytes,
                losses=losses,
                time_field=options.time_field,
                keep_time_field=options.keep_time_field,
            )
            return Reading(batches, losses)
        chunks = line_chunks if format == "lines" else raw_chunks
        return Reading(chunks(read, chunk_bytes=chunk_bytes), losses)


class _Counting:
    def __init__(self, read: Read, tell: Callable[[int], None]) -> None:
        self.tell = tell
        self._read = read
        self._done_bytes = 0

    def read(self, size: int) -> bytes:
        block = self._read(size)
        self._done_bytes += len(block)
        self.tell(self._done_bytes)
        return block


def open_source(path: str) -> Source:
    """The file at `path`, or standard input for `-`."""
    if path != "-":
        file: BinaryIO = open(path, "rb")  # noqa: SIM115
        return _source(Path(path).name, file)
    try:
        # Unbuffered: at the end of the process a thread may still wait in a read, which must hold no lock.
        return _source("standard input", open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    except OSError:
        return Source("standard input", sys.stdin.buffer, None, None)


def _source(name: str, file: BinaryIO) -> Source:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return Source(name, file, None, None)
    begin = file.tell()
    return Source(name, file, max(0, status.st_size - begin), lambda: _seek(file, begin))


def _seek(file: BinaryIO, position: int) -> None:
    file.seek(position)


def say_what_is_understood(opened: Source, format_: str, chunk_bytes: int, options: TableOptions) -> Reading:
    """Begins to read, and says what is understood of it."""
    if format_ == "csv" and opened.rewind is not None:
        with byte_progress(f"{opened.name}: types", total_bytes=opened.size_bytes) as progress:
            reading = opened.start(format_, chunk_bytes=chunk_bytes, options=options, on_read=progress.update)
    else:
        reading = opened.start(format_, chunk_bytes=chunk_bytes, options=options)
    for line in reading.described():
        click.echo(line, err=True)
    return reading


def report(reading: Reading) -> None:
    """Says what is worth a look. Raises InputInvalid if something was not sent."""
    for line in reading.remarks():
        click.echo(line, err=True)
    if failure := reading.failure():
        raise InputInvalid(failure)


@contextmanager
def named_in_errors(source: str) -> Iterator[None]:
    """InputInvalid says which file it is about."""
    try:
        yield
    except InputInvalid as error:
        raise InputInvalid(f"{'standard input' if source == '-' else source}: {error}") from error
