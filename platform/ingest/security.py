"""Who may connect to the forward port: shared keys, users and client networks, in a file of their own.

The protocol's digests are made of the secrets themselves, so they cannot be stored hashed. They stand in
HOME/forward-security.toml, which only the service's user may read (mode 0600, or 0400); nothing here ever
puts one into a message, a log line or a repr.

    shared_key = "what every forwarder has in its <security> section"
    others = true                   # false: only the clients below may connect

    [[user]]                        # with users, every forwarder must log in as one of them
    name = "park-north"
    password = "…"

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

import ipaddress
import os
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

    def entry(self, hostname: str, address: Address | None) -> ClientEntry | None:
        """What a client must know; None: it may not connect."""
        named = [entry for entry in self.clients if entry.hostname == hostname]
        if named:
            return max(
                (entry for entry in named if entry.holds(address)),
                key=lambda entry: entry.prefix_bits(address),
                default=None,
            )
        by_network = [e for e in self.clients if e.hostname is None and e.holds(address)]
        if by_network:
            return max(by_network, key=lambda entry: entry.prefix_bits(address))
        if self.shared_key is None:
            return None
        return ClientEntry(hostname=None, networks=(), shared_key=self.shared_key, users=None)


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
    if len(users) != len(written.user):
        names = [user.name for user in written.user]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ConfigInvalid(f"user: {doubled!r} is there twice; give each user one table")
    common = None if written.shared_key is None else written.shared_key.encode()
    clients = tuple(_entry(number, client, common, users) for number, client in enumerate(written.client))
    if common is None and not clients:
        raise ConfigInvalid(
            "has neither shared_key nor [[client]], so nobody could connect; write shared_key, which may be "
            'empty ("") where there are users'
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
    )


def _entry(number: int, client: "_Client", common: bytes | None, users: dict[str, bytes]) -> ClientEntry:
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
        if name not in users:
            raise ConfigInvalid(f"{place}.users: there is no [[user]] with the name {name!r}")
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
