"""Options that several commands share, and how they become `Settings`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from ...addresses import DEFAULT_FORWARD, DEFAULT_WEB
from ...config import LogFormat
from .homes import IfMissing, settings_for

Command = TypeVar("Command", bound=Callable[..., Any])

_HOME = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory that holds everything.  [default: $WINDVANE_HOME or ~/.local/share/windvane; if that is "
    "missing, the home over which your Windvane runs]",
)
_CONFIG = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file.  [default: HOME/windvane.toml, if it exists]",
)
_LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    help="Format of the log lines: text, or a JSON object each.  [default: console]",
)
_FLAGS = {
    "forward": ("HOST:PORT", f"Forward port.  [default: {DEFAULT_FORWARD}]"),
    "web": ("HOST:PORT", f"Web port.  [default: {DEFAULT_WEB}]"),
    "bus": ("URL", "The log between the tiers.  [default: embedded:]"),
    "store": ("URL", "Where data streams and data arrays are kept.  [default: local:, in the home]"),
    "instance": (
        "NAME",
        "Tells several gateways, or several workers, over one home apart; each has its own.  [default: none]",
    ),
    "database": (
        "URL",
        "postgresql://… for checkpoints, dead letters and catalog.  [default: SQLite in the home directory]",
    ),
    "catalog": ("URL", "SQLAlchemy URL of the catalog alone.  [default: that of --database]"),
}


def home_options(command: Command) -> Command:
    """Give the command --home and --config, and call it with `settings`; it needs a home that is there."""
    return _with_settings(command, flags=(), if_missing="fail")


def home_options_of(*, if_missing: IfMissing) -> Callable[[Command], Command]:
    """`home_options` for a command that does something else if the default home is missing."""
    return functools.partial(_with_settings, flags=(), if_missing=if_missing)


def tier_options(*meant: str, if_missing: IfMissing = "fail") -> Callable[[Command], Command]:
    """Give the command the settings of the tiers, and call it with `settings`.

    The help shows those that are `meant` for it; the others are taken too, since `up` gives every child the
    same command line. `if_missing`: what it does if the default home is missing.
    """

    def decorate(command: Command) -> Command:
        wrapped = _with_settings(command, flags=(*_FLAGS, "log_format"), if_missing=if_missing)
        wrapped = _LOG_FORMAT(wrapped)
        for name, (metavar, text) in reversed(_FLAGS.items()):
            wrapped = click.option(f"--{name}", metavar=metavar, help=text, hidden=name not in meant)(wrapped)
        return wrapped

    return decorate


def _with_settings(command: Command, *, flags: tuple[str, ...], if_missing: IfMissing) -> Command:
    @_HOME
    @_CONFIG
    @functools.wraps(command)
    def with_settings(home: Path | None, config: Path | None, **given: Any) -> Any:
        chosen = {name: given.pop(name) for name in flags}
        settings = settings_for(home=home, config=config, flags=chosen, if_missing=if_missing)
        return command(settings=settings, **given)

    return with_settings  # type: ignore[return-value]
