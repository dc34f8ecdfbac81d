"""The alarms in the catalog: written by the workers and by people, at the same time."""

import asyncio
import random
import time
from collections.abc import Callable

from ...errors import DocumentNotFound, RevisionConflict
from .alarms import STATES, WORKER, Alarm, AlarmEvent, apply_event, from_body, to_body, unshelve
from .catalog import Catalog, Document, not_found

ALARM = "alarm"
MAX_ATTEMPTS = 100
"""How often a change is made anew where others change the same alarm meanwhile."""
_LONGEST_PAUSE_S = 0.05
_PAGE = 500


class AlarmBook:
    """Alarms as documents of the catalog.

    Every change is made to the revision that was read, and made anew on what is there now where somebody was
    quicker: nobody's word is lost. Raises CatalogUnavailable where the catalog cannot be reached.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def record(self, event: AlarmEvent) -> None:
        """What the rows say. What is recorded already changes nothing, so it may be said again."""

        def change(alarm: Alarm | None) -> Alarm | None:
            return apply_event(alarm, event, now_ns=time.time_ns())

        await self._change(event.alarm, change)

    async def change(
        self, reference: str, action: Callable[[Alarm], Alarm], *, if_revision: int | None = None
    ) -> Document:
        """Does to an alarm what somebody wants, and gives it as it is then.

        Raises DocumentNotFound, what `action` raises, and RevisionConflict where it is not at `if_revision`.
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
        """Alarms in these states, those that were changed last first; at most `limit`."""
        return await self._catalog.by_change(
            ALARM,
            states=states,
            # A tag has no colon, so no other stream's alarms begin so.
            prefix=f"{stream}:" if stream else "",
            before_revision=before_revision,
            limit=limit,
        )

    async def unshelve_due(self, now_ns: int) -> int:
        """Takes alarms off the shelf whose time is up; says how many. Several may do it at once."""
        due: list[str] = []
        before: int | None = None
        while page := await self.latest(states=("shelved",), limit=_PAGE, before_revision=before):
            alarms = [alarm_of(document) for document in page]
            due += [alarm.reference for alarm in alarms if _is_due(alarm, now_ns)]
            before = page[-1].revision

        def take_off(alarm: Alarm | None) -> Alarm | None:
            # Somebody may have shelved it for longer since.
            if alarm is None or not _is_due(alarm, now_ns):
                return None
            return unshelve(alarm, by=WORKER, text="its time is up", now_ns=now_ns)

        return sum([await self._change(reference, take_off) is not None for reference in due])

    async def _change(
        self,
        reference: str,
        change: Callable[[Alarm | None], Alarm | None],
        *,
        if_revision: int | None = None,
    ) -> Document | None:
        for attempt in range(MAX_ATTEMPTS):
            try:
                found: Document | None = await self._catalog.get(ALARM, reference)
            except DocumentNotFound:
                found = None
            revision = 0 if found is None else found.revision
            if if_revision not in (None, revision):
                raise RevisionConflict(
                    f'alarm "{reference}" is at revision {revision}, revision {if_revision} was expected; '
                    "read it again and repeat the change"
                )
            changed = change(None if found is None else alarm_of(found))
            if changed is None:
                return None
            try:
                return await self._catalog.put(
                    ALARM,
                    reference,
                    title=changed.title,
                    body=to_body(changed),
                    state=changed.state,
                    if_revision=revision,
                )
            except RevisionConflict:
                if attempt + 1 == MAX_ATTEMPTS or if_revision is not None:
                    raise
                await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE_S))
        raise AssertionError("the last attempt returns or raises")


def alarm_of(document: Document) -> Alarm:
    """The alarm in a document."""
    return from_body(document.reference, document.state, document.body)


def _is_due(alarm: Alarm, now_ns: int) -> bool:
    return (
        alarm.state == "shelved" and alarm.shelved_until_ns is not None and alarm.shelved_until_ns <= now_ns
    )
