"""Notifies waiting consumers, across processes, of new messages and new topics.

`@doorbell` is a page of shared words: word 1 changes when messages become durable, word 2 when topics are
created. Ringing stores the clock, so that each value differs from all earlier ones, in any process. Word 1 is
written with pwrite, and a waiting consumer watches the file with inotify(7): waiting costs no CPU, and the
consumer wakes at once.
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
from .shared_words import WORD_BYTES, SharedWords, restore_page

LOOK_INTERVAL_S = 1.0
"""How often a waiting consumer reads the word anyway, in case a notification was lost."""

POLL_INTERVAL_S = 0.004
"""How often it reads the word if no inotify instance is left (fs.inotify.max_user_instances)."""

_MESSAGES_WORD = 1
_TOPICS_WORD = 2
_IN_MODIFY = 0x2

_log = logging.getLogger(__name__)


class Doorbell:
    """The page; created if it does not exist."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            _create(path)
        self.path = path
        try:
            self._page = SharedWords(path, writable=True)
        except BusCorrupt as error:  # it holds no lasting data
            _log.warning("%s; it is recreated", error)
            _restore(path)
            self._page = SharedWords(path, writable=True)
        self._words = self._page.words

    def ring(self) -> None:
        """Announce that messages became durable."""
        # This may fail (a full copy-on-write disk): waiting consumers also read the word periodically.
        with suppress(OSError):
            os.pwrite(self._page.fd, _now(), _MESSAGES_WORD * WORD_BYTES)

    def ring_for_topics(self) -> None:
        """Announce that topics or partitions were created."""
        self._words[_TOPICS_WORD] = time.monotonic_ns()
        self.ring()

    @property
    def rung(self) -> int:
        """A number that changes with each ring."""
        return self._words[_MESSAGES_WORD]

    @property
    def topics_changed(self) -> int:
        """A number that changes when topics or partitions are created."""
        return self._words[_TOPICS_WORD]

    def close(self) -> None:
        """Close the page."""
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
        """Wait until the doorbell's number is not `rung`, `wake` is called or the timeout; may end sooner."""
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
        """End the wait in progress, if any."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def close(self) -> None:
        """Stop listening; not during a wait."""
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
        pass  # another process was faster, and its page may be in use
    finally:
        building.unlink()
