"""Ingestion policies: who may send which tags, in which format, and which pipeline runs on them.

A policy enters as a mapping (TOML, JSON, a document of the catalog) through `policy_from_mapping`, which
checks everything that does not depend on the operations; `policy_to_mapping` is its inverse. Related modules:
`policy_rules` (who may send), `alarm_rules` (what raises an alarm), `retention_rules` (how long data stays),
`policy_schema` (the schema of records), `policy_table` (which policy a tag belongs to), `policy_wording` (the
messages of errors).
docs/policies.md has every setting with an example.
"""

import copy
import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from ...errors import PolicyInvalid
from ...records.decoded_size import DEFAULT_LIMIT_BYTES
from ...toml_lines import explain_toml_error
from .alarm_rules import CONDITION, AlarmRule, check_alarm_rules, plain_rules, rule_to_mapping
from .policy_rules import Allow, check_rules
from .policy_schema import check_publishable, parse_schema, schema_from_json
from .policy_wording import (
    NAME,
    REFERENCE,
    TEXT,
    check_keys,
    in_words,
    key_text,
    kind_of,
    plain_value,
)
from .retention_rules import Retention, check_retention, retention_to_mapping
from .tag_pattern import TagPattern as TagPattern

Format = Literal["raw", "msgpack", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
AdditionalFields = Literal["refuse", "allow"]
InvalidRecords = Literal["drop", "refuse"]
Durability = Literal["fsync", "written"]
SuppressRepeats = Literal["chunk-id", "content"]
Signal = Literal["logs", "metrics"]
Encoding = Literal["msgpack", "avro"]
_CHOICES = {
    "format": FORMATS,
    "additional_fields": get_args(AdditionalFields),
    "invalid_records": get_args(InvalidRecords),
    "durability": get_args(Durability),
    "suppress_repeats": get_args(SuppressRepeats),
    "signals": get_args(Signal),
    "encoding": get_args(Encoding),
}

MAX_PIPELINE_STEPS = 100
MAX_TAG_PATTERNS = 1000
MAX_REORDER_S = 86_400.0
"""The largest window of event time in which a policy can sort events."""
MAX_PUBLISHED_NAME = 190
"""Characters of a policy's reference and a step's name together, if the step's rows are published: both
are in the name of their topic."""
_MAX_SCHEMA_NESTING = 200  # policy_schema has its own, lower limit on the types

_Rate = Annotated[float, Meta(gt=0, le=1e12)]
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]
_Name = Annotated[str, Meta(pattern=NAME)]


class Step(Struct, frozen=True):
    """One step of a pipeline.

    `name` is by default that of the operation, and names the output: `stream:name`. `input` names an earlier
    step or a kind of output, by default what the operation asks for. What the step gives is stored where
    `keep` is true, and goes out on a topic of the bus where `publish` is true too.
    """

    operation: _Name
    name: _Name = ""
    input: _Name | None = None
    keep: bool = True
    publish: bool = False
    parameters: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.operation)


class Limits(Struct, frozen=True):
    """How much may be sent, and of when.

    A chunk may have `chunk_bytes` of payload, decompressed, and `events_per_chunk`, and may take
    `decoded_bytes` of memory once its events are Python objects (`decoded_size`). All senders of a policy
    together may send `events_per_s` and `bytes_per_s`, and what the rates give in `burst_s` at once; None is
    unlimited. An event's time may lie `max_future_s` ahead of the gateway's clock and `max_age_s` behind it.
    """

    chunk_bytes: Annotated[int, Meta(ge=1, le=2**30)] = 8 * 1024 * 1024
    events_per_chunk: Annotated[int, Meta(ge=1, le=2**30)] = 1_000_000
    decoded_bytes: Annotated[int, Meta(ge=1, le=2**34)] = DEFAULT_LIMIT_BYTES
    events_per_s: _Rate | None = None
    bytes_per_s: _Rate | None = None
    burst_s: Annotated[float, Meta(gt=0, le=86_400)] = 2.0
    max_future_s: _Seconds | None = None
    max_age_s: _Seconds | None = None


