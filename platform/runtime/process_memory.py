"""How a tier's process handles memory: what glibc keeps, and how often Python looks for cycles."""

import ctypes
import gc
import threading
from contextlib import suppress

from ..config import MIB

KEPT_BYTES = 64 * MIB
LARGEST_KEPT_BYTES = 32 * MIB
ARENAS = 2
NEW_OBJECTS = 10_000
"""So many more may hang in cycles before Python looks for them."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep 64 MiB of the buffers that come and go by the megabyte.

    By default it gives each back to the kernel and gets it again page by page, which halves the rate of a
    gateway.
    """
    _mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    _mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def share_arenas() -> None:
    """Let all threads share two arenas. By default each has one, which keeps what its largest chunk took."""
    _mallopt(_M_ARENA_MAX, ARENAS)


def collect_garbage_rarely() -> None:
    """Look for cycles after 10,000 new objects instead of 700, and never among those that are there now.

    One read of a gateway may bring hundreds of small chunks, each of a dozen objects that live for a
    millisecond: looking was more than half of the time.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)


class NoCollection:
    """While it is entered, by any number of threads, Python does not look for cycles.

    For code that makes millions of objects without cycles, and ends soon: looking at all of them again and
    again keeps the global lock (an event of 3.6 million lists: 2.8 s instead of 0.3).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0

    def __enter__(self) -> None:
        with self._lock:
            self._entered += 1
            gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                gc.enable()


no_collection = NoCollection()


def _mallopt(option: int, value: int) -> None:
    with suppress(OSError, AttributeError):  # another C library has no mallopt
        ctypes.CDLL(None).mallopt(option, value)
