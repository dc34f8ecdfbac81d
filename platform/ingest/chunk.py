"""A chunk as a listener received it, before any check or decision."""

import re
from functools import lru_cache
from typing import Literal

import msgpack
import msgspec

from ..errors import ChunkRejected
from ..rejections import RejectionCode
from .bodies.formats import BodyFormat

CHUNK_OVERHEAD_BYTES = 2048
"""The memory that a pending chunk counts in addition to its bytes, so that tiny chunks are bounded too."""
_MAX_TAG_BYTES = 200
_LONE_SURROGATE = re.compile("[\\ud800-\\udfff]")  # stands for a byte that is not UTF-8


class PostedBody(msgspec.Struct, frozen=True):
    """A body as it was posted, before events are made of it."""

    data: bytes | bytearray
    compression: str
    format: BodyFormat
    arrived_ns: int
    """The time of events without one of their own."""
    size_bytes: int | None = None
    """Of the whole, where `data` is only its beginning."""


class Outcome(msgspec.Struct):
    """What became of the events of a chunk; the gateway writes it before the chunk's future ends.

    All 0 for a repetition of a chunk that is known.
    """

    stored_events: int = 0
    rejected_events: int = 0
    """They are in the dead letters, apart from the others."""
    reason: str = ""


class RejectedEvents(msgspec.Struct, frozen=True):
    """Some events of a chunk, the others of which enter."""

    code: RejectionCode
    reason: str
    events: int
    payload: bytes
    format: str = ""
    """How to read the payload, where that is part of a posted body; "": it is msgpack events."""


class IncomingChunk(msgspec.Struct, frozen=True):
    """A chunk that a listener received."""

    sender: str
    tag: str
    payload: bytes | memoryview
    events: int | None = None
    """Known and checked already, else None."""
    size_hint: int | None = None
    chunk_id: bytes | None = None
    compression: str = "text"
    signal: int = 0
    policy: str | None = None
    """The policy that the sender named; None: the tag decides."""
    identity: str | None = None
    """The authenticated sender: the user of the handshake or of the request, else the name in the client
    certificate, else the hostname that had its own or the shared key; None if the listener requires no
    authentication."""
    over_rate: Literal["wait", "refuse"] = "wait"
    """What to do over the policy's rates: keep it in line, or fail with RateExceeded at once."""
    body: PostedBody | None = None
    """What the payload is to be made from: a dead letter keeps that in its place."""
    is_run: bool = False
    """Its events came as a message each, and are one chunk for speed alone."""
    is_replay: bool = False
    """It is a replayed dead letter, which is kept if the chunk is rejected again."""
    hostname: str | None = None
    """What the sender called itself in the handshake; users of one name may have many."""
    outcome: Outcome | None = None
    """Collects how the chunk was stored, if the listener needs more than an acknowledgement."""

    @property
    def is_plain(self) -> bool:
        """Whether the payload is the events as they are: logs, not compressed, not from a posted body."""
        return not self.signal and self.body is None and self.compression == "text"

    @property
    def who(self) -> str:
        """With whom others take turns at what is scarce: one who proved who he is, else an address."""
        return self.sender if self.identity is None else self.identity

    @property
    def origin(self) -> str:
        """For the log."""
        return origin(self.sender, self.identity, self.hostname)


def origin(sender: str, identity: str | None, hostname: str | None = None) -> str:
    """A sender in words: its address, who it proved to be, and what it called itself in the handshake.

    >>> origin("10.7.0.3", "north", "t07")
    "10.7.0.3 (identity 'north', hostname 't07')"
    """
    names = [] if identity is None else [f"identity {identity!r:.100}"]
    if hostname is not None and hostname != identity:
        names.append(f"hostname {hostname!r:.100}")
    return f"{sender} ({', '.join(names)})" if names else sender


def halves(run: IncomingChunk) -> tuple[IncomingChunk, IncomingChunk]:
    """Splits a run of two events or more in two parts; a part of a single event is not a run."""
    assert run.events is not None
    walker = msgpack.Unpacker(read_size=len(run.payload), max_buffer_size=len(run.payload))
    walker.feed(run.payload)
    first = run.events // 2
    for _ in range(first):
        walker.skip()
    cut, rest = walker.tell(), run.events - first
    return (
        msgspec.structs.replace(run, payload=run.payload[:cut], events=first, is_run=first > 1),
        msgspec.structs.replace(run, payload=run.payload[cut:], events=rest, is_run=rest > 1),
    )


def charge(payload: bytes | bytearray | memoryview, chunk_id: bytes | None) -> int:
    """What a pending chunk counts for, against the window and the budget: an ack repeats its id."""
    return len(payload) + len(chunk_id or b"") + CHUNK_OVERHEAD_BYTES


@lru_cache(maxsize=4096)
def check_tag(tag: str) -> None:
    """A tag names the data stream: it must be printable, short, and leave ':' to the outputs.

    Raises ChunkRejected("bad-tag").
    """
    if _LONE_SURROGATE.search(tag):
        raise ChunkRejected(
            "bad-tag",
            f"the tag {tag.encode(errors='surrogateescape').decode(errors='backslashreplace'):.80} is not "
            "UTF-8; over HTTP tags are UTF-8 text, percent-encoded in a URL. Convert it to UTF-8",
        )
    if not tag or ":" in tag or not tag.isprintable() or len(tag.encode()) > _MAX_TAG_BYTES:
        raise ChunkRejected(
            "bad-tag",
            f"the tag {tag!r:.80} must have 1 to {_MAX_TAG_BYTES} printable bytes and no ':'; rename it",
        )
