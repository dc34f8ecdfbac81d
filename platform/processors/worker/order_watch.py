"""Watches streams with buffered chunks, and publishes a flush message after an idle time.

A clock decides when a flush message is published; the log decides its effect. It is part of the log, between
the stream's chunks, so a replay processes it at the same position (`reorder_buffer.py`). So chunks that are
buffered at the end of a recording, or before an outage, are released without a further chunk. A lost or
duplicate message is harmless: while chunks are buffered, further messages follow.

A gateway of the home publishes the message if one is running: an embedded log has one writer, and on Kafka
an installation may let gateways alone write to the topics of chunks. On Kafka, where the gateways may be on
other machines, the worker publishes by itself if there is none.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from ...bus.interface import Bus, Producer, TopicPartition
from ...bus.messages.flush import MAX_NS, Flush, publish_flushes
from ...errors import WindvaneError
from ...runtime.announcements import tier_sockets
from ...runtime.statuses import StreamOrderStatus
from ...store.catalog.policy import Policy
from ...store.databases.stream_order import OrderFigures

SILENCE_S = 2.0
"""A stream with buffered chunks is flushed after this time without a chunk, or after `reorder_s` if that is
longer: a chunk that is late by less must find the others still buffered."""

LAST_REPEAT_S = 600.0
"""A flush message without effect (its stream has stopped) is republished. The pause doubles each time, up to
this."""

FLUSHES_AT_ONCE = 1000
REQUEST_TIMEOUT_S = 5.0
_POLL_S = 0.25
MAX_LISTED = 1000


class Flusher(ABC):
    """Publishes flush messages."""

    @abstractmethod
    async def publish(self, flushes: Sequence[Flush]) -> None:
        """Returns when all are durable. Raises WindvaneError, OSError or TimeoutError if some may not be."""


class BusFlusher(Flusher):
    """Publishes directly, on a bus that accepts messages from several processes, if `before` cannot."""

    def __init__(self, bus: Bus, *, before: Flusher | None = None) -> None:
        self._producer: Producer = bus.producer()
        self._before = before

    async def publish(self, flushes: Sequence[Flush]) -> None:
        """See `Flusher.publish`."""
        if self._before is not None:
            with suppress(WindvaneError, OSError):
                return await self._before.publish(flushes)
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await publish_flushes(self._producer, flushes)


class GatewayFlusher(Flusher):
    """Asks a gateway of this home to publish: POST /flushes on its socket."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    async def publish(self, flushes: Sequence[Flush]) -> None:
        """See `Flusher.publish`."""
        failure: Exception = OSError("no gateway of this home is running")
        for path in tier_sockets(self._run_dir, "gateway").values():
            connector = aiohttp.UnixConnector(path=str(path))
            try:
                async with (
                    asyncio.timeout(REQUEST_TIMEOUT_S),
                    aiohttp.ClientSession(connector=connector) as session,
                    session.post("http://gateway/flushes", data=msgspec.json.encode(flushes)) as answer,
                ):
                    if answer.ok:
                        return
                    failure = OSError(f"the gateway answered {answer.status}: {(await answer.text())[:200]}")
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = error
        raise OSError(f"flush messages are not published: {failure}")


@dataclass(slots=True)
class _Watched:
    figures: OrderFigures
    heard_s: float
    repeat_s: float = 0.0


class OrderWatch:
    """The buffered chunks of the worker's streams, and figures about their order.

    Memory: about 500 bytes for each stream of the worker's partitions that has buffered chunks or order
    figures to report.
    """

    def __init__(
        self,
        flusher: Flusher | None,
        *,
        policies: Callable[[], Mapping[str, Policy]],
        is_owned: Callable[[TopicPartition], bool],
        failed: Callable[[Exception], None],
    ) -> None:
        """Without a `flusher` nothing is published: buffered chunks wait for further chunks."""
        self._flusher = flusher
        self._policies = policies
        self._is_owned = is_owned
        self._failed = failed
        self._lock = threading.Lock()
        self._streams: dict[str, _Watched] = {}
        self.is_behind: Callable[[str], bool] = lambda _: False
        """Whether a stream has unprocessed chunks; the worker sets it."""

    def update(self, figures: OrderFigures) -> None:
        """A message of the stream was processed; called by the threads of the executor."""
        if figures.is_plain and figures.reference not in self._streams:
            return
        with self._lock:
            if figures.is_plain:
                self._streams.pop(figures.reference, None)
            else:
                self._streams[figures.reference] = _Watched(figures, time.monotonic())

    def add_committed(self, committed: Iterable[OrderFigures]) -> None:
        """Adds the figures of the streams of new partitions, from their last checkpoints."""
        with self._lock:
            for figures in committed:
                self._streams[figures.reference] = _Watched(figures, time.monotonic())

    async def run(self) -> None:
        """Publishes flush messages until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            due = self._due(time.monotonic())
            for first in range(0, len(due), FLUSHES_AT_ONCE):
                assert self._flusher is not None
                try:
                    await self._flusher.publish(due[first : first + FLUSHES_AT_ONCE])
                except (WindvaneError, OSError, TimeoutError) as error:
                    self._failed(error)  # they are due again

    def _due(self, now_s: float) -> list[Flush]:
        policies = self._policies()
        due = []
        with self._lock:
            gone = [
                reference
                for reference, each in self._streams.items()
                if not self._is_owned(TopicPartition(each.figures.policy, each.figures.partition))
            ]
            for reference in gone:
                del self._streams[reference]
            if self._flusher is None:
                return []
            for reference, each in self._streams.items():
                if not each.figures.held_chunks:
                    continue
                policy = policies.get(each.figures.policy)
                silence_s = max(SILENCE_S, each.repeat_s, policy.reorder_s if policy is not None else 0.0)
                if now_s - each.heard_s < silence_s or self.is_behind(reference):
                    continue
                each.heard_s = now_s
                each.repeat_s = min(2 * silence_s, max(LAST_REPEAT_S, silence_s))
                latest_ns = each.figures.latest_ns
                until_ns = MAX_NS if latest_ns is None else latest_ns  # lost with a damaged checkpoint
                due.append(Flush(each.figures.policy, reference, until_ns))
        return due

    def status(self) -> dict[str, StreamOrderStatus]:
        """For the status document: by stream, at most `MAX_LISTED`, those with a warning first."""
        with self._lock:
            found = [each.figures for each in self._streams.values()]
        found.sort(key=lambda each: (each.warning is None, -each.late_events))
        return {
            each.reference: StreamOrderStatus(
                held_chunks=each.held_chunks,
                late_events=each.late_events,
                early_events=each.early_events,
                inversions=each.inversions,
                warning=each.warning,
            )
            for each in found[:MAX_LISTED]
        }
