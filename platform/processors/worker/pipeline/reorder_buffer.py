"""Buffers chunks that arrive out of order, and releases them by event time.

The watermark of a stream is the latest event time that was seen in its messages on the bus, less `reorder_s`.
Newer events are buffered; older ones are released in the order of event time. Besides chunks, two things
raise the watermark: a flush message on the bus (`bus/messages/flush.py`), which is published after an idle
time, and too many buffered bytes. Nothing else has an effect, in particular no clock. So the released events,
their order and their time are a function of the stream's messages alone, and a replay of the log gives the
same rows.

**A crash.** Buffered chunks are part of the stream. The stream's position is past a buffered chunk, and its
ID is recorded. The checkpoint that records both also records the buffered chunk, in one transaction
(`store/databases/stream_order.py`). So the rules for exactly-once processing apply unchanged: a chunk before
a position is in the outputs or in the checkpoint, and is skipped when it is redelivered. The bus may drop it,
the partition may move, and the bus may be replaced. The cost: the bytes of a chunk that is buffered during a
commit are written once more. The alternative is a position that stays before the buffered chunks. It would
need the set of later chunks that are already stored, and the bus would have to retain the buffered ones.

**Units of reordering.** In the formats msgpack and json, the unit is an event: chunks that overlap in time
are merged, and a chunk that reaches beyond the watermark is split if it overlaps another; chunks that do not
overlap are released unchanged. In a `raw` stream a chunk has samples that belong together: it is one unit,
with the time of its first event. Events of the same time are released in the order of their arrival.

**Late events** are older than the watermark when they arrive. They are released at once, in the order of
arrival, and are counted. A chunk whose events cannot be read is also released at once.
"""

from bisect import insort
from collections.abc import Callable, Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from ....bus.messages.chunks import ChunkMessage
from ....store.databases.stream_order import HeldChunk, OrderFigures, StreamOrder
from ....store.interface import PART_OF_CHUNK
from ..progress.in_flight import MessagePosition
from .buffered_events import BufferedEvents, Released, group_overlapping, merge
from .event_times import TimedEvents, timed_events

MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""Limit on the buffered bytes of one stream, payload and overhead. Above it, the watermark rises to the end
of the chunk that ends first. It is a constant, so that a replay with other settings releases the same
events."""

_NS_PER_S = 1_000_000_000
_MIN_NS = -(2**63)


class ReorderBuffer:
    """The buffered chunks of one stream. Used by one thread at a time.

    Memory: `MAX_BUFFERED_BYTES`, and one chunk.
    """

    def __init__(
        self,
        *,
        reorder_s: float,
        is_raw: bool,
        order: StreamOrder | None,
        held: Iterable[HeldChunk],
        tag: str,
        max_bytes: int | None = None,
    ) -> None:
        """`order` and `held` come from the stream's last checkpoint; None and empty for a new stream.
        The default of `max_bytes` is `MAX_BUFFERED_BYTES`.
        """
        order = order or StreamOrder()
        self._reorder_ns = round(reorder_s * _NS_PER_S)
        self._is_raw = is_raw
        self._max_bytes = MAX_BUFFERED_BYTES if max_bytes is None else max_bytes
        self._watermark_ns = _MIN_NS if order.watermark_ns is None else order.watermark_ns
        self._latest_ns = order.latest_ns
        self._next_sequence = order.next_sequence
        self._last_ns = order.last_ns
        self.late_events = order.late_events
        self.early_events = order.early_events
        self.inversions = order.inversions
        self._inverted_ns = order.inverted_ns
        self._buffered: list[BufferedEvents] = []
        self._positions: set[MessagePosition] = set()
        self.buffered_bytes = 0
        self._unreadable: list[Released] = []
        left = dict(order.left)
        for chunk in held:
            self._restore(chunk, left.get(chunk.sequence, 0), tag)
        if self._buffered:  # nothing new, unless a damaged checkpoint lost the rest of the state
            self._latest_ns = max(self._latest(), *(each.last_ns for each in self._buffered))

    def _restore(self, chunk: HeldChunk, left: int, tag: str) -> None:
        message = ChunkMessage(
            tag=tag,
            sender=chunk.sender,
            chunk_id=chunk.chunk_id,
            received_ns=chunk.received_ns,
            events=chunk.events,
            payload=chunk.payload,
        )
        position = MessagePosition(chunk.log, chunk.topic, chunk.partition, chunk.offset)
        events = timed_events(chunk.payload)
        if events is None or not len(events.ends):  # it could be read when it was buffered
            self._unreadable.append(Released(message, position))
            return
        if left and self._is_raw:  # the format was changed after a part of it was released
            begin = int(events.ends[left - 1])
            message = msgspec.structs.replace(
                message, payload=chunk.payload[begin:], events=chunk.events - left
            )
            events, left = TimedEvents(message.payload, events.times_ns[left:], events.ends[left:] - begin), 0
        self._add(BufferedEvents(chunk.sequence, position, message, self._units(events), left))

    @property
    def buffered_chunks(self) -> int:
        """Returns the chunks with buffered events."""
        return len(self._buffered)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is buffered."""
        return not self._buffered and not self._unreadable

    @property
    def watermark_ns(self) -> int:
        """The watermark, event time in ns: older events are late, and are released at once."""
        return self._watermark_ns

    def contains(self, position: MessagePosition) -> bool:
        """Whether the message is buffered: then this is a redelivery."""
        return position in self._positions

    def take(self, message: ChunkMessage, position: MessagePosition) -> list[Released]:
        """Takes a chunk; returns the events that it releases, in order."""
        released, self._unreadable = self._unreadable, []
        if not self._reorder_ns:
            return [*released, *self.release_all(), Released(message, position)]
        events = timed_events(message.payload)
        if events is None or not len(events.ends):
            return [*released, Released(message, position)]
        released += self._take(message, position, events)
        self._raise_watermark(max(int(events.times_ns.max()), self._latest()) - self._reorder_ns)
        self._latest_ns = max(int(events.times_ns.max()), self._latest())
        released += self._release()
        while self.buffered_bytes > self._max_bytes and self._buffered:
            self._raise_watermark(min(each.last_ns for each in self._buffered))
            early = self._release()
            self.early_events += sum(each.message.events for each in early)
            released += early
        return released

    def flush(self, until_ns: int) -> list[Released]:
        """Takes a flush message; returns the events that it releases, in order."""
        released, self._unreadable = self._unreadable, []
        if not self._reorder_ns:
            return [*released, *self.release_all()]
        if self._buffered:
            self._raise_watermark(min(until_ns, self._latest()))
        return [*released, *self._release()]

    def release_all(self) -> list[Released]:
        """Releases everything, since the policy no longer asks for reordering."""
        released, self._unreadable = self._unreadable, []
        if self._buffered:
            self._raise_watermark(max(each.last_ns for each in self._buffered))
        return [*released, *self._release()]

    def remove_fatal(self, is_fatal: Callable[[MessagePosition], bool]) -> list[Released]:
        """Removes and returns the events of the chunks for which the function is true; they are not released
        with the others.
        """
        found = [each for each in self._buffered if is_fatal(each.position)]
        for each in found:
            self._remove(each)
        return [merge([each.take(each.last_ns)]) for each in found]

    def note_unsorted(self, times_ns: NDArray[np.int64], *, received_ns: int) -> bool:
        """Takes a stored chunk of a raw stream without reordering; returns whether event time went back."""
        if not len(times_ns):
            return False
        went_back = self._last_ns is not None and int(times_ns[0]) < self._last_ns
        self._last_ns = int(times_ns[-1])
        if went_back:
            self.inversions += 1
            self._inverted_ns = received_ns
        return went_back

    def figures(self, reference: str, policy: str, partition: int) -> OrderFigures:
        """Returns the order figures of the stream, whose last message came from this partition."""
        return OrderFigures(
            reference=reference,
            policy=policy,
            partition=partition,
            held_chunks=len(self._buffered),
            latest_ns=self._latest_ns if self._buffered else None,
            late_events=self.late_events,
            early_events=self.early_events,
            inversions=self.inversions,
            inverted_ns=self._inverted_ns,
            is_sorting=bool(self._reorder_ns),
        )

    @property
    def order(self) -> StreamOrder:
        """For a checkpoint, with `held`."""
        return StreamOrder(
            watermark_ns=None if self._watermark_ns == _MIN_NS else self._watermark_ns,
            latest_ns=self._latest_ns,
            next_sequence=self._next_sequence,
            left=tuple((each.sequence, each.left) for each in self._buffered if each.left),
            late_events=self.late_events,
            early_events=self.early_events,
            last_ns=self._last_ns,
            inversions=self.inversions,
            inverted_ns=self._inverted_ns,
            is_sorting=bool(self._reorder_ns),
        )

    @property
    def held(self) -> tuple[HeldChunk, ...]:
        """For a checkpoint: the buffered chunks, in order of arrival."""
        return tuple(
            HeldChunk(
                each.sequence,
                *each.position,
                each.message.sender,
                each.message.chunk_id,
                each.message.received_ns,
                each.message.events,
                each.message.payload,
            )
            for each in sorted(self._buffered, key=lambda each: each.sequence)
        )

    def _latest(self) -> int:
        return _MIN_NS if self._latest_ns is None else self._latest_ns

    def _raise_watermark(self, time_ns: int) -> None:
        self._watermark_ns = max(self._watermark_ns, time_ns)

    def _units(self, events: TimedEvents) -> TimedEvents:
        if not self._is_raw:
            return events
        return TimedEvents(events.payload, events.times_ns[:1], events.ends[-1:])

    def _take(self, message: ChunkMessage, position: MessagePosition, events: TimedEvents) -> list[Released]:
        """Releases late events at once and buffers the others."""
        units = self._units(events)
        is_late = units.times_ns < self._watermark_ns
        if is_late.all():
            self.late_events += int((events.times_ns < self._watermark_ns).sum())
            return [Released(message, position)]
        released = []
        if is_late.any():
            late = events.reordered(np.flatnonzero(is_late))
            self.late_events += len(late.ends)
            released.append(Released(_part(message, late), position))
            units = events.reordered(np.flatnonzero(~is_late))
        units = units.by_time()
        if units.payload is not message.payload:
            message = msgspec.structs.replace(message, payload=units.payload, events=len(units.ends))
        self._add(BufferedEvents(self._next_sequence, position, message, units))
        self._next_sequence += 1
        return released

    def _add(self, chunk: BufferedEvents) -> None:
        insort(self._buffered, chunk, key=BufferedEvents.key)
        self._positions.add(chunk.position)
        self.buffered_bytes += chunk.size

    def _remove(self, chunk: BufferedEvents) -> None:
        self._buffered.remove(chunk)
        self._positions.discard(chunk.position)
        self.buffered_bytes -= chunk.size

    def _release(self) -> list[Released]:
        """Returns the events that the watermark releases."""
        count = 0
        while count < len(self._buffered) and self._buffered[count].first_ns <= self._watermark_ns:
            count += 1
        released = []
        for cluster in group_overlapping(self._buffered[:count]):
            if len(cluster) == 1 and cluster[0].last_ns > self._watermark_ns:
                continue  # whole when its last event is due: no buffered event falls between its events
            for each in cluster:
                self._remove(each)
            released.append(merge([each.take(self._watermark_ns) for each in cluster]))
            for each in cluster:
                if each.left < len(each.events.ends):
                    self._add(each)
        return released


def _part(message: ChunkMessage, events: TimedEvents) -> ChunkMessage:
    return msgspec.structs.replace(
        message, payload=events.payload, events=len(events.ends), chunk_id=PART_OF_CHUNK
    )
