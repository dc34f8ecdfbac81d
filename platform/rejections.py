"""The one table of rejections: each code, what it means, and what every part of the platform does with it.

`RejectionCode` is the type of a code. A new code goes into that type and into the table, else the import of
this module fails. mypy then accepts it where a chunk is rejected or a dead letter is made.
docs/rejections.md is generated from this table (`make docs`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from http import HTTPStatus
from typing import Literal, TypeAlias, get_args

RejectionCode: TypeAlias = Literal[
    "no-policy",
    "sender-not-allowed",
    "tag-not-allowed",
    "bad-tag",
    "framing",
    "not-logs",
    "not-metrics",
    "unsupported-type",
    "unsupported-compression",
    "malformed",
    "bad-time",
    "invalid-event",
    "schema",
    "too-large",
    "too-large-decoded",
    "too-many-events",
    "too-many-members",
    "too-slow",
    "event-too-large",
    "over-rate",
    "policy-deleted",
    "stream-held",
    "ended-worker",
    "not-archived",
    "not-published",
    "step-failed",
    "bad-envelope",
]


class Ack(StrEnum):
    """What a forward sender that asks for acks gets for a chunk that is rejected with a code."""

    GIVEN = "acked"
    """An ack, once the dead letter is durable. Codes of the worker: the ack came before."""
    WITHHELD = "not acked"
    """No ack: the sender keeps its chunk and retries, and an operator can let it in."""
    NONE = "nothing to ack"
    """There is no chunk, or its sender asks for no acks."""


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the dead letters one code has: fractions of `dead_letter_bytes`.

    Letters of other codes never evict those within `guaranteed`. A code takes free room beyond that, up to
    `at_most`, until other codes need it. Each code of a group has these fractions for itself.
    """

    name: str
    meaning: str
    guaranteed: Fraction
    at_most: Fraction = Fraction(1)


ONLY_COPY = Share("only copy", "acked before, and stored nowhere else", Fraction(1, 16))
INVALID = Share("invalid", "sent to a policy that lets its sender in", Fraction(1, 32))
UNKNOWN_TAG = Share(
    "unknown tag", "every client that can connect can send it", Fraction(1, 16), at_most=Fraction(1, 4)
)
ANY_CLIENT = Share(
    "any client", "every client that can connect can send it", Fraction(1, 64), at_most=Fraction(1, 16)
)
EVIDENCE = Share("evidence", "shows a fault; its data is stored, or was never a chunk", Fraction(1, 64))
OTHER_VERSIONS = Share(
    "other versions", "all codes together that this version does not know", Fraction(1, 64)
)
SHARES = (ONLY_COPY, INVALID, UNKNOWN_TAG, ANY_CLIENT, EVIDENCE, OTHER_VERSIONS)


@dataclass(frozen=True, slots=True)
class RejectionKind:
    """One row of the table.

    Attributes:
        code: The stable name, in dead letters, metrics, logs and problem details.
        title: A short heading.
        cause: What happened, one sentence for the documentation.
        remedy: What to do, one sentence for the documentation.
        tier: Which tier rejects it.
        share: How much of the dead letters its letters have.
        ack: What a forward sender gets.
        http_status: The answer over HTTP; None if the code never answers a request.
        obstacle: Why a letter can never be replayed and what to do, as text after a colon; None: it can be.
        is_sampled: Of metrics and traces, one sample for each sender and tag is kept.
        is_of_events: Of a run of messages, only those that are rejected by themselves are.
        is_limit: The chunk exceeds a limit, which can be raised.
        was_published: Its chunk was on the bus: under its own ID a replay would pass for a repetition.
        is_archived: Its chunk is archived: the worker continues if the letter cannot be kept.
    """

    code: RejectionCode
    title: str
    cause: str
    remedy: str
    share: Share = INVALID
    ack: Ack = Ack.GIVEN
    http_status: HTTPStatus | None = HTTPStatus.UNPROCESSABLE_ENTITY
    tier: Literal["gateway", "worker"] = "gateway"
    obstacle: str | None = None
    is_sampled: bool = False
    is_of_events: bool = False
    is_limit: bool = False
    was_published: bool = False
    is_archived: bool = False

    @property
    def is_replayable(self) -> bool:
        """Whether a letter that is kept whole can be replayed."""
        return self.obstacle is None


_CORRECT_SENDER = "Correct the sender; the letter has the bytes that it sent."

