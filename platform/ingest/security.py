"""Who may connect to the forward port: shared keys, users and client networks, in a file of their own.

The protocol's digests are made of the secrets themselves, so they cannot be stored hashed. They stand in
HOME/forward-security.toml, which only the service's user may read (mode 0600, or 0400); nothing here ever
puts one into a message, a log line or a repr.

    shared_key = "what every forwarder has in its <security> section"
    others = true                   # false: only the clients below may connect

    [[user]]                        # with users, every forwarder must log in as one of them
    name = "park-north"
    password = "…"

    [[token]]                       # what a machine shows over HTTP, where users may log in too
    name = "sensor-7"
    token = "…"

    [[client]]                      # a key and limits of its own, by hostname, by network, or both
    hostname = "t07.park.example"
    networks = ["10.7.0.0/16"]
    shared_key = "…"
    users = ["park-north"]

How a client is looked up (`ForwardSecurity.entry`): an entry that names its hostname first, else the entry
with the narrowest network that holds its address, else the common key, if `others` are let in. A hostname
that has an entry of its own must meet it: the common key does not stand in for it. docs/forward-security.toml
is an example.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..config import Settings, is_loopback, parse_address
from ..errors import ConfigInvalid, WindvaneError

MAX_FILE_BYTES = 1024 * 1024
LOCAL_USER = "unix:"
"""How the identities of the Unix socket begin, for which the kernel vouches: nobody else's may."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """What holds for the clients of one `[[client]]` table."""

    hostname: str | None
    networks: tuple[Network, ...]
    shared_key: bytes = field(repr=False)
    users: frozenset[str] | None
    """Who may log in from here; None: every user."""

    def holds(self, address: Address | None) -> bool:
        """Whether a client at `address` may use this entry."""
        return not self.networks or (address is not None and any(address in each for each in self.networks))

    def prefix_bits(self, address: Address | None) -> int:
        """How narrow the narrowest network is that holds `address`; -1 where none does."""
        return max((n.prefixlen for n in self.networks if address is not None and address in n), default=-1)


@dataclass(frozen=True, slots=True)
class ForwardSecurity:
    """The secrets in force. Two with the same content are equal; the repr shows none of them."""

    hostname: str
    """What the gateway calls itself in PONG."""
    shared_key: bytes | None = field(repr=False)
    """For whoever has no entry; None: only clients with an entry are let in."""
    users: dict[str, bytes] = field(repr=False)
    clients: tuple[ClientEntry, ...]
    others: bool = True
    """Whether who has no entry may connect."""
    tokens: dict[str, bytes] = field(repr=False, default_factory=dict)
    """What machines show over HTTP, by their names."""

    @property
    def has_logins(self) -> bool:
        """Whether there is anybody who could log in over HTTP."""
        return bool(self.users or self.tokens)

    def is_password_of(self, user: str, password: bytes) -> bool:
        """Whether it is; takes as long where there is no such user."""
        known = self.users.get(user)
        expected = secrets.token_bytes(32) if known is None else known
        return hmac.compare_digest(_digest(password), _digest(expected)) and known is not None

    def owner_of_token(self, token: bytes) -> str | None:
        """Whose it is; takes as long whether and wherever it is found."""
        found, given = None, _digest(token)
        for name, expected in self.tokens.items():
            if hmac.compare_digest(given, _digest(expected)):
                found = name
        return found

    def lets_in(self, name: str, address: Address | None) -> bool:
        """Whether who has logged in over HTTP, where nobody says a hostname, may do so from there."""
        entry = self._by_network(address)
        return self.others if entry is None else entry.users is None or name in entry.users

    def entry(self, hostname: str, address: Address | None) -> ClientEntry | None:
        """What a client must know; None: it may not connect."""
        named = [entry for entry in self.clients if entry.hostname == hostname]
        if named:
            return max(
                (entry for entry in named if entry.holds(address)),
                key=lambda entry: entry.prefix_bits(address),
                default=None,
            )
        by_network = self._by_network(address)
        if by_network is not None:
            return by_network
        if self.shared_key is None:
            return None
        return ClientEntry(hostname=None, networks=(), shared_key=self.shared_key, users=None)

    def _by_network(self, address: Address | None) -> ClientEntry | None:
        """The entry without a hostname whose network holds `address` most narrowly."""
        by_network = [e for e in self.clients if e.hostname is None and e.holds(address)]
        return max(by_network, key=lambda entry: entry.prefix_bits(address), default=None)


def _digest(secret: bytes) -> bytes:
    """Of one length, so that a comparison says nothing of the secret's."""
    return hashlib.sha256(secret).digest()


