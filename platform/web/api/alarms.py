"""Alarms over HTTP: listed, shown, and acknowledged, commented, shelved and cleared by people."""

import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ...errors import RevisionConflict
from ...store.catalog import alarms
from ...store.catalog.alarm_book import AlarmBook, alarm_of
from ...store.catalog.alarms import OPEN_STATES, STATES, Alarm
from ...store.catalog.catalog import Catalog, Document
from ..answers import AlarmAction, AlarmInfo, AlarmShelving, AlarmSummary
from ..json_input import read_json
from ..pages import json_page, json_response, next_page, one_of, page_limit, whole_number
from ..problems import RequestRefused
from .policies import etag_of, revision_in

NS_PER_S = 1_000_000_000
OPEN = "open"

Body = TypeVar("Body")


class AlarmRoutes:
    """`GET alarms`, `GET alarms/{ref}`, `POST alarms/{ref}/acknowledge|comment|shelve|unshelve|clear`.

    The ETag of an alarm is its revision; with If-Match something is done only to that revision. Without it
    what others do at the same time is kept, and this is done to what they have left.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._book = AlarmBook(catalog)

    async def list(self, request: web.Request) -> web.Response:
        """The alarms, those that were changed last first; `before` is the revision of the page's last."""
        limit, before = page_limit(request), whole_number(request, "before")
        state = one_of(request, "state", "", OPEN, *STATES)
        headers = {"ETag": f'"{await self._catalog.revision()}"'}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        found = await self._book.latest(
            states=OPEN_STATES if state == OPEN else (state,) if state else STATES,
            stream=request.query.get("stream") or None,
            limit=limit + 1,
            before_revision=before,
        )
        if len(found) > limit:
            headers |= next_page(request, before=str(found[limit - 1].revision))
        return await json_page(lambda: [_summary(document) for document in found[:limit]], headers=headers)

    async def get(self, request: web.Request) -> web.Response:
        """One alarm with its evidence and its history."""
        document = await self._book.get(request.match_info["ref"])
        if revision_in(request.headers.get("If-None-Match")) == document.revision:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=etag_of(document))
        return _answer(document)

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Somebody has seen it."""
        return await self._act(request, alarms.acknowledge, await _body(request, AlarmAction))

    async def comment(self, request: web.Request) -> web.Response:
        """Somebody has something to say."""
        return await self._act(request, alarms.comment, await _body(request, AlarmAction))

    async def unshelve(self, request: web.Request) -> web.Response:
        """Back from the shelf before its time."""
        return await self._act(request, alarms.unshelve, await _body(request, AlarmAction))

    async def clear(self, request: web.Request) -> web.Response:
        """It is over, somebody says."""
        return await self._act(request, alarms.clear, await _body(request, AlarmAction))

    async def shelve(self, request: web.Request) -> web.Response:
        """Not to be bothered with for a while, or until a time."""
        asked = await _body(request, AlarmShelving)
        return await self._act(request, partial(alarms.shelve, until_ns=_until_ns(asked)), asked)

    async def _act(
        self, request: web.Request, action: Callable[..., Alarm], asked: AlarmAction
    ) -> web.Response:
        wanted = request.headers.get("If-Match")
        expected = None if wanted in (None, "*") else revision_in(wanted) or -1
        try:
            document = await self._book.change(
                request.match_info["ref"],
                lambda alarm: action(alarm, by=asked.by, text=asked.text, now_ns=time.time_ns()),
                if_revision=expected,
            )
        except RevisionConflict as error:
            if expected is None:
                raise
            raise RequestRefused(HTTPStatus.PRECONDITION_FAILED, str(error)) from None
        return _answer(document)


def _until_ns(asked: AlarmShelving) -> int:
    if (asked.for_s is None) == (asked.until is None):
        raise RequestRefused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "Say how long: either for_s, in seconds, or until, as 2030-01-01T08:00:00Z.",
        )
    if asked.until is not None:
        return int(asked.until.timestamp()) * NS_PER_S + asked.until.microsecond * 1000
    assert asked.for_s is not None
    return alarms.shelf_end_ns(asked.for_s, now_ns=time.time_ns())


async def _body(request: web.Request, kind: type[Body]) -> Body:
    return await read_json(request, partial(msgspec.json.decode, type=kind))


def _answer(document: Document) -> web.Response:
    alarm = msgspec.structs.asdict(alarm_of(document))
    return json_response(AlarmInfo(**alarm, revision=document.revision), headers=etag_of(document))


def _summary(document: Document) -> AlarmSummary:
    alarm = alarm_of(document)
    shared: dict[str, Any] = {
        name: getattr(alarm, name)
        for name in AlarmSummary.__struct_fields__
        if name in Alarm.__struct_fields__
    }
    return AlarmSummary(
        **shared, revision=document.revision, entries=len(alarm.history), last=alarm.history[-1]
    )
