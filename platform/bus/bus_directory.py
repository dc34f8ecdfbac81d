"""The directory of an embedded bus: where things lie and which topics there are.

    <topic>/<partition>/…    the log of a partition, `segment_log.py`
    @groups/<group>/…        where a consumer group stands, `group_positions.py`
    @doorbell                wakes consumers that wait, `doorbell.py`

No topic can be named like the last two: names consist of letters, digits, '.', '_' and '-'.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..directories import make_directory, sync_directory
from ..errors import BusUnavailable, ConfigInvalid, WindvaneError
from .doorbell import Doorbell
from .interface import TopicPartition
from .segment_log import create_log

_NAME = re.compile(r"[A-Za-z0-9._-]{1,240}")


class BusDirectory:
    """Paths and topics of one embedded bus, and its doorbell; made where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.groups = path / "@groups"
        try:
            make_directory(path)
            self.doorbell = Doorbell(path / "@doorbell")
        except WindvaneError:
            raise
        except OSError as error:
            raise BusUnavailable(f"cannot open the bus in {path}: {error}") from error

    def log_path(self, topic_partition: TopicPartition) -> Path:
        """Where the log of a partition lies."""
        return self.path / topic_partition.topic / str(topic_partition.partition)

    def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """All partitions that exist of these topics."""
        found = []
        for topic in topics:
            check_name("topic", topic)
            partition = TopicPartition(topic, 0)
            while self.log_path(partition).is_dir():
                found.append(partition)
                partition = TopicPartition(topic, partition.partition + 1)
        return found

    def topics(self) -> dict[str, int]:
        """The topics, each with its number of partitions."""
        names = sorted(name for name in os.listdir(self.path) if _NAME.fullmatch(name))
        counts = {name: len(self.partitions([name])) for name in names}
        return {name: count for name, count in counts.items() if count}

    def ensure_topic(self, topic: str, count: int) -> None:
        """Make the partitions that are missing of the first `count`."""
        if count < 1:
            raise ConfigInvalid(f"topic {topic!r} cannot have {count} partitions; it needs at least 1")
        existing = len(self.partitions([topic]))
        if existing >= count:
            return
        (self.path / topic).mkdir(exist_ok=True)
        sync_directory(self.path)
        for partition in range(existing, count):
            try:
                create_log(self.log_path(TopicPartition(topic, partition)))
            except FileExistsError:
                continue  # another process made it in the meantime
        self.doorbell.ring_for_topics()

    def group_path(self, group: str) -> Path:
        """Where a consumer group keeps what it knows."""
        check_name("consumer group", group)
        return self.groups / group


def check_name(what: str, name: str) -> None:
    """Raises `ConfigInvalid` for what cannot be the name of a topic or a group, on any engine."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ConfigInvalid(
            f"{name!r:.220} cannot name a {what}: take 1 to 240 letters, digits, '.', '_' or '-'"
        )