def parse_peer(host: str) -> Address | None:
    """A peer's address as an address: without a scope, an IPv4 address in IPv6 as IPv4; None: it is none.

    >>> parse_peer("::ffff:10.7.0.3")
    IPv4Address('10.7.0.3')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def load_security(path: Path) -> ForwardSecurity | None:
    """Reads the file; None where there is none. Raises ConfigInvalid, which never shows a secret."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigInvalid(f"{path}: is no file")
            mode = stat.S_IMODE(status.st_mode)
            if mode not in (0o600, 0o400):
                raise ConfigInvalid(
                    f"{path}: has mode {mode:04o}, which lets others than its owner at the secrets in it; "
                    f"chmod 600 {path}"
                )
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigInvalid(
            f"{path}: cannot be read: {error.strerror}; it must belong to the service's user"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigInvalid(f"{path}: is larger than {MAX_FILE_BYTES} bytes; it holds keys and users only")
    try:
        return parse_security(content.decode())
    except (ConfigInvalid, UnicodeDecodeError) as error:
        reason = error if isinstance(error, ConfigInvalid) else "is no UTF-8"
        raise ConfigInvalid(f"{path}: {reason}") from None


def parse_security(text: str) -> ForwardSecurity:
    """The secrets in `text` (TOML). Raises ConfigInvalid, which names the place and never shows a secret."""
    try:
        written = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.rstrip("`").lstrip(".")
        raise ConfigInvalid(f"{place or 'the file'}: {what[0].lower()}{what[1:]}") from None
    users = {user.name: user.password.encode() for user in written.user}
    tokens = {token.name: token.token.encode() for token in written.token}
    names = [*(user.name for user in written.user), *(token.name for token in written.token)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigInvalid(f"{name!r} is there twice; give each user and each token a name of its own")
        if name.startswith(LOCAL_USER):
            raise ConfigInvalid(f"{name!r} is the name of a user of this machine; give it another")
    if len(set(tokens.values())) != len(tokens):
        raise ConfigInvalid("token: two of them are equal; make one for each name")
    common = None if written.shared_key is None else written.shared_key.encode()
    known = frozenset(names)
    clients = tuple(_entry(number, client, common, known) for number, client in enumerate(written.client))
    if common is None and not clients and not tokens:
        raise ConfigInvalid(
            "has neither shared_key nor [[client]] nor [[token]], so nobody could connect; write shared_key, "
            'which may be empty ("") where there are users'
        )
    if not users and any(not key for key in (common, *(c.shared_key for c in clients)) if key is not None):
        raise ConfigInvalid(
            "shared_key: is empty, which is allowed only where every client logs in as a user"
        )
    return ForwardSecurity(
        hostname=written.hostname or socket.gethostname() or "windvane",
        shared_key=common if written.others else None,
        users=users,
        clients=clients,
        others=written.others,
        tokens=tokens,
    )


def _entry(number: int, client: "_Client", common: bytes | None, known: frozenset[str]) -> ClientEntry:
    place = f"client[{number}]"
    if client.hostname is None and not client.networks:
        raise ConfigInvalid(f"{place}: names neither a hostname nor networks, so it would hold for nobody")
    networks: list[Network] = []
    for text in client.networks:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise ConfigInvalid(
                f"{place}.networks: {error}; write an address or a network, for example 10.7.0.0/16"
            ) from None
    key = common if client.shared_key is None else client.shared_key.encode()
    if key is None:
        raise ConfigInvalid(f"{place}: has no shared_key, and there is no common one; write one of them")
    for name in client.users or ():
        if name not in known:
            raise ConfigInvalid(f"{place}.users: there is no [[user]] or [[token]] with the name {name!r}")
    return ClientEntry(
        hostname=client.hostname,
        networks=tuple(networks),
        shared_key=key,
        users=None if client.users is None else frozenset(client.users),
    )


class _Quiet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}, which holds secrets>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class _User(_Quiet, frozen=True, forbid_unknown_fields=True):
    name: _Name
    password: _Secret


class _Token(_Quiet, frozen=True, forbid_unknown_fields=True):
    name: _Name
    token: Annotated[str, msgspec.Meta(min_length=16, max_length=4096)]


class _Client(_Quiet, frozen=True, forbid_unknown_fields=True):
    hostname: _Name | None = None
    networks: tuple[str, ...] = ()
    shared_key: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    users: tuple[str, ...] | None = None


class _File(_Quiet, frozen=True, forbid_unknown_fields=True):
    hostname: _Name | None = None
    shared_key: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    others: bool = True
    user: tuple[_User, ...] = ()
    token: tuple[_Token, ...] = ()
    client: tuple[_Client, ...] = ()


class SecurityFile:
    """HOME/forward-security.toml while the gateway runs: read again when it changes.

    What was in force stays in force where the file is broken or gone: a mistake in it, or a moment without
    it, never opens the door.
    """

    def __init__(self, path: Path, *, on_broken: Callable[[WindvaneError], None]) -> None:
        """Reads the file. Raises ConfigInvalid."""
        self._path = path
        self._on_broken = on_broken
        self._stamp = _stamp(path)
        self.current = load_security(path)

    def refresh(self) -> bool:
        """Looks whether the file has changed; True: so has what is in force."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        before = self.current
        try:
            loaded = load_security(self._path)
            if loaded is None and before is not None:
                raise ConfigInvalid(f"{self._path}: is gone; to open the port, end the gateway and start it")
        except ConfigInvalid as error:
            self._on_broken(error)  # said again at each look, until it is mended
            return False
        self._stamp, self.current = stamp, loaded
        return loaded != before


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def require_guarded_port(settings: Settings) -> None:
    """Refuses a forward port that others could reach and that asks for no credentials.

    A handshake (shared key, users) or client certificates make it one that may be reached. Raises
    ConfigInvalid.
    """
    host, _ = parse_address(settings.forward)
    if is_loopback(host) or settings.gateway.tls_client_ca_file is not None:
        return
    if load_security(settings.forward_security_file) is None:
        raise ConfigInvalid(
            f"the forward port cannot be opened at {settings.forward}: it asks for no credentials, so "
            f"whoever reaches it could send; write a shared key into {settings.forward_security_file}, or "
            "set gateway.tls_client_ca_file (with tls_cert_file and tls_key_file), or use 127.0.0.1 or [::1]"
        )
