"""Assembles the samples of a block of bytes to blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.block import Block, EventTimes
from ..pcm import SampleFormat
from .riff import Layout


@dataclass(frozen=True, slots=True)
class _Piece:
    """Whole frames that lie together: their bytes, where these begin in the stream, their number; and whether
    a gap is before them.
    """

    data: NDArray[np.uint8]
    start: int
    rows: int
    torn: bool


class Pieces:
    """Pieces of samples in the order of the stream; the first row has the index `first`."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._pieces: list[_Piece] = []

    def add(self, data: NDArray[np.uint8], start: int, rows: int, *, torn: bool) -> None:
        """Take `rows` whole frames, whose first byte is byte `start` of the stream."""
        self._pieces.append(_Piece(data, start, rows, torn))

    def blocks(self, layout: Layout, times: EventTimes) -> Iterator[tuple[Block, bool]]:
        """All of them, and whether a gap is before: a block ends at each. `times` are of bytes."""
        form, rate_hz, bits = layout
        first, at = self._first, 0
        attrs = {"kind": "samples", "rate_hz": rate_hz, "channels": form.channels, "unit": "", "bits": bits}
        while at < len(self._pieces):
            stop = at + 1
            while stop < len(self._pieces) and not self._pieces[stop].torn:
                stop += 1
            pieces = self._pieces[at:stop]
            first += pieces[0].torn  # an index is skipped: these do not follow the previous ones
            rows = [_samples(form, piece.data) for piece in pieces]
            block = Block(
                rows=rows[0] if len(rows) == 1 else np.concatenate(rows),
                first=first,
                times=_times_of(pieces, first, form.frame_bytes, times),
                rate_hz=rate_hz,
                attrs=attrs,
                resolution=form.resolution,
            )
            yield block, pieces[0].torn
            first, at = block.stop, stop


def _samples(form: SampleFormat, data: NDArray[np.uint8]) -> NDArray[Any]:
    if form.code == "|u1":  # offset binary: 128 is silence
        return (data ^ 0x80).view(np.int8).reshape(-1, form.channels)
    return form.samples(data)


def _times_of(pieces: list[_Piece], first: int, frame_bytes: int, times: EventTimes) -> EventTimes:
    starts = np.array([piece.start for piece in pieces])
    rows = np.array([piece.rows for piece in pieces])
    before = first + np.cumsum(rows) - rows
    piece = np.maximum(np.searchsorted(starts, times.ends, side="left") - 1, 0)
    done = np.clip((times.ends - starts[piece]) // frame_bytes, 0, rows[piece])
    return times.of_counts(first, before[piece] + done)
