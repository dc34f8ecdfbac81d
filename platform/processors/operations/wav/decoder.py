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
from ..base.reach import Reach
from ..timeline import MAX_GAP_S, EventTimeMeaning, Timeline, Tolerance
from .reading import Reading
from .state import WavState, complete


@operation("wav")
class Wav(Operation):
    """WAVE files, one after the other, cut anywhere.

    Bytes give samples of shape (n, channels) with the values that the file has, at its rate: int8 (8 bits are
    stored with an offset of 128, which is taken off), int16, int32 (24 bits too), float32 or float64. RF64,
    BW64 and WAVE_FORMAT_EXTENSIBLE are read, RIFX (big-endian) is not. All files of a stream have the same
    format. A sample has the time of the event that brought its last byte.

    Recorders, pipes and taggers leave wrong sizes in headers, so the received bytes take precedence:

    | received | effect |
    | --- | --- |
    | `RIFF….WAVE` at the start of an event | a new file begins, whatever the sizes of the last one say |
    | such a header within an event | the same, if the last file is complete or 20 bytes of a header follow |
    | a data size of 0 or 0xFFFFFFFF | the file continues until the next one begins |
    | a data size that is too large | the same |
    | a data size that is too small | the file continues; the rows behind it are counted as `beyond_size` |
    | a data size that cuts a frame | the frame is whole if its last bytes end the event or the file |
    | a block align that is not channels × bits | channels × bits counts; 24 bits may be stored in 32 |
    | chunks, zeros, blanks or a tag (ID3, APE, Lyrics) behind the samples | they are passed over |
    | a chunk of odd size, with or without padding | it is passed over; up to 16 MiB before the samples |
    | text, or a file of another kind | it is rejected, and decoding continues with the next file |
    | a file in another format than the first one | the same |

    A file that is cut short ends where the next event begins a file. If an event ends within a header, the
    first bytes of the header (at most 19) have been taken for samples. What is rejected costs a gap of one
    sample. An event right behind a complete file is further samples, unless it is UTF-8 text or begins as a
    file of a well-known kind does: archives, pictures, PDF, MP4, AIFF, FLAC, Ogg, MP3, AAC. The 11 bits that
    begin MP3 and AAC occur in quiet sound, so the header of a frame must be valid, and for all but layer III
    a second frame must follow. About one event of sound in 2,000 begins like layer III: behind a complete
    file it is rejected.

    Samples of one file follow those of the file before without a gap, unless `times` = "first" or "last" has
    the events' times say where samples are missing: then several blocks are given where a gap falls between
    two events, and samples that are late or repeated are left out.

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

    def depends_on(self) -> Reach:
        """The frame, and all before it: headers have its format and the end of a file."""
        layout = self._state.layout
        frame_bytes = 1 if layout is None else layout[0].frame_bytes
        return Reach(frame_bytes, whole_events=self._times is not None)

    def state(self) -> WavState:
        """The position of the stream in a file."""
        return self._state

    def restore(self, state: WavState | None) -> None:
        """Resumes from `state()`, which may be of an earlier version."""
        self._state = WavState() if state is None else complete(state)
