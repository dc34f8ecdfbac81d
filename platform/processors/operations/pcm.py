"""`pcm`: decodes bytes that consist of samples only; and the layout of samples in bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block, EventTimes, Given
from .base.operation import Operation, operation
from .base.reach import Reach, window
from .timeline import BY_TIME, MAX_GAP_S, START, EventTimeMeaning, Timeline, TimelineState, Tolerance


@dataclass(frozen=True, slots=True)
class SampleFormat:
    """The layout in bytes of a frame of samples, one of each channel.

    Attributes:
        code: NumPy's code with its byte order, such as "<i2"; "<i3" and ">i3" are packed 24-bit integers.
        channels: samples in one frame, interleaved.
    """

    code: str
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return int(self.code[2:]) * self.channels

    @property
    def resolution(self) -> float:
        """1 for integers of 16 bits or more, where a few counts are the converter's noise; else 0."""
        return float(self.code[1] in "iu" and int(self.code[2:]) >= 2)

    def samples(self, data: NDArray[np.uint8]) -> NDArray[Any]:
        """Rows (n, channels) of whole frames, in native order: a view if possible; 24 bits as int32."""
        if self.code.endswith("i3"):
            packed = data.reshape(-1, 3) if self.code[0] == "<" else data.reshape(-1, 3)[:, ::-1]
            wide = np.zeros((len(packed), 4), np.uint8)
            wide[:, 1:] = packed
            # The arithmetic shift extends the sign from the top byte.
            return (wide.view("<i4") >> 8).astype(np.int32, copy=False).reshape(-1, self.channels)
        samples = data.view(self.code).reshape(-1, self.channels)
        return samples.astype(samples.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, slots=True)
class PcmState:
    """What is kept between blocks.

    Attributes:
        carry: bytes of an incomplete frame.
        next_byte: global index of the next expected byte.
        rows: index of the next row, if event times are ignored.
        timeline: the state of the event times, if they are used.
    """

    carry: NDArray[np.uint8]
    next_byte: int
    rows: int
    timeline: TimelineState = START


