"""JSON records from senders, decoded by one set of rules at every endpoint, and packed as msgpack.

Endpoints: bodies over HTTP, JSON on the forward port, and `windvane send --format jsonl`. JSON is RFC 8259 in
UTF-8, and beyond it:

    NaN, Infinity, -Infinity      are numbers, as Python and JavaScript libraries write them
    a byte order mark             before a value is skipped
    control characters            in a string stand for themselves
    a key that comes twice        has its last value
    -2^63 to 2^64 - 1             are integers; other integers, and numbers too large for a double, become the
                                  text of their digits, since no number of msgpack holds them
    numbers too small for a double
                                  (1e-400), which are not 0, become the text of their digits, too
    -0                            is the float -0.0, since integers have no sign at 0
    half of a surrogate pair      (\\ud800 alone) becomes its three bytes, which are not UTF-8
    nesting                       up to MAX_NESTING objects and arrays within each other, of one record

msgspec decodes what it can; the rest goes to the slower `json`, with the same result.
"""

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from ..errors import JsonInvalid
from .nesting import MAX_NESTING as MAX_NESTING

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BOM = "\ufeff"
_BLANK = re.compile(rf"[ \t\r\n{_BOM}]*")
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_CONTAINERS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

# A number of less than 1e-323 has an exponent of three digits, or more zeros than these.
_MANY_ZEROS = b"0" * 200
_UNLIKE_ZERO = {
    b"-0": re.compile(rb"-0(?=[ \t\r\n,\]}]|\Z)"),
    b"e-": re.compile(rb"e-0*[1-9][0-9]{2}"),
    b"E-": re.compile(rb"E-0*[1-9][0-9]{2}"),
}

_fast = msgspec.json.Decoder()
_encoder = msgspec.msgpack.Encoder()


def decode_json(text: bytes | bytearray | memoryview) -> Any:
    """The one value that `text` holds. Raises JsonInvalid."""
    try:
        if has_unlike_zeros(text):
            raise msgspec.DecodeError
        value = _fast.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = as_text(bytes(text))
        value, end = decode_at(decoded, skip_blanks(decoded, 0))
        if (end := skip_blanks(decoded, end)) < len(decoded):
            raise JsonInvalid(f"{decoded[end]!r} follows the value, at character {end}") from None
        return value
    return value


def has_unlike_zeros(text: bytes | bytearray | memoryview) -> bool:
    """Whether msgspec may make 0 of -0, or of a number that is too small.

    True of some text in strings, too: only the time that it takes depends on that.
    """
    data = bytes(text) if isinstance(text, memoryview) else text
    for mark, number in _UNLIKE_ZERO.items():
        if mark in data and number.search(data):
            return True
    return _MANY_ZEROS[:8] in data and _MANY_ZEROS in data  # a long needle alone takes 5 µs to prepare


def decode_object(text: bytes | bytearray | memoryview) -> dict[str, Any]:
    """As `decode_json`, of an object. Raises JsonInvalid."""
    value = decode_json(text)
    if not isinstance(value, dict):
        raise JsonInvalid(f"it is {_name_of(value)}, not an object")
    return value


def decode_at(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at `text[at]`, and the index of its end. Raises JsonInvalid."""
    try:
        value, end = _lenient.raw_decode(text, at)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise JsonInvalid(str(error)) from None
    return value, end


def skip_blanks(text: str, at: int) -> int:
    """The first index from `at` on that is neither white space nor a byte order mark."""
    match = _BLANK.match(text, at)
    return at if match is None else match.end()


def as_text(text: bytes) -> str:
    """`text` from UTF-8. Raises JsonInvalid."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise JsonInvalid(not_utf8(text, error.start)) from None


def not_utf8(text: bytes, at: int) -> str:
    """Why `text`, whose byte `at` is wrong, cannot be read."""
    is_utf_16 = text.startswith(_UTF_16)
    return "it is UTF-16; convert it to UTF-8" if is_utf_16 else f"byte {at} is not valid UTF-8"


def exact_numbers(text: bytes | str) -> Any:
    """The value of a text that `decode_json` has decoded, with numbers that have a point or an exponent as
    Decimal: a float has 15 digits, a time in nanoseconds 19.
    """
    decoded = text if isinstance(text, str) else text.decode()
    return _exact.raw_decode(decoded, skip_blanks(decoded, 0))[0]


def pack_json(value: Any) -> bytes:
    """msgpack of a decoded value. Raises JsonInvalid if it is nested too deeply."""
    packed = bytearray()
    pack_json_into(value, packed)
    return bytes(packed)


def pack_json_into(value: Any, packed: bytearray) -> None:
    """Appends msgpack of a decoded value to `packed`; the value may be changed.

    Raises JsonInvalid if it is nested too deeply.
    """
    begin = len(packed)
    try:
        _encoder.encode_into(value, packed, -1)
    except RecursionError:
        raise _too_deep() from None
    except (OverflowError, UnicodeEncodeError):
        if nesting_exceeds(value, MAX_NESTING):
            raise _too_deep() from None
        del packed[begin:]
        holder = [value]
        _make_packable(holder)
        _encoder.encode_into(holder[0], packed, -1)
    # Each level takes a byte in msgpack: few values have so many of these.
    if len(packed) - begin > MAX_NESTING:
        piece = packed[begin:]
        if len(piece) - len(piece.translate(None, _CONTAINERS)) > MAX_NESTING and nesting_exceeds(
            value, MAX_NESTING
        ):
            raise _too_deep()


def nesting_exceeds(value: Any, limit: int) -> bool:
    """Whether dicts and lists are nested more than `limit` deep; level by level, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        below: list[Any] = []
        for each in level:
            below.extend(each.values() if isinstance(each, dict) else each)
        level = [each for each in below if isinstance(each, dict | list)]
    return bool(level)


def _integer(digits: str) -> int | float | str:
    if digits == "-0":
        return -0.0
    if len(digits) <= 19:
        return int(digits)
    number = int(digits) if len(digits) <= 20 else None
    return number if number is not None and _LEAST <= number <= _MOST else digits


def _float(digits: str) -> float | str:
    number = float(digits)
    is_too_small = number == 0.0 and any(digit in "123456789" for digit in re.split("[eE]", digits)[0])
    return digits if is_too_small or not math.isfinite(number) else number


_lenient = json.JSONDecoder(strict=False, parse_int=_integer, parse_float=_float)
_exact = json.JSONDecoder(strict=False, parse_int=_integer, parse_float=Decimal)


def _make_packable(value: Any) -> None:
    """Replaces values in dicts and lists that msgpack cannot encode, in place and without recursion."""
    open_containers = [value]
    while open_containers:
        container = open_containers.pop()
        if isinstance(container, dict):
            pairs = [(_packable(key), _packable(inner)) for key, inner in container.items()]
            container.clear()
            container.update(pairs)
            inside: Iterable[Any] = container.values()
        else:
            container[:] = map(_packable, container)
            inside = container
        open_containers += [inner for inner in inside if isinstance(inner, dict | list)]


def _packable(value: Any) -> Any:
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        return str(value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
    return value


def _too_deep() -> JsonInvalid:
    return JsonInvalid(f"it is nested deeper than {MAX_NESTING} levels")


def _name_of(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "null")
