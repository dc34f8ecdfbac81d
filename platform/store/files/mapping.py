"""Files as memory: what the standard library's `mmap` cannot do, by mmap(2) itself.

Three things are missing there. `mmap.mmap` cannot place a mapping at an address, so it cannot lay the
segments of a file side by side; it keeps a file descriptor for each mapping, of which ten thousand streams
have none to spare; and its buffer is gone for all views when it is closed. Here a mapping is a `Region`, and
NumPy arrays made from a region keep it alive: it is unmapped when the last of them dies.

Written for Linux: the constants are those of x86-64 and aarch64.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import AddressSpaceUsed, StoreFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .segment_names import SegmentNames

PAGE_BYTES = mmap.PAGESIZE
# A reservation is aligned to what a huge page covers, so that the kernel may map large folios of the page
# cache.
_ALIGNMENT_BYTES = 2 * 1024 * 1024
_SMALLEST_RESERVATION_BYTES = 1024 * 1024 * 1024
# What is mapped around a view if the whole file does not fit: neighbouring rows then share a mapping.
_WINDOW_BYTES = 1024 * 1024
_PROT_NONE = 0
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_MADV_DONTFORK = 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_NOTHING: NDArray[np.uint8] = np.frombuffer(b"", np.uint8)  # read-only, as all views
_MAP_FAILED = ctypes.c_void_p(-1).value


def round_up(size: int, unit: int) -> int:
    """Round `size` up to a multiple of `unit`."""
    return -(-size // unit) * unit


def _mmap(
    address: int | None, size: int, protection: int, flags: int, descriptor: int, offset: int = 0
) -> int:
    placed = _libc.mmap(address, size, protection, flags, descriptor, offset)
    if placed == _MAP_FAILED or placed is None:
        code = ctypes.get_errno()
        if code == errno.ENOMEM:
            raise AddressSpaceUsed(f"mapping {size} bytes of the store failed: {_no_room()}")
        raise StoreFailed(f"mapping {size} bytes of the store failed: {os.strerror(code)}")
    return int(placed)


def _no_room() -> str:
    """Why the kernel gave no mapping, the likelier cause first, and what to do."""
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit_bytes != resource.RLIM_INFINITY:
        return (
            f"this process may use {limit_bytes} bytes of addresses (RLIMIT_AS), and has no room left; raise "
            "that memory limit (ulimit -v), or read less at once. If that does not help, raise the kernel's "
            "vm.max_map_count"
        )
    return (
        "no room for more mappings; raise the kernel's vm.max_map_count, or let the machine commit more "
        "memory (vm.overcommit_memory), or open fewer at once"
    )


class Region:
    """A range of addresses that is unmapped when the last array made from it dies, or by `release`.

    Arrays are made through `__array_interface__`, so the region is their `base`, and a region that is mapped
    read-only gives read-only arrays.
    """

    def __init__(self, address: int, size: int, *, writeable: bool = False) -> None:
        self.address = address
        self.size = size
        self._writeable = writeable
        self._finalizer = weakref.finalize(self, _libc.munmap, address, size)
        # At exit other threads may still be reading; the kernel unmaps then.
        self._finalizer.atexit = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        data = (self.address, not self._writeable)
        return {"version": 3, "typestr": "|u1", "shape": (self.size,), "data": data}

    def bytes(self) -> NDArray[np.uint8]:
        """Give the whole region as bytes, shape (size,), without a copy."""
        return np.asarray(self)

    def release(self) -> None:
        """Unmap now. Only for a region of which no array is used any more: touching one would end the
        process.
        """
        self._finalizer()


def map_whole(descriptor: int, size: int, *, writeable: bool = False) -> Region:
    """Map the first `size` bytes of a file, shared; the descriptor may be closed afterwards.

    A writeable mapping is not inherited by forked children: it holds the writer's lock (see
    `SegmentedWriter`), which a child would otherwise keep after its parent has closed or died. Raises
    StoreFailed if the process has no room for another mapping.
    """
    protection = mmap.PROT_READ | mmap.PROT_WRITE if writeable else mmap.PROT_READ
    address = _mmap(None, size, protection, mmap.MAP_SHARED, descriptor)
    if writeable:
        _libc.madvise(address, round_up(size, PAGE_BYTES), _MADV_DONTFORK)
    return Region(address, size, writeable=writeable)


def _reserve(size: int, *, alignment: int = _ALIGNMENT_BYTES) -> Region:
    """Set a range of addresses aside; it holds no memory, and touching it before a file is mapped there
    faults.
    """
    padded = size + alignment - PAGE_BYTES
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    address = _mmap(None, padded, _PROT_NONE, flags, -1)
    aligned = round_up(address, alignment)
    if aligned > address:
        _libc.munmap(address, aligned - address)
    if address + padded > aligned + size:
        _libc.munmap(aligned + size, address + padded - aligned - size)
    return Region(aligned, size)


def _may_reserve(size: int) -> bool:
    """Whether a reservation leaves half of the address space that is left to the rest of the process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return True
    with open("/proc/self/statm", encoding="ascii") as file:
        used_bytes = int(file.read().split()[0]) * PAGE_BYTES
    return size <= (soft - used_bytes) // 2