_GATEWAY = (
    RejectionKind(
        code="no-policy",
        title="No policy",
        cause="No policy matches the tag, or there is no policy of the name that the request gives.",
        remedy="Create a policy for the tag. Senders that ask for acks retry; replay what others sent.",
        share=UNKNOWN_TAG,
        ack=Ack.WITHHELD,
        http_status=HTTPStatus.NOT_FOUND,
        is_sampled=True,
    ),
    RejectionKind(
        code="sender-not-allowed",
        title="Sender not allowed",
        cause="The policy of the tag does not allow this sender.",
        remedy="Add the identity or the network to a rule of `allow`, or correct the sender.",
        share=ANY_CLIENT,
        ack=Ack.WITHHELD,
        http_status=HTTPStatus.FORBIDDEN,
        is_sampled=True,
    ),
    RejectionKind(
        code="tag-not-allowed",
        title="Tag not allowed",
        cause="The request names a policy that does not take the tag.",
        remedy="Add the tag to the `tags` of the policy, or post to another policy.",
        share=ANY_CLIENT,
        http_status=HTTPStatus.FORBIDDEN,
        is_sampled=True,
    ),
    RejectionKind(
        code="bad-tag",
        title="Invalid tag",
        cause="The tag is empty, too long, not UTF-8, or has characters that no stream name may have.",
        remedy="Rename the tag at the sender.",
        share=ANY_CLIENT,
        http_status=HTTPStatus.BAD_REQUEST,
        obstacle="its tag cannot name a stream; rename it at the sender, and drop the letter",
    ),
    RejectionKind(
        code="framing",
        title="Not the forward protocol",
        cause="The bytes of a connection are not the forward protocol; the gateway closes that connection.",
        remedy="Look at the bytes and correct the sender; often it is another protocol on the forward port.",
        share=ANY_CLIENT,
        ack=Ack.NONE,
        http_status=None,
        obstacle=(
            "these are bytes of a connection that broke the protocol, no chunk; look at them, correct the "
            "sender, and drop the letter"
        ),
    ),
    RejectionKind(
        code="not-logs",
        title="Metrics or traces",
        cause="The chunk carries metrics that the policy of its tag does not take, or traces.",
        remedy='Send metrics under a tag of their own to a policy with `signals = ["metrics"]`.',
        share=ANY_CLIENT,
        is_sampled=True,
        obstacle=(
            "it is a sample of what its sender sends again and again; let a policy take it with "
            'signals = ["metrics"], and drop the letter'
        ),
    ),
    RejectionKind(
        code="not-metrics",
        title="Logs for a policy of metrics",
        cause="The chunk carries logs, and the policy of its tag takes metrics only.",
        remedy='Add "logs" to the `signals` of the policy, then replay the letter.',
    ),
    RejectionKind(
        code="unsupported-type",
        title="Unknown content type",
        cause="The body of a request has a content type that the gateway does not know.",
        remedy="Send one of the content types that the answer lists.",
        http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ),
    RejectionKind(
        code="unsupported-compression",
        title="Unknown compression",
        cause="The payload has a compression that the gateway does not know.",
        remedy="Compress with gzip or zstd, or not at all.",
        http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ),
    RejectionKind(
        code="malformed",
        title="Malformed",
        cause="The payload cannot be unpacked or decoded.",
        remedy=_CORRECT_SENDER,
    ),
    RejectionKind(
        code="bad-time",
        title="Invalid time",
        cause="The body has a time that is not a time, or one outside of 1970 to 2106.",
        remedy="Correct the clock or the time format of the sender, or set `time` in the request.",
    ),
    RejectionKind(
        code="invalid-event",
        title="Events that cannot be stored",
        cause="Events cannot be stored, whatever their policy says; the others of the chunk are stored.",
        remedy=_CORRECT_SENDER,
        is_of_events=True,
    ),
    RejectionKind(
        code="schema",
        title="Not what the schema allows",
        cause="Events do not fit the `schema` of their policy; `invalid_records` decides about the others.",
        remedy="Correct the sender, or change the schema and replay the letter.",
        is_of_events=True,
    ),
    RejectionKind(
        code="too-large",
        title="Too large",
        cause="The chunk or the body is over `limits.chunk_bytes` or `gateway.max_message_bytes`.",
        remedy="Send smaller chunks, or raise the limit. A body is kept only up to its first 64 KiB.",
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        is_of_events=True,
        is_limit=True,
    ),
    RejectionKind(
        code="too-large-decoded",
        title="Too large when decoded",
        cause="The events take more memory than `limits.decoded_bytes` when the worker decodes them.",
        remedy="Send smaller chunks, or raise the limit and replay the letter.",
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        is_of_events=True,
        is_limit=True,
    ),
    RejectionKind(
        code="too-many-events",
        title="Too many events",
        cause="The chunk has more events than `limits.events_per_chunk`.",
        remedy="Send smaller chunks, or raise the limit and replay the letter.",
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        is_of_events=True,
        is_limit=True,
    ),
    RejectionKind(
        code="too-many-members",
        title="Too many compressed members",
        cause="The chunk has over 100,000 gzip members or zstd frames, or over 1,000 without content.",
        remedy="Compress whole chunks at the sender.",
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        is_limit=True,
    ),
    RejectionKind(
        code="too-slow",
        title="Too much work",
        cause="The chunk takes more than 10 s of CPU time to unpack and convert.",
        remedy="Send smaller chunks.",
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        is_limit=True,
    ),
    RejectionKind(
        code="event-too-large",
        title="Event too large for the bus",
        cause="One event alone is larger than the largest message of the bus.",
        remedy="Send smaller events, or raise the message limit of the bus and replay the letter.",
        is_of_events=True,
    ),
    RejectionKind(
        code="over-rate",
        title="Over the rate",
        cause="The chunk is over the rate of its policy, too much waits, and its sender asks for no acks.",
        remedy="Set `require_ack_response` in the sender, or raise the rate; replay the letter.",
        ack=Ack.NONE,
        http_status=HTTPStatus.TOO_MANY_REQUESTS,
    ),
)

