"""What the topics of a policy are called.

    voice                  its chunks, which the gateway publishes and the workers read
    voice..rows.spectrum   the rows of its step `spectrum`
    voice..records         its records as Avro
    voice..alarms          what its rows say of alarms

A policy's reference is the name of its topic of chunks and has no two consecutive dots
(`windvane.store.catalog.policy` rejects that), so that no policy's topic can be mistaken for one of results.
The name of a step has no dot at all, so that a name can be read in one way only. Kafka allows these letters;
there every name has the prefix of the installation before it (`windvane.voice..records`).
"""

from typing import Literal, NamedTuple

MARK = ".."
"""Stands in the names of topics of results, and in no others."""
_ROWS = "rows."
_RECORDS = "records"
_ALARMS = "alarms"


INSTALLATION_TOPIC = f"{MARK}installation"
"""Says on Kafka which installation the topics belong to (`installation.py`); of no policy."""


class ResultTopic(NamedTuple):
    """What is on a topic of results: of which policy, and for rows of which step."""

    policy: str
    kind: Literal["rows", "records", "alarms"]
    step: str = ""


def rows_topic(policy: str, step: str) -> str:
    """The topic of the rows that a step gives."""
    return f"{policy}{MARK}{_ROWS}{step}"


def records_topic(policy: str) -> str:
    """The topic of a policy's records in Avro."""
    return f"{policy}{MARK}{_RECORDS}"


def alarms_topic(policy: str) -> str:
    """The topic of the alarms of a policy's streams."""
    return f"{policy}{MARK}{_ALARMS}"


def is_chunk_topic(topic: str) -> bool:
    """Whether chunks are on it: a worker reads no other."""
    return MARK not in topic


def parse_result_topic(topic: str) -> ResultTopic | None:
    """What is on a topic of results; None where the name is no such one's.

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
