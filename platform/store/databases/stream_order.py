"""The part of a checkpoint about the order of a stream's events, and the chunks held back to sort them.

A policy with `reorder_s` holds chunks back (`processors/reorder_buffer.py`). A chunk that is held is part of
the stream: the stream's position is after it, and its ID is known. So it must survive a crash with them,
and is a row of `held_chunks` (`stream_order_rows.py`), written in the transaction that records the position.
A commit inserts the rows that are new and deletes those whose chunk has left. The part of a chunk that has
left already is in `StreamOrder.left`; if an edit has made the rest of it one unit, its row is rewritten with
that rest.

`stream_orders` has the figures of each stream for readers that want no more than them.
"""

from dataclasses import dataclass
from typing import NamedTuple


class HeldChunk(NamedTuple):
    """A chunk that waits for earlier ones, and its place on the bus.

    `sequence` counts the chunks that a stream has held, from 0. `payload` has its events by rising time.
    """

    sequence: int
    log: str
    topic: str
    partition: int
    offset: int
    sender: str
    chunk_id: bytes | None
    received_ns: int
    events: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """Times are event times in ns since the epoch, UTC; None before the first event.

    `latest_ns` is the latest that was seen while `reorder_s` was set. What is older than `watermark_ns` comes
    too late to be put in order: `late_events` of them did. `early_events` left before their time because the
    chunks that were held had too many bytes. `left` has (sequence, events) of held chunks whose first events
    have left. `last_ns` is the time of the last event of the last chunk of a raw stream that is not put in
    order; `inversions` counts the chunks of such a stream that began before it, the last of them at
    `inverted_ns` (arrival). `is_sorting` says whether `reorder_s` was set.
    """

    watermark_ns: int | None = None
    latest_ns: int | None = None
    next_sequence: int = 0
    left: tuple[tuple[int, int], ...] = ()
    late_events: int = 0
    early_events: int = 0
    last_ns: int | None = None
    inversions: int = 0
    inverted_ns: int = 0
    is_sorting: bool = False


class OrderFigures(NamedTuple):
    """Figures about a stream's order: see `StreamOrder`. `policy` is that of its last chunk.

    `latest_ns` is None while nothing is held.
    """

    reference: str
    policy: str = ""
    partition: int = 0
    held_chunks: int = 0
    latest_ns: int | None = None
    late_events: int = 0
    early_events: int = 0
    inversions: int = 0
    inverted_ns: int = 0
    is_sorting: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.held_chunks or self.late_events or self.early_events or self.inversions)

    @property
    def warning(self) -> str | None:
        """The warning about samples that arrived out of order; None if there were none."""
        if not self.inversions or self.is_sorting:
            return None
        chunks = "1 chunk" if self.inversions == 1 else f"{self.inversions} chunks"
        return (
            f"{chunks} of samples have times before those of the chunk before, and are stored as they "
            f"arrived. Set reorder_s in policy {self.policy!r}, or let the sender keep the order: "
            "docs/policies.md, reorder_s"
        )


def figures_of(
    reference: str, partition: tuple[str, int] | None, order: StreamOrder, held_chunks: int
) -> OrderFigures:
    """The figures of a stream whose last chunk came by `partition`."""
    topic, number = partition or ("", 0)
    return OrderFigures(
        reference=reference,
        policy=topic,
        partition=number,
        held_chunks=held_chunks,
        latest_ns=order.latest_ns if held_chunks else None,
        late_events=order.late_events,
        early_events=order.early_events,
        inversions=order.inversions,
        inverted_ns=order.inverted_ns,
        is_sorting=order.is_sorting,
    )
