"""What a gateway reports: each event with its log line and its counters."""

import logging

from ..runtime.instrumentation import Count, Event, LogLine
from .chunk import IncomingChunk


class ChunkStored(Event, frozen=True):
    """A chunk is durable on the bus. The hot path counts it with `GatewayTelemetry.chunk_stored`."""

    counts = (
        Count("chunks_total", "windvane_gateway_chunks", "Chunks that became durable on the bus"),
        Count("events_total", "windvane_gateway_events", "Events in these chunks", amount="events"),
        Count("bytes_total", "windvane_gateway_bytes", "Their payload bytes", amount="payload_bytes"),
    )

    events: int
    payload_bytes: int


class ChunkRepeated(Event, frozen=True):
    """A chunk arrived again that is stored already; it is acknowledged and not stored."""

    counts = (
        Count(
            "repeated_total",
            "windvane_gateway_repeated_chunks",
            "Retransmissions, acknowledged and not stored again",
        ),
    )


class HandshakeFailed(Event, frozen=True):
    """A peer failed to authenticate. `detail` contains no secret, and the peer does not receive it."""

    line = LogLine(
        logging.WARNING,
        "rejected connection from {sender}: {detail}",
        key=("cause", "sender", "name"),
        source="sender",
    )
    counts = (
        Count(
            "handshakes_failed_total",
            "windvane_gateway_handshakes_failed",
            "Peers that failed to authenticate",
        ),
    )

    sender: str
    cause: str
    """One word or a few."""
    detail: str
    name: str = ""
    """What the peer calls itself, which it may have invented."""


class PeerTimedOut(Event, frozen=True):
    """A peer took too long. Its connection is closed; it keeps the chunks that were not acknowledged."""

    line = LogLine(
        logging.WARNING, "closed {sender}: {kind} took over {timeout_s:.3g} s", key=("kind", "sender")
    )
    counts = (
        Count("timeouts_by_kind", "windvane_gateway_timeouts", "Peers too slow", labels={"kind": "kind"}),
    )

    kind: str
    sender: str
    timeout_s: float


class ChunkRejected(Event, frozen=True):
    """A chunk, or the bytes of a broken connection, did not enter. `code` is the code of its dead letter."""

    line = LogLine(
        logging.WARNING,
        "rejected {subject}: {reason}",
        key=("code", "who", "hostname", "place"),
        source="sender",
    )
    counts = (
        Count(
            "rejected_by_code",
            "windvane_gateway_refused",
            "Rejected chunks, and broken connections, by code",
            labels={"code": "code"},
        ),
    )

    code: str
    reason: str
    tag: str
    policy: str | None
    sender: str
    who: str
    origin: str
    hostname: str

    @classmethod
    def of(cls, chunk: IncomingChunk, code: str, reason: str, *, policy: str | None) -> "ChunkRejected":
        """The event of a chunk that is rejected with `code`, by `policy` if one matched."""
        return cls(
            code=code,
            reason=reason,
            tag=chunk.tag,
            policy=policy,
            sender=chunk.sender,
            who=chunk.who,
            origin=chunk.origin,
            hostname=chunk.hostname or "",
        )

    @property
    def subject(self) -> str:
        """The chunk in words."""
        return f"tag {self.tag!r:.220} from {self.origin}" if self.tag else self.origin

    @property
    def place(self) -> str:
        """What has a log line of its own: a policy, since it may match any number of tags, else the tag."""
        return self.policy or (self.tag if self.code == "no-policy" else "")


class ChunkLost(Event, frozen=True):
    """A chunk could not be stored, and its sender asked for no acknowledgement: the chunk is lost."""

    line = LogLine(
        logging.WARNING,
        "lost: a chunk with the tag {tag!r:.220} from {origin}, which asks for no acks and so does not keep "
        "it: {reason}. Set require_ack_response in that sender",
        key=("origin",),
    )
    counts = (
        Count(
            "lost_total",
            "windvane_gateway_lost_chunks",
            "Chunks that could not be stored and whose senders asked for no ack",
        ),
    )

    origin: str
    tag: str
    reason: str


class DeadLetterOmitted(Event, frozen=True):
    """A chunk was rejected and no dead letter of it was kept, since too many are waiting to be written."""

    counts = (
        Count(
            "letters_left_out_total",
            "windvane_gateway_letters_left_out",
            "Rejected chunks without a dead letter; senders that ask for acks keep them",
        ),
    )


class RejectedInputLost(Event, frozen=True):
    """Rejected input has no dead letter, and its sender probably does not keep it."""

    line = LogLine(
        logging.WARNING,
        "perhaps lost: rejected input of {origin} with the tag {tag!r:.220}: there is no room for a dead "
        "letter, and its sender {why}",
        key=("who",),
        source="sender",
    )

    origin: str
    who: str
    sender: str
    tag: str
    why: str


class EventsWithoutTimes(Event, frozen=True):
    """A sender posts events without times of their own; they get the time of arrival."""

    line = LogLine(
        logging.WARNING,
        "events of {tag!r} from {sender} have no times of their own and get that of their arrival: {advice}",
        key=("policy", "tag", "sender"),
    )

    policy: str
    tag: str
    sender: str
    advice: str


class ChunkNotAcknowledged(Event, frozen=True):
    """A chunk could not be published. A sender that asked for an acknowledgement keeps it and resends it."""

    line = LogLine(logging.WARNING, "not acking: {reason}", key=("error",))

    error: str
    reason: str

    @classmethod
    def of(cls, error: BaseException) -> "ChunkNotAcknowledged":
        """The event of a chunk that `error` kept off the bus."""
        return cls(error=type(error).__name__, reason=str(error))


class DeadLetterFailed(Event, frozen=True):
    """A dead letter could not be written; its chunk is not acknowledged."""

    line = LogLine(
        logging.WARNING,
        "dead letters cannot be written: {reason}; nothing that is rejected is acked",
        key=("error",),
    )

    error: str
    reason: str

    @classmethod
    def of(cls, error: BaseException) -> "DeadLetterFailed":
        """The event of a dead letter that `error` kept off the disk."""
        return cls(error=type(error).__name__, reason=str(error))


class PoliciesNotReloaded(Event, frozen=True):
    """The catalog cannot be read or has a policy that is not valid; the policies in force stay in force."""

    line = LogLine(logging.WARNING, "policies not reloaded: {reason}", key=("reason",))

    reason: str


class SettingNotApplied(Event, frozen=True):
    """A setting cannot be applied; the gateway runs on without it."""

    line = LogLine(logging.WARNING, "not taken over: {reason}", key=("reason",))

    reason: str


class ForwardPortShut(Event, frozen=True):
    """The forward port accepts no connections; HTTP and the Unix socket do."""

    line = LogLine(logging.WARNING, "the forward port is shut: {reason}", key=("reason",))

    reason: str


class ForwardPortOpened(Event, frozen=True):
    """The forward port accepts connections again."""

    line = LogLine(logging.INFO, "the forward port is open: {addresses}")

    addresses: str


GATEWAY_EVENTS: tuple[type[Event], ...] = (
    ChunkStored,
    ChunkRepeated,
    ChunkRejected,
    ChunkLost,
    ChunkNotAcknowledged,
    DeadLetterOmitted,
    DeadLetterFailed,
    RejectedInputLost,
    EventsWithoutTimes,
    HandshakeFailed,
    PeerTimedOut,
    PoliciesNotReloaded,
    SettingNotApplied,
    ForwardPortShut,
    ForwardPortOpened,
)
