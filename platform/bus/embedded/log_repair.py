"""Finds damage in the embedded bus's logs, and sets it aside so that the other messages remain available.

Repair keeps each whole message at its offset, and each damaged byte in the log's folder `damaged`. Missing
messages leave a gap between two segments: the writer continues after it, and readers halt before it
(`MessagesDamaged`) until a user lets them skip it. `damaged/gaps` lists the gaps that repairs have made, one
per line: the offset of the first missing message, and the offset after the last one.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ...directories import sync_directory
from ...errors import BusCorrupt, BusLocked, BusUnavailable
from ..interface import TopicPartition
from .bus_directory import BusDirectory, topic_uid, uid_words
from .log_scan import Damage, Run, next_whole_record, scan_segment, whole_records
from .segment_log import (
    COMMITTED,
    DAMAGED,
    END_WORD,
    READ_BYTES,
    segment_bases,
    segment_path,
    set_aside_path,
)
from .shared_words import SharedWords, restore_page

_GAPS = "gaps"


class LogReport(NamedTuple):
    """The result of checking one partition's log."""

    topic_partition: TopicPartition
    messages: int
    """Count of whole messages in all segments."""
    damages: list[Damage]
    gaps: list[Damage]
    """Messages missing since an earlier repair."""
    set_aside: list[Path]
    """Files to which the repair has moved damaged bytes; empty without a repair."""


def partitions_of(path: Path) -> list[TopicPartition]:
    """The partitions of the embedded bus in `path`, none if there is no bus. Raises BusUnavailable."""
    if not path.is_dir():
        return []
    directory = BusDirectory(path)
    try:
        return directory.partitions(directory.topics())
    finally:
        directory.doorbell.close()


def verify_log(path: Path, topic_partition: TopicPartition) -> LogReport:
    """Check each message of a partition of the bus in `path`; changes nothing, and needs no lock.

    Reads the whole log. A file that the disk cannot read counts as damaged from its first byte.
    """
    directory = path / topic_partition.topic / str(topic_partition.partition)
    messages = 0
    damages: list[Damage] = []
    end = _end(directory)
    bases = segment_bases(directory)
    if end is None:
        damages.append(Damage(directory / COMMITTED, 0, 0, 0, "it is not a page of shared words"))
    elif not bases and end:
        damages.append(Damage(segment_path(directory, 0), 0, 0, end, "the log has no files"))
    for place, base in enumerate(bases):
        segment = segment_path(directory, base)
        stop = bases[place + 1] if place + 1 < len(bases) else end
        try:
            found = _scan_open_end(segment, base) if stop is None else scan_segment(segment, base, stop)
            messages += sum(run.stop - run.first for run in found[0])
            new = list(found[1])
        except OSError as error:
            new = [Damage(segment, 0, base, stop or base, f"it cannot be read: {error.strerror}")]
        if not new or segment.exists():  # else retention was faster
            damages += new
    known = _known_gaps(directory)
    gaps = [damage for damage in damages if _is_gap(damage, known)]
    return LogReport(topic_partition, messages, [each for each in damages if each not in gaps], gaps, [])


def repair_log(path: Path, topic_partition: TopicPartition) -> LogReport:
    """Set damaged parts of the partition's log aside; the report describes the damage before the repair.

    A gateway may run, but raises `BusLocked` if it writes to a damaged segment: stop it first. Raises
    BusUnavailable if the disk cannot be written or read.
    """
    report = verify_log(path, topic_partition)
    directory = path / topic_partition.topic / str(topic_partition.partition)
    set_aside = report.set_aside
    if not report.damages:
        return report
    try:
        if _end(directory) is None:
            set_aside.append(_restore_page(directory))
        _add_gaps(directory, [damage for damage in report.damages if damage.stop > damage.first])
        bases = segment_bases(directory)
        damaged = {damage.path for damage in report.damages}
        if not bases or segment_path(directory, bases[-1]) in damaged:
            with _locked(directory):
                _repair_last(directory, set_aside)
        for base, stop in pairwise(bases):
            segment = segment_path(directory, base)
            if segment in damaged and segment.exists():
                _split(directory, segment, scan_segment(segment, base, stop).runs, set_aside)
    except OSError as error:
        if isinstance(error, BusUnavailable):
            raise
        raise BusUnavailable(f"cannot repair {directory}: {error}. Check the disk (dmesg)") from error
    return report


def _end(directory: Path) -> int | None:
    """The durable end; None if its page is damaged."""
    try:
        page = SharedWords(directory / COMMITTED, writable=False)
    except (BusCorrupt, FileNotFoundError):
        return None
    try:
        return page.words[END_WORD]
    finally:
        page.close()


