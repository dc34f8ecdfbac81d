"""Windvane's own engines, registered in the entry points `windvane.buses`."""

from ..errors import ConfigInvalid
from .engine import BusAddress, BusEngine
from .interface import Bus
from .topic_setup import TopicAdmin

_MIN_SEGMENT_BYTES = 4096


class EmbeddedEngine(BusEngine):
    """`embedded:` is the log in HOME/bus, with the options `segment_bytes` and `retention_bytes`."""

    takes_many_gateways = False

    def open_bus(self, address: BusAddress) -> Bus:
        """See `BusEngine.open_bus`."""
        from .embedded.bus import EmbeddedBus

        address.require_no_place()
        sizes = address.options("segment_bytes", "retention_bytes")
        for name, value in sizes.items():
            if not value.isdecimal() or int(value) < _MIN_SEGMENT_BYTES:
                raise ConfigInvalid(
                    f"{name} of the bus {address.url!r} must be at least {_MIN_SEGMENT_BYTES} (got {value})"
                )
        return EmbeddedBus(address.home / "bus", **{name: int(value) for name, value in sizes.items()})


class KafkaEngine(BusEngine):
    """`kafka://HOST:PORT,HOST:PORT` is an Apache Kafka cluster, reached by the settings of `[kafka]`."""

    def open_bus(self, address: BusAddress) -> Bus:
        """See `BusEngine.open_bus`."""
        from .kafka.bus import open_kafka  # importing its client takes a while

        return open_kafka(address.url, address.home, address.kafka)

    def open_topics(self, address: BusAddress) -> TopicAdmin:
        """See `BusEngine.open_topics`; Kafka also keeps settings by topic."""
        from .kafka.bus import connection_to
        from .kafka.topics import KafkaTopics

        return KafkaTopics(connection_to(address.url, address.home, address.kafka))


class DiscardEngine(BusEngine):
    """`discard:` stores nothing, and reports each message as durable at once: for benchmarks."""

    def open_bus(self, address: BusAddress) -> Bus:
        """See `BusEngine.open_bus`."""
        from .discard import DiscardBus

        address.require_no_place()
        address.options()
        return DiscardBus()
