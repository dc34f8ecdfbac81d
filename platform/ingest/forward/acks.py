"""Acks as the forward protocol has them, and what is done when one cannot be given.

The protocol has no negative ack, and Fluent Bit has no ack timeout: unless the connection ends, it waits,
sends nothing else, and does not stop. The end tells it to retry by its own schedule.
"""

import asyncio
import struct
from collections.abc import Callable

from ...errors import ChunkRejected

WITHHELD_CLOSE_S = 3.0
"""From a rejection that an operator has to lift (no policy, sender not allowed) to the end of the connection.

Long enough that several rejections, and acks of other chunks, come before one reconnect.
"""

UNAVAILABLE_CLOSE_S = 30.0
"""The same if the unchanged chunk may be stored later: the disk is full, the bus is unavailable, or too much
waits for a rate. Senders with a timeout of their own retry by it. The others wait at most this long, so each
connection repeats a load that the gateway could not store at most twice a minute.
"""

_ACK = b"\x81\xa3ack"


def encode_ack(chunk: bytes) -> bytes:
    """`{"ack": chunk}` with the value typed str, byte for byte what came: forwarders compare it so."""
    size = len(chunk)
    if size < 32:
        head = bytes([0xA0 | size])
    elif size < 256:
        head = bytes([0xD9, size])
    else:
        head = struct.pack(">BH", 0xDA, size) if size < 65536 else struct.pack(">BI", 0xDB, size)
    return _ACK + head + chunk


class WithheldAcks:
    """The timer of one connection; it runs from the first ack that was withheld."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def withhold(self, error: BaseException, end: Callable[[], None]) -> None:
        """A chunk whose sender waits for its ack failed with `error`: call `end` after a while.

        A running timer is only ever brought forward.
        """
        loop = asyncio.get_running_loop()
        delay_s = WITHHELD_CLOSE_S if isinstance(error, ChunkRejected) else UNAVAILABLE_CLOSE_S
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, end)

    def forget(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
