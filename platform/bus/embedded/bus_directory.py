"""The directory of an embedded bus: its paths and its topics.

    <topic>/<partition>/…    the log of a partition, `segment_log.py`
    <topic>/uid              identity of the topic's log: 32 hex digits, created with it; each partition's
                             page of words has a copy, from which a lost file is recreated
    @groups/<group>/…        the positions of a consumer group, `group_positions.py`
    @doorbell                wakes consumers that wait, `notification.py`

No topic can have a name like the last two: names consist of letters, digits, '.', '_' and '-'.
"""

import logging
import os
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ...directories import make_directory, sync_directory
from ...errors import BusCorrupt, BusUnavailable, ConfigInvalid, WindvaneError
from ..interface import TopicPartition
from .notification import Doorbell
from .segment_log import COMMITTED, END_WORD, create_log
from .shared_words import SharedWords

_UID = "uid"
_UID_FORM = re.compile(r"[0-9a-f]{32}")
_UID_WORDS = 2, 3
_NAME = re.compile(r"[A-Za-z0-9._-]{1,240}")

_log = logging.getLogger(__name__)


class BusDirectory:
    """Paths and topics of one embedded bus, and its doorbell; creates the directory if it does not exist."""

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
        """The directory of a partition's log."""
        return self.path / topic_partition.topic / str(topic_partition.partition)

    def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """All existing partitions of these topics."""
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
        """Create those of the first `count` partitions that are missing."""
        if count < 1:
            raise ConfigInvalid(f"topic {topic!r} cannot have {count} partitions; it needs at least 1")
        existing = len(self.partitions([topic]))
        if existing >= count:
            return
        (self.path / topic).mkdir(exist_ok=True)
        sync_directory(self.path)
        words = uid_words(topic_uid(self.path / topic))
        for partition in range(existing, count):
            try:
                create_log(self.log_path(TopicPartition(topic, partition)), words)
            except FileExistsError:
                continue  # another process has created it in the meantime
        self.doorbell.ring_for_topics()

    def log_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """See `Bus.log_ids`; a topic of an earlier version gets its identity now."""
        return {
            topic: f"embedded:{topic_uid(self.path / topic)}" for topic in topics if self.partitions([topic])
        }

    def ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """See `Bus.ends`."""
        found = {}
        for partition in self.partitions(topics):
            with suppress(BusCorrupt, OSError):
                committed = SharedWords(self.log_path(partition) / COMMITTED, writable=False)
                found[partition] = committed.words[END_WORD]
                committed.close()
        return found

    def group_path(self, group: str) -> Path:
        """The directory of a consumer group's state."""
        check_name("consumer group", group)
        return self.groups / group


def topic_uid(topic: Path) -> str:
    """The identity of a topic's log, by its folder; one of an earlier version gets its identity now."""
    path = topic / _UID
    try:
        if _UID_FORM.fullmatch(uid := path.read_text(encoding="ascii", errors="replace")):
            return uid
        kept = path.with_name(f"{_UID}.damaged-{os.urandom(4).hex()}")
        path.rename(kept)
        _log.error("%s is damaged; it was moved to %s and is recreated", path, kept)
    except FileNotFoundError:
        pass
    pages = [log / COMMITTED for log in sorted(topic.iterdir()) if log.name.isdecimal()]
    _create_uid(path, next(filter(None, map(_copied_uid, pages)), None) or uuid.uuid4().hex)
    uid = path.read_text(encoding="ascii")
    for page in pages:
        _copy_uid(page, uid)
    return uid


def uid_words(uid: str) -> dict[int, int]:
    """The copy of a topic's identity in a partition's page of words."""
    number = int(uid, 16)
    return {_UID_WORDS[0]: number >> 64, _UID_WORDS[1]: number & (2**64 - 1)}


def _create_uid(path: Path, uid: str) -> None:
    building = path.with_name(f"@{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with building.open("x", encoding="ascii") as file:
            file.write(uid)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster
            os.link(building, path)
    finally:
        building.unlink(missing_ok=True)
    sync_directory(path.parent)


def _copied_uid(page: Path) -> str | None:
    try:
        words = SharedWords(page, writable=False)
    except (BusCorrupt, FileNotFoundError):
        return None
    try:
        number = words.words[_UID_WORDS[0]] << 64 | words.words[_UID_WORDS[1]]
    finally:
        words.close()
    return f"{number:032x}" if number else None


def _copy_uid(page: Path, uid: str) -> None:
    with suppress(BusCorrupt, FileNotFoundError):
        words = SharedWords(page, writable=True)
        for place, value in uid_words(uid).items():
            words.words[place] = value
        words.close()


def check_name(what: str, name: str) -> None:
    """Raises `ConfigInvalid` for a name that is not valid for a topic or a group, on any engine."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ConfigInvalid(
            f"{name!r:.220} is not a valid name of a {what}: use 1 to 240 letters, digits, '.', '_' or '-'"
        )
