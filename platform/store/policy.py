"""Ingestion policies: who may send which tags, in which format, and which pipeline runs on them.

A policy enters as a mapping (TOML, JSON, a document of the catalog) through `policy_from_mapping`, which
checks all that can be said of it without knowing the operations; `policy_to_mapping` is its inverse.
`PolicyTable` finds the policy of a tag.
"""

import copy
import difflib
import json
import math
import re
import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from ..errors import PolicyInvalid
from .tag_pattern import MAX_TAG_BYTES
from .tag_pattern import TagPattern as TagPattern

Format = Literal["raw", "msgpack", "json"]
FORMATS: tuple[str, ...] = get_args(Format)

MAX_PIPELINE_STEPS = 100
MAX_TAG_PATTERNS = 1000
MAX_NESTING = 16
"""How deep tables and lists of a parameter may lie in one another."""
MATCH_CACHE_TAGS = 32_768
"""How many tags a PolicyTable remembers the policy of: about 20 MB at most."""

_REFERENCE = r"^[A-Za-z0-9._-]{1,200}\Z"
_NAME = r"^[A-Za-z0-9_-]{1,100}\Z"
_TEXT = r"^[^\x00-\x1f\x7f-\x9f]*\Z"
_Name = Annotated[str, Meta(pattern=_NAME)]


class Step(Struct, frozen=True):
    """One step of a pipeline.

    `name` is by default that of the operation, and names the output: `stream:name`. `input` names an earlier
    step or a kind of output, by default what the operation asks for. What the step gives is stored where
    `keep` is true.
    """

    operation: _Name
    name: _Name = ""
    input: _Name | None = None
    keep: bool = True
    parameters: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.operation)


class Limits(Struct, frozen=True):
    """What one chunk may hold: bytes of its payload, decompressed, and events."""

    chunk_bytes: Annotated[int, Meta(ge=1, le=2**30)] = 8 * 1024 * 1024
    events_per_chunk: Annotated[int, Meta(ge=1, le=2**30)] = 1_000_000


class Policy(Struct, frozen=True):
    """An ingestion policy. Built by hand it is not checked; `policy_from_mapping` does that.

    `reference` is the name of its topic on the bus too. `tags` are tag patterns, by default the reference
    alone. `format` is what is appended to the data stream: the bytes of `field` (raw), the event as it came
    (msgpack), or a line of JSON per event. `partitions` is how many its topic has.
    """

    reference: Annotated[str, Meta(pattern=_REFERENCE)]
    title: Annotated[str, Meta(max_length=500, pattern=_TEXT)] = ""
    tags: tuple[str, ...] = ()
    format: Format = "json"
    field: Annotated[str, Meta(min_length=1, max_length=200)] = "message"
    limits: Limits = Limits()
    pipeline: tuple[Step, ...] = ()
    partitions: Annotated[int, Meta(ge=1, le=1000)] = 2

    def __post_init__(self) -> None:
        if not self.tags:
            msgspec.structs.force_setattr(self, "tags", (self.reference,))


_STEP_KEYS = ("operation", "name", "input", "keep")


def policy_from_mapping(data: Mapping[str, Any]) -> Policy:
    """Check a mapping and make it a policy; the mapping is not kept.

    In a table of `pipeline` the keys other than operation, name, input and keep are the parameters of the
    operation. Raises PolicyInvalid, which names the path and what is allowed there.
    """
    if not isinstance(data, Mapping):
        raise PolicyInvalid(f"a policy is a table of settings, not {_kind(data)}")
    reference = data.get("reference")
    try:
        return _policy(data)
    except PolicyInvalid as error:
        name = f'policy "{reference[:200]}"' if isinstance(reference, str) and reference else "policy"
        raise PolicyInvalid(f"{name}: {error}") from error.__cause__


def _policy(data: Mapping[str, Any]) -> Policy:
    _check_keys(data, "", Policy.__struct_fields__)
    if "reference" not in data:
        raise PolicyInvalid("reference: is missing; it names the policy and its topic on the bus")
    plain = dict(data)
    if "limits" in data and isinstance(data["limits"], Mapping):
        _check_keys(data["limits"], "limits", Limits.__struct_fields__)
        plain["limits"] = dict(data["limits"])
    if "pipeline" in data:
        plain["pipeline"] = _steps(data["pipeline"])
    try:
        policy = msgspec.convert(plain, Policy)
    except msgspec.ValidationError as error:
        raise PolicyInvalid(_in_words(str(error), plain)) from error
    if policy.reference in (".", ".."):
        raise PolicyInvalid('reference: "." and ".." are no names of topics; give it letters or digits')
    _check_tags(policy.tags)
    _check_names(policy.pipeline)
    return policy


