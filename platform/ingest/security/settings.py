"""Who may connect to the forward port: shared keys, users and client networks, in a file of their own.

The protocol's digests are made of the secrets themselves, so they cannot be stored hashed. They are in
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

`forward_secrets` says how a client is looked up. Without any shared key the file is for HTTP alone, and the
forward port stays shut; so it does while the file cannot be used. docs/forward-security.toml is an example.
"""

import ipaddress
import os
import re
import socket
import stat
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ...addresses import is_loopback, parse_address
from ...config import Settings
from ...errors import ConfigInvalid, WindvaneError
from ...toml_lines import explain_toml_error, line_of
from .secrets import LOCAL_USER, ClientEntry, ForwardSecurity, Network, parse_peer

__all__ = [
    "LOCAL_USER",
    "ForwardSecurity",
    "SecurityFile",
    "load_security",
    "parse_peer",
    "parse_security",
    "require_guarded_port",
    "why_forward_is_shut",
]

MAX_FILE_BYTES = 1024 * 1024
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


def load_security(path: Path) -> ForwardSecurity | None:
    """Reads the file; None if it does not exist. Raises ConfigInvalid, which never contains a secret."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigInvalid(f"{path}: is not a file")
            mode = stat.S_IMODE(status.st_mode)
            if mode not in (0o600, 0o400):
                raise ConfigInvalid(
                    f"{path}: has mode {mode:04o}, so others than its owner can read its secrets; "
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
        return parse_security(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid(f"{path}: line {line}: is not UTF-8") from None
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{path}: {error}") from None


def parse_security(text: str) -> ForwardSecurity:
    """The secrets in `text` (TOML). Raises ConfigInvalid, which names line and place, and shows no secret."""
    text = text.replace("\r\n", "\n")
    try:
        written = msgspec.convert(tomllib.loads(text), _File)
        return _checked(written, first_table_line=_first_table_line(text))
    except tomllib.TOMLDecodeError as error:
        line, reason = explain_toml_error(text, error)
        raise ConfigInvalid(f"line {line}: is not valid TOML: {reason}") from None
    except msgspec.ValidationError as error:
        what, place = _words_of(error)
        path: tuple[str | int, ...] = tuple(_steps(place))
        if unknown := _UNKNOWN_FIELD.match(what):
            path = (*path, unknown[1])
        wrong = _Wrong(path, f"{what[0].lower()}{what[1:]}", place=place)
    except _Wrong as error:
        wrong = error
    line_number = line_of(text, wrong.path)
    where = "" if line_number is None else f"line {line_number}: "
    raise ConfigInvalid(f"{where}{wrong}")


class _Wrong(ValueError):
    """What is wrong at `path` of the file; the message begins with that place."""

    def __init__(self, path: Sequence[str | int], message: str, *, place: str | None = None) -> None:
        if place is None:
            place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
        super().__init__(f"{place or 'the file'}: {message}")
        self.path = path


_UNKNOWN_FIELD = re.compile("Object contains unknown field `(.*)`$", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_TABLE = re.compile(r"^\s*\[", re.MULTILINE)


def _words_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec says, and at which place: `user[0].password`, "" for the whole."""
    what, _, where = str(error).partition(" - at `$")
    return what, where.rstrip("`").lstrip(".")


def _steps(place: str) -> Iterator[str | int]:
    for key, position in _STEP.findall(place):
        yield key or int(position)


def _first_table_line(text: str) -> int:
    """The line above which keys of the whole file belong (after the last line if there is no table)."""
    table = _TABLE.search(text)
    return text.count("\n", 0, table.end() if table else len(text)) + 1


def _checked(written: "_File", *, first_table_line: int) -> ForwardSecurity:
    """What the file says, if its parts fit together. Raises _Wrong."""
    users = {user.name: user.password.encode() for user in written.user}
    tokens = {token.name: token.token.encode() for token in written.token}
    known: set[str] = set()
    names = [(("user", number, "name"), user.name) for number, user in enumerate(written.user)]
    names += [(("token", number, "name"), token.name) for number, token in enumerate(written.token)]
    for place, name in names:
        if name in known:
            raise _Wrong(place, f"{name!r} is there twice; give each user and each token a name of its own")
        if name.startswith(LOCAL_USER):
            raise _Wrong(place, f"{name!r} is the name of a user of this machine; give it another")
        known.add(name)
    shown: set[str] = set()
    for number, token in enumerate(written.token):
        if token.token in shown:
            raise _Wrong(("token", number, "token"), "is equal to another; make one for each name")
        shown.add(token.token)
    common = None if written.shared_key is None else written.shared_key.encode()
    clients = tuple(_entry(number, client, common, known) for number, client in enumerate(written.client))
    if common is None and not clients and not known:
        raise _Wrong(
            (),
            "has neither shared_key nor [[client]], [[user]] or [[token]], so no client could connect; add "
            'shared_key = "…"',
        )
    if not users:
        keys: list[tuple[tuple[str | int, ...], bytes | None]] = [(("shared_key",), common)]
        keys += [(("client", n, "shared_key"), each.shared_key) for n, each in enumerate(clients)]
        for path, key in keys:
            if key == b"":
                raise _Wrong(path, "is empty, which is allowed only if every client logs in as a user")
    return ForwardSecurity(
        hostname=written.hostname or socket.gethostname() or "windvane",
        shared_key=common if written.others else None,
        users=users,
        clients=clients,
        others=written.others,
        tokens=tokens,
        first_table_line=first_table_line,
    )


