"""Reads the log of one partition (files: see `segment_log.py`) while it is written, in any process."""

import os
from pathlib import Path

from ...errors import (
    BusCorrupt,
    LogReplaced,
    MessagesDamaged,
    MessagesGone,
    PartitionHalted,
    PartitionUnreadable,
)
from ..interface import BusMessage, TopicPartition
from .log_scan import scan_segment
from .record_format import (
    HEADER_BYTES,
    RecordDamagedError,
    key_and_value,
    record_at,
    record_bytes,
    record_end,
)
from .segment_log import COMMITTED, END_WORD, READ_BYTES, segment_bases, segment_path
from .shared_words import SharedWords


class LogReader:
    """Reads the durable messages of one partition from an offset on.

    For one thread at a time. Holds three file descriptors, and the bytes of one `read`.
    """

    def __init__(self, directory: Path, topic_partition: TopicPartition, offset: int | None) -> None:
        """Start at message `offset`; None means the first message that the log still has."""
        self.topic_partition = topic_partition
        self._directory = directory
        # Retention may move the beginning until the first segment is open.
        self._at_beginning = offset is None
        self.next_offset = (segment_bases(directory) or [0])[0] if offset is None else offset
        try:
            self._committed = SharedWords(directory / COMMITTED, writable=False)
        except FileNotFoundError as error:
            # A log is created atomically, so this is damage, and of this partition only.
            raise BusCorrupt(f"{directory / COMMITTED} is missing; `windvane verify --repair`") from error
        self._words = self._committed.words
        self._fd = -1
        self._path = directory
        self._base = 0
        self._position = 0

    @property
    def behind(self) -> int:
        """How many durable messages it has not returned, now. Negative if the position is past the end."""
        return self._words[END_WORD] - self.next_offset

    def read(self, max_bytes: int, *, first_bytes: int | None = None) -> tuple[list[BusMessage], int]:
        """The next messages, and the bytes of their records: at most `max_bytes`, or one larger message.

        A larger message is left for a later read if its record has more than `first_bytes` (None: no limit).
        Raises `MessagesDamaged` at a damaged message (after returning those before it), `MessagesGone` for an
        offset that is not in the log, `PartitionUnreadable` if a file cannot be read. On an error the
        position does not change.
        """
        messages: list[BusMessage] = []
        total = 0
        more = True
        while more and (total < max_bytes or not messages):
            try:
                taken, more = self._read_on(messages, max_bytes - total, first_bytes)
            except PartitionHalted:
                if messages:
                    break  # they are returned first: the next read meets the error again
                raise
            except OSError as error:
                if messages:
                    break
                raise PartitionUnreadable(
                    f"cannot read {self._path}: {error}. Check the disk (dmesg); the read is retried",
                    topic=self.topic_partition.topic,
                    partition=self.topic_partition.partition,
                    offset=self.next_offset,
                    resume_at=None,
                    missing=None,
                ) from error
            total += taken
        return messages, total

    def close(self) -> None:
        """Close the files."""
        self._close_segment()
        self._committed.close()

    def _read_on(
        self, messages: list[BusMessage], max_bytes: int, first_bytes: int | None
    ) -> tuple[int, bool]:
        """Read once and append the messages; returns their bytes, and whether to continue."""
        end_offset = self._words[END_WORD]
        if self.next_offset == end_offset:
            return 0, False
        if self.next_offset > end_offset:
            bases = segment_bases(self._directory)
            reason = (
                f"message {self.next_offset} of {self._name} was never written: the log ends at "
                f"{end_offset}. It is not the log that was read before. Restore that one, or read this one "
                "from the beginning"
            )
            raise self._gone(MessagesGone, reason, resume_at=bases[0] if bases else 0, missing=None)
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
        """Append the whole records of `data`, which was read at the position; returns their bytes."""
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
        """The length of the record that starts at `data`."""
        try:
            whole = record_bytes(data)
        except RecordDamagedError as error:
            raise self._corrupt(str(error)) from error
        if whole is None or whole > available:
            raise self._corrupt("it is cut short")
        return whole

    def _locate(self) -> None:
        """Open the segment that has the next message, and find its position."""
        while True:
            bases = segment_bases(self._directory)
            if self._at_beginning and bases:
                self.next_offset = max(self.next_offset, bases[0])
            self._check_kept(bases)
            base = max(base for base in bases if base <= self.next_offset)
            try:
                self._open(base)
                break
            except FileNotFoundError:  # retention was faster
                continue
        try:
            self._position = self._find(base)
        except BaseException:
            self._close_segment()
            raise

    def _find(self, base: int) -> int:
        """The position of the next message, found by reading the header of each record before it."""
        position, offset = 0, base
        size = os.fstat(self._fd).st_size
        while offset < self.next_offset:
            data = os.pread(self._fd, READ_BYTES, position)
            at = 0
            try:
                while offset < self.next_offset and (whole := record_at(data, at, offset)) is not None:
                    at += whole
                    offset += 1
            except RecordDamagedError:
                return self._find_after_damage(base)
            if at == 0 or position + at > size:
                return self._find_after_damage(base)
            position += at
        try:  # a damaged length leads to a wrong position
            found = record_at(os.pread(self._fd, HEADER_BYTES, position), 0, offset)
        except RecordDamagedError:
            found = None
        return self._find_after_damage(base) if found is None else position

    def _find_after_damage(self, base: int) -> int:
        """As `_find`, in a segment with a damaged record: reads all of it."""
        runs, damages = scan_segment(self._path, base, self._segment_stop(base))
        for run in runs:
            if run.first <= self.next_offset < run.stop:
                position, offset = run.start_byte, run.first
                while offset < self.next_offset:
                    whole = record_bytes(os.pread(self._fd, HEADER_BYTES, position))
                    assert whole is not None, "it was checked a moment ago"
                    position += whole
                    offset += 1
                return position
        damage = next(damage for damage in damages if damage.first <= self.next_offset < damage.stop)
        raise self._damaged(damage.reason, damage.byte, damage.stop)

    def _segment_stop(self, base: int) -> int:
        """The offset after the last message that the segment should hold."""
        return min(
            (other for other in segment_bases(self._directory) if other > base), default=self._words[END_WORD]
        )

    def _follow(self) -> None:
        """Switch to the segment that begins with the next message."""
        if self._base == self.next_offset:
            raise self._corrupt("the file ends")
        try:
            self._open(self.next_offset)
        except FileNotFoundError as error:
            bases = segment_bases(self._directory)
            self._check_kept(bases)
            later = [base for base in bases if base > self.next_offset]
            reason = "the file ends" + (", and the next one is missing" if later else "")
            resume_at = min(later, default=self._words[END_WORD])
            raise self._damaged(reason, self._position, resume_at) from error
        self._position = 0

    def _check_kept(self, bases: list[int]) -> None:
        if bases and self.next_offset >= bases[0]:
            return
        begin = bases[0] if bases else self._words[END_WORD]
        if not bases:
            raise self._damaged("the log has no files", 0, begin)
        raise self._gone(
            MessagesGone,
            f"messages {self.next_offset} to {begin - 1} of {self._name} ({begin - self.next_offset}) are "
            "no longer kept: retention has dropped them",
            resume_at=begin,
            missing=begin - self.next_offset,
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

    def replaced(self) -> LogReplaced:
        """The error of a reader whose topic was deleted and recreated."""
        bases = segment_bases(self._directory) if self._directory.is_dir() else []
        error = self._gone(
            LogReplaced,
            f"the topic {self.topic_partition.topic} was deleted and recreated: the next message was "
            f"{self.next_offset} of {self._name}, in the deleted log",
            resume_at=bases[0] if bases else 0,
            missing=None,
        )
        assert isinstance(error, LogReplaced)
        return error

    def _gone(
        self, kind: type[MessagesGone], message: str, *, resume_at: int, missing: int | None
    ) -> MessagesGone:
        return kind(
            message,
            topic=self.topic_partition.topic,
            partition=self.topic_partition.partition,
            offset=self.next_offset,
            resume_at=resume_at,
            missing=missing,
        )

    def _corrupt(self, reason: str) -> MessagesDamaged:
        """The error for the next message, which is damaged; finds the next whole one."""
        stop = self._segment_stop(self._base)
        if self.next_offset >= stop:
            return self._damaged(reason, self._position, self.next_offset + 1)
        for damage in scan_segment(self._path, self._base, stop).damages:
            if damage.first <= self.next_offset < damage.stop:
                return self._damaged(damage.reason, damage.byte, damage.stop)
        return self._damaged(reason, self._position, self.next_offset + 1)

    def _damaged(self, reason: str, byte: int, resume_at: int) -> MessagesDamaged:
        missing = resume_at - self.next_offset
        which = (
            f"message {self.next_offset}"
            if missing == 1
            else (f"messages {self.next_offset} to {resume_at - 1} ({missing})")
        )
        return MessagesDamaged(
            f"{self._path} is damaged at byte {byte}: {which} of {self._name} cannot be read: {reason}. "
            "Restore the file from a copy if you have one",
            topic=self.topic_partition.topic,
            partition=self.topic_partition.partition,
            offset=self.next_offset,
            resume_at=resume_at,
            missing=missing,
        )
