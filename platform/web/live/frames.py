"""The live feed's messages and frames as bytes, and which rows are next. Pure: no sockets, no clock.

The client sends JSON text: `Subscribe`, `Unsubscribe`. The server sends JSON text (`Subscribed`, `Waiting`,
`Rejected`) and binary frames, little endian: a header of 32 bytes, then `count` event times (int64, ns since
the epoch), then `count` rows.

    offset  0  u32  id         of the subscription
            4  u32  count      rows in this frame
            8  u64  first_row  index of the first of them
           16  u32  step       the rows are first_row, first_row + step, …; 1 unless rows were left out
           20  u32  row_bytes
           24  u64  length     rows in the array when the frame was made

A client that comes back asks for the row after the last one that it has, first_row + (count - 1) * step +
1, and gets all.
"""

import struct
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<IIQIIQ")
LARGEST_STEP = 2**32 - 1

SubscriptionId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Subscribe(msgspec.Struct, frozen=True, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    """Asks for rows of an array: from row `from`, that many back (negative), or those to come (null)."""

    id: SubscriptionId
    array: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
    from_row: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] | None = msgspec.field(
        name="from", default=None
    )
    max_rows_per_s: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Ends a subscription; its id is free again."""

    id: SubscriptionId


class Subscribed(msgspec.Struct, frozen=True, tag_field="op", tag="subscribed"):
    """The rows come from `next` on. Repeated with another uid when the array was recreated."""

    id: int
    array: str
    uid: str
    dtype: str | list[Any]
    row_shape: list[int]
    attrs: dict[str, Any]
    next: int


class Waiting(msgspec.Struct, frozen=True, tag_field="op", tag="waiting"):
    """There is no such array yet; `Subscribed` follows when there is."""

    id: int


class Rejected(msgspec.Struct, frozen=True, tag_field="op", tag="error"):
    """The message with this id (null if it had none) has no effect."""

    id: int | None
    title: str
    detail: str


_decoder: msgspec.json.Decoder[Subscribe | Unsubscribe] = msgspec.json.Decoder(Subscribe | Unsubscribe)


def decode_message(text: str | bytes) -> Subscribe | Unsubscribe:
    """A client's message. Raises msgspec.ValidationError or DecodeError, which say what is wrong."""
    return _decoder.decode(text)


def encode_frame(
    subscription: int, rows: NDArray[Any], times_ns: NDArray[np.int64], *, selected: range, length: int
) -> bytes:
    """The binary frame of `rows` (count, *row_shape) and their times (count,): the first of `selected`."""
    row_bytes = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
    header = HEADER.pack(subscription, len(rows), selected.start, selected.step, row_bytes, length)
    return b"".join((header, times_ns.astype("<i8", copy=False).tobytes(), rows.tobytes()))


class Pace:
    """Which rows a subscriber gets next: all of them, unless it falls behind or asked for fewer.

    It is behind when the rows it still has to get have become more, by over `max_lag_rows`, than they once
    were: one that comes back with a day to catch up gets that day whole as long as it gains on the writer.
    Then one frame leads from its position to the newest row, with every step-th row between. Nothing is ever
    queued, so the only memory is one frame of at most `frame_rows` rows.
    """

    def __init__(
        self, *, lag_rows: int, frame_rows: int, max_lag_rows: int, max_rows_per_s: float | None
    ) -> None:
        """Begins `lag_rows` behind the newest row; these it gets whatever `max_lag_rows` says."""
        self._frame_rows = max(1, frame_rows)
        self._max_lag_rows = max(max_lag_rows, self._frame_rows)
        self._max_rows_per_s = max_rows_per_s
        self._least_lag_rows = lag_rows
        self._credit_rows = max(1.0, max_rows_per_s or 0.0)
        self._credited_at_s: float | None = None

    def choose(self, *, next_row: int, length: int, now_s: float) -> range:
        """The rows to send now, of those from `next_row` to `length`; an empty range if none is due.

        Sending continues after the last row of the range. `now_s` is any clock that only goes forward.
        """
        lag = length - next_row
        if lag <= 0:
            return range(next_row, next_row)
        count, step = min(lag, self._frame_rows), 1
        if lag > self._least_lag_rows + self._max_lag_rows:
            step = -(-lag // self._frame_rows)
        if self._max_rows_per_s is not None:
            credit = int(self._credit(self._max_rows_per_s, now_s))
            if credit < 1:
                return range(next_row, next_row)
            if lag > credit:
                step = max(step, -(-lag // min(credit, self._frame_rows)))
        if step > 1:
            # Counted back from the newest row, so that what is shown is up to date.
            step = min(step, LARGEST_STEP)
            chosen = range(next_row + (lag - 1) % step, length, step)[: self._frame_rows]
        else:
            chosen = range(next_row, next_row + count)
        self._credit_rows -= len(chosen)
        self._least_lag_rows = min(self._least_lag_rows, length - (chosen[-1] + 1))
        return chosen

    def _credit(self, rows_per_s: float, now_s: float) -> float:
        if self._credited_at_s is not None:
            earned = (now_s - self._credited_at_s) * rows_per_s
            self._credit_rows = min(self._credit_rows + earned, max(1.0, rows_per_s))
        self._credited_at_s = now_s
        return self._credit_rows