class Topic(Struct, frozen=True):
    """How long a message stays on the policy's topics, and how much; None leaves it to the bus.

    `retention_bytes` counts for each partition. Both are for a bus that keeps messages by age and size
    (Kafka); the embedded one keeps what its workers have not read, and says itself how much else.
    """

    retention_hours: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    retention_bytes: Annotated[int, Meta(ge=1_048_576, le=2**62)] | None = None


class Policy(Struct, frozen=True):
    """An ingestion policy. Built by hand it is not checked; `policy_from_mapping` does that.

    `reference` is the name of its topic on the bus too. `tags` are tag patterns, by default the reference
    alone. `format` is what is appended to the data stream: the bytes of `field` (raw), the event unchanged
    (msgpack), or a line of JSON per event. `signals` is what of Fluent Bit may come: logs, and metrics, of
    which each sample becomes an event. `partitions` is how many its topic has.

    `allow` says who may send, any client that may connect if there is no rule. `schema` is the Avro schema of
    a record, `additional_fields` what becomes of fields that it does not name, and `invalid_records` whether
    a chunk with records that break the schema or the clock bounds loses those or is rejected whole.
    `durability` is what an ack promises: that the chunk survives a power cut (fsync), or the end of the
    process (written). `suppress_repeats` says how a chunk that is resent is known: by the chunk ID that
    the sender gives, or by its content. `reorder_s` holds events back so long, in event time, and puts them
    in order; 0 stores them in order of arrival.

    `encoding` "avro" lets the records go out, too, on a topic of their own, in the policy's schema; `topic`
    is how long the bus keeps what is on its topics, `retention` how long the store keeps what it has.
    """

    reference: Annotated[str, Meta(pattern=REFERENCE)]
    title: Annotated[str, Meta(max_length=500, pattern=TEXT)] = ""
    tags: tuple[str, ...] = ()
    format: Format = "json"
    field: Annotated[str, Meta(min_length=1, max_length=200)] = "message"
    signals: Annotated[tuple[Signal, ...], Meta(min_length=1)] = ("logs",)
    allow: tuple[Allow, ...] = ()
    schema: dict[str, Any] | None = None
    additional_fields: AdditionalFields = "refuse"
    invalid_records: InvalidRecords = "drop"
    limits: Limits = Limits()
    durability: Durability = "fsync"
    suppress_repeats: SuppressRepeats = "chunk-id"
    reorder_s: Annotated[float, Meta(ge=0, le=MAX_REORDER_S)] = 0.0
    encoding: Encoding = "msgpack"
    topic: Topic = Topic()
    retention: Retention = Retention()
    pipeline: tuple[Step, ...] = ()
    alarm: tuple[AlarmRule, ...] = ()
    partitions: Annotated[int, Meta(ge=1, le=1000)] = 2

    def __post_init__(self) -> None:
        if not self.tags:
            msgspec.structs.force_setattr(self, "tags", (self.reference,))

    @property
    def conditions(self) -> tuple[Step, ...]:
        """The steps whose rows raise alarms without a rule."""
        return tuple(step for step in self.pipeline if step.operation == CONDITION and step.keep)

    @property
    def raises_alarms(self) -> bool:
        """Whether its streams can have alarms."""
        return bool(self.alarm or self.conditions)


_STEP_KEYS = ("operation", "name", "input", "keep", "publish")


def policy_from_mapping(data: Mapping[str, Any]) -> Policy:
    """Validate a mapping and convert it to a policy; the mapping is not retained.

    In a table of `pipeline` the keys other than operation, name, input, keep and publish are the parameters
    of the operation. Raises PolicyInvalid, which names the path and the allowed values.
    """
    if not isinstance(data, Mapping):
        raise PolicyInvalid(f"a policy is a table of settings, not {kind_of(data)}")
    reference = data.get("reference")
    try:
        return _policy(data)
    except PolicyInvalid as error:
        name = f'policy "{reference[:200]}"' if isinstance(reference, str) and reference else "policy"
        raise PolicyInvalid(f"{name}: {error}") from error.__cause__


