"""The handshake of the forward protocol, both ends, as state machines over bytes.

    server  ["HELO", {"nonce": bin, "auth": bin | "", "keepalive": true}]
    client  ["PING", hostname, salt, sha512(salt + hostname + nonce + key),
             user, sha512(auth + user + password)]
    server  ["PONG", true, "", hostname, sha512(salt + hostname + nonce + key)]
         or ["PONG", false, reason, "", ""], and the connection ends

(forward protocol v1, "Handshake Messages"; digests are lower-case hex.) Clients send bytes: Fluent Bit types
16 random bytes as str. `auth` is empty if no users are configured. A nonce and a salt belong to one
connection, so that a PING that was overheard is useless.

The reason sent to the peer is one of the protocol's three strings, none longer than 31 bytes: Fluent Bit
copies it into a buffer of 32. Only the gateway's log tells whether the key, the hostname or the network was
wrong, and whether it was the user or the password.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

import msgpack
import msgspec

from ...errors import HandshakeFailed
from ..security.secrets import ClientEntry
from ..security.settings import LOCAL_USER, ForwardSecurity, parse_peer
from .json_events import FIRST_BYTES

MAX_HANDSHAKE_BYTES = 8 * 1024
_NONCE_BYTES = 16
_HTTP_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT"})
_INVALID = "invalid ping message"
_WRONG_KEY = "shared_key mismatch"
_WRONG_USER = "username/password mismatch"
_PING_HEAD = 0x96  # an array of six
_LOOKED_AT_BYTES = 16
_MAX_NAME_CHARACTERS = 300  # of what the log remembers


@dataclass(frozen=True, slots=True)
class Admitted:
    """An authenticated client; kept so that it can be checked again when the secrets change."""

    hostname: str
    user: str | None
    shared_key: bytes = field(repr=False)
    password: bytes = field(repr=False)

    @property
    def identity(self) -> str:
        """The user where users log in, else the hostname."""
        return self.hostname if self.user is None else self.user

    def still_holds(self, security: ForwardSecurity | None, address: str) -> bool:
        """Whether this client would be admitted by the secrets in force now."""
        if security is None or (self.user is None) != (not security.users):
            return False
        entry = security.entry(self.hostname, parse_peer(address))
        if entry is None or entry.shared_key != self.shared_key:
            return False
        if self.user is None:
            return True
        return (entry.users is None or self.user in entry.users) and security.users.get(
            self.user
        ) == self.password


class Verdict(msgspec.Struct, frozen=True):
    """What came of a PING."""

    pong: bytes
    """To be written at once; forwarders do not wait for a second segment."""
    consumed: int
    """So many of the bytes were the PING; what follows is the first message."""
    admitted: Admitted | None
    detail: str
    """For the log: why it was not admitted, without a secret."""
    cause: str = ""
    """The same in a word or two, for the rate limit of the log."""
    name: str = ""
    """What the client called itself, its hostname and its user: it may have made them up."""


class ServerHandshake:
    """The gateway's end, for one connection. It keeps nothing; it looks at 8 KiB at most."""

    def __init__(
        self,
        security: ForwardSecurity,
        *,
        address: str,
        nonce: bytes | None = None,
        salt: bytes | None = None,
    ) -> None:
        self._security = security
        self._address = address
        self._nonce = secrets.token_bytes(_NONCE_BYTES) if nonce is None else nonce
        self._salt = secrets.token_bytes(_NONCE_BYTES) if salt is None else salt

    def hello(self) -> bytes:
        """HELO: the first bytes on the connection."""
        auth: bytes | str = self._salt if self._security.users else ""
        # The nonce goes out typed bin: as str, the clients of Node.js would decode it as UTF-8.
        return _pack(["HELO", {"nonce": self._nonce, "auth": auth, "keepalive": True}])

    def receive(self, data: bytes | bytearray | memoryview) -> Verdict | None:
        """Looks at all that came so far; None: more must come."""
        try:
            if data and data[0] != _PING_HEAD:
                raise ValueError("no PING begins so")  # whatever follows: nothing more has to come
            message, consumed = _first_message(data)
        except ValueError:
            return self._reject_other(data, len(data))
        if message is None:
            return None
        if not (isinstance(message, list) and len(message) == 6 and message[0] == b"PING"):
            return self._reject_other(data, consumed)
        return self._judge(message, consumed)

    def _reject_other(self, data: bytes | bytearray | memoryview, consumed: int) -> Verdict:
        """For what is not a PING."""
        cause, detail = _about_no_ping(bytes(data[:_LOOKED_AT_BYTES]))
        return self._rejected(_INVALID, consumed, cause, detail)

    def _judge(self, ping: list[object], consumed: int) -> Verdict:
        """Whether the client that sent the PING is admitted."""
        parts = [part for part in ping if isinstance(part, bytes)]
        if len(parts) < len(ping):
            return self._rejected(
                _INVALID, consumed, "bad PING", "its PING holds something else than strings"
            )
        _, raw_hostname, salt, digest, raw_user, password_digest = parts
        hostname, user = _text(raw_hostname), _text(raw_user)
        is_name = hostname.isprintable() and not hostname.startswith(LOCAL_USER)
        if not hostname or len(raw_hostname) > 255 or not is_name:
            return self._rejected(
                _INVALID, consumed, "bad hostname", "its PING has no hostname that could be one"
            )
        entry = self._security.entry(hostname, parse_peer(self._address))
        # Who may not connect learns as little, and as slowly, as who has another key.
        shared_key = None if entry is None else entry.shared_key
        key = secrets.token_bytes(_NONCE_BYTES) if shared_key is None else shared_key
        is_right = _equal(digest, _digest(salt, raw_hostname, self._nonce, key))
        if not is_right or entry is None or shared_key is None:
            cause, what = self._why_no_key(entry)
            return self._rejected(
                _WRONG_KEY, consumed, cause, f"hostname {hostname!r:.100}: {what}", name=hostname
            )
        password = b""
        if self._security.users:
            known = self._security.users.get(user)
            password = secrets.token_bytes(_NONCE_BYTES) if known is None else known
            is_right = _equal(password_digest, _digest(self._salt, raw_user, password))
            if known is None or not is_right or not (entry.users is None or user in entry.users):
                cause, what = _why_no_login(user, is_known=known is not None, is_right=is_right)
                detail = f"hostname {hostname!r:.100}: {what}"
                return self._rejected(_WRONG_USER, consumed, cause, detail, name=f"{user}@{hostname}")
        admitted = Admitted(hostname, user if self._security.users else None, shared_key, password)
        return Verdict(self._pong(raw_hostname, salt, shared_key), consumed, admitted, "")

    def _why_no_key(self, entry: ClientEntry | None) -> tuple[str, str]:
        """Cause and detail for a client whose digest does not prove a key that it must have."""
        if entry is not None:
            return "wrong key", "it has another shared key"
        if not self._security.takes_forward:
            return "no key", self._security.why_no_forward
        return "no client entry", "no [[client]] lets it in from there"

    def _pong(self, raw_hostname: bytes, salt: bytes, shared_key: bytes) -> bytes:
        ours = self._security.hostname
        if ours.encode() == raw_hostname:
            ours += ".windvane"  # clients take their own name in PONG for a loop, and leave
        proof = _digest(salt, ours.encode(), self._nonce, shared_key).decode()
        return _pack(["PONG", True, "", ours, proof])

    def _rejected(self, reason: str, consumed: int, cause: str, detail: str, *, name: str = "") -> Verdict:
        pong = _pack(["PONG", False, reason, "", ""])
        return Verdict(pong, consumed, None, detail, cause, name[:_MAX_NAME_CHARACTERS])


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a client of ours shows: the shared key, and a user where the receiver has users."""

    shared_key: bytes = field(repr=False)
    user: str = ""
    password: bytes = field(default=b"", repr=False)
    hostname: str = field(kw_only=True)
    """What the client calls itself."""


class ClientHandshake:
    """The sender's end, for one connection: HELO in, PING out, PONG in."""

    def __init__(self, credentials: ClientCredentials) -> None:
        self._credentials = credentials
        self._salt = secrets.token_hex(_NONCE_BYTES).encode()
        self._received = b""
        self._nonce: bytes | None = None
        self.done = False

    def receive(self, data: bytes) -> bytes:
        """Takes what came; gives what is to be sent (nothing, mostly). Raises HandshakeFailed."""
        self._received += data
        try:
            message, consumed = _first_message(self._received)
        except ValueError:
            raise HandshakeFailed(
                "the answer is not a handshake; is this a forward port, and does it use TLS?"
            ) from None
        if message is None:
            return b""
        self._received = self._received[consumed:]
        if self._nonce is None:
            return self._ping(message)
        self._check_pong(message, self._nonce)
        self.done = True
        return b""

    def left_over(self) -> bytes:
        """What came behind PONG."""
        return self._received

    def _ping(self, helo: object) -> bytes:
        options = helo[1] if isinstance(helo, list) and len(helo) == 2 and helo[0] == b"HELO" else None
        nonce = options.get(b"nonce") if isinstance(options, dict) else None
        auth = options.get(b"auth", b"") if isinstance(options, dict) else None
        if not isinstance(nonce, bytes) or not isinstance(auth, bytes):
            raise HandshakeFailed("the receiver does not begin with a handshake; send without a shared key")
        mine = self._credentials
        if auth and not mine.user:
            raise HandshakeFailed("the receiver asks for a user and a password")
        self._nonce = nonce
        hostname, user = mine.hostname.encode(), mine.user.encode() if auth else b""
        proof = _digest(self._salt, hostname, nonce, mine.shared_key)
        login = _digest(auth, user, mine.password) if auth else b""
        return _pack(
            ["PING", mine.hostname, self._salt.decode(), proof.decode(), user.decode(), login.decode()]
        )

    def _check_pong(self, pong: object, nonce: bytes) -> None:
        if not (isinstance(pong, list) and len(pong) == 5 and pong[0] == b"PONG"):
            raise HandshakeFailed("the receiver does not answer with PONG; is this a forward port?")
        _, accepted, reason, hostname, digest = pong
        if accepted is not True:
            why = _text(reason) if isinstance(reason, bytes) else ""
            raise HandshakeFailed(f"the receiver does not let us in: {why or 'no reason given'}")
        mine = self._credentials
        if hostname == mine.hostname.encode():
            raise HandshakeFailed(
                f"the receiver calls itself {mine.hostname}, as we do; send under another name"
            )
        right = isinstance(hostname, bytes) and isinstance(digest, bytes)
        if not right or not _equal(digest, _digest(self._salt, hostname, nonce, mine.shared_key)):
            raise HandshakeFailed("the receiver does not know the shared key; is it the right one?")