def _steps(pipeline: Any) -> list[dict[str, Any]]:
    if not isinstance(pipeline, Sequence) or isinstance(pipeline, str | bytes):
        raise PolicyInvalid(f"pipeline: is a list of tables ([[pipeline]] in TOML), not {_kind(pipeline)}")
    if len(pipeline) > MAX_PIPELINE_STEPS:
        raise PolicyInvalid(f"pipeline: has {len(pipeline)} steps, at most {MAX_PIPELINE_STEPS} are allowed")
    steps: list[dict[str, Any]] = []
    for i, table in enumerate(pipeline):
        path = f"pipeline[{i}]"
        if not isinstance(table, Mapping):
            raise PolicyInvalid(f"{path}: is a table with at least `operation`, not {_kind(table)}")
        if "operation" not in table:
            meant = difflib.get_close_matches("operation", [str(key) for key in table], n=1)
            hint = f'; did you mean it by "{meant[0]}"?' if meant else ", which names what the step does"
            raise PolicyInvalid(f"{path}.operation: is missing{hint}")
        step = {key: table[key] for key in _STEP_KEYS if key in table}
        step["parameters"] = {
            _key(key, path): _plain(value, f"{path}.{key}")
            for key, value in table.items()
            if key not in _STEP_KEYS
        }
        if step.get("name") == "":
            raise PolicyInvalid(f"{path}.name: is empty; leave it out to name the step after its operation")
        steps.append(step)
    return steps


