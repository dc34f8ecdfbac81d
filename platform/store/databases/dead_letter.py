"""A dead letter: rejected input with the reason, as it is added, listed and read."""

from dataclasses import dataclass, field
from typing import TypeAlias

from ...rejections import REJECTIONS, RejectionCode


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Input that was refused.

    `code` is the stable name of the reason, `reason` the sentence for people, `sender` who sent it,
    `policy` the policy it was measured against if there was one, `time_ns` when it was refused, `detail`
    more than fits a line, such as a traceback.

    What sending it again needs beside them: `chunk_id`, by which a retransmission is known; `compression` of
    the payload ("text": none); `signal` as Fluent Bit numbers it (0: logs); `format`, "" where the payload is
    msgpack events, else how to read it (`ingest.http_formats.BodyFormat`); `identity`, who proved to be the
    sender. `size` is that of the whole where `payload` is only its beginning. `sample_of` says of what kind
    the letter is a sample, which its sender sends again and again: of a kind, code, tag and sender one is
    kept. `occurrence` tells equal input apart that is not the same sent again: input without a `chunk_id` of
    a sender that keeps nothing.
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

    `size` is that of the payload as it was refused, in bytes, of which `kept_bytes` are kept; `times` how
    often it came, first at `time_ns`, last at `last_time_ns`.
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
        """Of what came and was counted here, what a replay does not store; None where there is nothing."""
        if self.times == 1:
            return None
        if self._is_sample:
            return f"it is one sample of {self.times}, and the others are not kept"
        if self.chunk_id is None:
            return (
                f"it came {self.times} times without an id, which counts as the same input sent again, and "
                "is stored once"
            )
        return None

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be sent again, and what to do, to stand after a colon; None where it can."""
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
            cause = "raise the limit that it is over" if is_limit else "correct its cause"
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
    """A kept letter, whole. `payload` is shorter than `size` where it was over MAX_PAYLOAD_BYTES."""

    detail: str
    compression: str
    format: str
    identity: str | None
    payload: bytes = field(repr=False)


Summaries: TypeAlias = list[DeadLetterSummary]
"""`DeadLetters.list` hides the built-in name in its own class."""


@dataclass(frozen=True, slots=True)
class DeadLetterStatistics:
    """`count` and `bytes` of what is kept, of at most `max_bytes`; `evicted` letters left for newer ones."""

    count: int
    bytes: int
    evicted: int
    max_bytes: int
