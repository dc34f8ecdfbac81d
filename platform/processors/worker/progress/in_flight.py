"""Records the chunks that a worker process has in progress, to find those that crashed it.

A step can end the process without an exception: a segmentation fault in an extension, an `os._exit`, the
kernel's out-of-memory killer. The bus would then deliver the same chunk forever. So a thread records each
chunk in a mapped file before it starts it; the content survives the process, though not the machine. The next
worker reads the file, and how its predecessor ended.

A kill from outside (an operator, a test, a shutdown) is not blamed on a chunk. An exit is blamed on a chunk
if it was caused by a fault signal, if the process exited without a report, or if the kernel's count of
out-of-memory kills has risen. Suspected chunks are processed one at a time.
"""

import faulthandler
import json
import mmap
import os
import signal
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgpack

from .ownership import OwnedPartition

SLOTS = 80
SLOT_BYTES = 1024
_HEADER_BYTES = 4096
_LENGTH = struct.Struct("<I")
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}


class MessagePosition(NamedTuple):
    """The position of a message on the bus."""

    log: str
    topic: str
    partition: int
    offset: int


class SuspectWaits(Exception):
    """A suspected chunk waits until another one is processed."""


class InFlight:
    """The chunks in progress in this process, one slot each; there are more slots than threads. Without a
    path, nothing is recorded.
    """

    def __init__(self, path: Path | None) -> None:
        """Recreates the file; read the old one with `chunks_at_crash` before."""
        self._one_suspect = threading.Lock()
        self._free = deque(range(SLOTS))  # changed by single operations
        self._map: mmap.mmap | None = None
        self._fault_file = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _HEADER_BYTES + SLOTS * SLOT_BYTES)
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._write(0, {"pid": os.getpid(), "boot": _boot_id(), "oom_kills": _oom_kills()})
        self._fault_file = _fault_path(path).open("w")  # for as long as the process lives
        faulthandler.enable(self._fault_file)

    @contextmanager
    def record(
        self, partition: OwnedPartition, offset: int, *, suspected: bool
    ) -> Iterator[Callable[[MessagePosition], None]]:
        """Records that a thread processes the message. Raises SuspectWaits if the message is a suspect and
        another suspect is in progress: both would be blamed for a crash.

        The thread calls the returned function when it continues with a buffered chunk of another message.
        """
        if self._map is None:
            yield lambda _: None
            return
        if suspected and not self._one_suspect.acquire(blocking=False):
            raise SuspectWaits
        try:
            with self._recorded(MessagePosition(partition.log, *partition.key, offset)) as switch_to:
                yield switch_to
        finally:
            if suspected:
                self._one_suspect.release()

    @contextmanager
    def _recorded(self, message: MessagePosition) -> Iterator[Callable[[MessagePosition], None]]:
        slot = self._free.popleft()
        slot_offset = _HEADER_BYTES + slot * SLOT_BYTES

        def switch_to(message: MessagePosition) -> None:
            if self._map is not None:
                _LENGTH.pack_into(self._map, slot_offset, 0)
                self._write(slot_offset, list(message))

        switch_to(message)
        try:
            yield switch_to
        finally:
            if self._map is not None:  # else the process is ending
                _LENGTH.pack_into(self._map, slot_offset, 0)
                self._free.append(slot)

    def close(self) -> None:
        """Records that the process ends normally."""
        if self._map is not None:
            self._write(0, {"clean": True})
            faulthandler.disable()
            self._map.close()
            self._map = None
        if self._fault_file is not None:
            self._fault_file.close()

    def _write(self, offset: int, what: object) -> None:
        packed = msgpack.packb(what)
        assert self._map is not None
        if len(packed) <= SLOT_BYTES - _LENGTH.size:
            # The length is written last: a slot is complete or empty.
            self._map[offset + _LENGTH.size : offset + _LENGTH.size + len(packed)] = packed
            _LENGTH.pack_into(self._map, offset, len(packed))


def chunks_at_crash(path: Path, exit_file: Path) -> tuple[list[MessagePosition], str] | None:
    """Returns the messages that the last worker had in progress when it ended, and how it ended; None if they
    did not cause it.

    `exit_file` is the supervisor's record of the last exit, if there is a supervisor.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    header = _read(data, 0)
    if not isinstance(header, dict) or header.get("clean"):
        return None
    positions = [
        MessagePosition(*found)
        for slot in range(SLOTS)
        if isinstance(found := _read(data, _HEADER_BYTES + slot * SLOT_BYTES), list) and len(found) == 4
    ]
    reason = _fault(path) or _exit(exit_file, header) or _out_of_memory(header)
    return (positions, reason) if positions and reason else None


def _read(data: bytes, offset: int) -> object:
    with suppress(ValueError, struct.error):
        (length,) = _LENGTH.unpack_from(data, offset)
        if 0 < length <= SLOT_BYTES:
            return msgpack.unpackb(data[offset + _LENGTH.size : offset + _LENGTH.size + length])
    return None


def _fault_path(path: Path) -> Path:
    return path.with_suffix(".fault")


def _fault(path: Path) -> str | None:
    with suppress(OSError):
        first = _fault_path(path).read_text(errors="replace").partition("\n")[0]
        if first:
            return first
    return None


def _exit(exit_file: Path, header: dict[str, object]) -> str | None:
    try:
        ended = json.loads(exit_file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(ended, dict) or ended.get("pid", header.get("pid")) != header.get("pid"):
        return None
    number, code = ended.get("signal"), ended.get("code")
    if number in _FAULTS:
        return f"it was ended by {signal.Signals(number).name}"
    if number is None and code:
        return f"it exited with code {code} without an error report"
    return None


def _out_of_memory(header: dict[str, object]) -> str | None:
    before = header.get("oom_kills")
    if header.get("boot") == _boot_id() and isinstance(before, int) and _oom_kills() > before:
        return "the kernel was out of memory and killed it"
    return None


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _oom_kills() -> int:
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
