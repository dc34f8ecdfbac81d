"""Policies: the allowed settings, the error messages for others, and which policy a tag belongs to."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.errors import PolicyInvalid
from windvane.store.catalog.policy import (
    FORMATS,
    Limits,
    Policy,
    Step,
    TagPattern,
    mapping_from_toml,
    policy_from_mapping,
    policy_to_mapping,
)
from windvane.store.catalog.policy_table import PolicyTable

TOML = """
reference = "wind"
title = "The park"
tags = ["turbine.*.vibration", "mast.{north,south}"]
format = "raw"

[limits]
chunk_bytes = 65536

[[pipeline]]
operation = "pcm"
keep = false
dtype = "int16"
rate_hz = 25600.0

[[pipeline]]
operation = "spectrum"
name = "short"
input = "pcm"
length = 256

[[pipeline]]
operation = "model"
parameters = { n_trees = 25 }
"""

WIND = Policy(
    reference="wind",
    title="The park",
    tags=("turbine.*.vibration", "mast.{north,south}"),
    format="raw",
    limits=Limits(chunk_bytes=65536),
    pipeline=(
        Step("pcm", keep=False, parameters={"dtype": "int16", "rate_hz": 25600.0}),
        Step("spectrum", name="short", input="pcm", parameters={"length": 256}),
        Step("model", parameters={"parameters": {"n_trees": 25}}),
    ),
)


def from_toml(text: str) -> Policy:
    return policy_from_mapping(mapping_from_toml(text))


def test_a_policy_is_read_from_toml() -> None:
    assert from_toml(TOML) == WIND


def test_only_the_reference_must_be_given() -> None:
    policy = policy_from_mapping({"reference": "voice"})
    assert policy == Policy(
        reference="voice",
        title="",
        tags=("voice",),
        format="json",
        field="message",
        limits=Limits(),
        partitions=2,
    )
    assert policy.limits == Limits(chunk_bytes=8 * 1024 * 1024, events_per_chunk=1_000_000)
    assert policy.pipeline == ()


def test_a_step_is_named_after_its_operation() -> None:
    assert Step("wav").name == "wav"
    assert policy_from_mapping({"reference": "a", "pipeline": [{"operation": "wav"}]}).pipeline == (
        Step("wav"),
    )


def test_the_mapping_spells_everything_out() -> None:
    kept, not_kept = {"keep": True, "publish": False}, {"keep": False, "publish": False}
    assert policy_to_mapping(WIND) == {
        "reference": "wind",
        "title": "The park",
        "tags": ["turbine.*.vibration", "mast.{north,south}"],
        "format": "raw",
        "field": "message",
        "allow": [],
        "additional_fields": "refuse",
        "invalid_records": "drop",
        "limits": {
            "chunk_bytes": 65536,
            "events_per_chunk": 1_000_000,
            "decoded_bytes": 268_435_456,
            "burst_s": 2.0,
        },
        "durability": "fsync",
        "suppress_repeats": "chunk-id",
        "reorder_s": 0.0,
        "encoding": "msgpack",
        "topic": {},
        "alarm": [],
        "partitions": 2,
        "pipeline": [
            {"operation": "pcm", "name": "pcm", **not_kept, "dtype": "int16", "rate_hz": 25600.0},
            {"operation": "spectrum", "name": "short", "input": "pcm", **kept, "length": 256},
            {"operation": "model", "name": "model", **kept, "parameters": {"n_trees": 25}},
        ],
    }


def test_what_is_done_to_a_mapping_afterwards_changes_no_policy() -> None:
    mapping = mapping_from_toml(TOML)
    policy = policy_from_mapping(mapping)
    mapping["pipeline"][2]["parameters"]["n_trees"] = 1
    mapping["tags"].append("more")
    mapping["limits"]["chunk_bytes"] = 1
    assert policy == WIND
    out = policy_to_mapping(policy)
    out["pipeline"][2]["parameters"]["n_trees"] = 1
    assert policy == WIND


NAMES = st.text("abcXYZ019_-", min_size=1, max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
RESERVED = ("operation", "name", "input", "keep", "publish")


@st.composite
def steps(draw: st.DrawFn, name: str) -> dict[str, Any]:
    parameters = st.dictionaries(
        st.text(max_size=8).filter(lambda key: key not in RESERVED), VALUES, max_size=3
    )
    step: dict[str, Any] = {"operation": draw(NAMES), "name": name, **draw(parameters)}
    if draw(st.booleans()):
        step["keep"] = draw(st.booleans())
    if step.get("keep", True) and draw(st.booleans()):
        step["publish"] = draw(st.booleans())
    if draw(st.booleans()):
        step["input"] = draw(st.none() | NAMES)
    return step


def retentions() -> st.SearchStrategy[dict[str, Any]]:
    hours = st.floats(min_value=0.001, max_value=1e5)
    return st.fixed_dictionaries(
        {}, optional={"stream_hours": hours, "array_hours": hours, "bytes": st.integers(2**20, 2**50)}
    ).flatmap(
        lambda rows: (
            st.just(rows)
            if "array_hours" not in rows
            else st.builds(
                lambda factor: {**rows, "pyramid_hours": rows["array_hours"] * factor},
                st.floats(min_value=1, max_value=10),
            )
        )
    )


@st.composite
def mappings(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    optional: dict[str, st.SearchStrategy[Any]] = {
        "title": st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
        "tags": st.lists(st.sampled_from(["a", "a.*", "b.**", "{a,b}.größe", "**"]), max_size=3),
        "format": st.sampled_from(FORMATS),
        "field": st.text(min_size=1, max_size=10),
        "limits": st.fixed_dictionaries(
            {}, optional={key: st.integers(min_value=1, max_value=86_400) for key in Limits.__struct_fields__}
        ),
        "allow": st.lists(
            st.fixed_dictionaries(
                {
                    "identities": st.lists(st.sampled_from(["wind", "*.park", "ü"]), max_size=2),
                    "networks": st.lists(
                        st.sampled_from(["10.0.0.0/8", "::1", "local"]), min_size=1, max_size=2
                    ),
                }
            ),
            max_size=2,
        ),
        "schema": st.sampled_from(
            [
                {
                    "type": "record",
                    "name": "R",
                    "fields": [{"name": "x", "type": ["null", "int"], "default": None}],
                }
            ]
        ),
        "additional_fields": st.sampled_from(["refuse", "allow"]),
        "invalid_records": st.sampled_from(["drop", "refuse"]),
        "durability": st.sampled_from(["fsync", "written"]),
        "suppress_repeats": st.sampled_from(["chunk-id", "content"]),
        "topic": st.fixed_dictionaries(
            {},
            optional={
                "retention_hours": st.floats(min_value=0.5, max_value=1e5),
                "retention_bytes": st.integers(min_value=2**20, max_value=2**40),
            },
        ),
        "retention": retentions(),
        "pipeline": st.tuples(*(steps(name) for name in names)).map(list),
        "partitions": st.integers(min_value=1, max_value=1000),
    }
    reference = st.text("abcXYZ019._-", min_size=1, max_size=20).filter(
        lambda text: text != "." and ".." not in text
    )
    return draw(st.fixed_dictionaries({"reference": reference}, optional=optional))


@settings(max_examples=200, deadline=None)
@given(mappings())
def test_to_mapping_and_from_mapping_are_inverse(mapping: dict[str, Any]) -> None:
    policy = policy_from_mapping(mapping)
    spelt_out = policy_to_mapping(policy)
    assert policy_from_mapping(spelt_out) == policy
    assert policy_to_mapping(policy_from_mapping(spelt_out)) == spelt_out
    # The given settings are kept; only defaults are added.
    for key, value in mapping.items():
        if key == "tags":
            assert spelt_out["tags"] == (value or [mapping["reference"]])
        elif key == "pipeline":
            for given_step, step in zip(value, spelt_out["pipeline"], strict=True):
                kept = {k: v for k, v in given_step.items() if (k, v) != ("input", None)}
                assert {k: step[k] for k in kept} == kept
        elif key == "retention":
            assert spelt_out.get("retention", {}) == value
        elif key == "limits":
            assert {k: spelt_out["limits"][k] for k in value} == value
        else:
            assert spelt_out[key] == value


@settings(max_examples=50, deadline=None)
@given(mappings())
def test_the_mapping_goes_through_json_unchanged(mapping: dict[str, Any]) -> None:
    spelt_out = policy_to_mapping(policy_from_mapping(mapping))
    assert json.loads(json.dumps(spelt_out, allow_nan=False)) == spelt_out


def with_step(**step: Any) -> dict[str, Any]:
    return {"pipeline": [{"operation": "wav"}, {"operation": "spectrum", **step}]}


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        (
            {"formt": "raw"},
            'policy "wind": formt: is not known; did you mean "format"? Allowed: reference, title,',
        ),
        ({"zzz": 1}, 'policy "wind": zzz: is not known; Allowed: reference, title, tags, format'),
        ({"limits": {"chunk_byte": 1}}, 'limits.chunk_byte: is not known; did you mean "chunk_bytes"?'),
        ({"limits": {"chunk_bytes": 0}}, "limits.chunk_bytes: is 0, must be an integer >= 1"),
        ({"limits": {"chunk_bytes": "8M"}}, "limits.chunk_bytes: is text ('8M'), must be an integer"),
        (
            {"limits": {"chunk_bytes": True}},
            "limits.chunk_bytes: is true or false (True), must be an integer",
        ),
        ({"limits": 7}, "limits: is an integer (7), must be a table"),
        ({"format": "jsn"}, "format: 'jsn' is not known; did you mean \"json\"? Allowed: raw, msgpack, json"),
        ({"format": "xml"}, "format: 'xml' is not known; Allowed: raw, msgpack, json"),
        ({"format": 3}, "format: is an integer (3), must be text"),
        (
            {"durability": "fsinc"},
            """durability: 'fsinc' is not known; did you mean "fsync"? Allowed: fsync,""",
        ),
        ({"suppress_repeats": "id"}, "suppress_repeats: 'id' is not known; "),
        ({"signals": ["logs", "spans"]}, "signals[1]: 'spans' is not known; Allowed: logs, metrics"),
        ({"encoding": "json"}, "encoding: 'json' is not known; Allowed: msgpack, avro"),
        ({"encoding": "avro"}, 'encoding: "avro" needs a `schema`, in which the records go out'),
        ({"topic": {"retention_h": 1}}, 'topic.retention_h: is not known; did you mean "retention_hours"?'),
        ({"topic": {"retention_bytes": 10}}, "topic.retention_bytes: is 10, must be an integer >= 1048576"),
        ({"retention": {"hours": 1}}, "retention.hours: is not known;"),
        ({"retention": {"array_hours": 0}}, "retention.array_hours: is 0, must be a number > 0.0"),
        ({"retention": {"stream_hours": -1.5}}, "retention.stream_hours: is -1.5, must be a number > 0.0"),
        ({"retention": {"stream_hours": math.nan}}, "retention.stream_hours: is nan, must be a number > 0.0"),
        ({"retention": {"bytes": 4096}}, "retention.bytes: is 4096, must be an integer >= 1048576"),
        ({"retention": {"bytes": 1e9}}, "retention.bytes: is a number (1000000000.0), must be an integer"),
        (
            {"retention": {"pyramid_hours": 8}},
            "retention.pyramid_hours: needs array_hours, since the overview",
        ),
        (
            {"retention": {"array_hours": 9, "pyramid_hours": 8.5}},
            "retention.pyramid_hours: is 8.5, must be at least array_hours (9)",
        ),
        ({"additional_fields": "drop"}, "additional_fields: 'drop' is not known; Allowed: refuse, allow"),
        ({"invalid_records": True}, "invalid_records: is true or false (True), must be text"),
        ({"limits": {"events_per_s": 0}}, "limits.events_per_s: is 0, must be a number > 0"),
        ({"limits": {"bytes_per_s": "1M"}}, "limits.bytes_per_s: is text ('1M'), must be a number"),
        ({"limits": {"max_age_s": -1}}, "limits.max_age_s: is -1, must be a number >= 0"),
        ({"allow": {"identities": ["a"]}}, "allow: is a list of tables ([[allow]] in TOML), not a table"),
        ({"allow": ["10.0.0.0/8"]}, "allow[0]: is a table with `identities` or `networks`, not text"),
        ({"allow": [{"network": ["::1"]}]}, 'allow[0].network: is not known; did you mean "networks"?'),
        ({"allow": [{}]}, "allow[0]: allows no client; give it `identities` or `networks`"),
        ({"allow": [{"networks": "::1"}]}, """allow[0].networks: is text ('::1'), must be a list, such as"""),
        (
            {"allow": [{"networks": ["10.0.0.1/8"]}]},
            "allow[0].networks[0]: 10.0.0.1/8 has host bits set; write",
        ),
        ({"allow": [{"networks": ["park"]}]}, "allow[0].networks[0]: 'park' does not appear to be an"),
        ({"allow": [{"identities": [""]}]}, "allow[0].identities[0]: must have 1 to 500 characters"),
        ({"schema": "records.avsc"}, "schema: must be a schema, not the text 'records.avsc'"),
        ({"schema": "{"}, "schema: is not valid JSON: "),
        ({"schema": 3}, "schema: is an Avro schema as a table or as JSON, not an integer"),
        ({"schema": {"type": "record"}}, 'schema: is not a valid Avro schema: "name" is a required field'),
        ({"tags": "voice"}, """tags: is text ('voice'), must be a list, such as ["voice"]"""),
        ({"tags": ["a", 5]}, "tags[1]: is an integer (5), must be text"),
        ({"tags": ["a", "b{c"]}, 'tags[1]: tag pattern "b{c" opens a brace that it does not close'),
        ({"tags": ["a"] * 1001}, "tags: has 1001 patterns, at most 1000 are allowed"),
        ({"pipeline": [{"operation": "wav"}] * 101}, "pipeline: has 101 steps, at most 100 are allowed"),
        ({"field": ""}, "field: is '', must be text of length >= 1"),
        ({"title": "two\nlines"}, "title: is 'two\\nlines', must be text without control characters"),
        ({"partitions": 0}, "partitions: is 0, must be an integer >= 1"),
        ({"partitions": 2.5}, "partitions: is a number (2.5), must be an integer"),
        (
            {"reference": "a b"},
            "reference: is 'a b', must be 1 to 200 letters, digits, dots, underscores and dashes",
        ),
        ({"reference": "a\n"}, "reference: is 'a\\n', must be"),
        ({"reference": ".."}, 'reference: "." and ".." are not valid names of topics'),
        ({"reference": "a..b"}, 'reference: "a..b" has two dots side by side, which only the topics of'),
        ({"reference": None}, "policy: reference: is nothing (null) (None), must be text"),
        ({"pipeline": "wav"}, "pipeline: is a list of tables ([[pipeline]] in TOML), not text"),
        (
            {"pipeline": {"operation": "wav"}},
            "pipeline: is a list of tables ([[pipeline]] in TOML), not a table",
        ),
        ({"pipeline": ["wav"]}, "pipeline[0]: is a table with at least `operation`, not text"),
        (
            {"pipeline": [{"operaton": "wav"}]},
            'pipeline[0].operation: is missing; did you mean it by "operaton"?',
        ),
        ({"pipeline": [{}]}, "pipeline[0].operation: is missing, which names what the step does"),
        ({"pipeline": [{"operation": ""}]}, "pipeline[0].operation: is '', must be 1 to 100 letters"),
        (with_step(keep="yes"), "pipeline[1].keep: is text ('yes'), must be true or false"),
        (with_step(publish=True, keep=False), "pipeline[1].publish: needs keep = true, since rows go out"),
        (
            {"reference": "a" * 180, **with_step(publish=True, name="b" * 11)},
            "pipeline[1].publish: the reference of the policy and the step's name have 191 characters",
        ),
        (with_step(name="a b"), "pipeline[1].name: is 'a b', must be 1 to 100 letters, digits, underscores"),
        (with_step(name="a:b"), "pipeline[1].name: is 'a:b', must be 1 to 100 letters"),
        (with_step(name="größe"), "pipeline[1].name: is 'größe', must be 1 to 100 letters"),
        (with_step(name=""), "pipeline[1].name: is empty; leave it out"),
        (with_step(name="wav"), 'pipeline[1].name: "wav" is the name of pipeline[0] too'),
        (with_step(input=7), "pipeline[1].input: is an integer (7), must be text"),
        (with_step(gain=float("nan")), "pipeline[1].gain: is nan; JSON has no such number"),
        (with_step(bands=[[1, 2], [3, float("inf")]]), "pipeline[1].bands[1][1]: is inf"),
        (with_step(seed=2**63), "pipeline[1].seed: is an integer of more than 64 bits"),
        (with_step(model={"a": {1: 2}}), "pipeline[1].model.a: the key 1 is an integer; keys are text"),
        (with_step(raw=b"x"), "pipeline[1].raw: is bytes; text, numbers, true, false, lists and tables"),
    ],
)
def test_an_invalid_policy_is_rejected_by_path_and_with_what_is_allowed(
    settings_given: dict[str, Any], message: str
) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        policy_from_mapping({"reference": "wind", **settings_given})
    assert message in str(caught.value)


def test_a_policy_needs_a_reference_and_a_table() -> None:
    with pytest.raises(PolicyInvalid, match=r"^policy: reference: is missing"):
        policy_from_mapping({"tags": ["a"]})
    with pytest.raises(PolicyInvalid, match="table of settings, not a list"):
        policy_from_mapping([])  # type: ignore[arg-type]


def test_a_policy_that_is_nested_too_deep_is_rejected() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PolicyInvalid, match="deep"):
        policy_from_mapping({"reference": "wind", **with_step(deep=deep)})
    with pytest.raises(PolicyInvalid, match="reference"):
        policy_from_mapping({"reference": deep})


def test_toml_dates_are_not_valid_parameters() -> None:
    with pytest.raises(PolicyInvalid, match=r"pipeline\[0\]\.since: is a date;"):
        from_toml('reference = "a"\n[[pipeline]]\noperation = "wav"\nsince = 2026-11-22\n')


def test_a_mistake_in_toml_is_named_with_file_and_line() -> None:
    with pytest.raises(PolicyInvalid, match=r"^park\.toml, line 2: is not valid TOML: "):
        mapping_from_toml('reference = "a"\ntags = [a]', source="park.toml")


def test_a_schema_may_be_json_in_toml_whose_nulls_toml_has_not() -> None:
    fields = '[{"name": "x", "type": ["null", "int"], "default": null}]'
    text = f"""reference = "a"
