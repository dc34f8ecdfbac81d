"""What a client of the live feed subscribed to, how far it got, and the frames that it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy_format

from ...store.interface import ArrayReader
from . import frames
from .array_lookup import WatchedArray


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """The bounds of the live feed.

    A connection has at most `max_subscriptions`. While there are `max_subscriptions_in_all` it has at most
    `guaranteed_subscriptions`, so that clients with many cannot keep others out.

    A subscriber whose arrears grow by more than `max_lag_bytes` is sent fewer rows. Frames that span more
    than `inline_bytes` of the array are read in a thread, since they may have to come from the disk.
    """

    poll_interval_s: float = 0.05
    look_again_s: float = 1.0
    frame_bytes: int = 256 * 1024
    max_lag_bytes: int = 8 * 1024 * 1024
    inline_bytes: int = 64 * 1024
    send_buffer_bytes: int = 512 * 1024
    max_subscriptions: int = 256
    max_subscriptions_in_all: int = 32_768
    guaranteed_subscriptions: int = 16
    max_message_bytes: int = 64 * 1024
    heartbeat_s: float = 60.0
    goodbye_s: float = 2.0


class Watched(WatchedArray):
    """An array that clients watch, or wait for."""

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.subscriptions: set[Subscription] = set()


class Subscription:
    """One client's interest in one array, and how far it got; `wake` takes its ID if there may be rows."""

    def __init__(self, asked: frames.Subscribe, wake: Callable[[int], None]) -> None:
        self.asked = asked
        self.wake = wake
        self.announced: ArrayReader | None = None
        self.pace: frames.Pace | None = None
        self.told_waiting = False
        self.next_row: int | None = None

    def begin_in(self, array: ArrayReader) -> None:
        """The array existed when the client subscribed: its `from` counts from that moment."""
        length, asked = len(array), self.asked.from_row
        first = length if asked is None else asked if asked >= 0 else length + asked
        self.next_row = max(first, array.start)

    def announce(self, array: ArrayReader, limits: LiveLimits) -> frames.Subscribed:
        """From now on the rows are those of `array`."""
        if self.announced is not None:
            self.next_row = 0
        elif self.next_row is None:
            self.next_row = max(0, self.asked.from_row or 0)
        self.next_row = max(self.next_row, array.start)
        self.announced = array
        self.pace = frames.Pace(
            lag_rows=max(0, len(array) - self.next_row),
            frame_rows=limits.frame_bytes // row_size_bytes(array),
            max_lag_rows=limits.max_lag_bytes // row_size_bytes(array),
            max_rows_per_s=self.asked.max_rows_per_s,
        )
        return frames.Subscribed(
            id=self.asked.id,
            array=array.reference,
            uid=array.uid.hex(),
            dtype=npy_format.dtype_to_descr(array.dtype),
            row_shape=list(array.row_shape),
            attrs=dict(array.attrs),
            next=self.next_row,
        )


def read_frame(subscription: int, array: ArrayReader, selected: range, length: int) -> tuple[bytes, int]:
    """The frame and its number of rows: fewer than selected if the array was just cut back."""
    key = slice(selected.start, selected[-1] + 1, selected.step)
    times_ns = np.asarray(array.times_ns[key])
    rows = np.asarray(array[key])
    count = min(len(rows), len(times_ns))
    frame = frames.encode_frame(
        subscription, rows[:count], times_ns[:count], selected=selected, length=max(length, selected[-1] + 1)
    )
    return frame, count


def row_size_bytes(array: ArrayReader) -> int:
    """Bytes of a row with its time."""
    return array.row_bytes + array.times_ns.row_bytes
