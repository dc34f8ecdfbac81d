"""How a bus is opened by its URL: what an engine adds to `Bus`, so that a package can bring one.

A package registers its engine under the scheme of its URLs, as Windvane registers its own (pyproject.toml):

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
from .topic_setup import EmbeddedTopics, TopicAdmin


class BusAddress(msgspec.Struct, frozen=True):
    """Where a bus is: its URL, the home directory of the installation, and the settings of `[kafka]`."""

    url: str
    home: Path
    kafka: KafkaSettings

    @property
    def scheme(self) -> str:
        """What is ahead of the colon: the name of the engine."""
        return urlsplit(self.url).scheme

    @property
    def place(self) -> str:
        """What is between the scheme and the options, without slashes at its ends."""
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path}".strip("/")

    def options(self, *allowed: str) -> dict[str, str]:
        """What is behind the question mark: `name=value&name=value`. Raises ConfigInvalid for other names."""
        options = dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))
        for name in options:
            if name not in allowed:
                raise ConfigInvalid(
                    f"the bus {self.url!r} has no option {name!r}; it takes {', '.join(allowed) or 'none'}"
                )
        return options


class BusEngine(ABC):
    """Opens the buses of one URL scheme. Made without arguments, and keeps nothing."""

    takes_many_gateways: ClassVar[bool] = True
    """Whether several processes may publish to one bus at once."""

    @abstractmethod
    def open_bus(self, address: BusAddress) -> Bus:
        """The bus at this address; connecting is left to its methods. Raises ConfigInvalid."""

    def open_topics(self, address: BusAddress) -> TopicAdmin:
        """The administration of its topics; by default they have partitions, and no settings of their own."""
        return EmbeddedTopics(self.open_bus(address))
