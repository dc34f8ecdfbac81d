"""Authentication: the token of this home, and what a browser on the same machine may do without it.

The decision is a pure function (`judge`) from headers to a verdict. Two rules guard access without a token on
loopback: the Host header must be a loopback name, or a page of another site could reach us by a name that it
re-binds to 127.0.0.1; and requests that change data, or open a WebSocket, must originate from our own pages
(Origin equals Host), since browsers send such requests for any page, with cookies and Basic credentials
attached.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .problems import RequestRejected

COOKIE_AGE_S = 90 * 24 * 3600
SHOWS_TOKEN = web.RequestKey("shows_token", bool)
"""Key of an admitted request: whether it showed the token, or was admitted by its loopback name."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PASSED_ON_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Real-IP")
_LOOPBACK_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)


class Verdict(Enum):
    """The result of `judge`."""

    ALLOWED = "allowed"
    CREDENTIALS_MISSING = "credentials missing"
    CREDENTIALS_WRONG = "credentials wrong"
    FOREIGN_ORIGIN = "foreign origin"


@dataclass(frozen=True, slots=True)
class AccessRule:
    """The requirements for a request.

    `token` None: there is none, no credentials are valid. `open_on_loopback`: requests without credentials
    pass if they use a loopback name; only for servers bound to loopback alone.
    """

    token: str | None
    open_on_loopback: bool

    def cookie_name(self, host: str) -> str:
        """The cookie's name; it contains the port because browsers share cookies between ports."""
        port = urlsplit(f"//{host}").port if re.search(r":\d{1,5}$", host) else None
        return f"windvane-{port or 'web'}"

    def cookie_value(self) -> str:
        """The value of the cookie: derived from the token, which stays out of the browser's store."""
        return hmac.digest((self.token or "").encode(), b"windvane browser cookie", "sha256").hex()


def judge(
    rule: AccessRule,
    *,
    method: str,
    headers: Mapping[str, str],
    cookies: Mapping[str, str] | None = None,
    query_token: str | None = None,
) -> Verdict:
    """Whether a request may pass.

    `headers` finds names in any case. Wrong credentials never pass, even if none are needed, so that
    no client is mistaken about being authenticated. A cookie that does not match is ignored: it may belong
    to another server on the same host name.
    """
    host = headers.get("Host", "")
    if not _origin_is_own(method, headers, host):
        return Verdict.FOREIGN_ORIGIN
    shown = shows_token(rule, headers, cookies=cookies, query_token=query_token)
    if shown is not None:
        return Verdict.ALLOWED if shown else Verdict.CREDENTIALS_WRONG
    passed_on = any(name in headers for name in _PASSED_ON_HEADERS)
    if rule.open_on_loopback and not passed_on and _LOOPBACK_HOST.fullmatch(host):
        return Verdict.ALLOWED
    return Verdict.CREDENTIALS_MISSING


def shows_token(
    rule: AccessRule,
    headers: Mapping[str, str],
    *,
    cookies: Mapping[str, str] | None = None,
    query_token: str | None = None,
) -> bool | None:
    """Whether a request shows the token, or the cookie made of it; None: it shows nothing that counts."""
    offered = [token for token in (query_token, _token_of(headers.get("Authorization"))) if token is not None]
    if offered:
        return all(_matches(rule.token, token) for token in offered)
    cookie = (cookies or {}).get(rule.cookie_name(headers.get("Host", "")))
    if rule.token is not None and cookie is not None and _matches(rule.cookie_value(), cookie):
        return True
    return None


def _origin_is_own(method: str, headers: Mapping[str, str], host: str) -> bool:
    websocket = headers.get("Upgrade", "").lower() == "websocket"
    origin = headers.get("Origin")
    if origin is None or (method in _SAFE_METHODS and not websocket):
        return True
    scheme, _, authority = origin.partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme.lower())
    if default_port is None:
        return False
    return authority.lower().removesuffix(default_port) == host.lower().removesuffix(default_port)


