"""An export as pieces of bytes, for a reader that takes one after the other."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from .formats import ExportFormat
from .rows_to_export import RowsToExport

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def export_pieces(export: RowsToExport, made: ExportFormat) -> Iterator[Callable[[], bytes]]:
    """Functions of which each reads a block and gives its bytes; each is called before the next is taken.

    Holds the bytes of one block. The first raises ExportFailed if the format cannot hold the rows.
    """
    taken = _TakenFile()
    blocks = made.write(export, cast(BinaryIO, taken))
    while not taken.is_whole:
        yield partial(_next_piece, blocks, taken)


class _TakenFile(io.RawIOBase):
    """A file that is only written, from front to back, and whose bytes are taken away meanwhile."""

    def __init__(self) -> None:
        self.is_whole = False
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: "ReadableBuffer") -> int:
        self._parts.append(bytes(data))
        self._position += len(self._parts[-1])
        return len(self._parts[-1])

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _next_piece(blocks: Iterator[int], taken: _TakenFile) -> bytes:
    if next(blocks, None) is None:
        taken.is_whole = True
    return taken.take()
