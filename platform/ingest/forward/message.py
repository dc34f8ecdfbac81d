"""A message of the forward protocol, and the table of the options that it may carry.

An option is added here, and to `IncomingChunk`, whose field it sets: the framing, JSON and the connection
hand on what `OPTIONS` names.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict, cast

import msgpack
import msgspec

from ...errors import FramingError

MAX_OPTION_BYTES = 64 * 1024


class ForwardOptions(TypedDict, total=False):
    """The options of a message that were given and understood, named as the fields of `IncomingChunk`."""

    size_hint: int
    """How many events there are; it is only a hint."""
    chunk_id: bytes
    """What the ack must echo; empty if the sender requests no ack."""
    compression: str
    """Of a packed payload; events that came one by one are not compressed, whatever the option says."""
    signal: int
    """Fluent Bit's `fluent_signal`: 0 logs, 1 metrics, 2 traces."""


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _text(value: Any) -> str | None:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else None


class _Option(NamedTuple):
    name: str
    field: str
    read: Callable[[Any], object]
    """Gives None for a value of another type: it is ignored."""
    is_in_json: bool = False
    """JSON has it too; there the events are packed by the reader."""


OPTIONS = (
    _Option("size", "size_hint", _integer),
    _Option("chunk", "chunk_id", _bytes, is_in_json=True),
    _Option("compressed", "compression", _text),
    _Option("fluent_signal", "signal", _integer),
)
_BY_NAME = {option.name.encode(): option for option in OPTIONS}


class Message(msgspec.Struct):
    """One forward message, or a run of Message mode events of one tag that ask for no ack."""

    tag: bytes
    payload: bytes | memoryview
    """PackedForward's payload unchanged (possibly compressed), else the concatenated events."""
    events: int | None
    """Known if the framing has walked over them, so that they need no further check."""
    options: ForwardOptions
    is_run: bool = False
    """Several messages of one event each: joined for speed alone."""


def parse_options(encoded: memoryview) -> ForwardOptions:
    """The options in an encoded map. Raises FramingError if it is not one."""
    if len(encoded) > MAX_OPTION_BYTES:
        raise FramingError(
            f"a message's option of {len(encoded)} bytes is over the limit of {MAX_OPTION_BYTES}"
        )
    try:
        given = msgpack.unpackb(encoded, raw=True, strict_map_key=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise FramingError(f"a message's option cannot be read ({error}); check the sender") from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise FramingError(
            f"a message's option is a map, this one is {type(given).__name__}; check the sender"
        )
    found: dict[str, Any] = {}
    for name, value in given.items():
        option = _BY_NAME.get(name)
        if option is not None and (understood := option.read(value)) is not None:
            found[option.field] = understood
    return cast(ForwardOptions, found)


def json_options(given: Mapping[str, Any]) -> ForwardOptions:
    """The options of a message in JSON, from its object."""
    found: dict[str, Any] = {}
    for option in OPTIONS:
        value = given.get(option.name)
        if option.is_in_json and isinstance(value, str):
            found[option.field] = option.read(value.encode("utf-8", "surrogatepass"))
    return cast(ForwardOptions, found)
