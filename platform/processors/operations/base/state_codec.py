"""The states of operations as bytes, for checkpoints and for models that are restored.

An operation whose class names a `state_type` has typed states: MessagePack that is decoded into that type and
nothing else, so reading it runs no code. Other states, those of users' operations by default, are pickles:

    typed    01, version (unsigned 16 bit, little-endian), MessagePack of the state
    pickled  80 …, as pickle protocol 2 and later begins

A dataclass is a map by field names. An array is [dtype, shape, order, bytes], the dtype as in the header of a
.npy file, the order "C" or "F", since both are part of what a sum gives to the last bit; Python objects in
arrays are rejected both ways. A complex number is [real, imaginary], a deque [maxlen, items], an `Integer`
its decimal digits, as MessagePack has integers of 64 bits only.

The built-in operations wrote pickles before they had types; those are still read.
"""

from __future__ import annotations

import math
import pickle
from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
from numpy.lib.format import descr_to_dtype, dtype_to_descr

from ....errors import StateInvalid
from ....msgspec_threading import prepare
from .operation import Operation
from .unpickling import check_source, unpickle

_TYPED = 0x01
_HEAD_BYTES = 3
_PICKLED = 0x80


class Integer(int):
    """An integer of a typed state that can exceed 64 bits."""


def is_typed(operation: type[Operation]) -> bool:
    """Whether its states are typed: not if a subclass overrides `state` without a `state_type`."""
    says = next(cls for cls in operation.__mro__ if "state_type" in vars(cls) or "state" in vars(cls))
    return "state_type" in vars(says)


def encode_state(operation: type[Operation], state: Any) -> bytes:
    """The bytes of a state of this operation. Passes on any exception that encoding the state raises."""
    if not is_typed(operation):
        return pickle.dumps(state, protocol=5)
    head = bytes([_TYPED]) + operation.state_version.to_bytes(2, "little")
    return head + _encoder.encode(state)


def decode_state(operation: type[Operation], saved: bytes | memoryview) -> Any:
    """The state that `encode_state` encoded. It shares no memory with `saved`.

    Raises:
        StateInvalid: the version is not known ("unknown-version"), or the bytes are not a state of this
            operation ("unreadable"), or name a class that no state may hold ("class-refused").
        FileUntrusted: it holds a pickle, and another user can write to the database that it comes from.
        Exception: any exception of a pickled class.
    """
    kind = saved[0] if len(saved) else -1
    if kind == _PICKLED:
        check_source()
        return unpickle(saved)
    if kind != _TYPED or len(saved) < _HEAD_BYTES or not is_typed(operation):
        raise StateInvalid("unreadable", f"{len(saved)} bytes that begin with {bytes(saved[:4])!r}")
    version = int.from_bytes(saved[1:_HEAD_BYTES], "little")
    if version != operation.state_version:
        raise StateInvalid(
            "unknown-version",
            f"it has version {version}, and this Windvane reads version {operation.state_version}",
        )
    if operation.state_pickles:
        check_source()
    try:
        return _decoder(operation.state_type).decode(memoryview(saved)[_HEAD_BYTES:])
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError) as error:
        raise StateInvalid("unreadable", f"it is not a state of version {version}: {error}") from error


@lru_cache(maxsize=256)  # a user's file creates new types each time it is loaded
def _decoder(state_type: Any) -> msgspec.msgpack.Decoder[Any]:
    prepare(state_type)
    return msgspec.msgpack.Decoder(state_type, dec_hook=_from_plain)


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, np.generic):
        if isinstance(value, np.complexfloating):
            raise TypeError(f"a NumPy scalar of {value.dtype}; use complex")
        return value.item()
    if isinstance(value, complex):
        return value.real, value.imag
    if isinstance(value, deque):
        return value.maxlen, list(value)
    if isinstance(value, Integer):
        return str(value)
    raise TypeError(f"states cannot hold {type(value).__qualname__}")


def _plain_array(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    if array.dtype.hasobject:
        raise TypeError("an array of Python objects")
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    descr = array.dtype.str if array.dtype.names is None else dtype_to_descr(array.dtype)
    return descr, array.shape, order, array.tobytes(order)  # type: ignore[arg-type]


def _from_plain(wanted: Any, plain: Any) -> Any:
    return _reader(wanted)(plain)


@lru_cache(maxsize=256)
def _reader(wanted: Any) -> Callable[[Any], Any]:
    """A function that converts the plain form of a value to this type."""
    kind = get_origin(wanted) or wanted
    arguments = get_args(wanted)
    if kind is np.ndarray:
        scalars = get_args(arguments[1]) if arguments else (Any,)
        return partial(_array, None if scalars == (Any,) else np.dtype(scalars[0]))
    if kind is deque:
        return partial(_deque, list[arguments[0] if arguments else Any])  # type: ignore[misc]
    if kind is complex:
        return lambda plain: complex(*msgspec.convert(plain, tuple[float, float]))
    if kind is Integer:
        return lambda plain: Integer(msgspec.convert(plain, str))
    if isinstance(kind, type) and issubclass(kind, np.generic):
        return kind
    raise NotImplementedError(f"states cannot hold {wanted}")


def _deque(items_type: Any, plain: Any) -> deque[Any]:
    maxlen, items = msgspec.convert(plain, tuple[int | None, list[Any]])
    return deque(msgspec.convert(items, items_type, dec_hook=_from_plain), maxlen)


def _array(wanted: np.dtype[Any] | None, plain: Any) -> np.ndarray[Any, Any]:
    descr, shape, order, data = plain
    dtype = _dtype(descr) if isinstance(descr, str) else descr_to_dtype(_as_descr(descr))
    if dtype.hasobject or order not in ("C", "F") or not isinstance(data, bytes):
        raise ValueError(f"an array of {dtype} in order {order!r}")
    if wanted is not None and dtype != wanted:
        raise ValueError(f"an array of {dtype}, not of {wanted}")
    if dtype.itemsize * math.prod(shape) != len(data) or any(size < 0 for size in shape):
        raise ValueError(f"an array of {dtype} {shape} in {len(data)} bytes")
    read_only: np.ndarray[Any, Any] = np.ndarray(shape, dtype, data, order=order)
    return read_only.copy("K")  # operations may write into restored arrays


@lru_cache(maxsize=64)
def _dtype(text: str) -> np.dtype[Any]:
    return np.dtype(text)


def _as_descr(plain: Any) -> Any:
    """The fields of a structured dtype, with the tuples that MessagePack converted to lists."""
    return [
        (name, _as_descr(each) if isinstance(each, list) else each, *map(tuple, shape))
        for name, each, *shape in plain
    ]


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_plain)
