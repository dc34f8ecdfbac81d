"""Errors as problem details (RFC 9457): one shape for every answer that is not a success."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ..errors import (
    AlarmActionRejected,
    AlarmShelvedTooLong,
    BodyTooSlow,
    ChunkRejected,
    DocumentInvalid,
    ExportFailed,
    ExportUnavailable,
    OverviewImpossible,
    PolicyInvalid,
    RangeGone,
    RevisionConflict,
    SelectionInvalid,
    StoreLocked,
    TransitionRejected,
    WindvaneError,
)
from ..runtime.instrumentation import EventLog
from .instrumentation import AnswerBrokenOff, RequestFailed

logger = logging.getLogger(__name__)
_log = EventLog(logger)

PROBLEM_TYPE = "application/problem+json"

_STATUS: Mapping[type[Exception], HTTPStatus] = {
    RangeGone: HTTPStatus.GONE,
    SelectionInvalid: HTTPStatus.BAD_REQUEST,
    OverviewImpossible: HTTPStatus.UNPROCESSABLE_ENTITY,
    ExportUnavailable: HTTPStatus.NOT_IMPLEMENTED,
    ExportFailed: HTTPStatus.UNPROCESSABLE_ENTITY,
    BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    PolicyInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    DocumentInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    ChunkRejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    RevisionConflict: HTTPStatus.CONFLICT,
    AlarmShelvedTooLong: HTTPStatus.UNPROCESSABLE_ENTITY,
    AlarmActionRejected: HTTPStatus.CONFLICT,
    TransitionRejected: HTTPStatus.CONFLICT,
    StoreLocked: HTTPStatus.SERVICE_UNAVAILABLE,
    # Built-in classes that the tree's classes mix in: not found, unreachable.
    LookupError: HTTPStatus.NOT_FOUND,
    ConnectionError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status of an error of the tree; the first that fits."""


class RequestRejected(WindvaneError):
    """An answer of the web tier's own: `status`, what is wrong, and what else the answer carries."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.members = dict(members or {})


def problem(
    status: HTTPStatus,
    detail: str,
    *,
    kind: str = "about:blank",
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> web.Response:
    """A response with the members type, title, status, detail, and whatever `members` adds."""
    body = {"type": kind, "title": title or status.phrase, "status": int(status), "detail": detail}
    return web.Response(
        body=msgspec.json.encode({**(members or {}), **body}),
        status=status,
        content_type=PROBLEM_TYPE,
        headers=headers,
    )


def problem_of(error: WindvaneError) -> web.Response:
    """The answer to an error of the tree; its message is fit for the user as it is."""
    if isinstance(error, RequestRejected):
        return problem(error.status, str(error), headers=error.headers, members=error.members)
    status = next(
        (status for kind, status in _STATUS.items() if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    name = vars(type(error)).get("problem_name") or type(error).__name__
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return problem(
        status,
        str(error),
        kind=f"urn:windvane:problem:{words.lower().replace(' ', '-')}",
        title=words.capitalize(),
        headers={"Retry-After": "2"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None,
    )


_ANSWERING = web.RequestKey("answering", bool)


async def mark_answering(request: web.Request, response: web.StreamResponse) -> None:
    """To be a signal on_response_prepare: from here on an error can no longer become an answer."""
    request[_ANSWERING] = True


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Converts exceptions of handlers to problems; the details of an unexpected error stay in the log.

    Once the answer has begun it cannot become a problem: the connection is cut, so that what was sent
    is seen to be incomplete.
    """
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        status = HTTPStatus(error.status)
        kept = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
        return problem(status, _detail_of(request, status), headers=kept)
    except WindvaneError as error:
        if request.get(_ANSWERING):
            _log.emit(AnswerBrokenOff(request.method, request.path, str(error)))
            return _cut(request)
        answer = problem_of(error)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.emit(RequestFailed(request.method, request.path, str(error)))
        return answer
    except ConnectionResetError:
        return web.Response(status=499)
    except Exception:
        logger.exception("%s %s failed unexpectedly", request.method, request.path)
        if request.get(_ANSWERING):
            return _cut(request)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "The request failed for a reason that is not yours. The web tier's log has the traceback.",
        )


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)


def _detail_of(request: web.Request, status: HTTPStatus) -> str:
    if status == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {request.path}. /openapi.json lists what there is."
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.path} does not take {request.method}; the Allow header says what it takes."
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"The body is larger than {request.client_max_size} bytes."
    return status.description or status.phrase
