"""The buffered events of a chunk, and how events of several chunks are released together."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ....bus.messages.chunks import ChunkMessage
from ....store.interface import PART_OF_CHUNK
from ..progress.in_flight import MessagePosition
from .event_times import TimedEvents

CHUNK_OVERHEAD_BYTES = 1024
EVENT_OVERHEAD_BYTES = 16
"""Overhead of Python objects, counted in addition to the payload."""

_MIN_NS = -(2**63)


class Arrival(NamedTuple):
    """What the archive records of a chunk whose last event was released."""

    chunk_id: bytes | None
    received_ns: int
    sender: str


class Released(NamedTuple):
    """Events that are released together: a whole chunk, a part of one, or several merged.

    `position` is that of one of their chunks; `others` are further chunks whose last events are among them.
    """

    message: ChunkMessage
    position: MessagePosition
    others: tuple[Arrival, ...] = ()


@dataclass(slots=True, eq=False)
class BufferedEvents:
    """A chunk with buffered events."""

    sequence: int
    position: MessagePosition
    message: ChunkMessage
    events: TimedEvents
    """Those of the message, by rising time; for a raw chunk a single one, of its first event's time."""
    left: int = 0
    """How many of them were released."""
    size: int = field(init=False)

    def __post_init__(self) -> None:
        overhead = CHUNK_OVERHEAD_BYTES + EVENT_OVERHEAD_BYTES * len(self.events.ends)
        self.size = len(self.message.payload) + overhead

    @property
    def first_ns(self) -> int:
        """Event time of the first buffered one."""
        return int(self.events.times_ns[self.left])

    @property
    def last_ns(self) -> int:
        """Event time of the last one."""
        return int(self.events.times_ns[-1])

    def key(self) -> tuple[int, int]:
        """Sorts by event time, then by arrival."""
        return self.first_ns, self.sequence

    def take(self, until_ns: int) -> "EventRange":
        """Removes and returns the events up to that time."""
        begin = self.left
        self.left = int(np.searchsorted(self.events.times_ns, until_ns, side="right"))
        return EventRange(self, begin, self.left)


class EventRange(NamedTuple):
    """Events `begin` to `end` of a buffered chunk, which are released."""

    buffered: BufferedEvents
    begin: int
    end: int

    @property
    def is_whole(self) -> bool:
        """Whether they are the whole chunk."""
        return self.begin == 0 and self.is_last

    @property
    def is_last(self) -> bool:
        """Whether no later event of the chunk is buffered."""
        return self.end == len(self.buffered.events.ends)

    @property
    def arrival(self) -> Arrival:
        """Of their chunk."""
        message = self.buffered.message
        return Arrival(message.chunk_id, message.received_ns, message.sender)

    @property
    def first_byte(self) -> int:
        """Their offset in the chunk's payload."""
        return int(self.buffered.events.ends[self.begin - 1]) if self.begin else 0

    @property
    def payload(self) -> bytes:
        """Their msgpack."""
        return self.buffered.events.payload[self.first_byte : int(self.buffered.events.ends[self.end - 1])]


def merge(ranges: list[EventRange]) -> Released:
    """One message of these events, sorted by time; those of one time by the arrival of their chunks."""
    ranges.sort(key=lambda each: each.buffered.sequence)
    first = ranges[0].buffered
    whole = [each.arrival for each in ranges if each.is_last]
    if len(ranges) == 1:
        if ranges[0].is_whole:
            return Released(first.message, first.position)
        payload, events = ranges[0].payload, ranges[0].end - ranges[0].begin
    else:
        payload, events = _merged(ranges), sum(each.end - each.begin for each in ranges)
    message = ChunkMessage(
        tag=first.message.tag,
        sender=whole[-1].sender if whole else first.message.sender,
        chunk_id=whole[-1].chunk_id if whole else PART_OF_CHUNK,
        received_ns=whole[-1].received_ns if whole else first.message.received_ns,
        events=events,
        payload=payload,
    )
    return Released(message, first.position, tuple(whole[:-1]))


def group_overlapping(buffered: list[BufferedEvents]) -> list[list[BufferedEvents]]:
    """Groups chunks that overlap in time; `buffered` is sorted by the first event."""
    runs: list[list[BufferedEvents]] = []
    last_ns = _MIN_NS
    for each in buffered:
        if runs and each.first_ns < last_ns:
            runs[-1].append(each)
        else:
            runs.append([each])
        last_ns = max(last_ns, each.last_ns)
    return runs


def _merged(ranges: list[EventRange]) -> bytes:
    times = np.concatenate([each.buffered.events.times_ns[each.begin : each.end] for each in ranges])
    pieces: list[bytes] = []  # a memoryview would take 184 bytes an event
    for each in ranges:
        payload = each.buffered.events.payload
        begin = each.first_byte
        for end in each.buffered.events.ends[each.begin : each.end].tolist():
            pieces.append(payload[begin:end])
            begin = end
    return b"".join([pieces[i] for i in np.argsort(times, kind="stable")])
