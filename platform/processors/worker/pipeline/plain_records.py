"""Decoded records as JSON, with an exact copy of values that JSON cannot represent.

Such values stay readable in a line of an archive, and their original bytes are added:

value                                     in "record"                          exact by itself
text, true, false, nil, finite numbers    unchanged                            yes
bytes that are not UTF-8                  {"base64": …}                        yes
extension types                           {"ext": …, "base64": …}              yes
maps of the same form as these two        unchanged                            no
NaN, Infinity, -Infinity                  null                                 no
EventTime, msgpack's timestamp            RFC 3339 in UTC                      no
keys that are not text in UTF-8           as text                              no
values nested deeper than MAX_PLAIN_DEPTH     null                             no

Records are as `events.iterate_events` gives them: str and bin both as bytes.
"""

import base64
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

from ....records.events import NS_PER_S, EventTime, decode_record, encode_event_time

MAX_PLAIN_DEPTH = 500
"""The maximum nesting of maps and lists. Each level is one Python call, of which 1,000 are allowed."""

_WRAPPERS = ({"base64"}, {"ext", "base64"})
_WRAPPERS_AS_BYTES = ({b"base64"}, {b"ext", b"base64"})
_SIMPLE = frozenset({bytes, int, bool, type(None)})


def is_plain(value: Any, depth: int = MAX_PLAIN_DEPTH) -> bool:
    """Whether `original_record` gives exactly this value back from its plain form."""
    kind = type(value)
    if kind in _SIMPLE or kind is msgpack.ExtType:
        return True
    if kind is float:
        return math.isfinite(value)
    if not depth:
        return False
    if kind is dict:
        if len(value) <= 2 and value.keys() in _WRAPPERS_AS_BYTES:
            return False
        for key, inner in value.items():
            if type(key) is not bytes or not (key.isascii() or _is_text(key)):
                return False
            if type(inner) not in _SIMPLE and not is_plain(inner, depth - 1):
                return False
        return True
    if kind is list:
        for inner in value:  # noqa: SIM110  (a generator uses stack too)
            if type(inner) not in _SIMPLE and not is_plain(inner, depth - 1):
                return False
        return True
    return False


def plain_copy(value: Any, depth: int = MAX_PLAIN_DEPTH) -> Any:
    """The value as JSON can represent it."""
    kind = type(value)
    if kind is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if kind is dict or kind is list:
        if not depth:
            return None
        if kind is list:
            copied = []
            for inner in value:
                copied.append(plain_copy(inner, depth - 1))  # noqa: PERF401  (a comprehension has a frame of its own)
            return copied
        named = {}
        for key, inner in value.items():
            named[_key(key)] = plain_copy(inner, depth - 1)
        return named
    if kind is msgpack.ExtType:
        return {"ext": value.code, "base64": base64.b64encode(value.data).decode()}
    if kind is msgpack.Timestamp:
        return _moment(value.to_unix_nano())
    if kind is EventTime:
        return _moment(int(value))
    return value


def made_plain(value: Any, depth: int = MAX_PLAIN_DEPTH) -> Any:
    """Like `plain_copy`, but consumes `value`: a large event must not be in memory twice."""
    if not depth:
        return plain_copy(value, 0)
    if type(value) is list:
        for index, inner in enumerate(value):
            value[index] = made_plain(inner, depth - 1)
        return value
    if type(value) is dict:
        named = {}
        for key in list(value):
            named[_key(key)] = made_plain(value.pop(key), depth - 1)
        return named
    return plain_copy(value)


def original_record(value: Any) -> Any:
    """The inverse of `plain_copy`, of a value for which `is_plain` was true."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        values = []
        for inner in value:
            values.append(original_record(inner))  # noqa: PERF401
        return values
    if isinstance(value, dict):
        if len(value) <= 2 and value.keys() in _WRAPPERS and (data := _wrapped(value)) is not None:
            return data if len(value) == 1 else msgpack.ExtType(value["ext"], data)
        named = {}
        for key, inner in value.items():
            named[key.encode()] = original_record(inner)
        return named
    return value


def _wrapped(value: dict[str, Any]) -> bytes | None:
    """Returns the wrapped bytes; None if a user wrote the map, not `plain_copy`, as in old archives."""
    text, code = value["base64"], value.get("ext", 0)
    if not isinstance(text, str) or type(code) is not int or not 0 <= code <= 127:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


def exact_record(record: Any) -> str:
    """The record in msgpack, in base64."""
    packer = _packer()
    try:
        packer.pack(record)
    except ValueError:  # nested too deep for the packer, which has a stack of 511
        packer = _packer()
        _pack_without_stack(packer, record)
    return base64.b64encode(packer.bytes()).decode()


def record_of_exact(text: str) -> Any:
    """The inverse of `exact_record`. Raises ValueError, or what msgpack raises."""
    return decode_record(base64.b64decode(text, validate=True))


def _packer() -> msgpack.Packer:
    # Strict, or an EventTime is packed as the integer that it is too.
    return msgpack.Packer(strict_types=True, autoreset=False, default=_special)


def _special(value: Any) -> Any:
    if isinstance(value, EventTime):
        return encode_event_time(value)
    raise TypeError(f"a record holds a {type(value).__name__}")


def _pack_without_stack(packer: msgpack.Packer, record: Any) -> None:
    waiting: list[Iterator[Any]] = [iter((record,))]
    while waiting:
        for value in waiting[-1]:
            if type(value) is list:
                packer.pack_array_header(len(value))
                waiting.append(iter(value))
                break
            if type(value) is dict:
                packer.pack_map_header(len(value))
                waiting.append(_flat(value.items()))
                break
            packer.pack(value)
        else:
            waiting.pop()


def _flat(items: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    for key, value in items:
        yield key
        yield value


def _key(key: Any) -> str:
    return key.decode(errors="backslashreplace") if isinstance(key, bytes) else str(key)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _moment(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, NS_PER_S)
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except OverflowError:  # a timestamp of msgpack has 64 bits of seconds
        return f"{seconds}.{ns:09d} s"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"
