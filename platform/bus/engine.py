"""Opening a bus by its URL: the interface that a package implements to add an engine.

A package registers its engine under the scheme of its URLs, as Windvane does for its own (pyproject.toml):

    [project.entry-points."windvane.buses"]
    memory = "windvane_memory_bus:MemoryEngine"
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..config import KafkaSettings
from ..errors import ConfigInvalid
from .interface import Bus
from .topic_setup import TopicAdmin, TopicsWithoutSettings


class BusAddress(msgspec.Struct, frozen=True):
    """The address of a bus: its URL, the home directory of the installation, the settings of `[kafka]`."""

    url: str
    home: Path
    kafka: KafkaSettings

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
                    f"the bus {self.url!r} has no option {name!r}; it takes {', '.join(allowed) or 'none'}"
                )
        return options


class BusEngine(ABC):
    """Opens the buses of one URL scheme. Constructed without arguments, and stateless."""

    takes_many_gateways: ClassVar[bool] = True
    """Whether several processes may publish to one bus at once."""

    @abstractmethod
    def open_bus(self, address: BusAddress) -> Bus:
        """The bus at this address; its methods connect when needed. Raises ConfigInvalid."""

    def open_topics(self, address: BusAddress) -> TopicAdmin:
        """The administration of its topics; by default a topic has partitions but no settings."""
        return TopicsWithoutSettings(self.open_bus(address))