_WORKER = (
    RejectionKind(
        code="policy-deleted",
        title="Policy deleted",
        cause="The policy was deleted after the ack, and before the stream of the tag had its first chunk.",
        remedy="Create the policy again, then replay the letter.",
        share=ONLY_COPY,
        tier="worker",
        http_status=None,
        was_published=True,
    ),
    RejectionKind(
        code="stream-held",
        title="Stream of another policy",
        cause="A worker writes the stream of the tag for another policy.",
        remedy="Let the tag match one policy only, then replay the letter.",
        share=ONLY_COPY,
        tier="worker",
        http_status=None,
        was_published=True,
    ),
    RejectionKind(
        code="ended-worker",
        title="Ended the worker",
        cause="The worker ended twice while it worked on the chunk; the reason says how.",
        remedy="Correct the operation or the memory limit that ended it, then replay the letter.",
        share=ONLY_COPY,
        tier="worker",
        http_status=None,
        was_published=True,
    ),
    RejectionKind(
        code="not-archived",
        title="Not archived",
        cause="The worker cannot decode the events that the letter has, or cannot archive them.",
        remedy="Correct the sender or the policy, then replay the letter.",
        share=ONLY_COPY,
        tier="worker",
        http_status=None,
        was_published=True,
    ),
    RejectionKind(
        code="not-published",
        title="Not published",
        cause="The records do not fit the schema of their policy any more; the chunk is archived.",
        remedy="Check whether the schema of the policy still describes what is sent.",
        share=EVIDENCE,
        tier="worker",
        http_status=None,
        obstacle=(
            "its chunk is archived already, and a replay would store it twice; check whether the schema of "
            "the policy still describes what is sent"
        ),
        is_archived=True,
    ),
    RejectionKind(
        code="step-failed",
        title="Step failed",
        cause="A step of the policy cannot work on the chunk, so its output lacks it; the chunk is archived.",
        remedy="Correct the step or the policy, then make the output again with `windvane reprocess`.",
        share=EVIDENCE,
        tier="worker",
        http_status=None,
        obstacle=(
            "its chunk is archived already, and a replay would store it twice; correct the step or its "
            "policy, then make its outputs again with `windvane reprocess`"
        ),
        is_archived=True,
    ),
    RejectionKind(
        code="bad-envelope",
        title="Foreign bytes on the bus",
        cause="Another program published bytes to a topic of chunks, and they are not a chunk.",
        remedy="Correct that program, and drop the letter.",
        share=EVIDENCE,
        ack=Ack.NONE,
        tier="worker",
        http_status=None,
        obstacle=(
            "another program published these bytes to the bus, and there is no chunk in them; correct that "
            "program and drop the letter"
        ),
    ),
)


def _table(*kinds: RejectionKind) -> Mapping[str, RejectionKind]:
    """The table by code, in the order of `RejectionCode`. Raises ValueError if the two differ."""
    codes = tuple(kind.code for kind in kinds)
    if codes != get_args(RejectionCode):
        raise ValueError(f"RejectionCode and the table differ: {get_args(RejectionCode)} and {codes}")
    guaranteed = sum((kind.share.guaranteed for kind in kinds), OTHER_VERSIONS.guaranteed)
    if guaranteed > 1:
        raise ValueError(f"the shares guarantee {guaranteed} of the dead letters, which is more than all")
    return {kind.code: kind for kind in kinds}


REJECTIONS = _table(*_GATEWAY, *_WORKER)
"""Every kind by its code. A database of another version may have codes that are not in it."""

WITHHELD = frozenset(code for code, kind in REJECTIONS.items() if kind.ack is Ack.WITHHELD)
"""Codes of chunks that stay with their sender, so that a letter of them may be left out."""


def share_of(code: str) -> Share:
    """The share of a code, also of one that this version does not know."""
    kind = REJECTIONS.get(code)
    return OTHER_VERSIONS if kind is None else kind.share
