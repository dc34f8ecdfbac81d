"""A dead letter: rejected input with the reason, as it is added, listed and read."""

from dataclasses import dataclass, field
from typing import TypeAlias

from ...rejections import REJECTIONS, RejectionCode


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Rejected input.

    Attributes:
        code: The row of `rejections.REJECTIONS`.
        reason: A sentence for the user.
        sender: Address of the sender.
        policy: The policy that the input was checked against, if there was one.
        payload: The rejected bytes, or their beginning.
        time_ns: Time of the rejection, ns since the epoch, UTC.
        detail: More than fits a line, such as a traceback.
        chunk_id: The ID by which a retransmission is recognized.
        compression: Compression of the payload; "text" for none.
        signal: Number of the signal as in Fluent Bit; 0 for logs.
        format: "" if the payload is msgpack events, else how to decode it (`ingest.bodies.BodyFormat`).
        identity: The authenticated name of the sender.
        size: Bytes of the whole input, if `payload` is only its beginning.
        sample_of: The kind that this letter is a sample of: one is kept for each kind, code, tag and sender.
        occurrence: Tells equal input apart that is not a retransmission: input without a `chunk_id` of a
            sender that does not retry.
    """

    code: RejectionCode
    reason: str
    tag: str
    sender: str
    policy: str | None
    payload: bytes = field(repr=False)
    time_ns: int
    detail: str = ""
    chunk_id: bytes | None = None
    compression: str = "text"
    signal: int = 0
    format: str = ""
    identity: str | None = None
    size: int | None = None
    sample_of: str = ""
    occurrence: bytes = b""


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """A kept letter without its payload.

    Attributes:
        size: Bytes of the rejected payload, of which `kept_bytes` are kept.
        times: How often it arrived, first at `time_ns`, last at `last_time_ns`.
    """

    id: int
    code: str
    reason: str
    tag: str
    sender: str
    policy: str | None
    size: int
    time_ns: int
    last_time_ns: int
    times: int
    kept_bytes: int
    chunk_id: bytes | None
    signal: int

    @property
    def left_out(self) -> str | None:
        """What a replay of a letter that arrived several times does not store; None if nothing."""
        if self.times == 1:
            return None
        if self._is_sample:
            return f"it is one sample of {self.times}, and the others are not kept"
        if self.chunk_id is None:
            return (
                f"it arrived {self.times} times without an ID, which counts as a retransmission of the same "
                "input, and is stored once"
            )
        return None

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be replayed, and what to do, as text after a colon; None if it can."""
        kind = REJECTIONS.get(self.code)
        if kind is not None and kind.obstacle is not None:
            return kind.obstacle
        if self.kept_bytes < self.size and self._is_sample:
            return (
                f"it is a sample, the first {self.kept_bytes} of {self.size} bytes, of the metrics or traces "
                "of its sender, and no more of them is kept; let a policy take what comes next, and drop the "
                "letter"
            )
        if self.kept_bytes < self.size:
            is_limit = kind is not None and kind.is_limit
            cause = "raise the limit that it exceeds" if is_limit else "correct its cause"
            return (
                f"only the first {self.kept_bytes} of its {self.size} bytes are kept; {cause} and let its "
                "sender send it"
            )
        return None

    @property
    def _is_sample(self) -> bool:
        kind = REJECTIONS.get(self.code)
        return bool(self.signal) and kind is not None and kind.is_sampled


@dataclass(frozen=True, slots=True)
class KeptDeadLetter(DeadLetterSummary):
    """A kept letter with its payload, which is shorter than `size` if it was cut."""

    detail: str
    compression: str
    format: str
    identity: str | None
    payload: bytes = field(repr=False)


Summaries: TypeAlias = list[DeadLetterSummary]
"""`DeadLetters.list` hides the built-in name in its own class."""


@dataclass(frozen=True, slots=True)
class DeadLetterStatistics:
    """`count` and `bytes` of the kept letters, of at most `max_bytes`; `evicted` left for newer ones."""

    count: int
    bytes: int
    evicted: int
    max_bytes: int
