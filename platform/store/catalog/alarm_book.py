"""The alarms in the catalog: workers and users write them at the same time."""

import time
from collections.abc import Callable
from contextlib import suppress

from ...errors import DocumentNotFound, RevisionConflict
from .alarms import STATES, WORKER, Alarm, AlarmEvent, apply_event, from_body, to_body, unshelve
from .catalog import Catalog, Document, not_found
from .document_type import Content
from .documents import change_document

ALARM = "alarm"
_PAGE = 500


class AlarmBook:
    """Alarms as documents of the catalog.

    Every change applies to the revision that was read, and is retried if another process was faster
    (`change_document`): no entry is lost. Raises CatalogUnavailable if the catalog cannot be reached.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def record(self, event: AlarmEvent) -> None:
        """Apply an event. An event that is recorded already changes nothing."""

        def change(alarm: Alarm | None) -> Alarm | None:
            return apply_event(alarm, event, now_ns=time.time_ns())

        await self._change(event.alarm, change)

    async def change(
        self, reference: str, action: Callable[[Alarm], Alarm], *, if_revision: int | None = None
    ) -> Document:
        """Apply the action of a user to an alarm, and return the changed alarm.

        Raises DocumentNotFound, what `action` raises, and RevisionConflict if it is not at `if_revision`.
        """

        def change(alarm: Alarm | None) -> Alarm:
            if alarm is None:
                raise not_found(ALARM, reference)
            return action(alarm)

        document = await self._change(reference, change, if_revision=if_revision)
        assert document is not None
        return document

    async def get(self, reference: str) -> Document:
        """One alarm's document; `alarm_of` reads it. Raises DocumentNotFound."""
        return await self._catalog.get(ALARM, reference)

    async def latest(
        self,
        *,
        states: tuple[str, ...] = STATES,
        stream: str | None = None,
        limit: int = 1000,
        before_revision: int | None = None,
    ) -> list[Document]:
        """At most `limit` alarms in these states, the last change first."""
        return await self._catalog.by_change(
            ALARM,
            states=states,
            # A tag has no colon, so only alarms of this stream have this prefix.
            prefix=f"{stream}:" if stream else "",
            before_revision=before_revision,
            limit=limit,
        )

    async def unshelve_due(self, now_ns: int) -> int:
        """Unshelve alarms whose time has expired; returns how many. Several processes may do so at once."""
        due: list[str] = []
        before: int | None = None
        while page := await self.latest(states=("shelved",), limit=_PAGE, before_revision=before):
            alarms = [alarm_of(document) for document in page]
            due += [alarm.reference for alarm in alarms if _is_due(alarm, now_ns)]
            before = page[-1].revision

        def unshelve_if_due(alarm: Alarm | None) -> Alarm | None:
            # A user may have extended the shelving since.
            if alarm is None or not _is_due(alarm, now_ns):
                return None
            return unshelve(alarm, by=WORKER, text="its time is up", now_ns=now_ns)

        return sum([await self._change(reference, unshelve_if_due) is not None for reference in due])

    async def delete_cleared(self, *, before_ns: int) -> int:
        """Delete cleared alarms whose last change was before this time; returns how many, at most 500.

        Several processes may do so at once. An alarm that is changed meanwhile stays.
        """
        deleted = 0
        for document in await self._catalog.by_change(
            ALARM, states=("cleared",), after_revision=0, limit=_PAGE
        ):
            if document.modified_ns >= before_ns:
                break
            with suppress(DocumentNotFound, RevisionConflict):
                await self._catalog.delete(ALARM, document.reference, if_revision=document.revision)
                deleted += 1
        return deleted

    async def _change(
        self,
        reference: str,
        change: Callable[[Alarm | None], Alarm | None],
        *,
        if_revision: int | None = None,
    ) -> Document | None:
        def change_content(old: Content | None) -> Content | None:
            alarm = change(None if old is None else from_body(reference, old.state, old.body))
            return None if alarm is None else Content(alarm.state, alarm.title, to_body(alarm))

        return await change_document(self._catalog, ALARM, reference, change_content, if_revision=if_revision)


def alarm_of(document: Document) -> Alarm:
    """The alarm in a document."""
    return from_body(document.reference, document.state, document.body)


def _is_due(alarm: Alarm, now_ns: int) -> bool:
    return (
        alarm.state == "shelved" and alarm.shelved_until_ns is not None and alarm.shelved_until_ns <= now_ns
    )
