"""The totals of a gateway, its health conditions and its status."""

import logging
import time
from collections import Counter
from collections.abc import Callable

from ..errors import BusUnavailable, RateExceeded, WindvaneError
from ..runtime.disk_space import DISK, DiskWatch
from ..runtime.health_conditions import code_of
from ..runtime.instrumentation import Reading
from ..runtime.statuses import GatewayStatus
from ..runtime.telemetry import Telemetry
from ..store.databases.dead_letter import DeadLetter
from .chunk import IncomingChunk, origin
from .instrumentation import (
    GATEWAY_EVENTS,
    ChunkNotAcknowledged,
    ChunkRejected,
    ChunkRepeated,
    DeadLetterFailed,
    DeadLetterOmitted,
    EventsWithoutTimes,
    ForwardPortOpened,
    ForwardPortShut,
    PoliciesNotReloaded,
    RejectedInputLost,
)
from .missing_times import MissingTimes, advice

FAILURE_S = 60.0
"""A failed write is a health condition for so long, unless another one fails or one succeeds."""

_PUBLISH, _LETTERS = "publish", "dead-letters"


class GatewayTelemetry(Telemetry):
    """Counts and logs the events of one gateway."""

    events = GATEWAY_EVENTS
    readings = (
        Reading(
            "gauge",
            "windvane_gateway_connections",
            "Open connections",
            lambda telemetry: telemetry.connections,
        ),
        Reading(
            "gauge",
            "windvane_gateway_pending_bytes",
            "Bytes received and not yet durable",
            lambda telemetry: telemetry.pending_bytes(),
        ),
    )
    events_total: int
    bytes_total: int
    chunks_total: int
    repeated_total: int
    handshakes_failed_total: int
    letters_left_out_total: int
    lost_total: int
    timeouts_by_kind: Counter[str]
    rejected_by_code: Counter[str]

    def __init__(self, *, pending_bytes: Callable[[], int] = lambda: 0) -> None:
        super().__init__(logging.getLogger("windvane.gateway"))
        self.pending_bytes = pending_bytes
        self.connections = 0
        self.forward_shut: str | None = None
        self.missing_times = MissingTimes()
        self.disk: DiskWatch | None = None

    @property
    def rejected_total(self) -> int:
        """Rejected chunks and broken connections."""
        return self.rejected_by_code.total()

    def chunk_stored(self, *, events: int, size: int) -> None:
        """Counts what `ChunkStored` declares, without making the event: a gateway stores 10,000 chunks a
        second."""
        self.chunks_total += 1
        self.events_total += events
        self.bytes_total += size
        self.health.clear(_PUBLISH)

    def chunk_repeated(self) -> None:
        """A retransmission arrived of a chunk that is known."""
        self.emit(ChunkRepeated())

    def unpacked(self, chunk: IncomingChunk, payload: bytes | bytearray | memoryview) -> None:
        """The events of a chunk are unpacked: senders whose events have no times are remembered."""
        if self.missing_times.take(chunk, payload):
            time_key = "" if chunk.body is None else chunk.body.format.time_key
            self.emit(EventsWithoutTimes(chunk.policy or "", chunk.tag, chunk.sender, advice(time_key)))

    def connection_opened(self) -> None:
        """A forwarder connected."""
        self.connections += 1

    def connection_closed(self) -> None:
        """A forwarder left."""
        self.connections -= 1

    def file_broken(self, name: str, error: WindvaneError) -> None:
        """Secrets or certificates cannot be used; `error` says which are in force meanwhile."""
        self.health.report(
            f"file {name}", "settings-broken", f"not taken over: {error}", detail_is_identity=True
        )

    def file_repaired(self, name: str) -> None:
        """The files are usable again."""
        self.health.clear(f"file {name}")

    def port_shut(self, reason: str) -> None:
        """The forward port accepts no connections."""
        self.forward_shut = reason
        self.emit(ForwardPortShut(reason))

    def port_opened(self, addresses: str) -> None:
        """The forward port accepts connections, after it was shut."""
        self.forward_shut = None
        self.emit(ForwardPortOpened(addresses))

    def chunk_rejected(self, code: str, chunk: IncomingChunk, reason: str, *, policy: str | None) -> None:
        """A chunk, or the bytes of a broken connection, was rejected."""
        self.emit(ChunkRejected.of(chunk, code, reason, policy=policy))

    def bus_unavailable(self, error: BaseException) -> None:
        """A chunk was not stored; a sender that asked for an ack keeps it and resends it."""
        if not self._failed(_PUBLISH, error, what="a chunk cannot be published"):
            self.emit(ChunkNotAcknowledged.of(error))

    def publish_failed(self, error: BaseException) -> None:
        """The bus did not store a chunk; a sender that asked for an ack keeps it and resends it."""
        self.bus_unavailable(error)
        if (
            code_of(error) is None
            and isinstance(error, BusUnavailable)
            and not isinstance(error, RateExceeded)
        ):
            self.health.report(_PUBLISH, "bus-away", str(error), for_s=FAILURE_S)

    def _failed(self, key: str, error: BaseException, *, what: str) -> bool:
        """Reports a failed write; False if neither the disk nor its room was the cause."""
        code = code_of(error)
        if code is None:
            return False
        # A full disk is one condition, whichever write met it first.
        if code == "disk-full":
            key = DISK
            if self.disk is not None:
                self.disk.failed(error)
        self.health.report(key, code, f"{what}: {error}", for_s=FAILURE_S)
        return True

    def policies_broken(self, error: WindvaneError) -> None:
        """The catalog cannot be read, or a policy is not valid; the policies in force stay in force."""
        if not self._failed("catalog", error, what="the policies cannot be read, those in force stay"):
            self.emit(PoliciesNotReloaded(str(error)))

    def dead_letter_lost(self, error: BaseException) -> None:
        """A dead letter could not be written; its chunk is not acknowledged."""
        what = "dead letters cannot be written, rejected input is not acked"
        if not self._failed(_LETTERS, error, what=what):
            self.emit(DeadLetterFailed.of(error))

    def dead_letter_kept(self) -> None:
        """Rejected input is durable."""
        self.health.clear(_LETTERS)

    def letter_left_out(self, letter: DeadLetter) -> None:
        """Input was rejected, and no dead letter was kept of it, since too much arrived at once."""
        self.emit(DeadLetterOmitted())
        if letter.chunk_id is None or letter.format:
            self.emit(
                RejectedInputLost(
                    origin=origin(letter.sender, letter.identity),
                    who=letter.identity or letter.sender,
                    sender=letter.sender,
                    tag=letter.tag,
                    why="was answered that it may not send it" if letter.format else "asked for no ack",
                )
            )

    def status(self) -> GatewayStatus:
        """For the status route."""
        return GatewayStatus(
            events_total=self.events_total,
            bytes_total=self.bytes_total,
            chunks_total=self.chunks_total,
            repeated_total=self.repeated_total,
            refused_total=self.rejected_total,
            refused_by_code=dict(self.rejected_by_code),
            without_times=self.missing_times.listed(),
            connections=self.connections,
            handshakes_failed_total=self.handshakes_failed_total,
            pending_bytes=self.pending_bytes(),
            lost_total=self.lost_total,
            forward_shut=self.forward_shut,
            time_ns=time.time_ns(),
        )
