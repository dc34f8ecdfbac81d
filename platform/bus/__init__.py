"""The log between the tiers: the gateway publishes chunks, workers read them in consumer groups.

Open `interface.py` first: every engine implements it. `embedded/` stores segment files below the home
directory, `kafka/` connects to a cluster of brokers, `discard.py` stores nothing (for benchmarks). Packages
can add others: see `engine.py`.
"""

from pathlib import Path
from urllib.parse import urlsplit

from ..config import KafkaSettings
from ..errors import ConfigInvalid
from ..extensions import BUSES
from .engine import BusAddress, BusEngine
from .interface import (
    BEGINNING,
    DEFAULT_POLL_BYTES,
    WORKER_GROUP,
    AssignmentListener,
    Buffer,
    Bus,
    BusMessage,
    Consumer,
    Durability,
    Producer,
    TopicPartition,
)
from .topic_setup import TopicAdmin

__all__ = [
    "BEGINNING",
    "DEFAULT_POLL_BYTES",
    "WORKER_GROUP",
    "AssignmentListener",
    "Buffer",
    "Bus",
    "BusAddress",
    "BusEngine",
    "BusMessage",
    "Consumer",
    "Durability",
    "Producer",
    "TopicAdmin",
    "TopicPartition",
    "engine_of",
    "open_bus",
    "open_topics",
    "takes_many_gateways",
]


def open_bus(url: str, home: Path, kafka: KafkaSettings | None = None) -> Bus:
    """The bus of this URL; an installed package may register its scheme.

    - `embedded:` is the log in `home/bus`; `embedded:?segment_bytes=67108864&retention_bytes=1073741824` sets
      the sizes that `EmbeddedBus` describes.
    - `kafka://HOST:PORT,HOST:PORT` is an Apache Kafka cluster; `kafka` holds the settings of the section
      `[kafka]`, in which file names are relative to `home`.
    - `discard:` stores nothing, and reports each message as durable at once: for benchmarks.

    Raises:
        ConfigInvalid: the URL is not valid, or no package registers its scheme.
        ExtensionInvalid: the package that registers its scheme cannot be used.
    """
    return engine_of(url).open_bus(BusAddress(url, home, kafka or KafkaSettings()))


def open_topics(url: str, home: Path, kafka: KafkaSettings | None = None) -> TopicAdmin:
    """The administration of the topics on the bus of this URL; arguments and errors as for `open_bus`."""
    return engine_of(url).open_topics(BusAddress(url, home, kafka or KafkaSettings()))


def takes_many_gateways(url: str) -> bool:
    """Whether several processes may publish to this bus at once: the embedded one has one writer."""
    return engine_of(url).takes_many_gateways


def engine_of(url: str) -> BusEngine:
    """The engine of the URL's scheme. Raises as `open_bus`."""
    scheme = urlsplit(url).scheme
    try:
        engine: type[BusEngine] = BUSES.load_class(scheme, BusEngine)
    except LookupError:
        known = ", ".join(f"{name}:" for name in BUSES.extensions)
        raise ConfigInvalid(f"{url!r} is not a valid bus URL; it must begin with one of {known}") from None
    return engine()
