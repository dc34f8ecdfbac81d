"""The names of a policy's topics.

    voice                  its chunks, which the gateway publishes and the workers read
    voice..rows.spectrum   the rows of its step `spectrum`
    voice..records         its records as Avro
    voice..alarms          its alarm events

A policy's reference is the name of its chunk topic and has no two consecutive dots
(`windvane.store.catalog.policy` rejects them), so no chunk topic has the name of a result topic.
The name of a step has no dot, so each name can be parsed in one way only. Kafka allows these characters;
on Kafka each name has the prefix of the installation (`windvane.voice..records`).
"""

from typing import Literal, NamedTuple

MARK = ".."
"""Part of the name of each result topic, and of no other topic."""
_ROWS = "rows."
_RECORDS = "records"
_ALARMS = "alarms"


INSTALLATION_TOPIC = f"{MARK}installation"
"""Identifies on Kafka the installation that owns the topics (`installation.py`); belongs to no policy."""


class ResultTopic(NamedTuple):
    """The content of a result topic: its policy, its kind, and for rows the step."""

    policy: str
    kind: Literal["rows", "records", "alarms"]
    step: str = ""


def rows_topic(policy: str, step: str) -> str:
    """The topic of the rows that a step outputs."""
    return f"{policy}{MARK}{_ROWS}{step}"


def records_topic(policy: str) -> str:
    """The topic of a policy's records in Avro."""
    return f"{policy}{MARK}{_RECORDS}"


def alarms_topic(policy: str) -> str:
    """The topic of the alarms of a policy's streams."""
    return f"{policy}{MARK}{_ALARMS}"


def is_chunk_topic(topic: str) -> bool:
    """Whether the topic holds chunks: a worker reads no other topics."""
    return MARK not in topic


def parse_result_topic(topic: str) -> ResultTopic | None:
    """Parse the name of a result topic; None if the name is not one.

    >>> parse_result_topic("voice..rows.spectrum")
    ResultTopic(policy='voice', kind='rows', step='spectrum')
    """
    policy, mark, rest = topic.rpartition(MARK)
    if not mark or not policy:
        return None
    if rest == _RECORDS:
        return ResultTopic(policy, "records")
    if rest == _ALARMS:
        return ResultTopic(policy, "alarms")
    step = rest.removeprefix(_ROWS)
    return ResultTopic(policy, "rows", step) if step and step != rest and "." not in step else None