schema = '''{{"type": "record", "name": "R", "fields": {fields}}}'''
"""
    schema = from_toml(text).schema
    assert schema == {
        "type": "record",
        "name": "R",
        "fields": [{"name": "x", "type": ["null", "int"], "default": None}],
    }


def policy(reference: str, *tags: str) -> Policy:
    return Policy(reference=reference, tags=tags)


def matched(table: PolicyTable, tag: str) -> str | None:
    found = table.match(tag)
    return None if found is None else found.reference


def test_the_most_specific_pattern_wins() -> None:
    table = PolicyTable(
        [
            policy("everything", "**"),
            policy("under", "turbine.**"),
            policy("one-part", "turbine.*"),
            policy("longer", "turbine.t*"),
            policy("exact", "turbine.t07", "mast.{north,south}"),
        ]
    )
    assert matched(table, "turbine.t07") == "exact"
    assert matched(table, "mast.south") == "exact"
    assert matched(table, "turbine.t08") == "longer"
    assert matched(table, "turbine.x") == "one-part"
    assert matched(table, "turbine.t07.blade1") == "under"
    assert matched(table, "turbine") == "under"
    assert matched(table, "mast.east") == "everything"


def test_of_equals_the_smaller_reference_wins_however_they_came() -> None:
    for policies in (
        [policy("a", "x", "y.*"), policy("b", "x", "y.*")],
        [policy("b", "x", "y.*"), policy("a", "x", "y.*")],
    ):
        table = PolicyTable(policies)
        assert (matched(table, "x"), matched(table, "y.z")) == ("a", "a")


def test_a_tag_that_no_policy_takes_has_none() -> None:
    table = PolicyTable([policy("a", "a"), policy("any", "any.**")])
    assert table.match("b") is None
    assert table.match("") is None
    assert PolicyTable([]).match("a") is None


def test_a_tag_over_two_hundred_bytes_has_no_policy() -> None:
    table = PolicyTable([policy("any", "**")])
    assert matched(table, "ü" * 100) == "any"
    assert matched(table, "ü" * 101) is None
    assert matched(table, "x" * 201) is None


def test_policies_are_found_by_reference_too() -> None:
    wind = policy("wind", "t.*")
    table = PolicyTable([wind, policy("voice")])
    assert table.policies == {"wind": wind, "voice": policy("voice", "voice")}


def test_two_policies_of_one_reference_are_rejected() -> None:
    with pytest.raises(PolicyInvalid, match='two policies "a"'):
        PolicyTable([policy("a", "x"), policy("a", "y")])


PATTERNS = ["a", "a.b", "{a,b}.b", "a.*", "*.b", "*", "a.**", "**.b", "**", "b.*.a"]


@settings(max_examples=200, deadline=None)
@given(
    tags=st.lists(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3), max_size=5),
    asked=st.lists(st.text("ab.", min_size=1, max_size=5), max_size=10),
)
def test_a_table_finds_what_going_through_all_patterns_finds(tags: list[list[str]], asked: list[str]) -> None:
    policies = [policy(f"p{i}", *patterns) for i, patterns in enumerate(tags)]
    table = PolicyTable(policies)
    for tag in asked * 2:
        candidates = [
            (pattern.specificity, one.reference)
            for one in policies
            for pattern in map(TagPattern, one.tags)
            if pattern.matches(tag)
        ]
        assert matched(table, tag) == (min(candidates)[1] if candidates else None)


def test_the_example_of_the_page_about_policies_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
    [toml] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    [schema] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    [example] = mapping_from_toml(toml)["policy"]
    policy = policy_from_mapping({**example, "schema": schema})
    assert set(policy_to_mapping(policy)) == set(example), "and it shows every setting"
    assert set(example["limits"]) == set(Limits.__struct_fields__)
