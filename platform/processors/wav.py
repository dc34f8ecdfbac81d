"""`wav`: bytes to samples, with rate, channels and sample format read from the stream itself.

Source: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (RIFF, WAVE), 1991;
Microsoft, "Multiple channel audio data and WAVE files" (WAVE_FORMAT_EXTENSIBLE), 2007.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import OperationFailed
from .block import Block, EventTimes, Given
from .operation import Operation, operation
from .pcm import SampleFormat
from .timeline import MAX_GAP_S, START, EventTimeMeaning, Timeline, TimelineState, Tolerance

MAX_HEADER_BYTES = 65_536
"""Bytes before the first sample of a file, at most: what is kept while a header is not whole."""

_ENDLESS = (0, 0xFFFF_FFFF)
_PCM, _IEEE_FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# The last 14 bytes of KSDATAFORMAT_SUBTYPE_*; the first two are the format's code.
_SUBTYPE_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_FILE_START = re.compile(rb"RIFF....WAVE", re.DOTALL)


Layout = tuple[SampleFormat, float, int]
"""How samples lie, their rate in Hz, and the bits that carry a value: the same for all files of a stream."""


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What stands before the samples of one file.

    Attributes:
        layout: how samples lie, their rate in Hz, and the bits that carry a value.
        size: bytes of the header, up to the first sample.
        data_bytes: bytes of samples; None for a file without an end, as programs write it into a pipe.
        rest_bytes: bytes that the file has after its samples (and their padding), for further chunks.
    """

    layout: Layout
    size: int
    data_bytes: int | None
    rest_bytes: int


def parse_header(data: bytes) -> WavHeader | None:
    """The header that `data` begins with; None while it is not whole; OperationFailed where it is none."""
    if not b"RIFF".startswith(data[:4]) or not b"WAVE".startswith(data[8:12]):
        raise OperationFailed(
            f"The bytes {data[:12]!r} are not the start of a WAVE file (RIFF….WAVE): send whole "
            f'files under this tag, or use "pcm" for samples without a header.'
        )
    position, layout = 12, None
    while len(data) >= position + 8:
        chunk, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if chunk == b"data":
            if layout is None:
                raise OperationFailed(
                    "The WAVE file has samples before its format chunk; write the file anew."
                )
            (riff_bytes,) = struct.unpack_from("<I", data, 4)
            endless = size in _ENDLESS
            rest = 0 if endless else max(8 + riff_bytes - position - size - size % 2, 0)
            return WavHeader(layout, position, None if endless else size, rest)
        if position + size > MAX_HEADER_BYTES:
            raise _no_samples()
        if chunk == b"fmt ":
            if len(data) < position + size:
                return None
            layout = _layout(data[position : position + size])
        position += size + size % 2
    if len(data) >= MAX_HEADER_BYTES:
        raise _no_samples()
    return None


def _no_samples() -> OperationFailed:
    return OperationFailed(
        f"The WAVE file has no samples within its first {MAX_HEADER_BYTES} bytes: strip what stands before."
    )


def _layout(chunk: bytes) -> Layout:
    if len(chunk) < 16:
        raise OperationFailed(
            f"The WAVE file's format chunk has {len(chunk)} bytes instead of 16; write the file anew."
        )
    code, channels, rate_hz, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _SUBTYPE_TAIL:
        (code,) = struct.unpack_from("<H", chunk, 24)
    sample_bytes = frame_bytes // channels if channels else 0
    fits = channels > 0 and sample_bytes * channels == frame_bytes and (bits + 7) // 8 == sample_bytes
    codes = {_PCM: {1: "|u1", 2: "<i2", 3: "<i3", 4: "<i4"}, _IEEE_FLOAT: {4: "<f4", 8: "<f8"}}.get(code, {})
    if not fits or sample_bytes not in codes or rate_hz == 0:
        raise OperationFailed(
            f"The WAVE file has samples that cannot be read (format {code:#06x}, {channels} channels, {bits} "
            f"bits, {frame_bytes} bytes a frame, {rate_hz} Hz): write PCM of 8, 16, 24 or 32 bits, or float "
            "of 32 or 64."
        )
    return SampleFormat(codes[sample_bytes], channels), float(rate_hz), bits


