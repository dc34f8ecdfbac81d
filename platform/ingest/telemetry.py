"""What the gateway says about itself: one call is a counter and, where people must know, a log line.

So the two cannot drift apart. A peer that sends garbage costs one log line a minute for each cause, identity
(or address) and policy, not one a message.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..errors import BusUnavailable, RateExceeded, WindvaneError
from ..runtime.disk_space import DISK, DiskWatch
from ..runtime.health_conditions import HealthConditions, code_of
from ..runtime.telemetry import RateLimitedLog
from ..store.databases.dead_letters import DeadLetter
from .chunk import IncomingChunk, origin
from .missing_times import MissingTimes, advice

FAILURE_S = 60.0
"""A failed write is a condition for so long, unless another one fails or one succeeds: senders try again."""

_PUBLISH, _LETTERS = "publish", "dead-letters"


class GatewayTelemetry(Collector):
    """Counters of one gateway."""

    def __init__(self, *, pending_bytes: Callable[[], int] = lambda: 0) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.pending_bytes = pending_bytes
        self.events_total = 0
        self.bytes_total = 0
        self.chunks_total = 0
        self.repeated_total = 0
        self.connections = 0
        self.handshakes_failed_total = 0
        self.letters_left_out_total = 0
        self.lost_total = 0
        self.forward_shut: str | None = None
        self.timeouts_by_kind: Counter[str] = Counter()
        self.refused_by_code: Counter[str] = Counter()
        self.missing_times = MissingTimes()
        self._log = RateLimitedLog(logging.getLogger("windvane.gateway"))
        self.disk: DiskWatch | None = None
        self.health = HealthConditions(logging.getLogger("windvane.gateway"))

    @property
    def refused_total(self) -> int:
        """Chunks, and broken connections' bytes, that did not enter."""
        return self.refused_by_code.total()

    def chunk_stored(self, *, events: int, size: int) -> None:
        """A chunk is durable on the bus."""
        self.chunks_total += 1
        self.events_total += events
        self.bytes_total += size
        self.health.clear(_PUBLISH)

    def chunk_repeated(self) -> None:
        """A retransmission met its first sending."""
        self.repeated_total += 1

    def unpacked(self, chunk: IncomingChunk, payload: bytes | bytearray | memoryview) -> None:
        """What came is events now: senders whose events have no times are remembered."""
        if self.missing_times.take(chunk, payload):
            time_key = "" if chunk.body is None else chunk.body.format.time_key
            self._log.warning(
                ("no times", chunk.policy or "", chunk.tag, chunk.sender),
                f"events of {chunk.tag!r} from {chunk.sender} have no times of their own and get that of "
                f"their arrival: {advice(time_key)}",
            )

    def connection_opened(self) -> None:
        """A forwarder connected."""
        self.connections += 1

    def connection_closed(self) -> None:
        """A forwarder left."""
        self.connections -= 1

    def handshake_failed(self, *, sender: str, cause: str, detail: str, name: str = "") -> None:
        """A peer was not let in; `detail` shows no secret, and the peer does not learn it.

        `cause` is one word or a few; `name` what the peer called itself, which it may have made up.
        """
        self.handshakes_failed_total += 1
        self._log.warning(
            ("handshake", cause, sender, name), f"not let in: {sender}: {detail}", source=sender
        )

    def timed_out(self, *, what: str, sender: str, seconds: float) -> None:
        """A peer took too long; its connection is closed, what it was not acked for stays with it."""
        self.timeouts_by_kind[what] += 1
        self._log.warning(("timeout", what, sender), f"closed {sender}: {what} took over {seconds:.3g} s")

    def settings_broken(self, error: WindvaneError) -> None:
        """Something of the settings cannot be used; the gateway runs on without it."""
        self._log.warning(("settings", str(error)), f"not taken over: {error}")

    def file_broken(self, name: str, error: WindvaneError) -> None:
        """Secrets or certificates cannot be used, and `error` says what holds meanwhile."""
        self.health.report(
            f"file {name}", "settings-broken", f"not taken over: {error}", detail_is_identity=True
        )

    def file_mended(self, name: str) -> None:
        """They can be used again."""
        self.health.clear(f"file {name}")

    def port_shut(self, reason: str) -> None:
        """The forward port takes no connection; the other doors do."""
        self.forward_shut = reason
        self._log.warning(("shut", reason), f"the forward port is shut: {reason}")

    def port_opened(self, addresses: str) -> None:
        """The forward port takes connections, after it was shut."""
        self.forward_shut = None
        self._log.info(f"the forward port is open: {addresses}")

    def refused(self, code: str, chunk: IncomingChunk, reason: str, *, policy: str | None) -> None:
        """A chunk, or the bytes of a broken connection, did not enter."""
        self.refused_by_code[code] += 1
        subject = f"tag {chunk.tag!r:.220} from {chunk.origin}" if chunk.tag else chunk.origin
        # A policy has tags without number; where there is none, each tag needs one.
        place = policy or (chunk.tag if code == "no-policy" else "")
        self._log.warning(
            (code, chunk.who, chunk.hostname or "", place),
            f"refused {subject}: {reason}",
            source=chunk.sender,
        )

    def lost(self, *, origin: str, tag: str, error: BaseException) -> None:
        """A chunk could not be taken, and its sender asked for no ack: it is gone."""
        self.lost_total += 1
        self._log.warning(
            ("lost", origin),
            f"lost: a chunk with the tag {tag!r:.220} from {origin}, which asks for no acks and so does not "
            f"keep it: {error}. Set require_ack_response in that sender",
        )

    def bus_unavailable(self, error: BaseException) -> None:
        """A chunk was not taken; a sender that asked for an ack keeps it and will try again."""
        if not self._failed(_PUBLISH, error, what="a chunk cannot be published"):
            self._log.warning(("bus", type(error).__name__), f"not acking: {error}")

    def publish_failed(self, error: BaseException) -> None:
        """The bus did not take a chunk; a sender that asked for an ack keeps it and will try again."""
        self.bus_unavailable(error)
        if (
            code_of(error) is None
            and isinstance(error, BusUnavailable)
            and not isinstance(error, RateExceeded)
        ):
            self.health.report(_PUBLISH, "bus-away", str(error), for_s=FAILURE_S)

    def _failed(self, key: str, error: BaseException, *, what: str) -> bool:
        """Report a failed write; False if neither the disk nor its room was the cause."""
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
        """The catalog cannot be read or holds a policy that cannot be used; those in force stay."""
        if self._failed("catalog", error, what="the policies cannot be read, those in force stay"):
            return
        self._log.warning(("policies", str(error)), f"policies not reloaded: {error}")

    def dead_letter_lost(self, error: BaseException) -> None:
        """Refused input could not be kept; it is not acked."""
        if not self._failed(
            _LETTERS, error, what="dead letters cannot be written, rejected input is not acked"
        ):
            self._log.warning(
                ("dead-letters", type(error).__name__),
                f"dead letters cannot be written: {error}; nothing refused is acked",
            )

    def dead_letter_kept(self) -> None:
        """Rejected input is durable."""
        self.health.clear(_LETTERS)

    def letter_left_out(self, letter: DeadLetter) -> None:
        """Input of a sender who may not send it was refused, and not kept here: too much came at once."""
        self.letters_left_out_total += 1
        if letter.chunk_id is None or letter.format:
            why = "was answered that it may not send it" if letter.format else "asked for no ack"
            self._log.warning(
                ("left-out", letter.identity or letter.sender),
                f"perhaps lost: rejected input of {origin(letter.sender, letter.identity)} with the tag "
                f"{letter.tag!r:.220}: there is no room for a dead letter, and its sender {why}",
                source=letter.sender,
            )

    def collect(self) -> Iterator[Metric]:
        """Prometheus asks."""
        for name, text, total in (
            ("chunks", "Chunks that became durable on the bus", self.chunks_total),
            ("events", "Events in them", self.events_total),
            ("bytes", "Payload bytes in them", self.bytes_total),
            ("repeated_chunks", "Retransmissions, acked again and not stored", self.repeated_total),
        ):
            yield CounterMetricFamily(f"windvane_gateway_{name}", text, value=total)
        yield CounterMetricFamily(
            "windvane_gateway_handshakes_failed", "Peers not let in", value=self.handshakes_failed_total
        )
        yield CounterMetricFamily(
            "windvane_gateway_letters_left_out",
            "Refusals of which no dead letter was kept; senders that ask for acks keep them",
            value=self.letters_left_out_total,
        )
        yield CounterMetricFamily(
            "windvane_gateway_lost_chunks",
            "Chunks that could not be taken and whose senders asked for no ack",
            value=self.lost_total,
        )
        timeouts = CounterMetricFamily("windvane_gateway_timeouts", "Peers too slow", labels=["kind"])
        for kind, count in self.timeouts_by_kind.items():
            timeouts.add_metric([kind], count)
        yield timeouts
        refused = CounterMetricFamily("windvane_gateway_refused", "Input that did not enter", labels=["code"])
        for code, count in self.refused_by_code.items():
            refused.add_metric([code], count)
        yield refused
        yield GaugeMetricFamily("windvane_gateway_connections", "Open connections", value=self.connections)
        yield GaugeMetricFamily(
            "windvane_gateway_pending_bytes", "Bytes received and not yet durable", value=self.pending_bytes()
        )
