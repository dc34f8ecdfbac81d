"""Topic names: each identifies the content of its topic, without ambiguity."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.bus.topic_names import (
    ResultTopic,
    alarms_topic,
    is_chunk_topic,
    parse_result_topic,
    records_topic,
    rows_topic,
)
from windvane.store.catalog.policy import MAX_PUBLISHED_NAME, policy_from_mapping
from windvane.store.catalog.policy_wording import NAME, REFERENCE

STEPS = st.from_regex(NAME, fullmatch=True)
KAFKA_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
PREFIX = "windvane."


def references() -> st.SearchStrategy[str]:
    """Valid references of policies, including dots at their ends and names like those of result topics."""
    texts = st.from_regex(REFERENCE, fullmatch=True) | st.text("a._-", min_size=1, max_size=6)
    return texts.map(lambda text: re.sub(r"\.+", ".", text)).filter(lambda text: text != ".")


@given(references(), STEPS)
def test_a_name_identifies_the_content_of_the_topic(reference: str, step: str) -> None:
    policy = policy_from_mapping({"reference": reference}).reference
    assert is_chunk_topic(policy)
    assert parse_result_topic(policy) is None
    for topic, content in (
        (rows_topic(policy, step), ResultTopic(policy, "rows", step)),
        (records_topic(policy), ResultTopic(policy, "records")),
        (alarms_topic(policy), ResultTopic(policy, "alarms")),
    ):
        assert not is_chunk_topic(topic)
        assert parse_result_topic(topic) == content


@given(st.integers(min_value=1, max_value=100))
def test_the_longest_names_of_policies_are_valid_on_kafka(step_length: int) -> None:
    reference = "r" * (MAX_PUBLISHED_NAME - step_length)
    pipeline = [{"operation": "fields", "name": "s" * step_length, "publish": True}]
    policy = policy_from_mapping({"reference": reference, "pipeline": pipeline})
    assert KAFKA_NAME.fullmatch(PREFIX + rows_topic(policy.reference, policy.pipeline[0].name))
    assert KAFKA_NAME.fullmatch(PREFIX + records_topic("r" * 200))


@pytest.mark.parametrize(
    "topic", ["voice", "..records", "voice..", "voice..rows.", "voice..rows.a.b", "voice..more", "a.rows.b"]
)
def test_other_names_are_not_result_topics(topic: str) -> None:
    assert parse_result_topic(topic) is None
