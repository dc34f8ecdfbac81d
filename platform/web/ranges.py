"""The Range header of HTTP, as pure functions (RFC 9110, section 14)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_RANGES = 100
"""More ranges than this in one request are rejected: no honest reader needs them (RFC 9110, 17.15)."""

_RANGES = re.compile(r"\s*bytes\s*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(r"(\d{0,19})\s*-\s*(\d{0,19})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to, without, `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes in the range."""
        return self.stop - self.start

    def content_range(self, length: int) -> str:
        """The value of Content-Range for this range of a representation of `length` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{length}"


class NotSatisfiable(ValueError):
    """None of the requested ranges is satisfiable: the status is 416."""


def parse_range(header: str | None, *, start: int, length: int) -> list[ByteRange] | None:
    """The ranges that `header` requests of a representation whose bytes `start` to `length` are kept.

    None means that the whole is to be sent: there is no header, its unit is not bytes, or it is not
    well-formed
    (RFC 9110, 14.2: what is not understood is ignored). A suffix range is cut to what is kept. Ranges
    that overlap or touch are joined and given in ascending order; others stay in the requested order. Raises
    NotSatisfiable if no range is satisfiable, a single range begins before `start`, or there are more
    than MAX_RANGES.
    """
    wanted = _RANGES.fullmatch(header) if header else None
    if wanted is None:
        return None
    specs = [spec for spec in (piece.strip() for piece in wanted[1].split(",")) if spec]
    if not specs:
        return None
    found: list[ByteRange] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or match[0] == "-" or not (match[1] or match[2]):
            return None
        if match[1] and match[2] and int(match[1]) > int(match[2]):
            return None
        first, stop = _bounds(match[1], match[2], start=start, length=length)
        if start <= first < stop:
            found.append(ByteRange(first, stop))
    if len(specs) > MAX_RANGES:
        raise NotSatisfiable(f"{len(specs)} ranges in one request; at most {MAX_RANGES} are answered")
    if not found:
        kept = f"bytes {start} to {length - 1}" if length > start else "no bytes"
        raise NotSatisfiable(f"the range {header!r} lies outside what is kept ({kept})")
    return _joined(found)


def _bounds(first: str, last: str, *, start: int, length: int) -> tuple[int, int]:
    if not first:
        return max(start, length - int(last)), length
    return int(first), min(length, int(last) + 1) if last else length


def _joined(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    ascending = sorted(ranges, key=lambda piece: (piece.start, piece.stop))
    joined = [ascending[0]]
    for piece in ascending[1:]:
        if piece.start <= joined[-1].stop:
            joined[-1] = ByteRange(joined[-1].start, max(joined[-1].stop, piece.stop))
        else:
            joined.append(piece)
    return joined if len(joined) < len(ranges) else list(ranges)


def growing_etag(uid: bytes, length: int) -> str:
    """The strong ETag of an append-only resource: its uid and its length."""
    return f'"{uid.hex()}-{length:x}"'


def may_continue(if_range: str | None, etag: str) -> bool:
    """Whether the Range header holds although If-Range was sent (RFC 9110, 13.1.5).

    What only grows keeps its bytes at their offsets, so a reader who knows an earlier, shorter state of the
    same thing may continue where it stopped: same uid, and a length not beyond today's. Dates and weak ETags
    never match.
    """
    if if_range is None:
        return True
    known, now = _etag_parts(if_range.strip()), _etag_parts(etag)
    return known is not None and now is not None and known[0] == now[0] and known[1] <= now[1]


def _etag_parts(etag: str) -> tuple[str, int] | None:
    match = re.fullmatch(r'"([0-9a-f]+)-([0-9a-f]{1,16})"', etag)
    return (match[1], int(match[2], 16)) if match else None


def etag_listed(header: str | None, etag: str) -> bool:
    """Whether If-None-Match or If-Match names `etag`, or any (`*`). Weak marks are ignored."""
    if header is None:
        return False
    return header.strip() == "*" or etag in re.findall(r'"[^"]*"', header)