@operation("pcm")
class Pcm(Operation):
    """Bytes that are interleaved samples and nothing else, from the first byte of the stream on.

    Bytes give samples of shape (n, channels). They keep their values and dtype (24-bit ones become int32);
    where a `scale` is given they are multiplied by it and become float64. A sample has the time of the event
    that brought its last byte. Where bytes are missing, decoding continues at the next whole frame, counted
    from the first byte of the stream, and the index of the rows jumps.

    With `times` = "first" or "last", the events' times say where samples are missing: several blocks are
    given where a gap falls between two events, and samples that are late or repeated are left out. Then each
    event has to hold whole frames.

    Keeps less than one frame, and the times of 16 gaps.
    """

    input = "bytes"
    output = "samples"
    state_type = PcmState | None

    def __init__(
        self,
        *,
        rate_hz: Annotated[float, Meta(gt=0)],
        dtype: Literal[
            "int8", "uint8", "int16", "uint16", "int24", "int32", "uint32", "int64", "float32", "float64"
        ] = "int16",
        channels: Annotated[int, Meta(ge=1, le=1024)] = 1,
        byteorder: Literal["little", "big"] = "little",
        scale: float = 1.0,
        unit: str = "",
        times: EventTimeMeaning = "ignore",
        max_gap_s: Tolerance = MAX_GAP_S,
    ) -> None:
        """The layout and meaning of the samples.

        Args:
            rate_hz: samples per second of each channel.
            dtype: of one sample.
            channels: interleaved, one sample of each.
            byteorder: of samples of several bytes.
            scale: unit per count.
            unit: of the samples once scaled, such as "g".
            times: what the time of an event is: nothing to go by ("ignore"), such as the time of sending, or
                the time of its "first" or "last" sample.
            max_gap_s: by how many seconds an event may come too late or too early without a gap.
        """
        if not math.isfinite(rate_hz):
            raise PolicyInvalid(f"rate_hz cannot be {rate_hz}: give the samples per second of each channel.")
        if scale == 0 or not math.isfinite(scale):
            raise PolicyInvalid(f"scale cannot be {scale}: give the unit per count, such as 0.001.")
        order = "<" if byteorder == "little" else ">"
        self._format = SampleFormat(order + ("i3" if dtype == "int24" else np.dtype(dtype).str[1:]), channels)
        self._rate_hz, self._scale = rate_hz, scale
        self._attrs = {
            "kind": self.output,
            "rate_hz": rate_hz,
            "channels": channels,
            "unit": unit,
            "scale": scale,
        }
        self._timeline: Timeline | None = None
        if times != "ignore":
            self._timeline = Timeline(meaning=times, max_gap_s=max_gap_s, rate_hz=rate_hz)
        self._state: PcmState | None = None

    def process(self, block: Block) -> Given:
        """Takes uint8 of shape (n,); OperationFailed if `times` are used and an event ends within a frame."""
        if self._timeline is not None:
            return self._process_by_time(block, self._timeline)
        before, frame_bytes = self._state, self._format.frame_bytes
        data = _bytes(block)
        start, rows = block.first, before.rows if before is not None else 0
        gap = before is not None and before.next_byte != start
        if before is not None and not gap and len(before.carry):
            start -= len(before.carry)
            data = np.concatenate((before.carry, data))
        # Frames are counted from the first byte of the stream: a no-op unless this follows a gap.
        data = data[-start % frame_bytes :]
        start += -start % frame_bytes
        if before is not None and gap:
            rows += max((start - before.next_byte + len(before.carry)) // frame_bytes, 1)
        whole = len(data) // frame_bytes * frame_bytes
        after = PcmState(data[whole:].copy(), block.stop, rows + whole // frame_bytes)
        result = None
        if whole:
            ends = np.maximum(rows + (block.times.ends - start) // frame_bytes, rows)
            result = self._samples(data[:whole], rows, block.times.of_counts(rows, ends))
        self._state = after
        return result

    def _process_by_time(self, block: Block, timeline: Timeline) -> Given:
        data, frame_bytes = _bytes(block), self._format.frame_bytes
        ends = block.times.ends - block.first
        torn = np.flatnonzero(ends % frame_bytes)
        if len(torn):
            raise OperationFailed(
                f"An event ends {ends[torn[0]] % frame_bytes} bytes into a frame of {frame_bytes}: where "
                "event times are looked at, each event must hold whole frames; send them so, or set times = "
                '"ignore".'
            )
        before = self._state or PcmState(data[:0], block.first, 0)
        rows = self._samples(data, 0, block.times.of_counts(0, ends // frame_bytes))
        given, at = timeline.cut(rows, before.timeline, torn=before.next_byte != block.first)
        self._state = PcmState(data[:0], block.stop, at.next_index, at)
        return given

    def _samples(self, data: NDArray[np.uint8], first: int, times: EventTimes) -> Block:
        samples = self._format.samples(data)
        return Block(
            rows=samples if self._scale == 1.0 else samples * np.float64(self._scale),
            first=first,
            times=times,
            rate_hz=self._rate_hz,
            attrs=self._attrs,
            resolution=abs(self._scale) * self._format.resolution,
        )

    def counts(self) -> Mapping[str, int]:
        """Gaps, missing rows, and dropped rows; all 0 if event times are ignored."""
        return Timeline.counts(self._state.timeline if self._state is not None else START)

    def depends_on(self) -> Reach:
        """The bytes of the frame; times decide where samples are missing."""
        frame_bytes = self._format.frame_bytes
        if self._timeline is None:
            return window(frame_bytes, frame_bytes)
        return Reach(frame_bytes, None, "nothing", BY_TIME, whole_events=True)

    def state(self) -> PcmState | None:
        """The bytes of the incomplete frame."""
        return self._state

    def restore(self, state: PcmState | None) -> None:
        """Resumes from `state()`."""
        self._state = state


def _bytes(block: Block) -> NDArray[np.uint8]:
    data: NDArray[np.uint8] = block.rows
    if data.ndim != 1 or data.dtype != np.uint8:
        raise OperationFailed(f'pcm reads bytes, not {data.dtype} rows: give it the input "bytes".')
    return data