def _policy(data: Mapping[str, Any]) -> Policy:
    check_keys(data, "", Policy.__struct_fields__)
    if "reference" not in data:
        raise PolicyInvalid("reference: is missing; it names the policy and its topic on the bus")
    plain = dict(data)
    for name, kind in (("limits", Limits), ("topic", Topic), ("retention", Retention)):
        if isinstance(table := data.get(name), Mapping):
            check_keys(table, name, kind.__struct_fields__)
            plain[name] = dict(table)
    if "allow" in data:
        plain["allow"] = _allow(data["allow"])
    if data.get("schema") is not None:
        plain["schema"] = _schema(data["schema"])
    if "pipeline" in data:
        plain["pipeline"] = _steps(data["pipeline"])
    if "alarm" in data:
        plain["alarm"] = plain_rules(data["alarm"])
    try:
        policy = msgspec.convert(plain, Policy)
    except msgspec.ValidationError as error:
        raise PolicyInvalid(in_words(str(error), plain, _CHOICES)) from error
    if policy.reference in (".", ".."):
        raise PolicyInvalid(
            'reference: "." and ".." are not valid names of topics; give it letters or digits'
        )
    if ".." in policy.reference:
        raise PolicyInvalid(
            f'reference: "{policy.reference}" has two dots side by side, which only the topics of results '
            "have; take one of them out"
        )
    if not policy.reorder_s >= 0:
        raise PolicyInvalid(
            "reorder_s: is nan, must be a number of seconds; 0 stores events in order of arrival"
        )
    _check_tags(policy.tags)
    _check_names(policy.pipeline)
    _check_published(policy)
    check_alarm_rules(
        policy.alarm,
        kept=[step.name for step in policy.pipeline if step.keep],
        conditions=[step.name for step in policy.conditions],
    )
    check_rules(policy.allow)
    check_retention(policy.retention)
    return policy


def _allow(rules: Any) -> list[dict[str, Any]]:
    if not isinstance(rules, Sequence) or isinstance(rules, str | bytes):
        raise PolicyInvalid(f"allow: is a list of tables ([[allow]] in TOML), not {kind_of(rules)}")
    for i, rule in enumerate(rules):
        if not isinstance(rule, Mapping):
            raise PolicyInvalid(
                f"allow[{i}]: is a table with `identities` or `networks`, not {kind_of(rule)}"
            )
        check_keys(rule, f"allow[{i}]", Allow.__struct_fields__)
    return [dict(rule) for rule in rules]


def _schema(schema: Any) -> dict[str, Any]:
    if isinstance(schema, str):
        schema = schema_from_json(schema)
    if not isinstance(schema, Mapping):
        raise PolicyInvalid(f"schema: is an Avro schema as a table or as JSON, not {kind_of(schema)}")
    plain: dict[str, Any] = plain_value(schema, "schema", max_nesting=_MAX_SCHEMA_NESTING)
    parse_schema(plain)
    return plain


def _steps(pipeline: Any) -> list[dict[str, Any]]:
    if not isinstance(pipeline, Sequence) or isinstance(pipeline, str | bytes):
        raise PolicyInvalid(f"pipeline: is a list of tables ([[pipeline]] in TOML), not {kind_of(pipeline)}")
    if len(pipeline) > MAX_PIPELINE_STEPS:
        raise PolicyInvalid(f"pipeline: has {len(pipeline)} steps, at most {MAX_PIPELINE_STEPS} are allowed")
    steps: list[dict[str, Any]] = []
    for i, table in enumerate(pipeline):
        path = f"pipeline[{i}]"
        if not isinstance(table, Mapping):
            raise PolicyInvalid(f"{path}: is a table with at least `operation`, not {kind_of(table)}")
        if "operation" not in table:
            meant = difflib.get_close_matches("operation", [str(key) for key in table], n=1)
            hint = f'; did you mean it by "{meant[0]}"?' if meant else ", which names what the step does"
            raise PolicyInvalid(f"{path}.operation: is missing{hint}")
        step = {key: table[key] for key in _STEP_KEYS if key in table}
        step["parameters"] = {
            key_text(key, path): plain_value(value, f"{path}.{key}")
            for key, value in table.items()
            if key not in _STEP_KEYS
        }
        if step.get("name") == "":
            raise PolicyInvalid(f"{path}.name: is empty; leave it out to name the step after its operation")
        steps.append(step)
    return steps


