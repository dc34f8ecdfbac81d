"""Which home a command works on, and what it says if that is not the one that the user may think of.

`--home`, `WINDVANE_HOME` and `home` in a file given by `--config` name one. Without them it is the default
home, if it is there. If it is missing, it is the home over which this user's Windvane runs, if that is one
alone; else a command that starts a tier makes the default home, and any other command says what to do.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ...config import Settings, default_home, load_settings
from ...errors import HomeNotFound
from ...home import require_whole_home
from ...runtime.installations import is_same_home, listener_uid, running_homes
from .logs import say, say_in

IfMissing: TypeAlias = Literal["fail", "create", "ignore"]
"""What a command does if the default home is missing and nothing runs: fail, create the home when it starts,
or ignore it, because the command needs none."""


def settings_for(
    *,
    home: Path | None,
    config: Path | None,
    flags: Mapping[str, Any],
    if_missing: IfMissing,
) -> Settings:
    """The settings of the home that is meant. Raises `ConfigInvalid` and `HomeNotFound`."""
    settings = load_settings(home=home, config=config, flags=flags)
    require_whole_home(settings.home)
    if "log_format" in flags:
        say_in(settings.log_format)
    default = default_home().absolute()
    if home is not None or os.environ.get("WINDVANE_HOME") or settings.home != default:
        return settings
    running = running_homes()
    if any(is_same_home(each, default) for each in running):
        return settings
    if not is_missing(default):
        if running:
            say(
                f"working on {default}, the default home, over which nothing runs; Windvane runs over "
                f"{_list(running)}: --home names another home"
            )
        return settings
    if if_missing == "create":
        if running:
            say(f"creating the home {default}; Windvane also runs over {_list(running)}")
        return settings
    if len(running) == 1:
        say(f"working on {running[0]}, over which Windvane runs; the default home {default} does not exist")
        return load_settings(home=running[0], config=config, flags=flags)
    if if_missing == "fail" and not settings.has_catalog_elsewhere:
        require_default_home(settings)
    return settings


def require_default_home(settings: Settings) -> None:
    """Raises `HomeNotFound`, with what to do, if the home is missing and was not named by the user."""
    default = default_home().absolute()
    if settings.home != default or os.environ.get("WINDVANE_HOME") or not is_missing(default):
        return
    running = running_homes()
    if running:
        raise HomeNotFound(
            f"there is no home directory {default}, the default; Windvane runs over {_list(running)}: name "
            "one of them with --home"
        )
    if listener_uid(settings.forward) == os.geteuid():
        raise HomeNotFound(
            f"there is no home directory {default}, the default, and a process of this user listens at "
            f"{settings.forward}; if that is Windvane, name its home with --home, else start one with "
            "`windvane up`"
        )
    raise HomeNotFound(
        f"there is no home directory {default}, the default, and no Windvane of this user runs; start one "
        "with `windvane up`, or name a home with --home"
    )


def is_missing(home: Path) -> bool:
    """Whether the directory does not exist, or is empty."""
    try:
        return next(home.iterdir(), None) is None
    except FileNotFoundError:
        return True
    except OSError:  # it exists; the error is reported when it is used
        return False


def _list(homes: Sequence[Path]) -> str:
    return " and ".join(map(str, homes))