@dataclass(frozen=True, slots=True)
class WavState:
    """Where in which file the stream is.

    Attributes:
        next_byte: global index of the byte that should come next.
        rows: frames of samples given so far.
        layout: of the first file, which all others must match; None before the first.
        part: of a file that comes next: its header, its samples, or the chunks behind them.
        pending: bytes of a header, of a frame, or of the head of a chunk, not whole yet.
        data_left: bytes of samples to come; None for no end.
        padded: whether a byte of padding may come next, or behind the samples.
        skip: bytes of a chunk to pass over.
        rest: bytes of this file that come behind its samples, without padding.
        torn: whether a gap comes before the next samples: what could not be decoded.
        timeline: what event times said so far, where they are looked at.
    """

    next_byte: int = 0
    rows: int = 0
    layout: Layout | None = None
    part: Literal["header", "samples", "chunks"] = "header"
    pending: bytes = b""
    data_left: int | None = None
    padded: bool = False
    skip: int = 0
    rest: int = 0
    torn: bool = False
    timeline: TimelineState = START


@operation("wav")
class Wav(Operation):
    """WAVE files, one after the other, cut anywhere.

    Bytes give samples of shape (n, channels) with the values and the dtype that the file has: uint8, int16,
    int32 (24 bits too), float32 or float64, at its rate. All files of a stream have the same format. Chunks
    other than format and data are passed over; a data chunk of size 0 or 0xFFFFFFFF has no end; RF64 and
    big-endian files are not read. A sample has the time of the event that brought its last byte.

    A block that cannot be decoded is refused whole; decoding goes on with the next file that begins in a
    later block, and the index of the samples jumps by one.

    Samples of one file follow those of the file before without a gap, unless `times` = "first" or "last" has
    the events' times say where samples are missing: then several blocks are given where a gap falls between
    two events, and samples that are late or repeated are left out (`timeline.Timeline`).

    Keeps at most a header, 64 KiB, and the times of 16 gaps.
    """

    input = "bytes"
    output = "samples"
    state_type = WavState

    def __init__(self, *, times: EventTimeMeaning = "ignore", max_gap_s: Tolerance = MAX_GAP_S) -> None:
        """Whether gaps are looked for.

        Args:
            times: what the time of an event is: nothing to go by ("ignore"), such as the time of sending, or
                the time of its "first" or "last" sample.
            max_gap_s: by how many seconds an event may come too late or too early without a gap.
        """
        self._times: Literal["first", "last"] | None = None if times == "ignore" else times
        self._max_gap_s = max_gap_s
        self._state = WavState()

    def process(self, block: Block) -> Given:
        """Takes uint8 (n,); OperationFailed where the bytes are no WAVE file, or one unlike the first."""
        data: NDArray[np.uint8] = block.rows
        if data.ndim != 1 or data.dtype != np.uint8:
            raise OperationFailed(f'wav reads bytes, not {data.dtype} rows: give it the input "bytes".')
        reading = _Reading(self._state, block)
        result: Given = reading.block()
        state = reading.state
        if isinstance(result, Block) and self._times is not None:
            timeline = Timeline(meaning=self._times, max_gap_s=self._max_gap_s, rate_hz=result.rate_hz)
            result, at = timeline.cut(result, state.timeline, torn=state.torn)
            state = replace(state, timeline=at)
        self._state = replace(state, torn=False) if result is not None else state
        return result

    def counts(self) -> Mapping[str, int]:
        """Gaps, missing rows, and rows that were left out; all 0 where event times are not looked at."""
        return Timeline.counts(self._state.timeline)

    def state(self) -> WavState:
        """Where in which file the stream is."""
        return self._state

    def restore(self, state: WavState | None) -> None:
        """Goes on from `state()`."""
        self._state = state if state is not None else WavState()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Whole frames of samples in a block: their bytes, where these begin in the stream, their number."""

    data: NDArray[np.uint8]
    start: int
    rows: int


class _Reading:
    """One block being read: `state` walks on, and what it finds of samples is collected."""

    def __init__(self, state: WavState, source: Block) -> None:
        self.state = state
        self._source = source
        self._data: NDArray[np.uint8] = source.rows
        self._position = 0
        self._pieces: list[_Piece] = []
        if state.next_byte != source.first:
            self._find_file()
        read = {"header": self._read_header, "samples": self._read_samples, "chunks": self._read_chunks}
        while self._position < len(self._data):
            read[self.state.part]()
        self.state = replace(self.state, next_byte=source.stop)

    def block(self) -> Block | None:
        """The samples that the block completed."""
        if not self._pieces or self.state.layout is None:
            return None
        form, rate_hz, bits = self.state.layout
        first = self.state.rows - sum(piece.rows for piece in self._pieces)
        rows = [form.samples(piece.data) for piece in self._pieces]
        return Block(
            rows=rows[0] if len(rows) == 1 else np.concatenate(rows),
            first=first,
            times=self._times(first, form.frame_bytes),
            rate_hz=rate_hz,
            attrs={
                "kind": "samples",
                "rate_hz": rate_hz,
                "channels": form.channels,
                "unit": "",
                "bits": bits,
            },
        )

    def _times(self, first: int, frame_bytes: int) -> EventTimes:
        ends = self._source.times.ends
        starts = np.array([piece.start for piece in self._pieces])
        rows = np.array([piece.rows for piece in self._pieces])
        before = first + np.cumsum(rows) - rows
        piece = np.maximum(np.searchsorted(starts, ends, side="left") - 1, 0)
        done = np.clip((ends - starts[piece]) // frame_bytes, 0, rows[piece])
        return self._source.times.of_counts(first, before[piece] + done)

    def _find_file(self) -> None:
        found = _FILE_START.search(self._data.tobytes())
        if found is None:
            raise OperationFailed(
                f"The bytes from {self._source.first} on follow others that could not be decoded, and no "
                "WAVE file begins in them: decoding goes on where one does."
            )
        self._position = found.start()
        # A number is left out, so that whoever joins samples sees that they do not follow those before.
        before = self.state
        self.state = WavState(
            rows=before.rows + (before.layout is not None and not before.torn),
            layout=before.layout,
            torn=True,
            timeline=before.timeline,
        )

    def _read_header(self) -> None:
        held = self.state.pending
        data = held + self._data[self._position : self._position + MAX_HEADER_BYTES].tobytes()
        header = parse_header(data)
        if header is None:
            self._position = len(self._data)
            self.state = replace(self.state, pending=data)
            return
        before = self.state.layout
        if before is not None and before != header.layout:
            raise OperationFailed(
                f"The WAVE file has {_said(header.layout)}, but those before it in this stream had "
                f"{_said(before)}: send it under a tag of its own."
            )
        self._position += header.size - len(held)
        self.state = replace(
            self.state,
            layout=header.layout,
            part="samples",
            pending=b"",
            data_left=header.data_bytes,
            padded=(header.data_bytes or 0) % 2 == 1,
            rest=header.rest_bytes,
        )

    def _read_samples(self) -> None:
        state = self.state
        assert state.layout is not None
        frame_bytes = state.layout[0].frame_bytes
        left = len(self._data) if state.data_left is None else state.data_left
        data = self._data[self._position : self._position + left]
        start = self._source.first + self._position - len(state.pending)
        self._position += len(data)
        if state.data_left is not None:
            state = replace(state, data_left=state.data_left - len(data))
        if state.pending:
            data = np.concatenate((np.frombuffer(state.pending, np.uint8), data))
        rows = len(data) // frame_bytes
        if rows:
            self._pieces.append(_Piece(data[: rows * frame_bytes], start, rows))
        self.state = replace(state, rows=state.rows + rows, pending=data[rows * frame_bytes :].tobytes())
        if state.data_left == 0:
            # A part of a frame that is left here never becomes one.
            self.state = replace(self.state, part="chunks", pending=b"")

    def _read_chunks(self) -> None:
        state = self.state
        if state.padded:
            # Some writers leave the padding out: it is there where the byte is zero.
            self._position += int(self._data[self._position] == 0)
            self.state = replace(state, padded=False)
        elif state.rest == 0:
            self.state = replace(state, part="header")
        elif state.skip:
            size = min(state.skip, len(self._data) - self._position)
            self._position += size
            self.state = replace(state, skip=state.skip - size, rest=state.rest - size)
        else:
            wanted = 8 - len(state.pending)
            head = state.pending + self._data[self._position : self._position + wanted].tobytes()
            self._position += len(head) - len(state.pending)
            if head.startswith(b"RIFF"):
                self.state = replace(state, part="header", pending=head, rest=0)
            elif len(head) < 8:
                self.state = replace(state, pending=head)
            else:
                rest, size = max(state.rest - 8, 0), int.from_bytes(head[4:], "little")
                self.state = replace(state, pending=b"", rest=rest, skip=min(size + size % 2, rest))


def _said(layout: Layout) -> str:
    form, rate_hz, bits = layout
    return f"{form.channels} channels of {bits} bits ({form.code[1:]}) at {rate_hz:g} Hz"