def _check_tags(tags: Sequence[str]) -> None:
    if len(tags) > MAX_TAG_PATTERNS:
        raise PolicyInvalid(f"tags: has {len(tags)} patterns, at most {MAX_TAG_PATTERNS} are allowed")
    for i, tag in enumerate(tags):
        try:
            TagPattern(tag)
        except PolicyInvalid as error:
            raise PolicyInvalid(f"tags[{i}]: {error}") from error


def _check_names(pipeline: Iterable[Step]) -> None:
    places: dict[str, int] = {}
    for i, step in enumerate(pipeline):
        first = places.setdefault(step.name, i)
        if first != i:
            raise PolicyInvalid(
                f'pipeline[{i}].name: "{step.name}" is the name of pipeline[{first}] too; '
                "names differ within a pipeline, as each names an output: give one of them a `name`"
            )


def _check_published(policy: Policy) -> None:
    if policy.encoding == "avro" and policy.schema is None:
        raise PolicyInvalid(
            'encoding: "avro" needs a `schema`, in which the records go out; give the policy one, or leave '
            '"msgpack"'
        )
    if policy.encoding == "avro":
        check_publishable(policy.schema)
    for i, step in enumerate(policy.pipeline):
        if not step.publish:
            continue
        if not step.keep:
            raise PolicyInvalid(
                f"pipeline[{i}].publish: needs keep = true, since rows go out under their number in the data "
                f'array "stream:{step.name}"; set it, or take publish out'
            )
        length = len(policy.reference) + len(step.name)
        if length > MAX_PUBLISHED_NAME:
            raise PolicyInvalid(
                f"pipeline[{i}].publish: the reference of the policy and the step's name have {length} "
                f"characters together, and at most {MAX_PUBLISHED_NAME} go into the name of a topic; shorten "
                "one of them"
            )


def policy_to_mapping(policy: Policy) -> dict[str, Any]:
    """The inverse of `policy_from_mapping`: a mapping that JSON can represent, owned by the caller.

    TOML can too, if no default in the schema is null. All settings are explicit, so that a stored policy
    keeps its meaning when a default changes.
    """
    return {
        "reference": policy.reference,
        "title": policy.title,
        "tags": list(policy.tags),
        "format": policy.format,
        "field": policy.field,
        # A gateway of the previous version, which may still run, rejects this setting.
        **({} if policy.signals == ("logs",) else {"signals": list(policy.signals)}),
        "allow": [{"identities": list(r.identities), "networks": list(r.networks)} for r in policy.allow],
        **({} if policy.schema is None else {"schema": copy.deepcopy(policy.schema)}),
        "additional_fields": policy.additional_fields,
        "invalid_records": policy.invalid_records,
        "limits": {k: v for k, v in msgspec.structs.asdict(policy.limits).items() if v is not None},
        "durability": policy.durability,
        "suppress_repeats": policy.suppress_repeats,
        "reorder_s": policy.reorder_s,
        "encoding": policy.encoding,
        "topic": {k: v for k, v in msgspec.structs.asdict(policy.topic).items() if v is not None},
        # As with signals.
        **({} if policy.retention == Retention() else {"retention": retention_to_mapping(policy.retention)}),
        "partitions": policy.partitions,
        "pipeline": [
            {
                "operation": step.operation,
                "name": step.name,
                # TOML has no null.
                **({} if step.input is None else {"input": step.input}),
                "keep": step.keep,
                "publish": step.publish,
                **copy.deepcopy(step.parameters),
            }
            for step in policy.pipeline
        ],
        "alarm": [rule_to_mapping(rule) for rule in policy.alarm],
    }


def mapping_from_toml(text: str, *, source: str = "the policy file") -> dict[str, Any]:
    """Read TOML; `source` names it in messages. PolicyInvalid names the line of a mistake."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, reason = explain_toml_error(text, error)
        raise PolicyInvalid(f"{source}, line {line}: is not valid TOML: {reason}") from error
