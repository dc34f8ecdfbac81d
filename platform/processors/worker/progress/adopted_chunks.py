"""The chunks of an archive that was adopted without a checkpoint: recognized if the bus redelivers them."""

from typing import Self

import numpy as np

from ....store.interface import CHUNK_ID_BYTES, StreamReader


class AdoptedChunks:
    """Looks a chunk up among the first `count` arrivals of a stream, by its arrival time and its ID.

    Memory: 16 bytes a chunk; the arrival records stay in the file, which is mapped.
    """

    def __init__(self, stream: StreamReader, count: int) -> None:
        self._stream = stream
        arrivals = stream.arrivals[stream.arrivals.start : count]
        times_ns = np.array(arrivals["arrived_ns"])
        self._order = np.argsort(times_ns, kind="stable")
        self._times_ns = times_ns[self._order]
        self._arrivals = arrivals

    def has(self, arrived_ns: int, chunk_id: bytes | None) -> bool:
        """Whether the chunk that arrived then, with this ID, is in the archive."""
        first, stop = np.searchsorted(self._times_ns, [arrived_ns, arrived_ns + 1])
        wanted = (chunk_id or b"")[:CHUNK_ID_BYTES]
        for index in self._order[first:stop]:
            found = self._arrivals[index]
            size = min(int(found["chunk_id_size"]), CHUNK_ID_BYTES)
            if bytes(found["chunk_id"])[:size] == wanted:
                return True
        return False

    def close(self) -> None:
        """Closes the stream's files."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
