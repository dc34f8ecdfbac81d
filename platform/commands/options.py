"""Options that several commands share, and how they become `Settings`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..config import load_settings

Command = TypeVar("Command", bound=Callable[..., Any])

_HOME = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory that holds everything.  [default: $WINDVANE_HOME or ~/.local/share/windvane]",
)
_CONFIG = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file.  [default: HOME/windvane.toml, where there is one]",
)
_ADDRESSES = (
    click.option("--forward", metavar="HOST:PORT", help="Forward port.  [default: 127.0.0.1:24224]"),
    click.option("--web", metavar="HOST:PORT", help="Web port.  [default: 127.0.0.1:8080]"),
    click.option("--bus", metavar="URL", help="The log between the tiers.  [default: embedded:]"),
    click.option("--catalog", metavar="URL", help="SQLAlchemy URL.  [default: SQLite in the home directory]"),
)


def home_options(command: Command) -> Command:
    """Give the command --home and --config, and call it with `settings`."""
    return _with_settings(command, flags=())


def tier_options(command: Command) -> Command:
    """Give the command every setting that a tier takes, and call it with `settings`."""
    wrapped = _with_settings(command, flags=("forward", "web", "bus", "catalog"))
    for option in reversed(_ADDRESSES):
        wrapped = option(wrapped)
    return wrapped


def _with_settings(command: Command, *, flags: tuple[str, ...]) -> Command:
    @_HOME
    @_CONFIG
    @functools.wraps(command)
    def with_settings(home: Path | None, config: Path | None, **given: Any) -> Any:
        chosen = {name: given.pop(name) for name in flags}
        return command(settings=load_settings(home=home, config=config, flags=chosen), **given)

    return with_settings  # type: ignore[return-value]