def _entry(number: int, client: "_Client", common: bytes | None, known: set[str]) -> ClientEntry:
    place = ("client", number)
    if client.hostname is None and not client.networks:
        raise _Wrong(place, "names neither a hostname nor networks, so it matches no client")
    networks: list[Network] = []
    for text in client.networks:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise _Wrong(
                (*place, "networks"),
                f"{error}; write an address or a network, for example 10.7.0.0/16",
            ) from None
    key = common if client.shared_key is None else client.shared_key.encode()
    # Over HTTP a sender says no hostname and shows no shared key: there networks alone are enough.
    if key is None and (client.hostname is not None or not known):
        raise _Wrong(place, "has no shared_key, and there is no common one; write one of them")
    for name in client.users or ():
        if name not in known:
            raise _Wrong((*place, "users"), f"there is no [[user]] or [[token]] with the name {name!r}")
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

    The secrets in force stay in force if the file becomes invalid or disappears: a mistake in it, or a moment
    without it, never opens the port. If the file is invalid from the start, the port stays shut until it is
    corrected. `on_broken` is called once for each state of an invalid file, `on_repaired` when the file is
    valid again.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_broken: Callable[[WindvaneError], None],
        on_repaired: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path
        self._on_broken, self._on_repaired = on_broken, on_repaired
        self._stamp: tuple[int, ...] | None = _NEVER
        self._broken_stamp: tuple[int, ...] | None = _NEVER
        self._broken: ConfigInvalid | None = None
        self.current: ForwardSecurity | None = None
        self.is_known = False
        """Whether the file was ever valid or absent; until then no client is admitted."""
        self.refresh()

    @property
    def why_shut(self) -> str | None:
        """Why the forward port has to stay shut; None: it may be open."""
        if not self.is_known:
            return str(self._broken)
        if self.current is not None and not self.current.takes_forward:
            return f"{self._path}: {self.current.why_no_forward}"
        return None

    def refresh(self) -> bool:
        """Looks whether the file has changed; True: so has what is in force."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            self._repaired()  # it is again as it was before a mistake
            return False
        if stamp == self._broken_stamp:
            return False
        before, was_known = self.current, self.is_known
        try:
            loaded = load_security(self._path)
            if loaded is None and (before is not None or self._broken is not None):
                raise ConfigInvalid(f"{self._path}: is gone; to open the port, end the gateway and start it")
        except ConfigInvalid as error:
            self._broken_stamp, self._broken = stamp, error
            rest = (
                "what was in force stays in force"
                if was_known
                else "the forward port stays shut, and HTTP logins fail, until it is corrected; that needs "
                "no restart"
            )
            self._on_broken(ConfigInvalid(f"{error}. {rest[0].upper()}{rest[1:]}"))
            return False
        self._stamp, self.current, self.is_known = stamp, loaded, True
        self._repaired()
        return loaded != before or not was_known

    def _repaired(self) -> None:
        if self._broken is not None:
            self._broken, self._broken_stamp = None, _NEVER
            self._on_repaired()


_NEVER = (-1,)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def require_guarded_port(settings: Settings) -> None:
    """Rejects a forward port that is reachable from other hosts and requires no credentials.

    A handshake (shared key, users) or client certificates make such a port safe. If the file of secrets is
    invalid, the port stays shut, so no error is necessary. Raises ConfigInvalid.
    """
    host, _ = parse_address(settings.forward)
    if is_loopback(host) or settings.gateway.tls_client_ca_file is not None:
        return
    try:
        if load_security(settings.forward_security_file) is not None:
            return
    except ConfigInvalid:
        return
    raise ConfigInvalid(
        f"the forward port cannot be opened at {settings.forward}: it requires no credentials, so any "
        f"host that reaches it could send; write a shared key into {settings.forward_security_file}, or "
        "set gateway.tls_client_ca_file (with tls_cert_file and tls_key_file), or use 127.0.0.1 or [::1]"
    )


def why_forward_is_shut(settings: Settings) -> str | None:
    """Why a gateway that starts now keeps its forward port shut; None: it does not."""
    try:
        found = load_security(settings.forward_security_file)
    except ConfigInvalid as error:
        return str(error)
    if found is None or found.takes_forward:
        return None
    return f"{settings.forward_security_file}: {found.why_no_forward}"
