"""Where values end of which some are nested deeper than msgpack's own stack, as their bytes come."""

import msgpack

from ...errors import FramingError
from ...records.msgpack_heads import heads_of

HEADS_A_TURN = 16_384
"""Of values that are walked over before others get their turn: 4 ms."""
_PIECE_BYTES = 64 * 1024
_HEADS_A_PIECE = 4096  # msgpack takes as long for a piece as heads take one by one


class DeepWalk:
    """Walks over concatenated values, and resumes at the position where it stopped.

    msgpack's C parser walks over all values that it can; the others are walked head by head. Memory: a piece
    of the bytes, or one incomplete value.
    """

    def __init__(self, position: int, count: int) -> None:
        """`count` values, of which the first begins at `position` of the message."""
        self.position = position
        """Where the value begins that is walked over; at last the end of all."""
        self.has_more = False
        """The last walk stopped for its turn's end, not for want of bytes."""
        self._count = count
        self._is_deep = False
        self._open = 0  # values to come, in a deep one
        self._walker: msgpack.Unpacker | None = None
        self._base = self._fed = position
        self._starved = False

    def walk(self, message: memoryview) -> bool:
        """Whether all ends are found in what has come of the message. Raises FramingError."""
        self.has_more = False
        heads = HEADS_A_TURN
        while self._count:
            if heads <= 0:
                self.has_more = True
                return False
            if self._is_deep:
                walked, self.position, self._open = heads_of(message, self.position, self._open, heads)
                heads -= walked + 1
                if self._open < 0:
                    raise FramingError(
                        "the message is not well-formed msgpack (FormatError); check the sender"
                    )
                if self._open or self.position > len(message):
                    if heads > 0:
                        return False
                    continue
                self._is_deep, self._walker = False, None
                self._count -= 1
                continue
            heads -= self._by_msgpack(message)
            if self._walker is not None and self._starved:
                return False
        return True

    def _by_msgpack(self, message: memoryview) -> int:
        """One value, or one piece of it; what that counts for, in heads."""
        self._starved = False
        if self._walker is None:
            self._walker = msgpack.Unpacker(read_size=_PIECE_BYTES, max_buffer_size=0x7FFFFFFF)
            self._base = self._fed = self.position
        try:
            self._walker.skip()
        except msgpack.OutOfData:
            if self._fed == len(message):
                self._starved = True
                return 0
            stop = min(len(message), self._fed + _PIECE_BYTES)
            self._walker.feed(message[self._fed : stop])
            self._fed = stop
            return _HEADS_A_PIECE
        except msgpack.StackError:
            self._is_deep, self._open, self._walker = True, 1, None
            return _HEADS_A_PIECE
        except ValueError as error:
            reason = str(error) or type(error).__name__
            raise FramingError(
                f"the message is not well-formed msgpack ({reason}); check the sender"
            ) from error
        self.position = self._base + self._walker.tell()
        self._count -= 1
        return 1
