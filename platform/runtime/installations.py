"""Which installations of this user run on this machine, and whose server listens at an address.

A command without `--home` shall not work on one home while the user's server runs over another. So each tier
keeps a file PID.json in directories of its user, for as long as it runs: `windvane` in $XDG_RUNTIME_DIR, else
in /run/user/UID; `windvane-UID` in $TMPDIR, else /tmp; ~/.local/state/windvane/running. There are three,
because a service, a login and a `sudo` have different environments; a command looks in each. What a cleaner
of temporary files has removed is written again.

A directory is used only if it belongs to this user and others cannot write to it: what it says is as
trustworthy as the user's own files, and a server of another user is never found by it.
"""

import ipaddress
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ..addresses import is_loopback, parse_address
from ..errors import ConfigInvalid
from .announcements import read_announcement, tier_sockets
from .supervision import process_start

RENEW_S = 30.0
"""How often a tier looks whether its notes are still there."""
_CONNECT_TIMEOUT_S = 1.0
_OTHERS_WRITE = 0o022
_LISTENS = "0A"


class _Running(msgspec.Struct, frozen=True):
    """A process that runs over `home`; `started` (clock ticks since boot) tells it from a later PID."""

    home: str
    tier: str
    started: int


@contextmanager
def noted_as_running(home: Path, tier: str) -> Iterator[None]:
    """Let commands of this user find `home` while the block runs. Does nothing if there is no safe place."""
    note = msgspec.json.encode(_Running(str(home), tier, process_start(os.getpid()) or 0))
    for directory in _directories(make=True):
        with suppress(OSError):
            _remove_stale(directory)
    _write_missing(note)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(note, ended), name="running note", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        for directory in _directories(make=False):
            with suppress(OSError):
                _own_note(directory).unlink(missing_ok=True)


def running_homes() -> list[Path]:
    """The homes over which tiers of this user run now, sorted."""
    found: set[Path] = set()
    for directory in _directories(make=False):
        with suppress(OSError):
            found.update(Path(note.home) for _, note in _notes(directory) if note is not None)
    return sorted(found)


def is_served(home: Path) -> bool:
    """Whether a tier runs over `home`, or a gateway of it answers (one of another user can)."""
    if any(is_same_home(each, home) for each in running_homes()):
        return True
    for path in tier_sockets(home / "run", "gateway").values():
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_CONNECT_TIMEOUT_S)
            connection.connect(str(path))
            return True
    return False


def is_same_home(one: Path, other: Path) -> bool:
    """Whether two paths name one home, also by way of a link."""
    if one == other:
        return True
    try:
        return one.samefile(other)
    except OSError:
        return False


def home_of_gateway(address: str) -> Path | None:
    """The home of this user's gateway that listens at HOST:PORT; None if none of them does."""
    for home in running_homes():
        for path in sorted((home / "run").glob("gateway*.json")):
            announced = (read_announcement(path) or {}).get("forward")
            if announced is not None and _is_same_place(address, announced):
                return home
    return None


def listener_uid(address: str) -> int | None:
    """The user whose process listens at HOST:PORT on loopback; None if none does, or it is elsewhere."""
    host, port = parse_address(address)
    if not is_loopback(host):
        return None
    wanted = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    if host.lower() != "localhost":
        wanted = {ipaddress.ip_address(host)}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
            for fields in map(str.split, lines):
                local_host, _, local_port = fields[1].partition(":")
                if fields[3] != _LISTENS or int(local_port, 16) != port:
                    continue
                if (bound := _from_kernel(local_host)) in wanted or bound.is_unspecified:
                    return int(fields[7])
    return None


def _from_kernel(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as /proc/net/tcp has it: words of four bytes in the order of the machine."""
    words = [int(text[first : first + 8], 16).to_bytes(4, "little") for first in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped


def _is_same_place(address: str, announced: str) -> bool:
    if address == announced:
        return True
    try:
        (host, port), (announced_host, announced_port) = parse_address(address), parse_address(announced)
    except ConfigInvalid:
        return False
    is_everywhere = announced_host in ("0.0.0.0", "::")
    return port == announced_port and is_loopback(host) and (is_everywhere or is_loopback(announced_host))


def _renew(note: bytes, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        _write_missing(note)


def _write_missing(note: bytes) -> None:
    for directory in _directories(make=True):
        path = _own_note(directory)
        with suppress(OSError):
            if not path.exists():
                _write(path, note)


def _own_note(directory: Path) -> Path:
    return directory / f"{os.getpid()}.json"


def _directories(*, make: bool) -> list[Path]:
    """The directories of the notes to which only this user can write; with `make` they are made."""
    user = os.geteuid()
    candidates = [Path(os.environ.get("TMPDIR") or "/tmp") / f"windvane-{user}"]
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}"):
        if parent and _is_own(Path(parent)):
            candidates.insert(0, Path(parent) / "windvane")
            break
    with suppress(OSError, RuntimeError):  # no such user
        own = Path.home()
        # `sudo` may keep $HOME: nothing of root is made in there.
        if own.stat().st_uid == user:
            candidates.append(own / ".local" / "state" / "windvane" / "running")
    if make:
        for directory in candidates:
            with suppress(OSError):
                directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.mkdir(mode=0o700, exist_ok=True)
    return [directory for directory in candidates if _is_own(directory)]


def _is_own(directory: Path) -> bool:
    try:
        status = directory.lstat()
    except OSError:
        return False
    mine = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
    return stat.S_ISDIR(status.st_mode) and mine


def _notes(directory: Path) -> Iterator[tuple[Path, _Running | None]]:
    """What each file says; None if its process has ended."""
    for path in directory.glob("*.json"):
        note = None
        with suppress(OSError, ValueError, msgspec.DecodeError):
            read = msgspec.json.decode(path.read_bytes(), type=_Running)
            if process_start(int(path.stem)) == read.started:
                note = read
        yield path, note


def _remove_stale(directory: Path) -> None:
    for path, note in _notes(directory):
        if note is None:
            path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(draft, path)
