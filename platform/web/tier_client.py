"""The client of the other tiers of this home: HTTP over the Unix sockets in HOME/run."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from ..errors import BodyTooSlow
from ..runtime.announcements import tier_sockets
from ..runtime.instrumentation import EventLog
from .instrumentation import TierStatusInvalid
from .problems import RequestRejected

_log = EventLog(logging.getLogger(__name__))

TIERS = ("gateway", "worker")
ANSWER_TIMEOUT_S = 2.0
RETRY_AFTER_S = 2

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
ACCESS_HEADER = "X-Windvane-Access"
"""Tells the gateway that a request showed the access token, which itself is not handed on."""
_OURS = frozenset({"host", "authorization", "cookie", "expect", "x-forwarded-for", ACCESS_HEADER.lower()})


class TierClient:
    """Queries the tiers that run over the same home; a tier that is not running is a result, not an error.

    Of each tier several instances may run, each with a socket of its own.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._sessions: dict[Path, aiohttp.ClientSession] = {}
        self._turn = 0

    async def status(self, tier: str) -> dict[str, dict[str, Any]]:
        """The status of the running instances of `tier` (`GET /status`), by name."""
        found: dict[str, dict[str, Any]] = {}
        for instance, body in (await self._ask(tier, "/status")).items():
            try:
                status = msgspec.json.decode(body)
            except msgspec.DecodeError:
                status = None
            if isinstance(status, dict):
                found[instance] = status
            else:
                _log.emit(TierStatusInvalid(tier, instance))
        return found

    async def ask_status(
        self, socket: Path, *, timeout_s: float
    ) -> dict[str, Any] | Literal["away", "stuck"]:
        """The status of the tier behind `socket`.

        `away`: nothing listens there. `stuck`: it takes the connection, but gives no status in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session(socket).get(f"http://{socket.stem}/status") as answer:
                    status = msgspec.json.decode(await answer.read())
        except aiohttp.ClientConnectorError as error:
            # A full queue of connections is one that no thread accepts from.
            return "stuck" if error.os_error.errno == errno.EAGAIN else "away"
        except (aiohttp.ClientConnectionError, ConnectionError):
            return "away"  # it ended just now
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
            return "stuck"
        return status if isinstance(status, dict) else "stuck"

    async def metrics(self, tier: str) -> dict[str, str]:
        """The metrics pages of the running instances of `tier` (`GET /metrics`), by name."""
        pages = await self._ask(tier, "/metrics")
        return {instance: page.decode("utf-8", "replace") for instance, page in pages.items()}

    async def hand_on(
        self,
        request: web.Request,
        tier: str,
        *,
        path: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> web.StreamResponse:
        """Forwards `request` to `tier` and returns its response, both streamed: no body is held whole.

        It goes to the same address there, or to `path`, with `headers` in addition to its own. A
        compressed body stays so: the tier bounds what it may become.

        Of several instances it goes to one that takes the connection, to each in turn.

        503 with Retry-After if the tier is not running, so that the sender keeps the chunk and retries.
        """
        path = path or request.rel_url.without_query_params("token").raw_path_qs
        sockets = list(tier_sockets(self.run_dir, tier).values())
        self._turn += 1
        for index in range(len(sockets)):
            try:
                socket = sockets[(self._turn + index) % len(sockets)]
                return await self._hand_to(socket, request, tier, path, headers)
            except aiohttp.ClientConnectorError:  # not a byte of the body has been taken yet
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                broken = request.content.exception()
                if isinstance(broken, BodyTooSlow):
                    raise broken from None
                if broken is not None:
                    raise RequestRejected(
                        HTTPStatus.BAD_REQUEST, f"The body cannot be read: {broken}."
                    ) from error
                raise _unavailable(tier) from error
        raise _unavailable(tier)

    async def _hand_to(
        self, path_of_socket: Path, request: web.Request, tier: str, path: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        async with self._session(path_of_socket).request(
            request.method,
            URL(f"http://{tier}{path}", encoded=True),
            data=request.content if request.can_read_body else None,
            headers=_onward(request, headers),
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP and name.lower() not in ("server", "date"):
                    response.headers.add(name, value)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    async def closing(self, _app: web.Application) -> AsyncIterator[None]:
        """A cleanup context of the application."""
        yield
        await asyncio.gather(*(session.close() for session in self._sessions.values()))

    async def _ask(self, tier: str, path: str) -> dict[str, bytes]:
        sockets = tier_sockets(self.run_dir, tier)
        answers = await asyncio.gather(*(self._get(socket, tier, path) for socket in sockets.values()))
        return {
            instance: answer for instance, answer in zip(sockets, answers, strict=True) if answer is not None
        }

    async def _get(self, socket: Path, tier: str, path: str) -> bytes | None:
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
            async with self._session(socket).get(f"http://{tier}{path}", timeout=timeout) as answer:
                if answer.status != HTTPStatus.OK:
                    return None
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _session(self, socket: Path) -> aiohttp.ClientSession:
        session = self._sessions.get(socket)
        if session is None or session.closed:
            session = self._sessions[socket] = aiohttp.ClientSession(
                # A connection kept open is dead after a restart of the tier, and a POST is not repeated.
                connector=aiohttp.UnixConnector(str(socket), limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_TIMEOUT_S, sock_read=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return session


def together(statuses: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """One status of all instances of a tier, None if there are no instances.

    Numbers are added up; ages (`…_age_s`) are the oldest; times (`…_ns`) are the earliest that is known;
    lists follow one another. Of two values that do not fit together it is the first.
    """
    if not statuses:
        return None
    whole: dict[str, Any] = {}
    for status in statuses.values():
        for name, value in status.items():
            whole[name] = _merged(name, whole[name], value) if name in whole else value
    return whole


def _merged(name: str, before: Any, value: Any) -> Any:
    if before is None or value is None:
        return value if before is None else before
    if isinstance(before, dict) and isinstance(value, dict):
        both = {key: _merged(key, before[key], value[key]) for key in before.keys() & value.keys()}
        return {**before, **value, **both}
    if isinstance(before, list) and isinstance(value, list):
        return before + value
    if _is_number(before) and _is_number(value):
        if name.endswith("_ns"):
            return min(before, value) if before and value else before or value
        return max(before, value) if name.endswith("_age_s") else before + value
    return before


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unavailable(tier: str) -> RequestRejected:
    return RequestRejected(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"The {tier} is not running; keep the chunk and resend it. 'windvane {tier}' starts it.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def _onward(request: web.Request, more: Mapping[str, str]) -> CIMultiDict[str]:
    """The request's headers for the next tier, and `more`.

    Credentials that were checked here end here.
    """
    headers = CIMultiDict(
        (name, value)
        for name, value in request.headers.items()
        if name.lower() not in _HOP_BY_HOP and name.lower() not in _OURS
    )
    if request.remote:
        headers["X-Forwarded-For"] = request.remote
    headers.update(more)
    return headers
