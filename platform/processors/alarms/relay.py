"""From the outbox of the checkpoints to the catalog: alarms become documents once their rows are committed.

A checkpoint puts what the rows said into the outbox, in one transaction with all that it was made of. The
relay records the messages, oldest first, and takes out what has arrived. So a crash anywhere between loses
none, and a message that was recorded, but not taken out, is recorded again without effect. That also holds
where several workers empty the same outbox.
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
from ...store.databases.checkpoint import CheckpointStore
from .instrumentation import AlarmNotRecorded, AlarmsDelayed

POLL_S = 0.25
SHELF_S = 2.0
"""How often it is looked for alarms whose time on the shelf is up."""
BATCH = 100

_decode = msgspec.msgpack.Decoder(AlarmEvent).decode


class AlarmRelay:
    """Records the alarms of a worker, and takes them off the shelf again when their time is up.

    A catalog that is away holds nothing up: messages wait on disk, about 2 kB each; 100 are read at a time.
    """

    def __init__(self, checkpoints: CheckpointStore, catalog: Catalog) -> None:
        self._checkpoints = checkpoints
        self._book = AlarmBook(catalog)
        self._log = EventLog(logging.getLogger("windvane.worker"))
        self._shelf_at_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.empty()
                if time.monotonic() >= self._shelf_at_s:
                    self._shelf_at_s = time.monotonic() + SHELF_S
                    await self._book.unshelve_due(time.time_ns())
            except (WindvaneError, msgspec.ValidationError) as error:
                self._log.emit(AlarmsDelayed(str(error)))
            await asyncio.sleep(POLL_S)

    async def empty(self) -> None:
        """Records all that is in the outbox. Raises CatalogUnavailable; what is left then waits there."""
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
            # It would be refused again each time, and hold up all that come behind it.
            self._log.emit(AlarmNotRecorded(str(error)))
