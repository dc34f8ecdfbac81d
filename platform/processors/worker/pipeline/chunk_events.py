"""The events of a chunk for the steps of a pipeline: all are checked, then decoded in slices.

The gateway limits the decoded size of a chunk by the policy at that time. The bus may hold older chunks, and
those of other programs. So the worker has its own bound: at most `SLICE_BYTES` of decoded events at a time,
or one event of at most the policy's limit.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack
import numpy as np
from numpy.typing import NDArray

from ....errors import ChunkRejected
from ....records.decoded_size import DEFAULT_LIMIT_BYTES, is_surely_within, measured_bytes, slices
from ....records.events import iterate_events
from ....runtime.process_memory import no_collection
from ...operations.base.block import Events

EVENTS_A_PASS = 4096
SLICE_BYTES = 64 * 1024 * 1024
"""Decoded size of the events that are kept at a time. Up to it a chunk is decoded once; a larger one is
decoded once to check it, and once more for each use, which an ordinary chunk of 2 MB never needs."""

LARGE_CHUNK_BYTES = 512 * 1024
LARGE_CHUNKS = 2
"""How many large chunks are checked and archived at a time, independent of the number of threads."""

_turns = threading.BoundedSemaphore(LARGE_CHUNKS)
_Cut = tuple[int, int, int]


@contextmanager
def large_chunk_slot(payload_bytes: int) -> Iterator[None]:
    """Surrounds the processing of all events of a chunk at once. Blocks while the limit of large chunks is
    reached; that is bounded, since they only compute.
    """
    if payload_bytes < LARGE_CHUNK_BYTES:
        yield
        return
    with _turns, no_collection:
        yield


class ChunkEvents:
    """The events of a chunk, in slices. Memory: one slice, and 8 bytes an event."""

    def __init__(self, cuts: list[_Cut], decode: Callable[[int, int], Events], *, keep: bool = False) -> None:
        """Decodes all slices once; `cuts` are (first byte, byte behind the last, events).

        With `keep` there is one slice, which stays decoded.

        Raises what `decode` raises, for the first slice with an error.
        """
        self._cuts = cuts
        self._decode = decode
        self._kept: Events | None = None
        times_ns = []
        for begin, end, _ in cuts:
            events = decode(begin, end)
            times_ns.append(np.array(events.times_ns, np.int64))
            if keep:
                self._kept = events
            del events  # before the next is decoded
        self.times_ns: NDArray[np.int64] = np.concatenate([*times_ns, np.empty(0, np.int64)])
        """Event times in ns since the epoch, UTC: int64 of shape (events,)."""

    @property
    def are_kept(self) -> bool:
        """Whether `slices` yields the same objects each time; otherwise the caller may change them."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self.times_ns)

    def slices(self) -> Iterator[Events]:
        """All events in order, at most `EVENTS_A_PASS` at a time."""
        for begin, end, _ in self._cuts:
            events = self._kept or self._decode(begin, end)
            for start in range(0, len(events.records), EVENTS_A_PASS):
                part = slice(start, start + EVENTS_A_PASS)
                yield Events(events.times_ns[part], events.records[part])
            del events  # before the next is decoded


def events_of_payload(payload: bytes, *, max_event_bytes: int = DEFAULT_LIMIT_BYTES) -> ChunkEvents:
    """The events of msgpack; str and bin as bytes.

    Raises ChunkRejected if an event is not valid, or would decode to more than `max_event_bytes`.
    """

    def decode(begin: int, end: int) -> Events:
        times_ns, records = [], []
        with no_collection:
            for time_ns, record in iterate_events(memoryview(payload)[begin:end]):
                times_ns.append(time_ns)
                records.append(record)
        return Events(times_ns, records)

    if is_surely_within(payload, 0, limit_bytes=SLICE_BYTES):
        return ChunkEvents([(0, len(payload), 0)], decode, keep=True)
    cuts: list[_Cut] = []
    try:
        for begin, end, events in slices(payload, limit_bytes=SLICE_BYTES, max_events=EVENTS_A_PASS):
            if events == 1:
                _check_event(payload[begin:end], max_event_bytes)
            cuts.append((begin, end, events))
    except ChunkRejected:
        raise  # it is a ValueError too
    except (msgpack.OutOfData, ValueError) as error:
        raise ChunkRejected(
            "malformed", f"an event of the chunk is not well-formed ({error!r}); check the sender"
        ) from error
    return ChunkEvents(cuts, decode)


def _check_event(event: bytes, max_event_bytes: int) -> None:
    if is_surely_within(event, 1, limit_bytes=max_event_bytes):
        return
    if measured_bytes(event, 1, limit_bytes=max_event_bytes) > max_event_bytes:
        raise ChunkRejected(
            "too-large-decoded",
            f"an event of {len(event)} bytes takes more than {max_event_bytes} bytes of memory once it is "
            "decoded; raise limits.decoded_bytes of the policy, and replay the dead letter",
        )
