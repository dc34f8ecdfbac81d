"""Which senders post events without times, so that their events get the time of arrival."""

import time
from collections import OrderedDict

from ..runtime.statuses import SourceWithoutTimes
from .bodies.body_events import event_head
from .chunk import IncomingChunk

MAX_SOURCES = 100
"""Sources that are remembered; the one that sent longest ago leaves first."""

_LOOKED_AT_BYTES = 256 * 1024
"""Of a payload: a source that sends no times sends none at its beginning either."""


class MissingTimes:
    """The sources whose last chunk had events without a time of their own."""

    def __init__(self) -> None:
        self._sources: OrderedDict[tuple[str, str, str], SourceWithoutTimes] = OrderedDict()

    def take(self, chunk: IncomingChunk, payload: bytes | bytearray | memoryview) -> bool:
        """Looks at the events of a posted body; whether a source is new here.

        A request that names one time for all its events (`?time=`) has said what it means.
        """
        body = chunk.body
        if body is None or chunk.is_replay:
            return False
        key = chunk.policy or "", chunk.tag, chunk.sender
        known = self._sources.pop(key, None)
        if event_head(body.arrived_ns) not in bytes(payload[:_LOOKED_AT_BYTES]):
            return False
        self._sources[key] = SourceWithoutTimes(
            policy=key[0],
            tag=chunk.tag,
            sender=chunk.sender,
            identity=chunk.identity,
            time_key=body.format.time_key,
            chunks=1 if known is None else known.chunks + 1,
            last_ns=time.time_ns(),
        )
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        return known is None

    def listed(self) -> list[SourceWithoutTimes]:
        """The sources, the one that sent longest ago first."""
        return list(self._sources.values())


def advice(time_key: str) -> str:
    """What to do about it, to stand after a colon."""
    if time_key:
        return f"some records have no field {time_key!r}, which time_key names; add it, or name another"
    return "name the field that holds the time, with ?time_key=NAME"
