"""How many file mappings the open streams of a worker may have, of those that the kernel grants a process."""

from pathlib import Path

from .stream_state import StreamState

SHARE = 0.7
"""The share of the kernel's limit that streams may use."""
MAPPINGS_A_STREAM = 16
"""The assumed number of mappings of a stream until it is known."""
_DEFAULT_MAX_MAP_COUNT = 65_530


class MappingBudget:
    """The mappings of each open stream, and their sum. Guarded by the lock of the executor."""

    def __init__(self) -> None:
        self._by_stream: dict[StreamState, int] = {}
        self.total = 0
        self.max_mappings = _max_mappings()

    def __len__(self) -> int:
        """The number of open streams."""
        return len(self._by_stream)

    def of(self, stream: StreamState) -> int:
        """The mappings of the stream; 0 if it is not open."""
        return self._by_stream.get(stream, 0)

    @property
    def has_room(self) -> bool:
        """Whether another stream may be opened."""
        return self.total + MAPPINGS_A_STREAM <= self.max_mappings

    def set(self, stream: StreamState, mappings: int) -> None:
        """Records that the open stream has this many mappings."""
        self.total += mappings - self.of(stream)
        self._by_stream[stream] = mappings

    def remove(self, stream: StreamState) -> None:
        """Records that the stream is closed."""
        self.total -= self._by_stream.pop(stream, 0)


def _max_mappings() -> int:
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        limit = _DEFAULT_MAX_MAP_COUNT
    return int(limit * SHARE)
