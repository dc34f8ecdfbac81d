"""The way to the other tiers of this home: HTTP over the Unix sockets in HOME/run."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from .problems import RequestRefused

logger = logging.getLogger(__name__)

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
    """Asks the tiers that run beside this one; a tier that is away is an answer, not an error."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def status(self, tier: str) -> dict[str, Any] | None:
        """What `tier` says of itself (`GET /status`), None where it is away."""
        body = await self._ask(tier, "/status")
        try:
            found = msgspec.json.decode(body) if body is not None else None
        except msgspec.DecodeError:
            logger.warning("the status of the %s is no JSON", tier)
            return None
        return found if isinstance(found, dict) else None

    async def metrics(self, tier: str) -> str | None:
        """The metrics page of `tier` (`GET /metrics`), None where it is away."""
        body = await self._ask(tier, "/metrics")
        return None if body is None else body.decode("utf-8", "replace")

    async def hand_on(
        self,
        request: web.Request,
        tier: str,
        *,
        path: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> web.StreamResponse:
        """Gives `request` to `tier` and answers what it answers, both streamed: no body is ever held whole.

        It goes to the same address there, or to `path`, with `headers` beside its own. A compressed body
        stays so: the tier bounds what it may become.

        503 with Retry-After where the tier is away, so that the sender keeps what it has and comes back.
        """
        path = path or request.rel_url.without_query_params("token").raw_path_qs
        try:
            async with self._session(tier).request(
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
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            broken = request.content.exception()
            if broken is not None:
                raise RequestRefused(HTTPStatus.BAD_REQUEST, f"The body cannot be read: {broken}.") from error
            raise RequestRefused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The {tier} is away; keep what you have and send it again. 'windvane {tier}' starts it.",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from error

    async def closing(self, _app: web.Application) -> AsyncIterator[None]:
        """A cleanup context of the application."""
        yield
        await asyncio.gather(*(session.close() for session in self._sessions.values()))

    async def _ask(self, tier: str, path: str) -> bytes | None:
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
            async with self._session(tier).get(f"http://{tier}{path}", timeout=timeout) as answer:
                if answer.status != HTTPStatus.OK:
                    return None
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _session(self, tier: str) -> aiohttp.ClientSession:
        session = self._sessions.get(tier)
        if session is None or session.closed:
            session = self._sessions[tier] = aiohttp.ClientSession(
                # A connection kept open is dead after a restart of the tier, and a POST is not repeated.
                connector=aiohttp.UnixConnector(
                    str(self._run_dir / f"{tier}.sock"), limit=0, force_close=True
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_TIMEOUT_S, sock_read=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return session


def _onward(request: web.Request, more: Mapping[str, str]) -> CIMultiDict[str]:
    """The request's headers as the next tier is to see them, and `more`.

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