def _token_of(authorization: str | None) -> str | None:
    """The token in an Authorization header; an unknown scheme gives "", which never matches."""
    if authorization is None:
        return None
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return pair.partition(":")[2]
    return ""


def _matches(expected: str | None, given: str) -> bool:
    if not expected:
        return False
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def access_middleware(
    rule: AccessRule,
    for_unauthenticated: Callable[[web.Request, Verdict], Awaitable[web.StreamResponse | None]],
    *,
    judges_itself: Callable[[web.Request], bool] = lambda _: False,
) -> Middleware:
    """Admits requests that `judge` allows; responds to others with 401 or 403.

    A request that `judges_itself` is admitted with an Authorization that is not ours: its handler knows other
    credentials, and rejects unknown ones. `request[SHOWS_TOKEN]` is true if the token was shown.

    `for_unauthenticated` may answer GET requests that lack right credentials, without data of the home.

    `?token=` is taken once: the answer sets a cookie (HttpOnly, SameSite=Strict), and for
    a page it is a redirect to the same address without the token, so that it stays out of the history.
    """

    @web.middleware
    async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
        query_token = request.query.get("token")
        verdict = judge(
            rule,
            method=request.method,
            headers=request.headers,
            cookies=request.cookies,
            query_token=query_token,
        )
        request[SHOWS_TOKEN] = verdict is Verdict.ALLOWED and bool(
            shows_token(rule, request.headers, cookies=request.cookies, query_token=query_token)
        )
        is_anothers = verdict is Verdict.CREDENTIALS_WRONG and query_token is None and judges_itself(request)
        if verdict is not Verdict.ALLOWED and not is_anothers:
            answer = None
            if verdict is not Verdict.FOREIGN_ORIGIN and request.method in ("GET", "HEAD"):
                answer = await for_unauthenticated(request, verdict)
            if answer is None:
                raise _rejection(verdict, request)
            return answer
        if query_token is None:
            return await handler(request)
        if request.method == "GET" and wants_page(request):
            answer = web.Response(
                status=HTTPStatus.SEE_OTHER,
                headers={"Location": str(request.rel_url.without_query_params("token"))},
            )
        else:
            answer = await handler(request)
        if not answer.prepared:
            answer.set_cookie(
                rule.cookie_name(request.headers.get("Host", "")),
                rule.cookie_value(),
                max_age=COOKIE_AGE_S,
                httponly=True,
                samesite="Strict",
                secure=request.secure,
            )
        return answer

    return access


def wants_page(request: web.Request) -> bool:
    """Whether a browser asks for something to show, rather than a script or a program for data."""
    return "text/html" in request.headers.get("Accept", "")


def challenge(request: web.Request) -> str:
    """The value of WWW-Authenticate in a 401.

    Basic makes browsers ask with a window of their own, where the interface has a better one, so that it is
    offered only to other programs.
    """
    browser = "Sec-Fetch-Mode" in request.headers or wants_page(request)
    return 'Bearer realm="windvane"' if browser else 'Basic realm="windvane", charset="UTF-8", Bearer'


def _rejection(verdict: Verdict, request: web.Request) -> RequestRejected:
    if verdict is Verdict.FOREIGN_ORIGIN:
        return RequestRejected(
            HTTPStatus.FORBIDDEN,
            f"A page of {request.headers.get('Origin')} may not do this; only pages of this server may.",
        )
    cause = "The token is not the one of this server."
    if verdict is Verdict.CREDENTIALS_MISSING:
        cause = f"Requests to {request.headers.get('Host') or 'this address'} need the token of this server."
    return RequestRejected(
        HTTPStatus.UNAUTHORIZED,
        f"{cause} It is in the file named token in the server's home directory; give it as "
        "'Authorization: Bearer …', as the password of HTTP Basic, or once as ?token=….",
        headers={"WWW-Authenticate": challenge(request)},
    )
