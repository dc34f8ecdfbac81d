"""Moves alarm events from the outbox of the checkpoints to the catalog, once their rows are committed.

A checkpoint writes the events into the outbox in the same transaction as the state that they follow from. The
relay records the messages, oldest first, and then removes them from the outbox. A crash in between loses
none: a message that was recorded but not removed is recorded again, without effect. The same holds when
several workers empty one outbox.
"""

import asyncio
import logging
import time

import msgspec

from ...errors import CatalogUnavailable, DocumentInvalid, WindvaneError
from ...runtime.instrumentation import EventLog
from ...store.catalog.alarm_book import AlarmBook
from ...store.catalog.alarms import AlarmEvent
from ...store.catalog.catalog import Catalog
from ...store.databases.interfaces import CheckpointDatabase
from .instrumentation import AlarmNotRecorded, AlarmsDelayed

POLL_S = 0.25
UNSHELVE_INTERVAL_S = 2.0
"""How often the relay looks for shelved alarms that are due."""
EXPIRY_INTERVAL_S = 60.0
"""How often the relay deletes cleared alarms that have expired."""
BATCH = 100
_NS_PER_HOUR = 3_600_000_000_000

_decode = msgspec.msgpack.Decoder(AlarmEvent).decode


class AlarmRelay:
    """Records the alarms of a worker, unshelves alarms that are due, and deletes old ones.

    While the catalog is unavailable, messages wait on disk (about 2 kB each). 100 are read at a time. With
    `retention_hours`, cleared alarms are deleted so long after their last change.
    """

    def __init__(
        self, checkpoints: CheckpointDatabase, catalog: Catalog, *, retention_hours: float | None = None
    ) -> None:
        self._retention_hours = retention_hours
        self._expiry_at_s = 0.0
        self._checkpoints = checkpoints
        self._book = AlarmBook(catalog)
        self._log = EventLog(logging.getLogger("windvane.worker"))
        self._shelf_at_s = 0.0

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.empty()
                if time.monotonic() >= self._shelf_at_s:
                    self._shelf_at_s = time.monotonic() + UNSHELVE_INTERVAL_S
                    await self._book.unshelve_due(time.time_ns())
                if self._retention_hours is not None and time.monotonic() >= self._expiry_at_s:
                    self._expiry_at_s = time.monotonic() + EXPIRY_INTERVAL_S
                    await self._book.delete_cleared(
                        before_ns=time.time_ns() - int(self._retention_hours * _NS_PER_HOUR)
                    )
            except (WindvaneError, msgspec.ValidationError) as error:
                self._log.emit(AlarmsDelayed(str(error)))
            await asyncio.sleep(POLL_S)

    async def empty(self) -> None:
        """Records all messages of the outbox. Raises CatalogUnavailable; the other messages stay there."""
        while messages := await asyncio.to_thread(self._checkpoints.outbox, limit=BATCH):
            done: list[int] = []
            try:
                for number, message in messages:
                    await self._record(message)
                    done.append(number)
            finally:
                if done:
                    await asyncio.to_thread(self._checkpoints.take_out, done)

    async def _record(self, message: bytes) -> None:
        try:
            await self._book.record(_decode(message))
        except CatalogUnavailable:
            raise
        except (msgspec.ValidationError, DocumentInvalid) as error:
            # The catalog would reject it at each retry, and it would block all later messages.
            self._log.emit(AlarmNotRecorded(str(error)))