def _plain(value: Any, path: str, nesting: int = 0) -> Any:
    """A copy of a parameter's value; only what TOML, JSON and msgpack all carry unchanged is allowed."""
    if nesting > MAX_NESTING:
        raise PolicyInvalid(f"{path}: lies over {MAX_NESTING} tables or lists deep")
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(item, f"{path}.{key}", nesting + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]", nesting + 1) for i, item in enumerate(value)]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PolicyInvalid(f"{path}: is an integer of more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise PolicyInvalid(
            f"{path}: is {value}; JSON has no such number, leave it out or write a finite one"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PolicyInvalid(
        f"{path}: is {_kind(value)}; text, numbers, true, false, lists and tables of these are allowed"
    )


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise PolicyInvalid(f"{path}: the key {key!r} is {_kind(key)}; keys are text")
    return key


def _check_keys(table: Mapping[str, Any], path: str, allowed: Sequence[str]) -> None:
    for key in table:
        if key not in allowed:
            raise PolicyInvalid(f"{path}.{key}: is not known{_meant(str(key), allowed)}".removeprefix("."))


def _meant(given: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(given.lower(), allowed, n=1)
    return (f'; did you mean "{close[0]}"?' if close else ";") + f" Allowed: {', '.join(allowed)}"


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


_KINDS: tuple[tuple[type | tuple[type, ...], str, str], ...] = (
    # Python's type, msgspec's name of it, ours. A bool is an int too, so it comes first.
    (bool, "bool", "true or false"),
    (int, "int", "an integer"),
    (float, "float", "a number"),
    (str, "str", "text"),
    (bytes, "bytes", "bytes"),
    (Mapping, "object", "a table"),
    ((list, tuple), "array", "a list"),
    (type(None), "null", "nothing (null)"),
)
_WORDS = {theirs: ours for _, theirs, ours in _KINDS}
_PATTERN_WORDS = (
    (_REFERENCE, "1 to 200 letters, digits, dots, underscores and dashes of ASCII"),
    (_NAME, "1 to 100 letters, digits, underscores and dashes of ASCII"),
    (_TEXT, "text without control characters"),
)


# What came may be of any size and depth.
_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


def _kind(value: Any) -> str:
    return next((ours for kind, _, ours in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")


def _in_words(message: str, plain: Any) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.limits.chunk_bytes`", in the words of this file."""
    cause, _, path = message.partition(" - at `$")
    path = path.strip(".`")
    value = plain
    for key, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        value = value[int(index)] if index else value[key]
    shown = _short.repr(value)
    if cause.startswith("Invalid enum"):
        return f"{path}: {shown} is not known{_meant(str(value), FORMATS)}"
    expected, _, found = cause.removeprefix("Expected ").partition(", got ")
    if found:
        wanted = _WORDS.get(expected.strip("`").removesuffix(" | null"), expected)
        hint = f", such as [{json.dumps(value)}]" if expected == "`array`" and isinstance(value, str) else ""
        return f"{path}: is {_kind(value)} ({shown}), must be {wanted}{hint}"
    for pattern, words in _PATTERN_WORDS:
        if repr(pattern) in expected:
            return f"{path}: is {shown}, must be {words}"
    return f"{path}: is {shown}, must be {re.sub('`(.*?)`', lambda name: _WORDS[name[1]], expected)}"


def policy_to_mapping(policy: Policy) -> dict[str, Any]:
    """The inverse of `policy_from_mapping`: a mapping that JSON and TOML can both carry, owned by the caller.

    All settings are spelt out, so that a stored policy keeps its meaning when a default changes.
    """
    return {
        "reference": policy.reference,
        "title": policy.title,
        "tags": list(policy.tags),
        "format": policy.format,
        "field": policy.field,
        "limits": msgspec.structs.asdict(policy.limits),
        "partitions": policy.partitions,
        "pipeline": [
            {
                "operation": step.operation,
                "name": step.name,
                # TOML has no null.
                **({} if step.input is None else {"input": step.input}),
                "keep": step.keep,
                **copy.deepcopy(step.parameters),
            }
            for step in policy.pipeline
        ],
    }


def mapping_from_toml(text: str, *, source: str = "the policy file") -> dict[str, Any]:
    """Read TOML; `source` names it in messages. PolicyInvalid names line and column of a mistake."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyInvalid(f"{source} is no TOML: {error}") from error


def policy_from_toml(text: str, *, source: str = "the policy file") -> Policy:
    """The policy in a TOML text; PolicyInvalid names `source`."""
    mapping = mapping_from_toml(text, source=source)
    try:
        return policy_from_mapping(mapping)
    except PolicyInvalid as error:
        raise PolicyInvalid(f"{source}: {error}") from error


class PolicyTable:
    """Which policy a tag belongs to: of all that match, that with the most specific pattern.

    No wildcard goes before `*`, `*` before `**`; then the longer text outside of wildcards, then the smaller
    reference. Immutable and thread-safe: whoever changes policies makes a new table. What was found for a tag
    is remembered for the last MATCH_CACHE_TAGS tags, so that a tag costs its patterns once.
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        """Raises PolicyInvalid for a pattern that is none, and for two policies of one reference."""
        self.policies: Mapping[str, Policy]
        by_reference: dict[str, Policy] = {}
        entries: list[tuple[TagPattern, Policy]] = []
        for policy in policies:
            if by_reference.setdefault(policy.reference, policy) is not policy:
                raise PolicyInvalid(f'there are two policies "{policy.reference}"; rename one of them')
            entries.extend((TagPattern(tag), policy) for tag in policy.tags)
        entries.sort(key=lambda entry: (entry[0].specificity, entry[1].reference))
        self.policies = MappingProxyType(by_reference)
        # Tags that are spelt out come first whatever the others say, and need no search.
        self._spelt_out: dict[str, Policy] = {}
        self._wild: list[tuple[TagPattern, Policy]] = []
        for pattern, policy in entries:
            if pattern.literals is None:
                self._wild.append((pattern, policy))
            for literal in pattern.literals or ():
                self._spelt_out.setdefault(literal, policy)
        self._find_once = lru_cache(maxsize=MATCH_CACHE_TAGS)(self._find)

    def match(self, tag: str) -> Policy | None:
        """The policy of a tag; None where there is none, or the tag is longer than MAX_TAG_BYTES."""
        # No character takes less than a byte; the exact length is looked at once.
        return self._find_once(tag) if len(tag) <= MAX_TAG_BYTES else None

    def _find(self, tag: str) -> Policy | None:
        if not tag or len(tag.encode("utf-8", "surrogatepass")) > MAX_TAG_BYTES:
            return None
        spelt_out = self._spelt_out.get(tag)
        if spelt_out is not None:
            return spelt_out
        return next((policy for pattern, policy in self._wild if pattern.matches(tag)), None)
