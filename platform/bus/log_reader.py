"""Reads the log of one partition (`segment_log.py` has its files), live, in any process."""

import os
from pathlib import Path

from ..errors import BusCorrupt, BusUnavailable, RangeGone, WindvaneError
from .interface import BusMessage, TopicPartition
from .record_format import HEADER_BYTES, RecordDamagedError, key_and_value, record_bytes, record_end
from .segment_log import COMMITTED, END_WORD, READ_BYTES, segment_bases, segment_path
from .shared_words import SharedWords


class LogReader:
    """Gives the durable messages of one partition from an offset on.

    For one thread at a time. Holds three file descriptors, and the bytes of one `read`.
    """

    def __init__(self, directory: Path, topic_partition: TopicPartition, offset: int | None) -> None:
        """Stand in front of message `offset`; None is the first one kept."""
        self.topic_partition = topic_partition
        self._directory = directory
        # Retention may move the beginning until the first segment is open.
        self._at_beginning = offset is None
        self.next_offset = (segment_bases(directory) or [0])[0] if offset is None else offset
        self._committed = SharedWords(directory / COMMITTED, writable=False)
        self._words = self._committed.words
        self._fd = -1
        self._path = directory
        self._base = 0
        self._position = 0

    @property
    def behind(self) -> int:
        """How many durable messages it has not given: live. Negative in front of what was never written."""
        return self._words[END_WORD] - self.next_offset

    def read(self, max_bytes: int, *, first_bytes: int | None = None) -> tuple[list[BusMessage], int]:
        """The next messages, and the bytes of their records: at most `max_bytes`, or one message with more.

        That one is left for another time where its record has more than `first_bytes`; None: it may have any
        size. Raises `BusCorrupt` at a damaged message (those before it are given first), `RangeGone` for an
        offset that is not in the log, `BusUnavailable` where a file cannot be read; the position then stays.
        """
        messages: list[BusMessage] = []
        total = 0
        more = True
        while more and (total < max_bytes or not messages):
            try:
                taken, more = self._read_on(messages, max_bytes - total, first_bytes)
            except OSError as error:
                if messages:
                    break  # they are given first: the next read meets the error again
                if isinstance(error, WindvaneError):
                    raise
                raise BusUnavailable(f"cannot read {self._path}: {error}; mend the disk") from error
            except RangeGone:
                if messages:
                    break
                raise
            total += taken
        return messages, total

    def close(self) -> None:
        """Let go of the files."""
        self._close_segment()
        self._committed.close()

    def _read_on(
        self, messages: list[BusMessage], max_bytes: int, first_bytes: int | None
    ) -> tuple[int, bool]:
        """Read once and append what came; returns its bytes, and whether to go on."""
        end_offset = self._words[END_WORD]
        if self.next_offset == end_offset:
            return 0, False
        if self.next_offset > end_offset:
            raise RangeGone(
                f"message {self.next_offset} of {self._name} was never written, it ends at {end_offset}. "
                "Is it another bus? Put the right one in place, or seek"
            )
        if self._fd < 0:
            self._locate()
        available = os.fstat(self._fd).st_size - self._position
        if available == 0:
            self._follow()
            return 0, True
        data = os.pread(self._fd, min(available, max(max_bytes, HEADER_BYTES)), self._position)
        taken = self._take(data, end_offset, messages)
        if not messages:
            whole = self._whole(data, available)
            if first_bytes is not None and whole > first_bytes:
                return 0, False
            taken = self._take(os.pread(self._fd, whole, self._position), end_offset, messages)
        return taken, taken == len(data)

    def _take(self, data: bytes, end_offset: int, messages: list[BusMessage]) -> int:
        """Append the whole records of `data`, which stands at the position; returns their bytes."""
        at = 0
        offset = self.next_offset
        try:
            while offset < end_offset and (end := record_end(data, at, offset)) is not None:
                key, value = key_and_value(data, at, end)
                messages.append(BusMessage(self.topic_partition, offset, key, value))
                offset += 1
                at = end
        except RecordDamagedError as error:
            if not messages:
                raise self._corrupt(str(error)) from error
        self.next_offset = offset
        self._position += at
        return at

    def _whole(self, data: bytes, available: int) -> int:
        """How many bytes the record has that `data` begins."""
        try:
            whole = record_bytes(data)
        except RecordDamagedError as error:
            raise self._corrupt(str(error)) from error
        if whole is None or whole > available:
            raise self._corrupt("it is cut short")
        return whole

    def _locate(self) -> None:
        """Open the segment that has the next message, and stand in front of it."""
        while True:
            bases = segment_bases(self._directory)
            if self._at_beginning and bases:
                self.next_offset = max(self.next_offset, bases[0])
            self._check_kept(bases)
            base = max(base for base in bases if base <= self.next_offset)
            try:
                self._open(base)
                break
            except FileNotFoundError:  # retention was quicker
                continue
        try:
            self._position = self._find(base)
        except BaseException:
            self._close_segment()
            raise

    def _find(self, base: int) -> int:
        """Where the next message begins, found by hopping from record to record."""
        position, offset = 0, base
        size = os.fstat(self._fd).st_size
        while offset < self.next_offset:
            data = os.pread(self._fd, READ_BYTES, position)
            at = 0
            try:
                while offset < self.next_offset and (whole := record_bytes(data, at)) is not None:
                    at += whole
                    offset += 1
            except RecordDamagedError as error:
                raise self._corrupt(str(error), at=position + at, offset=offset) from error
            if at == 0 or position + at > size:
                raise self._corrupt("it is cut short", at=position + at, offset=offset)
            position += at
        return position

    def _follow(self) -> None:
        """Go over to the segment that begins with the next message."""
        if self._base == self.next_offset:
            raise self._corrupt("the file ends")
        try:
            self._open(self.next_offset)
        except FileNotFoundError as error:
            self._check_kept(segment_bases(self._directory))
            raise self._corrupt("the file ends, and the next one is missing") from error
        self._position = 0

    def _check_kept(self, bases: list[int]) -> None:
        if not bases or self.next_offset < bases[0]:
            raise RangeGone(
                f"message {self.next_offset} of {self._name} is not kept any more, the log begins at "
                f"{bases[0] if bases else self._words[END_WORD]}; seek there to go on without it"
            )

    def _open(self, base: int) -> None:
        path = segment_path(self._directory, base)
        fd = os.open(path, os.O_RDONLY)
        self._close_segment()
        self._fd, self._path, self._base = fd, path, base

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def _name(self) -> str:
        return f"{self.topic_partition.topic}/{self.topic_partition.partition}"

    def _corrupt(self, reason: str, *, at: int | None = None, offset: int | None = None) -> BusCorrupt:
        return BusCorrupt(
            f"{self._path} is damaged at byte {self._position if at is None else at}, where message "
            f"{self.next_offset if offset is None else offset} of {self._name} begins: {reason}. Restore it "
            "from a copy, or seek past it to go on without what is lost"
        )
