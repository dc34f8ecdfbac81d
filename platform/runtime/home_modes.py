"""The permissions of the home: other users must not read rejected input, states and secrets."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..config import Settings
from ..errors import ConfigInvalid
from ..home import make_home

log = logging.getLogger(__name__)

DEFAULT_HOME_MODE = 0o700
_FILE_BITS = 0o666
_WRITTEN_BY_OTHERS = 0o022
DATABASE_SUFFIXES = (".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal")


def home_mode(settings: Settings) -> int:
    """The most that the home may allow; its databases allow the same to the same users, but no execution."""
    return DEFAULT_HOME_MODE if settings.home_mode is None else int(settings.home_mode, 8)


def secure_home(settings: Settings) -> None:
    """Make the home if there is none, take from it and its databases what `home_mode` does not allow, and set
    the umask of this process so.

    What exists is only ever tightened. Raises ConfigInvalid if the home belongs to another user, unless the
    settings name a `home_mode`, which says that this is meant, or if something cannot be tightened.
    """
    allowed = home_mode(settings)
    home = make_home(settings)
    status = home.stat()
    if status.st_uid != os.geteuid() and settings.home_mode is None:
        raise ConfigInvalid(
            f"{home} belongs to user {status.st_uid}, this process runs as user {os.geteuid()}: that user "
            f"could read rejected input and states. Run as user {status.st_uid}, chown the home, or, if a "
            'shared home is meant, set home_mode (for example home_mode = "0770") in its windvane.toml'
        )
    os.umask(0o777 & ~allowed)
    _tighten(home, allowed)
    for path in databases(home):
        # Whether others could write it stays to be seen: pickles from such a file are not read (`check_own`).
        _tighten(path, allowed & _FILE_BITS | _WRITTEN_BY_OTHERS)


def databases(home: Path) -> Iterator[Path]:
    """The files of the databases in the home, without those that are links to elsewhere."""
    for path in sorted(home.iterdir()):
        if path.name.endswith(DATABASE_SUFFIXES) and not path.is_symlink() and path.is_file():
            yield path


def _tighten(path: Path, allowed: int) -> None:
    try:
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        # Set-group-ID of a shared folder stays.
        tight = mode & (allowed | stat.S_ISGID)
        if tight == mode:
            return
        path.chmod(tight)
    except FileNotFoundError:  # a database's log goes when the last process closes it
        return
    except OSError as error:
        raise ConfigInvalid(
            f"{path} has mode {mode:04o}, so others may use what is in it, and that cannot be changed: "
            f"{error.strerror}; as its owner: chmod {tight:04o} {path}"
        ) from error
    log.warning(
        "%s had mode %04o, which let other users in; it has %04o now (setting home_mode)", path, mode, tight
    )
