"""URLs that select an engine, of a bus or of a store: `SCHEME:PLACE?OPTION=VALUE&OPTION=VALUE`."""

from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from .errors import ConfigInvalid


class EngineAddress(msgspec.Struct, frozen=True):
    """A URL and the home directory of the installation. Subclasses are for one kind of engine."""

    kind: ClassVar[str] = "engine"
    """What is at the address, for messages."""

    url: str
    home: Path

    @property
    def scheme(self) -> str:
        """The part before the colon: the name of the engine."""
        return urlsplit(self.url).scheme

    @property
    def place(self) -> str:
        """The part between the scheme and the options, without leading and trailing slashes."""
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path}".strip("/")

    def options(self, *allowed: str) -> dict[str, str]:
        """The part after the question mark: `name=value&name=value`. Raises ConfigInvalid for other names."""
        options = dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))
        for name in options:
            if name not in allowed:
                raise ConfigInvalid(
                    f"the {self.kind} {self.url!r} has no option {name!r}; it takes "
                    f"{', '.join(allowed) or 'none'}"
                )
        return options

    def require_no_place(self) -> None:
        """Raise ConfigInvalid if there is anything between the scheme and the options."""
        if self.place:
            raise ConfigInvalid(f"{self.url!r} is not a valid {self.kind} URL; write {self.scheme}:")
