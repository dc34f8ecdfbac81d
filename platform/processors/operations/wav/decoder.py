"""`wav`: bytes to samples, with rate, channels and sample format read from the stream itself.

`riff` interprets the bytes, `reading` reads a block of them, and `state` has the state between blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ....errors import OperationFailed
from ..base.block import Block, Given
from ..base.operation import Operation, PartlyRejected, operation
from ..timeline import MAX_GAP_S, EventTimeMeaning, Timeline, Tolerance
from .reading import Reading
from .state import WavState, complete


@operation("wav")
class Wav(Operation):
    """WAVE files, one after the other, cut anywhere.

    Bytes give samples of shape (n, channels) with the values that the file has: int8 (8 bits are stored with
    an offset of 128, which is taken off), int16, int32 (24 bits too), float32 or float64, at its rate. All
    files of a stream have the same format. RF64 and BW64 are read, RIFX (big-endian) is not. Chunks other
    than format and data are passed over, with and without the byte of padding behind an odd size. A sample
    has the time of the event that brought its last byte.

    The received bytes take precedence over the sizes in headers. A new file begins

    - with `RIFF….WAVE` at the start of an event, whatever the sizes of the file before say;
    - within an event behind the samples of the file before, or among them if the head of a format chunk
      (or of another that files begin with) follows too: 20 bytes that samples do not have by chance.

    A data size of 0 or 0xFFFFFFFF has no end. What follows a smaller size is a chunk, or padding, or the
    tag of a tagger, or text, or an event that begins as a file of another kind, or else further samples,
    which are counted as `beyond_size`. A frame that a size cuts is whole if its last bytes end the event or
    the file. What cannot be decoded is rejected alone (`PartlyRejected`); decoding continues with the next
    file, after a gap of one sample.

    Samples of one file follow those of the file before without a gap, unless `times` = "first" or "last" has
    the events' times say where samples are missing: then several blocks are given where a gap falls between
    two events, and samples that are late or repeated are left out (`timeline.Timeline`).

    Keeps at most a frame and 64 bytes, the times of the events that brought them, and those of 16 gaps.
    """

    input = "bytes"
    output = "samples"
    state_type = WavState

    def __init__(self, *, times: EventTimeMeaning = "ignore", max_gap_s: Tolerance = MAX_GAP_S) -> None:
        """The detection of gaps.

        Args:
            times: what the time of an event is: nothing to go by ("ignore"), such as the time of sending, or
                the time of its "first" or "last" sample.
            max_gap_s: by how many seconds an event may come too late or too early without a gap.
        """
        self._times: Literal["first", "last"] | None = None if times == "ignore" else times
        self._max_gap_s = max_gap_s
        self._state = WavState()

    def process(self, block: Block) -> Given:
        """Takes uint8 (n,), whole events; PartlyRejected if some bytes are not a WAVE file, or one unlike the
        first.
        """
        data: NDArray[np.uint8] = block.rows
        if data.ndim != 1 or data.dtype != np.uint8:
            raise OperationFailed(f'wav reads bytes, not {data.dtype} rows: give it the input "bytes".')
        reading = Reading(self._state, block)
        state, given = reading.state, list(reading.blocks())
        if self._times is not None and given:
            timeline = Timeline(meaning=self._times, max_gap_s=self._max_gap_s, rate_hz=given[0][0].rate_hz)
            cut: list[Block] = []
            for samples, torn in given:
                pieces, at = timeline.cut(samples, state.timeline, torn=torn)
                cut += pieces
                state = replace(state, timeline=at)
        else:
            cut = [samples for samples, _ in given]
        self._state = state
        result: Given = cut[0] if len(cut) == 1 else tuple(cut) or None
        if reading.rejected is not None:
            raise PartlyRejected(reading.rejected, result)
        return result

    def counts(self) -> Mapping[str, int]:
        """Gaps, missing rows, and dropped rows (all 0 if event times are ignored); and rows beyond the size
        in the header of their file.
        """
        return {**Timeline.counts(self._state.timeline), "beyond_size": self._state.beyond_size}

    def state(self) -> WavState:
        """The position of the stream in a file."""
        return self._state

    def restore(self, state: WavState | None) -> None:
        """Resumes from `state()`, which may be of an earlier version."""
        self._state = WavState() if state is None else complete(state)
