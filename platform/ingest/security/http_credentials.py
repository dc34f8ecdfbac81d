"""Who sends over HTTP: users and tokens of HOME/forward-security.toml.

    Authorization: Basic base64(user:password)      a [[user]], as in the handshake of the forward protocol
    Authorization: Bearer token                     a [[token]]

The web tier forwards requests unchanged, except those with its own access token: they arrive without
credentials and with the header `X-Windvane-Access`, which the web tier removes from all other requests. A
request with neither is an unauthenticated client on loopback; it is admitted if the file names no user and no
token.
"""

import base64
import binascii
from collections.abc import Mapping

from .settings import ForwardSecurity, parse_peer

ACCESS_HEADER = "X-Windvane-Access"
"""The web tier's word for it that a request showed the access token of the home."""
CHALLENGE = 'Basic realm="windvane", charset="UTF-8", Bearer'


_MAX_NAME_CHARACTERS = 300  # of what the log remembers


class CredentialsWrong(Exception):
    """The request is not authenticated. The message is for its sender, `detail` for the gateway's log."""

    def __init__(self, message: str, *, cause: str, detail: str, name: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.detail = detail
        self.name = name
        """Of the user that the request named, if it did."""


def identity_of(headers: Mapping[str, str], security: ForwardSecurity | None, *, sender: str) -> str | None:
    """The user or token that has logged in; None: no login, and none is required. Raises CredentialsWrong.

    `headers` finds names in any case; `sender` is the address that the request came from.
    """
    authorization = headers.get("Authorization")
    if authorization is None:
        # Who can open the gateway's own socket is the owner of the home.
        if _is_unauthenticated(headers) and security is not None and security.has_logins:
            raise CredentialsWrong(
                "this gateway asks for credentials: give a user and password of its forward-security.toml by "
                "HTTP Basic, or a token of it as bearer",
                cause="HTTP: no credentials",
                detail="HTTP: no credentials",
            )
        return None
    name = None if security is None else _name_of(authorization, security)
    if name is None:
        user = _user_and_password(authorization)[0]
        raise CredentialsWrong(
            "the credentials are wrong: neither the access token of this server, nor a user and password or "
            "a token of its forward-security.toml",
            cause="HTTP: wrong credentials",
            detail="HTTP: wrong token" if user is None else f"HTTP: wrong user or password, as {user!r:.100}",
            name=(user or "")[:_MAX_NAME_CHARACTERS],
        )
    assert security is not None
    if not security.lets_in(name, parse_peer(sender)):
        raise CredentialsWrong(
            "the credentials are wrong for this address: no [[client]] lets them in from there",
            cause="HTTP: not from there",
            detail=f"HTTP: {name!r:.100} may not log in from there",
            name=name,
        )
    return name


def _is_unauthenticated(headers: Mapping[str, str]) -> bool:
    return "X-Forwarded-For" in headers and ACCESS_HEADER not in headers


def shows_or_needs_login(headers: Mapping[str, str]) -> bool:
    """Whether `identity_of` depends on the secrets for this request."""
    return "Authorization" in headers or _is_unauthenticated(headers)


def _name_of(authorization: str, security: ForwardSecurity) -> str | None:
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return security.owner_of_token(value.strip().encode("utf-8", "surrogateescape"))
    name, password = _user_and_password(authorization)
    return name if name is not None and security.is_password_of(name, password) else None


def _user_and_password(authorization: str) -> tuple[str | None, bytes]:
    """User and password of HTTP Basic; None as the user if the header is not valid HTTP Basic."""
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return None, b""
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
        return (user.decode() if colon else None), password
    except (binascii.Error, ValueError):
        return None, b""
