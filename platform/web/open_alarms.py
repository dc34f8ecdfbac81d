"""The open alarms of all streams, so that lists of streams can show the worst of each."""

import logging
from typing import NamedTuple

from ..errors import CatalogUnavailable
from ..runtime.instrumentation import EventLog
from ..store.catalog.alarm_book import ALARM, alarm_of
from ..store.catalog.alarms import OPEN_STATES, State
from ..store.catalog.catalog import Catalog, Document
from .answers import StreamAlarm
from .instrumentation import AlarmsNotRefreshed
from .shared_refresh import SharedRefresh

PAGE = 500
"""Alarms that one query brings."""

MAX_OPEN = 100_000
"""Open alarms that are kept, about 200 bytes each; those that were changed last stay."""

_log = EventLog(logging.getLogger(__name__))


class _Open(NamedTuple):
    reference: str
    stream: str
    grade: int
    state: State

    @property
    def badness(self) -> tuple[bool, int, bool]:
        return self.state != "shelved", self.grade, self.state == "raised"


class OpenAlarms:
    """Follows the changes of alarms in the catalog: what did not change is not read again.

    While the catalog cannot be read, the alarms from before are kept.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._revision = -1
        self._by_stream: dict[str, dict[str, _Open]] = {}
        self._stream_of: dict[str, str] = {}
        self._worst: dict[str, StreamAlarm] = {}
        self._refresh = SharedRefresh(self._follow_or_log)

    async def refresh(self) -> None:
        """Apply the changes since the last refresh, unless that was just now; takes `WAIT_S` at most."""
        await self._refresh.wait()

    def of(self, stream: str) -> StreamAlarm | None:
        """The worst open alarm of a stream; None while there is none. Any thread may call."""
        return self._worst.get(stream)

    async def _follow_or_log(self) -> None:
        try:
            await self._follow()
        except CatalogUnavailable as error:
            _log.emit(AlarmsNotRefreshed(str(error)))

    async def _follow(self) -> None:
        revision = await self._catalog.revision()
        if revision < self._revision or self._revision < 0:  # another catalog, or an older copy of it
            await self._read_all(revision)
        while self._revision < revision:
            page = await self._catalog.by_change(ALARM, after_revision=self._revision, limit=PAGE)
            for document in page:
                self._take(document)
            self._revision = page[-1].revision if len(page) == PAGE else revision

    async def _read_all(self, revision: int) -> None:
        """All that are open; what changes meanwhile is read once more as a change."""
        for reference in list(self._stream_of):
            self._forget(reference)
        before: int | None = None
        while len(self._stream_of) < MAX_OPEN:
            page = await self._catalog.by_change(
                ALARM, states=OPEN_STATES, before_revision=before, limit=PAGE
            )
            for document in page:
                self._take(document)
            if len(page) < PAGE:
                break
            before = page[-1].revision
        self._revision = revision

    def _take(self, document: Document) -> None:
        self._forget(document.reference)
        if document.state not in OPEN_STATES:
            return
        alarm = alarm_of(document)
        # As lists of alarms show it.
        known = _Open(alarm.reference, alarm.stream, alarm.grade or alarm.worst, alarm.state)
        self._by_stream.setdefault(known.stream, {})[known.reference] = known
        self._stream_of[known.reference] = known.stream
        self._judge(known.stream)
        if len(self._stream_of) > MAX_OPEN:
            self._forget(next(iter(self._stream_of)))

    def _forget(self, reference: str) -> None:
        stream = self._stream_of.pop(reference, None)
        if stream is not None:
            del self._by_stream[stream][reference]
            self._judge(stream)

    def _judge(self, stream: str) -> None:
        found = self._by_stream[stream]
        if not found:
            del self._by_stream[stream]
            self._worst.pop(stream, None)
            return
        worst = max(found.values(), key=lambda alarm: alarm.badness)
        self._worst[stream] = StreamAlarm(worst.reference, worst.grade, worst.state, len(found))
