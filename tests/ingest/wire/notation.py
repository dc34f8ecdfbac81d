"""Wire fixtures as one reads them: hex bytes and quoted text, a comment above each group."""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

_TOKEN = re.compile(rb'"([^"]*)"|([0-9a-f]{2})|(\S+)')


def wire(text: str) -> bytes:
    """The bytes of a fixture. Lines that begin with `#` are comments; `"text"` stands for its ASCII bytes."""
    found = bytearray()
    for line in text.encode("ascii").splitlines():
        if line.lstrip().startswith(b"#"):
            continue
        for quoted, pair, other in _TOKEN.findall(line):
            if other:
                raise ValueError(f"{other!r} is neither a hex byte nor quoted text")
            found += bytes.fromhex(pair.decode()) if pair else quoted
    return bytes(found)


def as_fixture(data: bytes, *, bytes_a_line: int = 16) -> str:
    """The inverse of `wire`, for recorded bytes: add the comments by hand."""
    lines = [data[at : at + bytes_a_line].hex(" ") for at in range(0, len(data), bytes_a_line)]
    return "\n".join(lines)


class Stored(NamedTuple):
    """A chunk on the bus."""

    tag: str
    payload: bytes
    events: int
    chunk_id: bytes | None


class Outcome(NamedTuple):
    """All that comes of what a peer sends.

    `answered` is every byte that the gateway writes, `stored` the chunks on the bus, `rejected` the code and
    bytes of each dead letter; `closed`: the gateway ended the connection.
    """

    answered: bytes
    stored: tuple[Stored, ...]
    rejected: tuple[tuple[str, bytes], ...]
    closed: bool


@dataclass(frozen=True)
class Fixture:
    """What a peer sends, and what must come of it."""

    name: str
    sent: bytes
    stored: tuple[Stored, ...] = ()
    answered: bytes = b""
    rejected: tuple[str, bytes] | None = None
    closes: bool = False
    speaks: Literal["msgpack", "json"] = "msgpack"

    @property
    def outcome(self) -> Outcome:
        rejected = () if self.rejected is None else (self.rejected,)
        return Outcome(self.answered, self.stored, rejected, self.closes)
