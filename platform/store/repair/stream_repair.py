"""Repairs a data stream, so that it can be read and resumed; replaced files are set aside first.

Intact data stays at its offset. Missing bytes become zeros, recognizable because they do not match their
checksums; damaged arrival records are rewritten for the same bytes, without ID and time.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ...errors import StoreLocked
from ..files.description import read_description, write_description
from ..files.head import new_head
from ..interface.arrivals import ARRIVAL, EVENT
from .scrub import Committed, Damage, StreamScrub
from .stored_segments import StoredSegments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .set_aside import SetAside

NOTES_NAME = "damage.json"
"""File next to `meta.json` that lists missing data, one object for each damage that was repaired."""


@contextmanager
def locked_output(directory: Path) -> Iterator[None]:
    """Hold the writer's lock of the segmented files below `directory`. Raises StoreLocked."""
    held: list[int] = []
    try:
        for head in sorted(directory.glob("*/head")):
            descriptor = os.open(head, os.O_RDWR | os.O_CLOEXEC)
            held.append(descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreLocked(
                    f"{directory} is being written by a worker; stop the worker, then repair"
                ) from None
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def repair_stream(
    directory: Path, reference: str, committed: Committed, damages: Sequence[Damage], aside: SetAside
) -> list[str]:
    """Repair what `StreamScrub` has found; returns what was done. Raises StoreLocked while it is written.

    A stream without a checkpoint stays without one: `windvane recover` decides.
    """
    with locked_output(directory):
        repair = _Repair(directory, reference, committed, aside)
        repair.heads()
        repair.segments()
        repair.arrivals()
        repair.events()
        repair.description()
        if damages:
            note_damages(directory, damages)
        return repair.done


def note_damages(directory: Path, damages: Sequence[Damage]) -> None:
    """Add the permanent losses to the notes of the stream."""
    noted = known_damages(directory)
    seen = {(note["file"], note["offset"], note["missing"]) for note in noted}
    for damage in damages:
        note = {
            "code": damage.code,
            "file": str(damage.file.relative_to(directory)),
            "offset": damage.offset,
            "missing": damage.missing,
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if (note["file"], note["offset"], note["missing"]) not in seen:
            noted.append(note)
    draft = directory / f"{NOTES_NAME}.new"
    draft.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, directory / NOTES_NAME)


def known_damages(directory: Path) -> list[dict[str, object]]:
    """The missing data that earlier repairs have noted."""
    try:
        notes = json.loads((directory / NOTES_NAME).read_bytes())
    except (OSError, ValueError):
        return []
    return notes if isinstance(notes, list) else []


class _Repair:
    def __init__(self, directory: Path, reference: str, committed: Committed, aside: SetAside) -> None:
        self._directory = directory
        self._reference = reference
        self._committed = committed
        self._aside = aside
        self.done: list[str] = []
        self._scrub = StreamScrub(directory, reference, committed)

    def _look_again(self) -> None:
        self._scrub = StreamScrub(self._directory, self._reference, self._committed)

    def heads(self) -> None:
        scrub, length = self._scrub, self._committed.length
        arrivals = scrub.chunks * ARRIVAL.itemsize
        uid = length.uid if length is not None and scrub.is_covered else scrub.uid
        if scrub.bytes.problem is not None or (scrub.is_covered and scrub.bytes.length < scrub.size):
            self._write_head(scrub.bytes, uid or os.urandom(16), scrub.size)
        if scrub.arrivals.problem is not None or (scrub.is_covered and scrub.arrivals.length < arrivals):
            whole = arrivals or scrub.arrivals.length // ARRIVAL.itemsize * ARRIVAL.itemsize
            self._write_head(scrub.arrivals, scrub.arrivals.uid or os.urandom(16), whole)
        if scrub.events is not None and scrub.events.problem is not None:
            held = scrub.events.length // EVENT.itemsize * EVENT.itemsize
            self._write_head(scrub.events, os.urandom(16), held)
        self._look_again()

    def _write_head(self, file: StoredSegments, uid: bytes, length: int) -> None:
        path = file.directory / "head"
        self._aside.copy(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        start = file.start if file.problem is None else min(file.segments, default=0)
        words = new_head(file.segment_bytes, uid, start=start, length=length, epoch=file.epoch)
        # In place: the lock belongs to the file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(descriptor, words, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.done.append(f"wrote {path} again: bytes {start} to {length}")

    def segments(self) -> None:
        """Fill gaps with zeros, so that the data after them stays at its offset."""
        scrub = self._scrub
        files = [(scrub.bytes, scrub.size), (scrub.arrivals, scrub.chunks * ARRIVAL.itemsize)]
        if scrub.events is not None:
            files.append((scrub.events, scrub.events.committed))
        for file, stop in files:
            for hole in file.holes(stop):
                self._aside.copy(hole.path)
                descriptor = os.open(hole.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    os.ftruncate(descriptor, hole.at + hole.stop - hole.start)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self.done.append(f"filled bytes {hole.start} to {hole.stop} of {file.directory} with zeros")
        self._look_again()

    def arrivals(self) -> None:
        scrub = self._scrub
        for _ in scrub.damages():
            pass
        for first, stop in scrub.bad_records:
            before = scrub._record(first - 1) if first * ARRIVAL.itemsize > scrub.arrivals.start else b""
            after = scrub._record(stop) if stop < scrub.chunks else b""
            begin, events, arrived_ns = 0, 0, 0
            if before:
                record = np.frombuffer(before, ARRIVAL)[0]
                begin = int(record["offset"]) + int(record["size"])
                events, arrived_ns = int(record["events_total"]), int(record["arrived_ns"])
            elif first * ARRIVAL.itemsize <= scrub.arrivals.start:
                begin = scrub.bytes.start
            end = int(np.frombuffer(after, ARRIVAL)[0]["offset"]) if after else scrub.size
            records = np.zeros(stop - first, ARRIVAL)
            # The first has the bytes of all of them: their boundaries are unknown.
            records["offset"], records["offset"][0] = end, begin
            records["size"][0] = end - begin
            records["arrived_ns"], records["events_total"] = arrived_ns, events
            records["crc32c"][0] = scrub.bytes.crc32c(begin, end - begin) or 0
            self._write(scrub.arrivals, first * ARRIVAL.itemsize, records.tobytes())
            self.done.append(
                f"wrote the arrival records of chunks {first} to {stop - 1} again, without ids: "
                f"bytes {begin} to {end}"
            )
        self._look_again()

    def events(self) -> None:
        """Give event records that cannot be a place in their chunk, and the time of its arrival."""
        scrub = self._scrub
        if scrub.events is None:
            return
        count = scrub.events.committed // EVENT.itemsize
        start = -(-scrub.events.start // EVENT.itemsize)
        raw = scrub.events.read(start * EVENT.itemsize, (count - start) * EVENT.itemsize)
        records = np.frombuffer(raw, EVENT, len(raw) // EVENT.itemsize).copy()
        bad = np.flatnonzero((records["end"] <= 0) | (records["end"] > scrub.size))
        if not len(bad):
            return
        raw = scrub.arrivals.read(
            scrub.arrivals.start, scrub.chunks * ARRIVAL.itemsize - scrub.arrivals.start
        )
        arrivals = np.frombuffer(raw, ARRIVAL, len(raw) // ARRIVAL.itemsize)
        chunks = np.searchsorted(arrivals["events_total"], start + bad, side="right")
        for number, chunk in zip(bad.tolist(), chunks.tolist(), strict=True):
            arrival = arrivals[min(chunk, len(arrivals) - 1)]
            before = int(records[number - 1]["end"]) if number else 0
            records[number] = max(before, int(arrival["offset"]) + 1), arrival["arrived_ns"]
            self._write(scrub.events, (start + number) * EVENT.itemsize, records[number].tobytes())
        self.done.append(f"gave {len(bad)} events the time at which their chunk arrived")

    def description(self) -> None:
        scrub = self._scrub
        found = read_description(self._directory)
        if found is not None and found.get("uid") == scrub.bytes.uid.hex():
            return
        self._aside.copy(self._directory / "meta.json")
        attrs = (found or {}).get("attrs") or {"tag": self._reference}
        described = {**(found or {}), "attrs": attrs, "uid": scrub.bytes.uid.hex()}
        write_description(self._directory, described)
        self.done.append(f"wrote {self._directory / 'meta.json'} again")

    def _write(self, file: StoredSegments, offset: int, data: bytes) -> None:
        while data:
            path, at = file.place(offset)
            piece = data[: file.segment_bytes - at]
            self._aside.copy(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.pwrite(descriptor, piece, at)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            offset, data = offset + len(piece), data[len(piece) :]
