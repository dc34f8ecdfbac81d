"""Which streams are behind, and which of their steps fail, as the workers' status documents say it.

A worker's status has `checkpoint_age_s`, and `streams_behind` with what is not up to date:

    {"turbine.t07": {"checkpoint_age_s": 41.0, "lag_chunks": 608, "behind": {"step": "…", "reason": "…"}}}

Streams that are not in it are up to date. Its `failures` are the newest failure of each step:

    [{"stream": "turbine.t07", "step": "model", "message": "…", "time_ns": 1, "times": 3,
      "recovered_ns": null}]

The reader takes what it understands: the worker may be of another
version.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from .answers import Behind, FailingStep
from .shared_refresh import SharedRefresh
from .tier_client import TierClient


class _Failure(msgspec.Struct):
    stream: str
    step: str
    message: str = ""
    time_ns: int = 0
    times: int = 1
    recovered_ns: int | None = None


class Delays:
    """What the workers said at one time. Without a worker nothing is known: None."""

    def __init__(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        ages = [_number(status.get("checkpoint_age_s")) for status in workers.values()]
        # Which worker has a stream is not known here: the oldest checkpoint is the safe answer.
        self._age_s = max((age for age in ages if age is not None), default=None)
        self._lag_chunks = 0 if workers else None
        self._streams: dict[str, Mapping[str, Any]] = {}
        self._failing: dict[str, list[FailingStep]] = {}
        for status in workers.values():
            self._take_failures(status.get("failures"))
            behind = status.get("streams_behind")
            if isinstance(behind, Mapping):
                self._streams |= {
                    reference: entry for reference, entry in behind.items() if isinstance(entry, Mapping)
                }

    def _take_failures(self, failures: object) -> None:
        for each in failures if isinstance(failures, list) else ():
            with suppress(msgspec.ValidationError):
                failure = msgspec.convert(each, _Failure)
                if failure.recovered_ns is None:
                    found = FailingStep(failure.step, failure.message, failure.time_ns, failure.times)
                    self._failing.setdefault(failure.stream, []).append(found)

    def failing(self, stream: str) -> list[FailingStep]:
        """The steps of a stream that failed when they last worked, the one that failed last first."""
        return sorted(self._failing.get(stream, ()), key=lambda step: -step.time_ns)

    def of(self, stream: str) -> tuple[float | None, int | None, Behind | None]:
        """The age of a stream's checkpoint in seconds, the chunks that wait, and why it is behind."""
        entry = self._streams.get(stream)
        if entry is None:
            return self._age_s, self._lag_chunks, None
        lag = _number(entry.get("lag_chunks"))
        age_s = _number(entry.get("checkpoint_age_s"))
        return (
            self._age_s if age_s is None else age_s,
            None if lag is None else int(lag),
            _behind(entry.get("behind")),
        )


class WorkerDelays:
    """The delays that the workers report in their status, shared by all lists."""

    def __init__(self, tiers: TierClient) -> None:
        self._tiers = tiers
        self._known = Delays({})
        self._refresh = SharedRefresh(self._read_statuses)

    async def current(self) -> Delays:
        """The delays as the workers last reported them."""
        await self._refresh.wait()
        return self._known

    async def _read_statuses(self) -> None:
        self._known = Delays(await self._tiers.status("worker"))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return value


def _behind(value: object) -> Behind | None:
    if not isinstance(value, Mapping):
        return None
    step, reason = value.get("step"), value.get("reason")
    if not isinstance(step, str) and not isinstance(reason, str):
        return None
    return Behind(
        step=step if isinstance(step, str) else "", reason=reason if isinstance(reason, str) else ""
    )
