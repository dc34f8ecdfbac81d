"""Cuts samples into frames of equal length, independent of block boundaries.

Frame `i` covers the samples from `i * hop` up to, not including, `i * hop + length`. After a gap, frames
begin with the first sample there. Their numbers continue from the frame of that sample, rounded up, and skip
at least one number. So the gap shows in the results of the frames, and `i * hop / rate` stays the time to
within a hop. Frames come out in float64, in batches that stay in the
processor's cache.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import OperationFailed
from .base.block import Block, EventTimes

BATCH_VALUES = 65_536
"""Values in one batch of frames: few enough for the cache (512 KiB), many enough to amortize a call."""


class Scratch(threading.local):
    """Scratch memory, kept from call to call: fresh memory costs a page fault every 4 KiB.

    One for each thread, as large as its largest batch: 1 MiB, or 16 MiB with frames of 2**20 samples.
    """

    def __init__(self) -> None:
        self._memory: NDArray[np.float64] = np.empty(0)

    def of(self, size: int) -> NDArray[np.float64]:
        """An array of `size` values, valid until the next call."""
        if len(self._memory) < size:
            self._memory = np.empty(size)
        return self._memory[:size]


_scratch = Scratch()


@dataclass(frozen=True, slots=True)
class Carry:
    """What is kept between blocks: the samples that later frames need, always fewer than `length`.

    Attributes:
        samples: shape (fewer than length, channels), unchanged.
        next_sample: global index of the next expected sample.
        frames: number of the next frame, if no gap comes before it.
        rate_hz: samples per second.
    """

    samples: NDArray[Any]
    next_sample: int
    frames: int
    rate_hz: float


class Framing:
    """The frames that one block completes together with what was carried over.

    Changes nothing: the caller keeps `carry` when it has finished with the frames.

    Attributes:
        count: number of frames, possibly 0.
        first: global index of the first of them.
        carry: the samples that the next block needs.
    """

    def __init__(self, before: Carry | None, block: Block, *, length: int, hop: int) -> None:
        """OperationFailed if rate or channels change from one sample to the next."""
        self.length, self.hop = length, hop
        self.channels = block.rows.shape[1]
        self.first = before.frames if before is not None else 0
        if before is None or before.next_sample != block.first:
            if before is not None:
                self.first = max(self.first + 1, -(-block.first // hop))
            before = Carry(block.rows[:0], block.first, self.first, block.rate_hz)
        if (before.samples.shape[1], before.rate_hz) != (self.channels, block.rate_hz):
            raise OperationFailed(
                f"The samples changed from {before.samples.shape[1]} channels at {before.rate_hz:g} Hz to "
                f"{self.channels} at {block.rate_hz:g} Hz within one stream: send them under another tag."
            )
        self._old = before.samples
        self._new = block.rows
        self._times = block.times
        self._origin = block.first - len(self._old)
        there = len(self._old) + len(self._new)
        self.count = (there - length) // hop + 1 if there >= length else 0
        done = self.count * hop
        rest = self._new[max(done - len(self._old), 0) :]
        kept = self._old[done:]
        samples = np.concatenate((kept, rest)) if len(kept) else rest.copy()
        self.carry = Carry(samples, block.stop, self.first + self.count, block.rate_hz)

    def batches(self, channel: int) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
        """The frames of one channel, batch by batch.

        Yields the index of the batch's first frame in the block; a view of the frames, shape (frames,
        length), in which neighbours share samples: do not write into it; and a scratch array of the same
        shape. Both are valid until the next batch of any framing in this thread.
        """
        in_batch = min(max(BATCH_VALUES // self.length, 1), self.count)
        if in_batch == 0:
            return
        signal_size, frames_size = (in_batch - 1) * self.hop + self.length, in_batch * self.length
        memory = _scratch.of(signal_size + frames_size)
        signal, room = memory[:signal_size], memory[signal_size:].reshape(in_batch, self.length)
        strides = (self.hop * signal.itemsize, signal.itemsize)
        frames: NDArray[np.float64] = np.ndarray((in_batch, self.length), np.float64, signal, 0, strides)
        old, new = self._old[:, channel], self._new[:, channel]
        for batch in range(0, self.count, in_batch):
            size = min(in_batch, self.count - batch)
            start = batch * self.hop
            stop = start + (size - 1) * self.hop + self.length
            from_old = max(min(len(old), stop) - start, 0)
            signal[:from_old] = old[start : start + from_old]
            signal[from_old : stop - start] = new[start + from_old - len(old) : stop - len(old)]
            yield batch, frames[:size], room[:size]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Global index of the first sample of each frame."""
        return self._origin + np.arange(self.count) * self.hop

    def times(self) -> EventTimes:
        """Event times of the frames, each that of its last sample. Needs at least one frame."""
        return self._times.of_completed(self.first, self.starts + self.length - 1)


def channel_names(block: Block, names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns, those of channel 0 first: bare for one nameless channel, else `channel0.rms`, or with
    the name of the block's column."""
    channels = block.columns or tuple(f"channel{channel}" for channel in range(block.rows.shape[1]))
    if not block.columns and len(channels) == 1:
        return tuple(names)
    return tuple(f"{channel}.{name}" for channel in channels for name in names)
