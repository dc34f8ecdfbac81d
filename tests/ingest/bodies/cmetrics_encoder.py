"""Metrics as Fluent Bit's forward output puts them on the wire: the msgpack encoding of cmetrics, version 2.

Written from cmt_encode_msgpack.c of fluent/cmetrics; a test compares it with a captured message.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

COUNTER, GAUGE, HISTOGRAM, SUMMARY, UNTYPED, EXPONENTIAL = range(6)


def bits(value: float) -> int:
    """The 64 bits of a double, which cmetrics packs as an integer."""
    return int(struct.unpack(">Q", struct.pack(">d", value))[0])


def metric(
    type: int,
    name: str,
    *values: Mapping[str, Any],
    labels: Sequence[str] = (),
    ns: str = "fluentbit",
    ss: str = "",
    **header: Any,
) -> dict[str, Any]:
    """One metric with its samples."""
    options = {"ns": ns, "ss": ss, "name": name, "desc": "What it is.", "unit": ""}
    meta = {"ver": 2, "type": type, "opts": options, "labels": list(labels), **header}
    if type == COUNTER:
        meta["aggregation_type"] = 2
    return {"meta": meta, "values": [{**value, "hash": 2**64 - 1} for value in values]}


def context(*metrics: Mapping[str, Any], static_labels: Mapping[str, str] | None = None) -> bytes:
    """One scrape: the payload of a message, of which several may stand one behind the other."""
    meta = {
        "cmetrics": {},
        "external": {},
        "processing": {"static_labels": [list(pair) for pair in (static_labels or {}).items()]},
    }
    return bytes(msgpack.packb({"meta": meta, "metrics": list(metrics)}))


def message(tag: str, payload: bytes, **option: Any) -> bytes:
    """PackedForward typed bin, with the option map of metrics."""
    return bytes(msgpack.packb([tag, payload, {"fluent_signal": 1, **option}]))
