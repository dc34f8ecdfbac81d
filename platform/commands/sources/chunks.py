"""Lines of a file or pipe, the chunks that their events fill, and what could not be sent."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ...errors import InputInvalid
from ..common.progress import plural

READ_BYTES = 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
_NAMED_LINES = 10

Read = Callable[[int], bytes]
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The payload of one forward message, and how many bytes of the source it covers."""

    payload: bytes
    events: int
    source_bytes: int


@dataclass(slots=True)
class Losses:
    """Lines of a source that were not sent, since they are not what its format says."""

    lines: int = 0
    first: str = ""
    """What is wrong with the first."""
    named: list[int] = field(default_factory=list)
    """The numbers of the first ten."""

    def add(self, line: int, reason: str, *, through: int | None = None) -> None:
        """A line, or those from `line` to `through`, for which `reason` says what is wrong."""
        last = max(line, through or line)
        if not self.lines:
            where = f"line {line:,}" if last == line else f"lines {line:,} to {last:,}"
            self.first = f"{where}: {reason}"
        self.lines += last - line + 1
        if len(self.named) < _NAMED_LINES:
            self.named.append(line)

    def __str__(self) -> str:
        """`2 lines were not sent; the first is line 3: …; the next are lines 5, 8`."""
        said = f"{plural(self.lines, 'line')} {'was' if self.lines == 1 else 'were'} not sent; "
        said += f"the first is {self.first}"
        if len(self.named) > 1:
            said += f"; the next begin at line {', '.join(f'{line:,}' for line in self.named[1:])}"
            said += ", …" if self.lines > len(self.named) else ""
        return said


class Lines:
    """Lines of bytes with their ends; knows which was given last, and whether the next is here already."""

    def __init__(self, read: Read, end: bytes = b"\n") -> None:
        self._end = end
        self.number = 0
        self.given_bytes = 0
        self._read = read
        self._lines: list[bytes] = []
        self._next = 0
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        self._ended = False

    @property
    def at_hand(self) -> bool:
        """The next line needs no read."""
        return self._next < len(self._lines)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self.at_hand:
            if self._ended:
                raise StopIteration
            self._refill()
        line = self._lines[self._next]
        self._next += 1
        self.number += 1
        self.given_bytes += len(line)
        return line

    def _refill(self) -> None:
        self._lines, self._next = [], 0
        block = self._read(READ_BYTES)
        if not block:
            self._ended = True
            if self._begun:
                self._lines = [b"".join(self._begun)]
            return
        lines = block.split(self._end)
        rest = lines.pop()
        if lines:
            self._lines = [line + self._end for line in lines]
            self._lines[0] = b"".join(self._begun) + self._lines[0]
            self._begun, self._begun_bytes = [], 0
        if rest:
            self._begun.append(rest)
            self._begun_bytes += len(rest)
            if self._begun_bytes > MAX_LINE_BYTES:
                number = self.number + len(self._lines) + 1
                raise InputInvalid(
                    f"line {number} is longer than {MAX_LINE_BYTES:,} bytes; send such data as raw"
                )


def chunks_of(events: Iterable[bytes], lines: Lines, chunk_bytes: int) -> Iterator[list[Chunk]]:
    """The chunks that each read of `lines` completes; `events` has b"" for a line that holds none.

    A chunk is full from `chunk_bytes` on, or when no line is available. If InputInvalid is raised, the lines
    before that one are given first.
    """
    batch: list[Chunk] = []
    packed: list[bytes] = []
    size = covered = through = 0
    try:
        for event in events:
            if event:
                packed.append(event)
                size += len(event)
            through = lines.given_bytes
            if packed and (size >= chunk_bytes or not lines.at_hand):
                batch.append(Chunk(b"".join(packed), len(packed), lines.given_bytes - covered))
                packed, size, covered = [], 0, lines.given_bytes
            if not lines.at_hand:
                yield batch
                batch = []
    except InputInvalid:
        if packed:
            batch.append(Chunk(b"".join(packed), len(packed), through - covered))
        yield batch
        raise
    if packed:
        batch.append(Chunk(b"".join(packed), len(packed), lines.given_bytes - covered))
    if batch:
        yield batch
