"""Reads one block of bytes as WAVE files, from a state to the next. `riff` interprets the bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ....errors import OperationFailed
from ..base.block import Block
from .events import begins_other_kind, events_of, file_starts, merged_times
from .riff import (
    CERTAIN_START_BYTES,
    CHUNK_HEAD_BYTES,
    FILE_START_BYTES,
    FORMAT_BYTES,
    UNKNOWN_SIZES,
    Follows,
    begins_file,
    completes_frame,
    is_chunk_name,
    not_a_file,
    padding_before_chunk,
    said,
    said_by,
    straddles,
    what_follows,
)
from .samples import Pieces
from .state import FileState, WavState, behind_gap

_LOOKED_AT_BYTES = CERTAIN_START_BYTES
"""Behind samples, at most, before it is clear what follows."""
MAX_CHUNK_BYTES = 16 * 1024 * 1024
"""Of a chunk before the samples, such as a picture: a larger size is wrong, and would hide the samples."""
_JOINED_BYTES = 4096
"""Blocks of fewer bytes are joined to the pending bytes without checking whether that is necessary."""
_WAVE = re.compile(b"WAVE")  # on a view it is faster than bytes.find, and copies nothing
_LOOKED_BACK_BYTES = CERTAIN_START_BYTES - 1


class Reading:
    """One block being read: `state` advances, and samples are collected.

    Positions count from the first pending byte.
    """

    def __init__(self, state: WavState, source: Block) -> None:
        self.rejected: str | None = None
        self._pieces = Pieces(state.rows)
        if state.next_byte != source.first:
            state = behind_gap(state, source.first)
        pending, used, left = state.pending, state.used, state.data_left
        is_large = len(pending) == used and len(source.rows) >= _JOINED_BYTES
        if is_large and not straddles(pending, source.rows[:CERTAIN_START_BYTES].tobytes()):
            pending, used = b"", 0
        self._data: NDArray[np.uint8] = np.ascontiguousarray(source.rows)
        if pending:
            self._data = np.concatenate((np.frombuffer(pending, np.uint8), source.rows))
        self._view: memoryview = self._data.data
        self._base, self._position = source.first - len(pending), used
        self._times = merged_times(state.pending_events, source)
        self.state = replace(
            state,
            pending=b"",
            used=0,
            pending_events=(),
            data_left=None if left is None else left + len(pending) - used,
        )
        self._first = source.first
        self._read()
        self._keep(source.stop)

    def _bytes(self, begin: int, stop: int) -> bytes:
        return bytes(self._view[begin:stop])

    def blocks(self) -> Iterator[tuple[Block, bool]]:
        """The samples that the block completed, and whether a gap is before them."""
        return iter(()) if self.state.layout is None else self._pieces.blocks(self.state.layout, self._times)

    def _keep(self, stop: int) -> None:
        at, left, size = self._position, self.state.data_left, len(self._data)
        used = min(at, _LOOKED_BACK_BYTES) if self.state.part == "samples" else 0
        self.state = replace(
            self.state,
            next_byte=stop,
            pending=self._bytes(at - used, size),
            used=used,
            pending_events=events_of(self._times, self._base + at, stop, first=self._first)
            if at < size
            else (),
            data_left=None if left is None else left - (size - at),
        )

    def _read(self) -> None:
        """Up to each event that begins a file, then from there on."""
        starts, hold = file_starts(self._view, self._starts(), self._position)
        for start in starts:
            self._read_up_to(start, final=True)
            self._begin(start)
        self._read_up_to(hold, final=False)

    def _starts(self) -> NDArray[np.int64]:
        """The positions at which events begin, and the end of the last one."""
        starts: NDArray[np.int64] = np.append(self._times.ends, self._first) - self._base
        return starts

    def _read_up_to(self, stop: int, *, final: bool) -> None:
        """Reads what can be read before `stop`; if `final`, another file begins there."""
        read = {
            "header": self._read_header,
            "samples": self._read_samples,
            "chunks": self._read_chunks,
            "lost": self._pass_over,
        }
        while self._position < stop:
            if not read[self.state.part](stop, final):
                break

    def _begin(self, position: int) -> None:
        state, self._position = self.state, position
        if state.part == "header" and state.file is not None:
            self._reject(
                f"The WAVE file that begins at byte {state.file.first} of the stream has no samples: another "
                f"one begins {position + self._base - state.file.first} bytes behind, before its data chunk. "
                "It was cut short, or the size of a chunk in its header is wrong."
            )
        self.state = replace(
            state, part="header", data_left=None, padded=False, skip=0, rest=-1, file=None, reason=""
        )

    def _lose(self, reason: str) -> None:
        """Rejects bytes until the next file begins; skips them silently without a reason."""
        self.state = replace(
            self.state,
            part="lost",
            reason=reason,
            data_left=None,
            file=None,
            torn=self.state.torn or reason != "",
        )
        self._reject(reason)

    def _reject(self, reason: str) -> None:
        self.rejected = self.rejected or reason or None

    def _pass_over(self, stop: int, final: bool) -> bool:
        found, is_file = self._file_within(self._position, stop, stop, certain=False)
        if not is_file and not final:
            found = self._hold(self._position, stop, certain=False)
        if found > self._position:
            self._reject(self.state.reason)
        self._position = found
        if is_file:
            self._begin(found)
        return is_file

    def _file_within(self, begin: int, end: int, stop: int, *, certain: bool) -> tuple[int, bool]:
        """Where a file begins that does so from `begin` up to `end`, or `end`; and whether one does."""
        need = CERTAIN_START_BYTES if certain else FILE_START_BYTES
        last = min(end + FILE_START_BYTES - 1, stop)
        at = begin + 8
        while (found := _WAVE.search(self._view, at, last)) is not None:
            at = found.start() - 8
            if begins_file(self._bytes(at, min(at + need, stop)), certain=certain):
                return at, True
            at = found.end()
        return end, False

    def _hold(self, begin: int, stop: int, *, certain: bool) -> int:
        """From where the last bytes before `stop` may begin a file."""
        need = CERTAIN_START_BYTES if certain else FILE_START_BYTES
        for at in range(max(begin, stop - need + 1), stop):
            if begins_file(self._bytes(at, stop), certain=certain) is None:
                return at
        return stop

    def _read_header(self, stop: int, final: bool) -> bool:
        """The start of a file, or the next chunk before its samples; False if there are too few bytes."""
        state, at = self.state, self._position
        if state.file is None:
            return self._read_file_start(stop)
        if state.skip:
            size = min(state.skip, stop - at)
            self._position += size
            self.state = replace(state, skip=state.skip - size)
            return True
        pad = padding_before_chunk(self._bytes(at, min(at + 5, stop)), odd=state.padded)
        if pad is None or stop < at + pad + CHUNK_HEAD_BYTES:
            return False
        at += pad
        name, size = self._bytes(at, at + 4), int.from_bytes(self._bytes(at + 4, at + 8), "little")
        at += CHUNK_HEAD_BYTES
        place = f"{at - CHUNK_HEAD_BYTES + self._base - state.file.first} bytes behind its start"
        if name == b"data":
            self._position = at
            self._begin_samples(state.file, size)
            return True
        if not is_chunk_name(name):
            self._lose(
                f"The WAVE file has {name!r} where a chunk should begin, {place} and before its samples: the "
                "size of the chunk before, or its padding, is wrong; write the file again."
            )
            return True
        if size > MAX_CHUNK_BYTES:
            self._lose(
                f"The WAVE file has a chunk {name!r} of {size:,} bytes, {place} and before its samples; at "
                f"most {MAX_CHUNK_BYTES:,} are passed over: its size is wrong; write the file again."
            )
            return True
        file, used = state.file, 0
        if name in (b"fmt ", b"ds64"):
            used = min(size, FORMAT_BYTES)
            body = self._bytes(at, min(at + used, stop))
            if len(body) < used:
                return False
            try:
                file = replace(file, **said_by(name, body))
            except OperationFailed as error:
                self._lose(str(error))
                return True
        self._position = at + used
        self.state = replace(state, file=file, skip=size - used, padded=size % 2 == 1)
        return True

    def _read_file_start(self, stop: int) -> bool:
        at = self._position
        head = self._bytes(at, min(at + FILE_START_BYTES, stop))
        is_file = begins_file(head)
        if is_file is None:
            return False
        if not is_file:
            self._lose(not_a_file(head))
            return True
        size = int.from_bytes(head[4:8], "little")
        riff_bytes = None if size in UNKNOWN_SIZES or head[:4] != b"RIFF" else size
        self._position = at + FILE_START_BYTES
        self.state = replace(self.state, file=FileState(at + self._base, riff_bytes))
        return True

    def _begin_samples(self, file: FileState, size: int) -> None:
        if file.layout is None:
            self._lose("The WAVE file has samples before its format chunk; write the file again.")
            return
        data_bytes: int | None = size
        if size == UNKNOWN_SIZES[1]:
            data_bytes = file.data_bytes
        rest = -1
        if file.riff_bytes is not None and data_bytes is not None:
            used = self._position + self._base - file.first - 8
            rest = max(file.riff_bytes - used - data_bytes - data_bytes % 2, 0)
        self.state = replace(
            self.state,
            part="samples",
            file=replace(file, is_empty=data_bytes == 0),
            data_left=data_bytes,
            padded=(data_bytes or 0) % 2 == 1,
            rest=rest,
        )

    def _read_samples(self, stop: int, final: bool) -> bool:
        left, at = self.state.data_left, self._position
        end = stop if left is None else min(at + left, stop)
        # Its first bytes may have been given as samples: who holds them back never gives the last ones.
        found, is_file = self._file_within(max(at - _LOOKED_BACK_BYTES, 0), end, stop, certain=True)
        if not self._give(found):
            return True
        if is_file:
            self._begin(found)
            return True
        if left is None or end < at + left:
            return False  # the rest is not a whole frame
        return self._read_end_of_samples(end, stop, final)

    def _give(self, end: int) -> bool:
        """Whole frames up to `end` are samples; False if they do not fit the stream."""
        state, file = self.state, self.state.file
        assert file is not None
        assert file.layout is not None
        frame_bytes = file.layout[0].frame_bytes
        rows = (end - self._position) // frame_bytes
        if rows < 1:
            return True
        if state.layout not in (None, file.layout):
            self._lose(
                f"The WAVE file has {said(file.layout)}, but those before it in this stream had "
                f"{said(state.layout)}: send it under a tag of its own."
            )
            return False
        stop = self._position + rows * frame_bytes
        torn = state.torn and state.layout is not None
        self._pieces.add(self._data[self._position : stop], self._base + self._position, rows, torn=torn)
        self._position = stop
        self.state = replace(
            state,
            rows=state.rows + torn + rows,
            layout=file.layout,
            torn=False,
            data_left=None if state.data_left is None else state.data_left - rows * frame_bytes,
            beyond_size=state.beyond_size + rows * file.is_beyond,
        )
        return True

    def _read_end_of_samples(self, end: int, stop: int, final: bool) -> bool:
        """What follows the samples by their size: `end`."""
        state, file = self.state, self.state.file
        assert file is not None
        behind = self._bytes(end, min(end + _LOOKED_AT_BYTES, stop))
        found = what_follows(behind, odd=state.padded, left=state.rest, only_known=file.is_empty, final=final)
        may_be_other = not file.is_empty and (found is None or found[0] not in (Follows.FILE, Follows.CHUNK))
        places = range(end, end + 1 + state.padded)
        if may_be_other and begins_other_kind(self._view[:stop], self._starts(), places):
            self._position = end
            self._lose(not_a_file(behind[:FILE_START_BYTES]))
            return True
        assert file.layout is not None
        missing = (self._position - end) % file.layout[0].frame_bytes
        frame_end = end + missing
        if missing and completes_frame(
            self._bytes(end, min(frame_end + FILE_START_BYTES, stop)),
            missing=missing,
            odd=state.padded,
            follows=found,
            ends_event=bool(np.any(self._starts() == frame_end)),
            ends_file=final and frame_end == stop,
            riff_ends=file.riff_bytes is not None and file.first + 8 + file.riff_bytes == self._base + end,
        ):
            self.state = replace(
                state,
                data_left=frame_end - self._position,
                padded=False,
                rest=state.rest if state.rest < 0 else max(state.rest - missing, 0),
                beyond_size=state.beyond_size + 1,
            )
            return True
        if found is None or end == stop:
            return False
        follows, pad = found
        if follows is Follows.OTHER:
            # The size is too small: a part of a frame before it continues after it.
            self.state = replace(
                state, data_left=None, file=replace(file, is_empty=False, is_beyond=not file.is_empty)
            )
            return True
        self._position = end + pad
        self._continue_after(follows, behind)
        return True

    def _read_chunks(self, stop: int, final: bool) -> bool:
        state, at = self.state, self._position
        if state.skip:
            end = min(at + state.skip, stop)
            found, is_file = self._file_within(at, end, stop, certain=True)
            if not is_file and not final:
                found = min(found, self._hold(at, stop, certain=True))
            self._position = found
            if is_file:
                self._begin(found)
                return True
            rest = state.rest if state.rest < 0 else max(state.rest - (found - at), 0)
            self.state = replace(state, skip=state.skip - (found - at), rest=rest)
            return found == end
        if state.file is None:  # as in states of earlier versions after their last chunk
            state = replace(state, file=FileState(at + self._base, layout=state.layout))
        behind = self._bytes(at, min(at + _LOOKED_AT_BYTES, stop))
        found_next = what_follows(behind, odd=state.padded, left=state.rest, only_known=False, final=final)
        if found_next is None:
            return False
        follows, pad = found_next
        if follows is Follows.OTHER and not behind.strip(b"\0"):
            follows = Follows.PADDING
        self._position = at + pad
        self._continue_after(follows, behind)
        return True

    def _continue_after(self, follows: Follows, behind: bytes) -> None:
        state, at = self.state, self._position
        if follows is Follows.FILE:
            self._begin(at)
        elif follows is Follows.PADDING:
            self._lose("")
        elif follows is not Follows.CHUNK:
            self._lose(not_a_file(behind[:FILE_START_BYTES]))
        else:
            size = int.from_bytes(self._bytes(at + 4, at + 8), "little")
            self._position += CHUNK_HEAD_BYTES
            if self._bytes(at, at + 4) == b"data" and state.file is not None:
                self._begin_samples(state.file, size)
                return
            self.state = replace(
                state,
                part="chunks",
                skip=size,
                padded=size % 2 == 1,
                data_left=None,
                rest=state.rest if state.rest < 0 else max(state.rest - CHUNK_HEAD_BYTES, 0),
            )