@dataclass(slots=True)
class _Space:
    """One reservation: which logical offset its first byte stands for, and how far each segment is mapped."""

    region: Region
    bytes: NDArray[np.uint8]
    origin: int
    epoch: int
    mapped_ends: dict[int, int] = field(default_factory=dict)
    # Offsets in [low, high) are known to be mapped: what most views ask, answered without a look at each
    # segment.
    low: int = 0
    high: int = 0


class ContiguousMapping:
    """The segments of a segmented file side by side in memory, so that any range of it is one array.

    A range of addresses is reserved (twice what is needed, at least 1 GiB: addresses, no memory), and
    segments are mapped into it, read-only, when a view first needs them. As the file grows it is mapped in
    place; when it outgrows the reservation, or when retention has moved its beginning, a new reservation is
    made. Segments that are not whole pages cannot lie side by side: each begins at a page then, and a range
    of several is a copy. Views keep the reservation that they were made from alive, and with it the segments
    mapped there, even ones that have been unlinked since. Nothing is mapped past the committed length, and no
    segment past the page that holds its end of file, so no view can fault on a page that the file does not
    have.

    Under a limit of the address space (RLIMIT_AS, `ulimit -v`) a reservation takes at most half of what is
    left. If the whole file does not fit, each view gets a mapping of its own: the requested bytes,
    rounded outward to `_WINDOW_BYTES`, and to pages alone if that does not fit either. A view within the last
    such mapping shares it.

    Bound: one mapping (of the kernel's vm.max_map_count) a segment that was looked at; memory is the page
    cache's. Safe to use from several threads.
    """

    def __init__(self, directory: str, segment_bytes: int, names: SegmentNames) -> None:
        self._segment_bytes = segment_bytes
        self._stride = round_up(segment_bytes, PAGE_BYTES)
        self._directory = directory
        self._names = names
        self._space: _Space | None = None
        self._window: _Space | None = None
        self._lock = threading.Lock()

    def view(self, start: int, stop: int, *, origin: int, length: int, epoch: int) -> NDArray[np.uint8]:
        """Give the bytes [start, stop), offsets of the file, read-only and without a copy; shape (stop -
        start,).

        `origin` is the first byte that the file keeps, `length` its committed length, `epoch` the count of
        times that it restarted at 0. Raises FileNotFoundError if a segment is missing, IndexError if one is
        shorter than requested, AddressSpaceUsed if not even [start, stop) can be mapped.
        """
        if start == stop:
            return _NOTHING
        if self._stride == self._segment_bytes:
            return self._view(start, stop, origin, length, epoch)
        pieces = []
        for segment in range(start - start % self._segment_bytes, stop, self._segment_bytes):
            # As offsets of a file whose segments are whole pages.
            shift = segment // self._segment_bytes * self._stride - segment
            first, end = max(start, segment), min(stop, segment + self._segment_bytes)
            placed = self._placed(origin), self._placed(length)
            pieces.append(self._view(first + shift, end + shift, *placed, epoch))
        if len(pieces) == 1:
            return pieces[0]
        joined = np.concatenate(pieces)
        joined.flags.writeable = False
        return joined

    def _placed(self, offset: int) -> int:
        return offset // self._segment_bytes * self._stride + offset % self._segment_bytes

    def _view(self, start: int, stop: int, origin: int, length: int, epoch: int) -> NDArray[np.uint8]:
        with self._lock:
            space = self._space
            if (
                space is None
                or space.origin != origin
                or space.epoch != epoch
                or stop - origin > space.region.size
            ):
                space = self._space = self._make_space(origin, epoch, max(length, stop) - origin)
            if space is None:
                return self._view_of_window(start, stop, epoch, max(length, stop))
            if not (space.low <= start and stop <= space.high):
                self._map(space, start, stop, max(length, stop))
            return space.bytes[start - origin : stop - origin]

    def mapped(self, *, origin: int, epoch: int) -> tuple[int, int]:
        """Offsets [low, high) that are mapped side by side now, of this beginning and epoch; else (0, 0)."""
        space = self._space
        is_present = space is not None and (space.origin, space.epoch) == (origin, epoch)
        if space is None or not is_present or self._stride != self._segment_bytes:
            return 0, 0
        return space.low, space.high

    def close(self) -> None:
        """Release the reservation; views that exist stay valid."""
        with self._lock:
            self._space = self._window = None

    def _make_space(self, origin: int, epoch: int, needed_bytes: int) -> _Space | None:
        """A reservation for the whole file; None if there is no room for it."""
        needed_bytes = round_up(needed_bytes, self._stride)
        roomy_bytes = max(2 * needed_bytes, round_up(_SMALLEST_RESERVATION_BYTES, self._stride))
        for size in (roomy_bytes, needed_bytes):
            if _may_reserve(size):
                with suppress(AddressSpaceUsed):
                    region = _reserve(size)
                    self._window = None
                    return _Space(region, region.bytes(), origin, epoch)
        return None

    def _view_of_window(self, start: int, stop: int, epoch: int, length: int) -> NDArray[np.uint8]:
        window = self._window
        if window is None or window.epoch != epoch or not (window.low <= start and stop <= window.high):
            self._window = None  # frees its addresses, unless a view holds them
            try:
                window = self._map_window(start, stop, epoch, length, round_to=_WINDOW_BYTES)
            except AddressSpaceUsed:
                window = self._map_window(start, stop, epoch, length, round_to=PAGE_BYTES)
            self._window = window
        return window.bytes[start - window.origin : stop - window.origin]

    def _map_window(self, start: int, stop: int, epoch: int, length: int, *, round_to: int) -> _Space:
        low = start - start % round_to
        high = min(round_up(stop, round_to), round_up(length, PAGE_BYTES))
        # Rounding must not include segments that were not requested: they may be missing, or dropped.
        low = max(low, start - start % self._stride)
        high = min(high, round_up(stop, self._stride))
        region = _reserve(high - low, alignment=PAGE_BYTES)
        window = _Space(region, region.bytes(), low, epoch, low=low)
        for segment in range(low - low % self._stride, high, self._stride):
            first, end = max(low, segment), min(high, segment + self._stride)
            needed_end = min(stop, segment + self._stride)
            window.high = self._map_segment(window, segment, needed_end, length, first=first, end=end)
        return window

    def _map(self, space: _Space, start: int, stop: int, length: int) -> None:
        first = start - start % self._stride
        for segment in range(first, stop, self._stride):
            needed_end = min(stop, segment + self._stride)
            if space.mapped_ends.get(segment, 0) < needed_end:
                space.mapped_ends[segment] = self._map_segment(space, segment, needed_end, length)
        last_end = space.mapped_ends[segment]
        if first <= space.high and last_end >= space.low:
            space.low, space.high = min(first, space.low), max(last_end, space.high)
        else:
            space.low, space.high = first, last_end

    def _map_segment(
        self,
        space: _Space,
        segment: int,
        needed_end: int,
        length: int,
        *,
        first: int | None = None,
        end: int | None = None,
    ) -> int:
        """Map one segment from its beginning (from `first`) as far as may be (to `end`), in one mapping, over
        an earlier, shorter one.

        The kernel exchanges the two in one step, and both show the same pages: views into it notice nothing.
        """
        first = segment if first is None else first
        name = self._names.name(segment // self._stride * self._segment_bytes)
        descriptor = os.open(f"{self._directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            held = min(os.fstat(descriptor).st_size, self._stride, length - segment)
            size = round_up(held, PAGE_BYTES)
            if segment + size < needed_end:
                raise IndexError(f"segment {segment} ends at {segment + held}, before {needed_end}")
            mapped_end = segment + size if end is None else min(segment + size, end)
            address = space.region.address + first - space.origin
            flags = mmap.MAP_SHARED | _MAP_FIXED
            _mmap(address, mapped_end - first, mmap.PROT_READ, flags, descriptor, first - segment)
        finally:
            os.close(descriptor)
        return mapped_end
