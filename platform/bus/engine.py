"""Opening a bus by its URL: the interface that a package implements to add an engine.

A package registers its engine under the scheme of its URLs, as Windvane does for its own (pyproject.toml):

    [project.entry-points."windvane.buses"]
    memory = "windvane_memory_bus:MemoryEngine"
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from ..config import KafkaSettings
from ..engine_addresses import EngineAddress
from .interface import Bus
from .topic_setup import TopicAdmin, TopicsWithoutSettings


class BusAddress(EngineAddress, frozen=True):
    """The address of a bus: its URL, the home directory of the installation, the settings of `[kafka]`."""

    kind: ClassVar[str] = "bus"

    kafka: KafkaSettings


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
