"""The state of `wav` between blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..timeline import START, TimelineState
from .riff import Layout


@dataclass(frozen=True, slots=True)
class WavState:
    """The position of the stream in a file.

    The first eleven are in the order of earlier versions, whose states are still read.

    Attributes:
        next_byte: global index of the next expected byte.
        rows: index of the next frame of samples.
        layout: of the first samples, which those of all other files must match; None before.
        part: of a file that comes next: its header, its samples, the chunks behind them; or "lost" if the
            next file is looked for.
        pending: the last bytes before `next_byte`: the first `used` are samples that were given, and are kept
            as a file may begin in them; the others are not used yet.
        data_left: bytes of samples from `next_byte` on; None for no end, negative if they end before.
        padded: whether a byte of padding may come next, or behind the samples.
        skip: bytes of a chunk to pass over, `pending` included.
        rest: bytes that this file has behind its samples, without padding, by its RIFF size; -1 if unknown.
        torn: whether a gap comes before the next samples: what could not be decoded.
        timeline: the state of the event times, if they are used.
        file: known properties of the current file; None before its first bytes.
        used: see `pending`.
        pending_events: (end, time in ns) of the events that brought what is not used yet.
        reason: why bytes are "lost"; "" for padding and tags.
        beyond_size: rows beyond the size in the header of their file.
    """

    next_byte: int = 0
    rows: int = 0
    layout: Layout | None = None
    part: Literal["header", "samples", "chunks", "lost"] = "header"
    pending: bytes = b""
    data_left: int | None = None
    padded: bool = False
    skip: int = 0
    rest: int = 0
    torn: bool = False
    timeline: TimelineState = START
    file: FileState | None = None
    used: int = 0
    pending_events: tuple[tuple[int, int], ...] = ()
    reason: str = ""
    beyond_size: int = 0


@dataclass(frozen=True, slots=True)
class FileState:
    """Known properties of the current file.

    Attributes:
        first: global index of its first byte.
        riff_bytes: size that follows that field; None if it says nothing.
        layout: by its format chunk; None before that.
        data_bytes: size of the samples that a ds64 chunk gives; None without one.
        is_empty: whether its data size is 0.
        is_beyond: whether its samples are beyond the size in its header.
    """

    first: int
    riff_bytes: int | None = None
    layout: Layout | None = None
    data_bytes: int | None = None
    is_empty: bool = False
    is_beyond: bool = False


def behind_gap(state: WavState, first: int) -> WavState:
    """The state after bytes that are missing, or could not be decoded."""
    return WavState(
        rows=state.rows,
        layout=state.layout,
        part="lost",
        torn=True,
        timeline=state.timeline,
        reason=f"The bytes from {first} on follow others that could not be decoded, and no WAVE file begins "
        "in them: decoding continues where one does.",
        beyond_size=state.beyond_size,
    )


def complete(state: WavState) -> WavState:
    """Adds the attributes that states of earlier versions lack."""
    if not hasattr(state, "file"):  # it was pickled
        old = {name: getattr(state, name) for name in list(WavState.__dataclass_fields__)[:11]}
        state = WavState(**old)
    if state.part != "samples" or state.file is not None:
        return state
    return replace(state, file=FileState(state.next_byte, layout=state.layout))
