"""Alarms as messages (`schemas/alarms.avsc`), in parts that join like those of rows."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import fastavro

from .chunks import encode_long, prefix_of
from .results import ResultPart, encode_value

ALARMS_SCHEMA: dict[str, Any] = json.loads(files("windvane.bus").joinpath("schemas/alarms.avsc").read_text())
_PREFIX = prefix_of(ALARMS_SCHEMA)
_EVENT = fastavro.parse_schema({**ALARMS_SCHEMA["fields"][-1]["type"]["items"], "namespace": "windvane"})
_STRING = fastavro.parse_schema({"type": "string"})
_VARINT_BYTES = 10  # of the longest long


def alarm_part(event: Mapping[str, Any], *, topic: str, partitions: int) -> ResultPart:
    """The message of one event: `windvane.store.catalog.alarms.AlarmEvent` as a mapping."""
    head = _PREFIX + encode_value(_STRING, event["stream"])
    values = {**event, "raised": event["raised_ns"], "time": event["time_ns"], "peak_time": event["peak_ns"]}
    block = encode_long(1) + encode_value(_EVENT, values)
    return ResultPart(
        topic=topic,
        key=event["stream"].encode(),
        head=head,
        first=event["sequence"],
        count=1,
        arrays=(block,),
        size=len(head) + len(block) + _VARINT_BYTES + 1,
        partitions=partitions,
    )
