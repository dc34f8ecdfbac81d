"""How a consumer that waits learns that something happened, in whatever process it did.

`@doorbell` is a page of shared words: 1 changes when messages became durable, 2 when topics were made.
Ringing stores the clock, which makes a word differ from all before, whoever rings. Word 1 is written with
pwrite, and a waiting consumer watches the file with inotify(7): it costs nothing while nothing happens, and
wakes at once.
"""

import asyncio
import ctypes
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from ...errors import BusCorrupt
from .shared_counters import WORD_BYTES, SharedWords, restore_page

LOOK_INTERVAL_S = 1.0
"""How often a waiting consumer looks at the word all the same, should a notification have been lost."""

POLL_INTERVAL_S = 0.004
"""How often it looks where the system has no inotify instance left (fs.inotify.max_user_instances)."""

_MESSAGES_WORD = 1
_TOPICS_WORD = 2
_IN_MODIFY = 0x2

_log = logging.getLogger(__name__)


class Doorbell:
    """The page, made where there is none."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            _create(path)
        self.path = path
        try:
            self._page = SharedWords(path, writable=True)
        except BusCorrupt as error:  # it says nothing that lasts
            _log.warning("%s; it is made again", error)
            _restore(path)
            self._page = SharedWords(path, writable=True)
        self._words = self._page.words

    def ring(self) -> None:
        """Say that messages became durable."""
        # Who waits looks by itself after a while, so this may fail (a full disk that copies on write).
        with suppress(OSError):
            os.pwrite(self._page.fd, _now(), _MESSAGES_WORD * WORD_BYTES)

    def ring_for_topics(self) -> None:
        """Say that topics or partitions were made."""
        self._words[_TOPICS_WORD] = time.monotonic_ns()
        self.ring()

    @property
    def rung(self) -> int:
        """A number that changes with each ring."""
        return self._words[_MESSAGES_WORD]

    @property
    def topics_changed(self) -> int:
        """A number that changes when topics or partitions were made."""
        return self._words[_TOPICS_WORD]

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()


class Listener:
    """Waits for the doorbell on an event loop; one wait at a time."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._woken: asyncio.Future[None] | None = None
        libc = ctypes.CDLL(None)
        self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0 and libc.inotify_add_watch(self._fd, os.fsencode(doorbell.path), _IN_MODIFY) < 0:
            self.close()

    async def wait(self, rung: int, timeout_s: float) -> None:
        """Until the doorbell has another number than `rung`, `wake` is called or time is up, or sooner."""
        if self._doorbell.rung != rung or timeout_s <= 0:
            return
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        if self._fd >= 0:
            loop.add_reader(self._fd, self._hear)
        interval_s = LOOK_INTERVAL_S if self._fd >= 0 else POLL_INTERVAL_S
        try:
            await asyncio.wait([self._woken], timeout=min(timeout_s, interval_s))
        finally:
            self._woken = None
            if self._fd >= 0:
                loop.remove_reader(self._fd)

    def wake(self) -> None:
        """End the wait that is under way, if any."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def close(self) -> None:
        """Stop listening; not while a wait is under way."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _hear(self) -> None:
        os.read(self._fd, 4096)
        self.wake()


def _restore(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        restore_page(fd, {})
    finally:
        os.close(fd)


def _now() -> bytes:
    return time.monotonic_ns().to_bytes(WORD_BYTES, sys.byteorder)


def _create(path: Path) -> None:
    building = path.with_name(f"{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    SharedWords.create(building)
    try:
        os.link(building, path)
    except FileExistsError:
        pass  # another process was quicker, and its page may be in use
    finally:
        building.unlink()
