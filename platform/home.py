"""Creates the home directory, HOME/run and the access token, for this user alone."""

import os
import secrets
from pathlib import Path

from .config import Settings
from .directories import make_directory
from .errors import ConfigInvalid

UNFINISHED_RESTORE = "restore-unfinished"
"""Exists in a home from before the first file of a restore until after the last one is durable."""


def require_whole_home(home: Path) -> None:
    """Raise `ConfigInvalid` if a restore of this home did not finish."""
    if (home / UNFINISHED_RESTORE).exists():
        raise ConfigInvalid(
            f"{home} has part of a backup: `windvane restore` was interrupted. Wait if it still runs; "
            "otherwise remove everything in this directory, then restore into it"
        )


def ensure_token(settings: Settings) -> str:
    """The web tier's access token, created by the first call; readable by this user alone."""
    path = settings.token_file
    make_home(settings)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    while not path.exists() or not path.read_text().strip():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        # A link fails if another process was faster, so that every process has the same token.
        try:
            os.link(draft, path)
        except FileExistsError:
            if not path.read_text().strip():
                os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    return path.read_text().strip()


def make_home(settings: Settings) -> Path:
    """Create the home directory if it does not exist, for this user alone.

    Its databases have the received data. The tiers restrict the permissions of an existing home
    (`home_modes.secure_home`). Raises `ConfigInvalid`, also for a home that is not whole.
    """
    home = settings.home
    require_whole_home(home)
    try:
        make_directory(home, mode=int(settings.home_mode or "700", 8))
    except OSError as error:
        raise ConfigInvalid(
            f"{home} cannot be created: {error.strerror or error}; give --home a folder that you can write to"
        ) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise ConfigInvalid(f"{home} is not writable; give --home a folder that you can write to")
    return home


def make_run_dir(settings: Settings) -> Path:
    """Create HOME/run; only this user may enter it, since its sockets require no credentials.

    Raises `ConfigInvalid`.
    """
    make_home(settings)
    try:
        settings.run_dir.mkdir(exist_ok=True)
        settings.run_dir.chmod(0o700)
    except OSError as error:
        raise ConfigInvalid(
            f"{settings.run_dir} cannot be made: {error.strerror or error}; "
            "give --home a folder that you can write to"
        ) from error
    return settings.run_dir
