"""Alarms over HTTP: users list, show, acknowledge, comment on, shelve and clear them."""

import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from ...errors import RevisionConflict
from ...store.catalog import alarms
from ...store.catalog.alarm_book import ALARM, AlarmBook, alarm_of
from ...store.catalog.alarms import OPEN_STATES, STATES, Alarm
from ...store.catalog.catalog import Catalog, Document
from ...store.catalog.document_types.alarm import AlarmAction, AlarmShelving
from ..answers import AlarmInfo, AlarmSummary
from ..pages import RevisionPageQuery, json_page, json_response, next_page
from ..parameters import ReferencePath
from ..problems import RequestRejected
from ..route import API, NOT_MODIFIED, REF, json_answer, page_of, route
from .conditions import IfMatchHeader, IfNoneMatchHeader, etag_of, revision_in

OPEN = "open"
TAG = "alarms"

_ETAG = {"ETag": "The revision."}
_CHANGED: dict[str, Any] = {
    "tag": TAG,
    "answers": [json_answer(AlarmInfo, "The alarm as it is now.", headers=_ETAG)],
    "problems": {
        HTTPStatus.CONFLICT: "The state of the alarm does not allow it; the detail says why.",
        HTTPStatus.PRECONDITION_FAILED: "It does not have the revision that If-Match names.",
    },
}


class AlarmListQuery(RevisionPageQuery, frozen=True, kw_only=True):
    """Which alarms."""

    state: Annotated[
        Literal["open", "raised", "acknowledged", "shelved", "cleared"] | None,
        Meta(description="Only alarms in this state; open is all but cleared."),
    ] = None
    stream: Annotated[str | None, Meta(description="Only alarms of this data stream.")] = None


class AlarmRoutes:
    """`GET alarms`, `GET alarms/{ref}`, `POST alarms/{ref}/acknowledge|comment|shelve|unshelve|clear`.

    The ETag of an alarm is its revision; with If-Match an action applies only to that revision. Without it,
    the action applies to the current revision, and concurrent changes are kept.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._book = AlarmBook(catalog)

    @route("GET", f"{API}/alarms", tag=TAG, answers=[page_of(AlarmSummary, headers=_ETAG), NOT_MODIFIED])
    async def list(
        self, request: web.Request, query: AlarmListQuery, headers: IfNoneMatchHeader
    ) -> web.Response:
        """List the alarms, the last change first.

        `before` is the revision of the last alarm on the page before.
        """
        limit, state = query.entries, query.state
        given = {"ETag": f'"{await self._catalog.revision(ALARM)}"'}
        if headers.if_none_match == given["ETag"]:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=given)
        found = await self._book.latest(
            states=OPEN_STATES if state == OPEN else (state,) if state else STATES,
            stream=query.stream,
            limit=limit + 1,
            before_revision=query.before,
        )
        if len(found) > limit:
            given |= next_page(request, before=str(found[limit - 1].revision))
        return await json_page(lambda: [_summary(document) for document in found[:limit]], headers=given)

    @route(
        "GET",
        f"{API}/alarms/{REF}",
        tag=TAG,
        answers=[json_answer(AlarmInfo, "The alarm.", headers=_ETAG), NOT_MODIFIED],
    )
    async def get(
        self, _request: web.Request, path: ReferencePath, headers: IfNoneMatchHeader
    ) -> web.Response:
        """Get one alarm with its evidence and its history."""
        document = await self._book.get(path.ref)
        if revision_in(headers.if_none_match) == document.revision:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=etag_of(document))
        return _answer(document)

    @route("POST", f"{API}/alarms/{REF}/acknowledge", **_CHANGED)
    async def acknowledge(
        self, _request: web.Request, path: ReferencePath, headers: IfMatchHeader, body: AlarmAction
    ) -> web.Response:
        """Acknowledge an alarm."""
        return await self._change(path, headers, alarms.acknowledge, body)

    @route("POST", f"{API}/alarms/{REF}/comment", **_CHANGED)
    async def comment(
        self, _request: web.Request, path: ReferencePath, headers: IfMatchHeader, body: AlarmAction
    ) -> web.Response:
        """Comment on an alarm."""
        return await self._change(path, headers, alarms.comment, body)

    @route("POST", f"{API}/alarms/{REF}/unshelve", **_CHANGED)
    async def unshelve(
        self, _request: web.Request, path: ReferencePath, headers: IfMatchHeader, body: AlarmAction
    ) -> web.Response:
        """Unshelve an alarm before its time."""
        return await self._change(path, headers, alarms.unshelve, body)

    @route("POST", f"{API}/alarms/{REF}/clear", **_CHANGED)
    async def clear(
        self, _request: web.Request, path: ReferencePath, headers: IfMatchHeader, body: AlarmAction
    ) -> web.Response:
        """Clear an alarm."""
        return await self._change(path, headers, alarms.clear, body)

    @route("POST", f"{API}/alarms/{REF}/shelve", **_CHANGED)
    async def shelve(
        self, _request: web.Request, path: ReferencePath, headers: IfMatchHeader, body: AlarmShelving
    ) -> web.Response:
        """Shelve an alarm for a while, or until it escalates."""
        return await self._change(
            path, headers, partial(alarms.shelve, until_ns=body.until_ns(time.time_ns())), body
        )

    async def _change(
        self, path: ReferencePath, headers: IfMatchHeader, action: Callable[..., Alarm], asked: AlarmAction
    ) -> web.Response:
        wanted = headers.if_match
        expected = None if wanted in (None, "*") else revision_in(wanted) or -1
        try:
            document = await self._book.change(
                path.ref,
                lambda alarm: action(alarm, by=asked.by, text=asked.text, now_ns=time.time_ns()),
                if_revision=expected,
            )
        except RevisionConflict as error:
            if expected is None:
                raise
            raise RequestRejected(HTTPStatus.PRECONDITION_FAILED, str(error)) from None
        return _answer(document)


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