def _first_message(data: bytes | bytearray | memoryview) -> tuple[object, int]:
    """The first value in `data` and its end; (None, 0) if it is incomplete. Raises ValueError."""
    if data and data[0] >> 4 != 0x9:
        raise ValueError("a handshake message is a short array")
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=MAX_HANDSHAKE_BYTES)
    unpacker.feed(data[:MAX_HANDSHAKE_BYTES])
    try:
        return unpacker.unpack(), unpacker.tell()
    except msgpack.OutOfData:
        if len(data) >= MAX_HANDSHAKE_BYTES:
            raise ValueError("a handshake message is shorter") from None
        return None, 0
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _about_no_ping(begun: bytes) -> tuple[str, str]:
    """Cause and detail for a client whose first bytes are not a PING.

    >>> _about_no_ping(b"\\x93\\xa7turbine")[0]
    'no handshake'
    >>> _about_no_ping(b"GET / HTTP/1.1")[0]
    'HTTP'
    """
    if begun[:2] == b"\x16\x03":
        return "TLS", (
            "it speaks TLS, which this port does not; set gateway.tls_cert_file and tls_key_file, or turn "
            "TLS off in the sender"
        )
    if begun[:1] and begun[0] in FIRST_BYTES:
        return "no handshake", (
            "it sent JSON without a handshake; this port asks for one with the shared key, which JSON does "
            "not have: send msgpack, or over HTTP"
        )
    if begun[:8].partition(b" ")[0] in _HTTP_METHODS:
        return "HTTP", "it speaks HTTP, which the web port takes and not the forward port"
    if begun[:6] == b"\x96\xa4PING":
        return "bad PING", "its PING is not well-formed, or too long; check the sender"
    # An array that is too short for a PING: a message, with which a forwarder without a key begins at once.
    if begun[:1] and 0x92 <= begun[0] <= 0x94:
        return "no handshake", (
            "it sent a message without a handshake; give it the shared key (fluentd: <security>, Fluent Bit: "
            "shared_key and self_hostname)"
        )
    return "not forward", "what it sent is not the forward protocol; check the sender"


def _why_no_login(user: str, *, is_known: bool, is_right: bool) -> tuple[str, str]:
    """Cause and detail for a client whose user may not log in."""
    if not user:
        return "no user", "it gives no user; set username and password in the sender"
    if not is_known:
        return "unknown user", f"there is no user {user!r:.100}"
    if not is_right:
        return "wrong password", f"user {user!r:.100} has another password"
    return "user not allowed", f"user {user!r:.100} may not log in from there"


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha512(b"".join(parts)).hexdigest().encode()


def _equal(theirs: bytes, ours: bytes) -> bool:
    return hmac.compare_digest(theirs, ours)


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _pack(message: list[object]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed
