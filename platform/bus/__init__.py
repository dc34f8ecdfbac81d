"""The log between the tiers: the gateway publishes chunks, workers read them in consumer groups.

Open `interface.py` first: every engine follows it. `embedded/` keeps segment files below the home directory,
`kafka/` is a cluster of brokers, `discard.py` keeps nothing (for benchmarks).
"""

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from ..config import KafkaSettings
from ..errors import ConfigInvalid
from .discard import DiscardBus
from .embedded.bus import EmbeddedBus
from .interface import (
    BEGINNING,
    WORKER_GROUP,
    AssignmentListener,
    Buffer,
    Bus,
    BusMessage,
    Consumer,
    Producer,
    TopicPartition,
)
from .topic_setup import EmbeddedTopics, TopicAdmin

__all__ = [
    "BEGINNING",
    "WORKER_GROUP",
    "AssignmentListener",
    "Buffer",
    "Bus",
    "BusMessage",
    "Consumer",
    "Producer",
    "TopicPartition",
    "open_bus",
    "open_topics",
    "takes_many_gateways",
]

_MIN_SEGMENT_BYTES = 4096


def open_bus(url: str, home: Path, kafka: KafkaSettings | None = None) -> Bus:
    """The bus that `url` names; `ConfigInvalid` where it names none.

    - `embedded:` the log in `home/bus`; `embedded:?segment_bytes=67108864&retention_bytes=1073741824` sets
      what `EmbeddedBus` says.
    - `kafka://HOST:PORT,HOST:PORT` a Kafka cluster, reached as `kafka` says: the settings' section `[kafka]`.
      File names in it are relative to `home`.
    - `discard:` keeps nothing, and says at once that it is durable: for benchmarks.
    """
    parts = urlsplit(url)
    if parts.scheme == "kafka":
        from .kafka.bus import open_kafka  # its client takes a while to import

        return open_kafka(url, home, kafka or KafkaSettings())
    if parts.netloc or parts.path or parts.scheme not in ("embedded", "discard"):
        raise ConfigInvalid(f"there is no bus {url!r}; use embedded:, kafka://HOST:PORT or discard:")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "discard":
        _check_options(url, options, allowed=())
        return DiscardBus()
    _check_options(url, options, allowed=("segment_bytes", "retention_bytes"))
    return EmbeddedBus(home / "bus", **{name: int(value) for name, value in options.items()})


def open_topics(url: str, home: Path, kafka: KafkaSettings | None = None) -> TopicAdmin:
    """The administration of the topics on the bus that `url` names; as `open_bus`."""
    if urlsplit(url).scheme == "kafka":
        from .kafka.bus import connection_to
        from .kafka.topics import KafkaTopics

        return KafkaTopics(connection_to(url, home, kafka or KafkaSettings()))
    return EmbeddedTopics(open_bus(url, home))


def takes_many_gateways(url: str) -> bool:
    """Whether several processes may publish to this bus at once: the embedded one has one writer."""
    return urlsplit(url).scheme != "embedded"


def _check_options(url: str, options: dict[str, str], *, allowed: tuple[str, ...]) -> None:
    for name, value in options.items():
        if name not in allowed:
            raise ConfigInvalid(
                f"the bus {url!r} has no option {name!r}; it takes {', '.join(allowed) or 'none'}"
            )
        if not value.isdecimal() or int(value) < _MIN_SEGMENT_BYTES:
            raise ConfigInvalid(
                f"{name}={value} of the bus {url!r} is no number of at least {_MIN_SEGMENT_BYTES}"
            )