def _scan_open_end(segment: Path, base: int) -> tuple[list[Run], list[Damage]]:
    """Scan the last segment of a log whose durable end is unknown: all its whole records are kept."""
    runs: list[Run] = []
    damages: list[Damage] = []
    byte, offset = 0, base
    while True:
        run = whole_records(segment, byte, offset)
        if run.stop > run.first:
            runs.append(run)
        following = next_whole_record(segment, run.stop_byte, run.stop)
        if following is None:
            return runs, damages
        damages.append(Damage(segment, run.stop_byte, run.stop, following.first, "it is not a record"))
        byte, offset = following.start_byte, following.first


def _restore_page(directory: Path) -> Path:
    """Recreate the page `committed` with the end of the whole records; returns a copy of the old page."""
    with _locked(directory, create=True) as fd:
        kept = set_aside_path(directory, COMMITTED)
        shutil.copyfile(directory / COMMITTED, kept)
        end = 0
        if bases := segment_bases(directory):
            last = segment_path(directory, bases[-1])
            runs, _ = _scan_open_end(last, bases[-1])
            end = runs[-1].stop if runs else bases[-1]
            _sync_file(last)
        restore_page(fd, {END_WORD: end, **uid_words(topic_uid(directory.parent))})
    sync_directory(directory)
    return kept


def _repair_last(directory: Path, set_aside: list[Path]) -> None:
    """Repair the last segment, under the lock of the writer."""
    end = _end(directory)
    assert end is not None, "the page was restored"
    bases = segment_bases(directory)
    if not bases:
        _write(segment_path(directory, end), b"")
        sync_directory(directory)
        return
    segment = segment_path(directory, bases[-1])
    runs = scan_segment(segment, bases[-1], end).runs
    if runs and runs[-1].stop == end:
        # Written messages that are not synced yet follow it: the next writer keeps them.
        runs[-1] = whole_records(segment, runs[-1].start_byte, runs[-1].first)
    elif end > bases[-1]:
        runs.append(Run(end, end, 0, 0))  # an empty segment, in which the writer continues
    _split(directory, segment, runs, set_aside)


def _split(directory: Path, segment: Path, runs: list[Run], set_aside: list[Path]) -> None:
    """Move the runs of a damaged segment to separate files, and the segment to `damaged`.

    The file that readers open first is replaced last: at each moment all whole messages are available, and
    repeating the repair after a crash ends in the same state.
    """
    kept = set_aside_path(directory, segment.name)
    os.link(segment, kept)
    sync_directory(kept.parent)
    set_aside.append(kept)
    with kept.open("rb") as source:
        for run in sorted(runs, key=lambda run: -run.first):
            building = directory / f"@repair-{run.first}"
            with building.open("wb") as target:
                for byte in range(run.start_byte, run.stop_byte, READ_BYTES):
                    target.write(os.pread(source.fileno(), min(READ_BYTES, run.stop_byte - byte), byte))
                target.flush()
                os.fsync(target.fileno())
            building.replace(segment_path(directory, run.first))
            sync_directory(directory)
    if all(segment_path(directory, run.first) != segment for run in runs):
        segment.unlink()
        sync_directory(directory)


def _known_gaps(directory: Path) -> list[tuple[int, int]]:
    """Ranges of offsets, rising; adjacent ones are merged. Skips lines that cannot be parsed."""
    gaps: list[tuple[int, int]] = []
    with suppress(FileNotFoundError):
        for line in sorted((directory / DAMAGED / _GAPS).read_text("ascii", "replace").splitlines()):
            words = line.split()
            if len(words) == 2 and all(word.isdecimal() for word in words):
                gaps.append((int(words[0]), int(words[1])))
    joined: list[tuple[int, int]] = []
    for first, stop in sorted(gaps):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((first, stop))
    return joined


def _is_gap(damage: Damage, gaps: list[tuple[int, int]]) -> bool:
    """Whether the damage was repaired: it is listed, and the file has nothing of it any more."""
    with suppress(FileNotFoundError):
        if damage.path.stat().st_size > damage.byte:
            return False
    return any(first <= damage.first < damage.stop <= stop for first, stop in gaps)


def _add_gaps(directory: Path, damages: list[Damage]) -> None:
    folder = directory / DAMAGED
    folder.mkdir(exist_ok=True)
    with (folder / _GAPS).open("a", encoding="ascii") as file:
        file.writelines(f"{damage.first} {damage.stop}\n" for damage in damages)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(folder)
    sync_directory(directory)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _locked(directory: Path, *, create: bool = False) -> Iterator[int]:
    """Hold the writer's lock; yields its file descriptor."""
    fd = os.open(directory / COMMITTED, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusLocked(
                f"another process writes to {directory}, and its newest file is damaged. Stop the gateway, "
                "then repeat the repair: senders keep what is not acknowledged"
            ) from error
        yield fd
    finally:
        os.close(fd)
