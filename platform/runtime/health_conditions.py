"""Health conditions of the platform: each makes an installation unhealthy until it is cleared.

Every tier has one `HealthConditions`. Code that notices a condition reports it under a key, and clears the
key when the condition has ended. One report is one log line, one entry of the tier's status document and one
count in its metrics; `GET /api/v1/health` collects the entries of all tiers.
"""

import errno
import logging
import math
import os
import sqlite3
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from ..errors import DiskReserveUsed
from .event_counters import EventCounters
from .instrumentation import Count, Event, EventLog, LogLine, Reading

HealthCode: TypeAlias = Literal[
    "tier-away",
    "stuck",
    "crash-loop",
    "disk-full",
    "io-error",
    "bus-away",
    "checkpoint-late",
    "no-checkpoint",
    "settings-broken",
]

MAX_CONDITIONS = 1000
"""Keys that one tier keeps; further ones are counted until some of these are cleared."""

MAX_LISTED = 100
"""Entries in a status document; the last says how many more there are."""

MAX_DETAIL_CHARACTERS = 1000

REPEAT_S = 60.0
"""A condition that comes and goes is logged this often."""

IDENTITY_LINES = 10
"""Conditions of one key with different details that are logged every `REPEAT_S`."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAX_CAUSES = 20
_SQLITE_PRIMARY_CODE = 0xFF


class HealthCondition(msgspec.Struct, frozen=True):
    """A condition of the platform: its stable code, and in words what happened and what to do."""

    code: HealthCode
    detail: str


class HealthConditionReported(Event, frozen=True):
    """A health condition began. One that comes and goes is logged once a minute."""

    line = LogLine(logging.ERROR, "{condition}: {detail}")
    counts = (
        Count(
            "reported_by_code",
            "windvane_troubles_reported",
            "Health conditions reported",
            labels={"code": "condition"},
        ),
    )

    condition: HealthCode
    detail: str


class HealthConditionCleared(Event, frozen=True):
    """A health condition has ended."""

    line = LogLine(logging.INFO, "{condition} has ended ({detail:.100})")

    condition: HealthCode
    detail: str


@dataclass(slots=True)
class _Entry:
    condition: HealthCondition
    ends_at_s: float = math.inf
    is_logged: bool = False
    is_identity: bool = False


class HealthConditions(EventCounters):
    """The health conditions of one tier, by key. Every method may be called from any thread.

    The first report of a key logs one line at ERROR, its clearing one at INFO. A key that comes and goes
    costs one pair of lines every `REPEAT_S`. A condition whose detail is its identity is another one when the
    detail changes: each is logged, up to `IDENTITY_LINES` of a key every `REPEAT_S`, and in time the last.

    >>> health = HealthConditions(logging.getLogger("windvane.worker"))
    >>> health.report("disk", "disk-full", "no space left in /srv/windvane; make room on that disk")
    >>> health.listed()
    [HealthCondition(code='disk-full', detail='no space left in /srv/windvane; make room on that disk')]
    >>> health.clear("disk")
    >>> health.listed()
    []
    """

    events = (HealthConditionReported, HealthConditionCleared)
    readings = (
        Reading(
            "gauge",
            "windvane_troubles",
            "Health conditions that hold now",
            lambda health: health.number_by_code(),
            label="code",
        ),
    )
    reported_by_code: Counter[str]

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._log = EventLog(logger)
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._logged_at_s: OrderedDict[str, deque[float]] = OrderedDict()
        self._left_out: Counter[HealthCode] = Counter()

    def report(
        self,
        key: str,
        code: HealthCode,
        detail: str,
        *,
        for_s: float = math.inf,
        detail_is_identity: bool = False,
    ) -> None:
        """The condition `key` holds, at most `for_s` seconds unless it is reported again.

        A repeated report replaces the detail, and logs nothing, unless `detail_is_identity`: with another
        detail it is another condition then, such as the next mistake in a file. Not for details that change
        all the time, such as free bytes.
        """
        condition = HealthCondition(code, detail[:MAX_DETAIL_CHARACTERS])
        reported = HealthConditionReported(code, condition.detail)
        self._end_old()
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self.count(reported)
                if len(self._entries) >= MAX_CONDITIONS:
                    self._left_out[code] += 1
                    return
                entry = self._entries[key] = _Entry(condition)
            elif entry.condition.code != code:
                self.count(reported)
                entry.is_logged = False
            elif detail_is_identity and entry.condition != condition:
                entry.is_logged = False
            entry.is_identity = detail_is_identity
            entry.condition, entry.ends_at_s = condition, time.monotonic() + for_s
            if entry.is_logged or not self._may_log(key, IDENTITY_LINES if detail_is_identity else 1):
                return
            entry.is_logged = True
        self._log.emit(reported)

    def clear(self, key: str) -> None:
        """The condition `key` has ended; nothing happens if it was not reported."""
        if key not in self._entries:  # the usual case costs no lock
            return
        with self._lock:
            entry = self._entries.pop(key, None)
            self._left_out.clear()  # what still holds is reported again, and has room now
        if entry is not None and entry.is_logged:
            self._log.emit(HealthConditionCleared(entry.condition.code, entry.condition.detail))

    def _end_old(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            ended = [key for key, entry in self._entries.items() if entry.ends_at_s <= now_s]
        for key in ended:
            self.clear(key)
        self._log_left_over()

    def _log_left_over(self) -> None:
        """What holds, and was over the bound of lines when it was reported, perhaps for the only time."""
        due = []
        with self._lock:
            for key, entry in self._entries.items():
                if entry.is_identity and not entry.is_logged and self._may_log(key, IDENTITY_LINES):
                    entry.is_logged = True
                    due.append(entry.condition)
        for condition in due:
            self._log.emit(HealthConditionReported(condition.code, condition.detail))

    def current(self) -> list[HealthCondition]:
        """What holds now, oldest first."""
        self._end_old()
        with self._lock:
            return [entry.condition for entry in self._entries.values()]

    def listed(self) -> list[HealthCondition]:
        """For a status document: at most `MAX_LISTED`, and for each code how many more there are."""
        self._end_old()
        with self._lock:
            conditions = [entry.condition for entry in self._entries.values()]
            more = Counter(self._left_out)
        more.update(condition.code for condition in conditions[MAX_LISTED:])
        return conditions[:MAX_LISTED] + [
            HealthCondition(code, f"{count} more with this code; see the log")
            for code, count in more.items()
            if count
        ]

    def number_by_code(self) -> dict[str, int]:
        """How many conditions hold now, of each code that was ever reported."""
        self._end_old()
        with self._lock:
            now = Counter[str](entry.condition.code for entry in self._entries.values())
            now.update(self._left_out)
            return {code: now[code] for code in self.reported_by_code}

    def _may_log(self, key: str, lines: int) -> bool:
        now_s = time.monotonic()
        logged_at_s = self._logged_at_s.setdefault(key, deque())
        while logged_at_s and now_s - logged_at_s[0] >= REPEAT_S:
            logged_at_s.popleft()
        if len(logged_at_s) >= lines:
            return False
        logged_at_s.append(now_s)
        self._logged_at_s.move_to_end(key)
        if len(self._logged_at_s) > 2 * MAX_CONDITIONS:
            self._logged_at_s.popitem(last=False)
        return True


def code_of(error: BaseException | None) -> HealthCode | None:
    """`disk-full` or `io-error` if the system said so anywhere along the causes of `error`, else None.

    An error that crossed a thread may have kept the system's words alone, so these are looked for too.

    >>> code_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    'disk-full'
    >>> code_of(ValueError("not a number"))
    """
    for each in _causes(error):
        if isinstance(each, DiskReserveUsed) or (isinstance(each, OSError) and each.errno in _FULL):
            return "disk-full"
        if isinstance(each, OSError) and each.errno == errno.EIO:
            return "io-error"
        if isinstance(each, sqlite3.Error):
            primary = getattr(each, "sqlite_errorcode", 0) & _SQLITE_PRIMARY_CODE
            if primary == sqlite3.SQLITE_FULL:
                return "disk-full"
            if primary == sqlite3.SQLITE_IOERR:
                return "io-error"
        words = str(each)
        if any(text in words for text in _FULL_TEXTS):
            return "disk-full"
        if any(text in words for text in _IO_TEXTS):
            return "io-error"
    return None


_FULL_TEXTS = (*(os.strerror(number) for number in _FULL), "database or disk is full")
_IO_TEXTS = (os.strerror(errno.EIO), "disk I/O error")


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    for _ in range(_MAX_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
