"""Which rejected chunks have arrived since: the arrivals of their stream have their IDs."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np

from ...errors import StreamNotFound
from ..databases.dead_letter import DeadLetterSummary
from ..interface import CHUNK_ID_BYTES, RowReader, StoreEngine

SEARCHED_ARRIVALS = 1_000_000
"""How many of the last arrivals of a stream are searched: 72 MB, mapped."""
_BLOCK = 65_536


def arrived_since(store: StoreEngine, letters: Iterable[DeadLetterSummary]) -> Mapping[int, int]:
    """When the chunk of a letter arrived after it had been rejected, by the letter's ID: ns since the epoch.

    Letters without a chunk ID, and those whose chunk has not arrived, are not in it. A chunk that was too
    large for one message arrives in parts: the first part counts.
    """
    by_tag: dict[str, list[DeadLetterSummary]] = {}
    for letter in letters:
        if letter.chunk_id:
            by_tag.setdefault(letter.tag, []).append(letter)
    found: dict[int, int] = {}
    for tag, of_tag in by_tag.items():
        with suppress(StreamNotFound), store.stream(tag) as stream:
            arrivals = stream.arrivals
            wanted = {letter.id: (letter.chunk_id or b"", letter.time_ns) for letter in of_tag}
            _search(arrivals, wanted, found)
    return found


def _search(arrivals: RowReader, wanted: Mapping[int, tuple[bytes, int]], found: dict[int, int]) -> None:
    earliest_ns = min(time_ns for _, time_ns in wanted.values())
    first = max(arrivals.start, len(arrivals) - SEARCHED_ARRIVALS)
    for stop in range(len(arrivals), first, -_BLOCK):
        block = arrivals[max(first, stop - _BLOCK) : stop]
        ids = np.ascontiguousarray(block["chunk_id"]).view(f"S{CHUNK_ID_BYTES}")
        for letter, (chunk_id, time_ns) in wanted.items():
            is_whole = (ids == chunk_id[:CHUNK_ID_BYTES]) & (block["chunk_id_size"] == len(chunk_id))
            if len(part := chunk_id + b":0-") <= CHUNK_ID_BYTES:
                is_whole |= np.char.startswith(ids, part)
            times_ns = block["arrived_ns"][is_whole & (block["arrived_ns"] >= time_ns)]
            if len(times_ns):
                found[letter] = min(int(times_ns.min()), found.get(letter, int(times_ns.min())))
        if int(block["arrived_ns"].max()) < earliest_ns:
            return
