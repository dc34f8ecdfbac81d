"""The check of events: it says what the plain validator says, and names what is wrong by its path."""

import copy
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from windvane.errors import ChunkRejected
from windvane.ingest.checks import schema as schema_module
from windvane.ingest.checks.schema import EventCheck
from windvane.records.event_separation import SeparatedEvents
from windvane.store.catalog.policy_schema import parse_schema

from tests.ingest.checks import naive_schema

NOW_S = 1_790_000_000
NOW_NS = NOW_S * 10**9


def event_time(seconds: int, nanoseconds: int = 0) -> Any:
    return msgpack.ExtType(0, struct.pack(">II", seconds, nanoseconds))


def packed(record: Any, time: Any = None) -> bytes:
    event = [event_time(NOW_S) if time is None else time, record]
    return bytes(msgpack.packb(event, unicode_errors="surrogateescape"))


def sift(check: EventCheck, *events: bytes) -> SeparatedEvents | None:
    return check.sift(b"".join(events), len(events), now_ns=NOW_NS)


def record(*fields: Any, name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


TURBINE = record(
    {"name": "turbine", "type": "string", "maxLength": 8},
    {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["RUNNING", "STOPPED"]}},
    {"name": "code", "type": "int", "minimum": 0, "maximum": 599},
    {"name": "power", "type": ["null", "double"], "minimum": -50.5},
    {"name": "raw", "type": ["null", "bytes"], "default": None, "maxLength": 4},
    {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 2}},
    {
        "name": "blade",
        "type": record({"name": "pitch", "type": {"type": "array", "items": "float"}}, name="B"),
    },
    {"name": "tags", "type": {"type": "map", "values": "long"}},
)
GOOD = {
    "turbine": "t07",
    "state": "RUNNING",
    "code": 200,
    "power": None,
    "raw": b"\xff",
    "id": "ab",
    "blade": {"pitch": [1, 2.5]},
    "tags": {"a": 2**63 - 1},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"turbine": ...}, "turbine: is missing"),
        ({"turbine": None}, "turbine: is null, must be text"),
        ({"turbine": b"t07"}, "turbine: is bytes, must be text"),
        ({"turbine": "t07-nacelle"}, "turbine: must be text of length <= 8"),
        ({"turbine": "t\udcff"}, "turbine: is not UTF-8; declare it as bytes, or fix the sender"),
        ({"state": "BROKEN"}, "state: is 'BROKEN', which is not one of its symbols"),
        ({"state": "\udcff"}, "state: is not UTF-8; declare it as bytes, or fix the sender"),
        ({"code": 600}, "code: must be an integer <= 599"),
        ({"code": 2**64 - 1}, "code: must be an integer <= 599"),
        ({"code": -1}, "code: must be an integer >= 0"),
        ({"code": 1.0}, "code: is a number, must be an integer"),
        ({"code": True}, "code: is true or false, must be an integer"),
        ({"power": -51}, "power: must be a number >= -50.5"),
        ({"power": float("nan")}, "power: must be a number >= -50.5"),
        ({"power": "much"}, "power: is text, must be a number or null"),
        ({"raw": b"12345"}, "raw: has 5 bytes, must have at most 4"),
        ({"raw": 7}, "raw: is an integer, must be bytes or null"),
        ({"id": None}, "id: is null, must be bytes"),
        ({"id": "a"}, "id: has 1 bytes, must have 2"),
        ({"blade": {}}, "blade.pitch: is missing"),
        ({"blade": {"pitch": [1, "2"]}}, "blade.pitch[1]: is text, must be a number"),
        ({"blade": {"pitch": [], "yaw": 1}}, "blade.yaw: is not in the schema; add it, or set additional"),
        ({"blade": [1]}, "blade: is a list, must be a map"),
        ({"tags": {"a": 2**63}}, "tags[...]: must be an integer <= 9223372036854775807"),
        ({"tags": {1: 1}}, "tags: has a key that is an integer, must be text"),
        ({"tags": {"\udcff": 1}}, "tags: has a key that is not UTF-8"),
        ({"surplus": 1}, 'surplus: is not in the schema; add it, or set additional_fields = "allow"'),
        ({5: 1}, "the record: has a key that is an integer, must be text"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(change: dict[Any, Any], reason: str) -> None:
    bad = packed({key: value for key, value in {**GOOD, **change}.items() if value is not ...})
    check = EventCheck(parse_schema(TURBINE))
    sifted = sift(check, packed(GOOD), bad, packed(GOOD))
    assert sifted is not None
    assert sifted.reason.startswith(f"event 1: {reason}")
    assert (sifted.valid, sifted.valid_events) == (packed(GOOD) * 2, 2)
    assert (sifted.invalid, sifted.invalid_events) == (bad, 1)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"power": 3},
        {"raw": None},
        {"raw": "\udcff"},
        {"raw": ...},
        {"id": b"ab"},
        {"tags": {}},
        {"code": 0},
    ],
)
def test_valid_records_pass_in_one_decode(change: dict[str, Any]) -> None:
    good = packed({key: value for key, value in {**GOOD, **change}.items() if value is not ...})
    assert sift(EventCheck(parse_schema(TURBINE)), good, packed(GOOD)) is None


@pytest.mark.parametrize(
    "not_an_event", [b"\x93\1" + packed(GOOD)[11:] + b"\3", b"\x07", b"\x91\1", b"\xa1x"]
)
def test_only_the_value_that_is_not_an_event_is_invalid(not_an_event: bytes) -> None:
    sifted = sift(EventCheck(parse_schema(TURBINE)), packed(GOOD), not_an_event, packed(GOOD))
    assert sifted is not None
    assert sifted.reason == "event 1: is not a [time, record]; check the sender"
    assert (sifted.valid, sifted.invalid) == (packed(GOOD) * 2, not_an_event)


def test_the_reason_names_only_the_first_few_events() -> None:
    sifted = sift(EventCheck(parse_schema(TURBINE)), *[packed({})] * 9)
    assert sifted is not None
    assert sifted.reason.count("event ") == 5
    assert sifted.reason.endswith("; and 4 more events")


@pytest.mark.parametrize(
    "time",
    [
        0,
        NOW_S,
        -5,
        1.5,
        event_time(NOW_S),
        [event_time(NOW_S), {}],
        [NOW_S, {"a": [1]}],
        msgpack.Timestamp(5, 7),
    ],
    ids=repr,
)
def test_every_form_of_time_is_one(time: Any) -> None:
    assert sift(EventCheck(parse_schema(record())), packed({}, time)) is None
    assert sift(EventCheck(parse_schema(record())), packed({}), packed({}, time)) is None


@pytest.mark.parametrize(
    "time",
    ["now", None, True, [], [1], [1, 2, 3], [[1, 2], 3], {}, float("nan"), msgpack.ExtType(5, b"12345678")],
)
def test_an_event_with_an_invalid_time_is_invalid(time: Any) -> None:
    sifted = sift(
        EventCheck(parse_schema(record())), packed({}), packed({}, time if time is not None else [None, 1])
    )
    assert sifted is not None
    assert sifted.reason.startswith("event 1: an event's time is ")
    assert sifted.invalid_events == 1


SECONDS = st.integers(NOW_S - 200, NOW_S + 200)
TIMES = st.one_of(
    SECONDS,
    SECONDS.map(float),
    st.builds(event_time, SECONDS, st.integers(0, 999_999_999)),
    st.builds(lambda s, n: [event_time(s, n), {}], SECONDS, st.integers(0, 999_999_999)),
    st.builds(lambda s: [s, {"m": 1}], SECONDS),
    st.builds(msgpack.Timestamp, SECONDS, st.integers(0, 999_999_999)),
    st.just(0),
)


def nanoseconds(time: Any) -> int:
    if isinstance(time, list):
        time = time[0]
    if isinstance(time, msgpack.Timestamp):
        return int(time.to_unix_nano())
    if isinstance(time, msgpack.ExtType):
        seconds, rest = struct.unpack(">II", time.data)
        return int(seconds * 10**9 + rest)
    return int(time * 10**9)


@settings(max_examples=300, deadline=None)
@given(
    times=st.one_of(
        st.lists(TIMES, max_size=6), TIMES.flatmap(lambda one: st.lists(st.just(one), max_size=3))
    ),
    max_future_s=st.none() | st.integers(0, 150),
    max_age_s=st.none() | st.integers(0, 150),
    with_schema=st.booleans(),
)
def test_times_out_of_bounds_are_found_and_no_others(
    times: list[Any], max_future_s: int | None, max_age_s: int | None, with_schema: bool
) -> None:
    schema = parse_schema(record()) if with_schema else None
    check = EventCheck(schema, max_future_s=max_future_s, max_age_s=max_age_s)
    events = [packed({}, time) for time in times]
    within = [
        (max_future_s is None or nanoseconds(time) <= NOW_NS + max_future_s * 10**9)
        and (max_age_s is None or nanoseconds(time) >= NOW_NS - max_age_s * 10**9)
        for time in times
    ]
    sifted = sift(check, *events)
    if all(within):
        assert sifted is None
    else:
        assert sifted is not None
        assert sifted.valid == b"".join(e for e, ok in zip(events, within, strict=True) if ok)
        assert "its time lies" in sifted.reason


def test_without_a_schema_records_may_be_anything() -> None:
    check = EventCheck(None, max_age_s=1)
    assert sift(check, packed(b"\xff"), packed([1]), packed({5: "\udcff"})) is None


# Schemas and records, drawn together: a record fits its schema but for a few places.

NUMBERS = st.sampled_from(
    [-(2**63), -(2**31) - 1, -(2**31), -7, -1, 0, 1, 5, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1]
)
TEXTS = st.sampled_from(["", "a", "A", "B", "äöü", "\udcff", "x" * 40])
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBERS, st.floats(), TEXTS, st.binary(max_size=40), st.just(b"x" * 300)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("f0"), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def types(draw: st.DrawFn, counter: list[int], depth: int = 0) -> Any:
    simple = [
        "null",
        "boolean",
        "int",
        "long",
        "float",
        "double",
        "string",
        "bytes",
        "enum",
        "fixed",
        "bounded",
    ]
    kind = draw(
        st.sampled_from(simple if depth > 2 else [*simple, "array", "map", "record", "nullable", "union"])
    )
    counter[0] += 1
    name = f"N{counter[0]}"
    match kind:
        case "enum":
            return {"type": "enum", "name": name, "symbols": ["A", "B"]}
        case "fixed":
            return {"type": "fixed", "name": name, "size": draw(st.integers(0, 3))}
        case "bounded":
            return draw(
                st.sampled_from(
                    [
                        {"type": "int", "minimum": -1, "maximum": 5},
                        {"type": "long", "maximum": 2**40},
                        {"type": "double", "minimum": -1.5},
                        {"type": "string", "maxLength": 2},
                        {"type": "bytes", "maxLength": 2},
                    ]
                )
            )
        case "array":
            return {"type": "array", "items": draw(types(counter, depth + 1))}
        case "map":
            return {"type": "map", "values": draw(types(counter, depth + 1))}
        case "record":
            return draw(records(counter, depth + 1, name))
        case "nullable":
            branch = draw(types(counter, 9 if draw(st.booleans()) else depth + 1))
            return branch if branch == "null" or isinstance(branch, list) else ["null", branch]
        case "union":
            return draw(
                st.sampled_from(
                    [
                        ["null", "boolean", "double", "string"],
                        ["long", {"type": "array", "items": "bytes"}],
                        ["null", {"type": "map", "values": ["null", "bytes"]}, "int"],
                    ]
                )
            )
    return kind


@st.composite
def records(draw: st.DrawFn, counter: list[int], depth: int, name: str) -> Any:
    fields = []
    for i in range(draw(st.integers(0, 4))):
        field: dict[str, Any] = {"name": f"f{i}", "type": draw(types(counter, depth))}
        if isinstance(field["type"], list) and field["type"][0] == "null" and draw(st.booleans()):
            field["default"] = None
        if field["type"] == "long" and draw(st.booleans()):
            field["minimum"] = 0
        fields.append(field)
    return {"type": "record", "name": name, "fields": fields}


def fitting(schema: Any) -> st.SearchStrategy[Any]:
    """Mostly what the schema takes."""
    if isinstance(schema, list):
        return st.one_of(*map(fitting, schema))
    kind = schema if isinstance(schema, str) else schema["type"]
    strategies: dict[str, Any] = {
        "null": st.none,
        "boolean": st.booleans,
        "int": lambda: st.integers(-1, 5),
        "long": lambda: st.integers(0, 2**40),
        "float": lambda: st.floats(width=32),
        "double": lambda: st.floats(-1.5, allow_nan=False) | st.integers(0, 7),
        "string": lambda: st.text(st.characters(exclude_categories=["Cs"]), max_size=2),
        "bytes": lambda: st.binary(max_size=2) | st.sampled_from(["", "a", "\udcff"]),
        "fixed": lambda: st.binary(min_size=schema["size"], max_size=schema["size"]),
        "enum": lambda: st.sampled_from(schema["symbols"]),
        "array": lambda: st.lists(fitting(schema["items"]), max_size=3),
        "map": lambda: st.dictionaries(st.text("ab", max_size=2), fitting(schema["values"]), max_size=3),
        "record": lambda: st.fixed_dictionaries(
            {f["name"]: fitting(f["type"]) for f in schema["fields"] if "default" not in f},
            optional={f["name"]: fitting(f["type"]) for f in schema["fields"] if "default" in f},
        ),
    }
    strategy: st.SearchStrategy[Any] = strategies[kind]()
    return strategy


def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """The value with one place of it replaced, added or taken away."""
    if not isinstance(value, dict | list) or not value or draw(st.booleans()):
        return draw(ANYTHING)
    value = copy.copy(value)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    if isinstance(value, dict) and draw(st.integers(0, 3)) == 0:
        del value[key]
    elif isinstance(value, dict) and draw(st.integers(0, 3)) == 0:
        value[draw(st.sampled_from(["surplus", "\udcff", "f9"]))] = draw(ANYTHING)
    else:
        value[key] = spoilt(draw, value[key])
    return value


@st.composite
def schemas_with_records(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    schema = draw(records([0], 0, "Top"))
    found = []
    for _ in range(draw(st.integers(0, 5))):
        one = draw(fitting(schema))
        found.append(spoilt(draw, one) if draw(st.integers(0, 2)) == 0 else one)
    return schema, found


@settings(max_examples=1000, deadline=None)
@given(schemas_with_records(), st.booleans())
@example((record({"name": "f0", "type": "bytes"}), [{"f0": b"x" * 300}, {"f0": "x" * 70_000}]), False)
def test_the_check_says_what_the_plain_validator_says(
    drawn: tuple[Any, list[Any]], surplus_allowed: bool
) -> None:
    schema, found = drawn
    check = EventCheck(parse_schema(schema), additional_fields="allow" if surplus_allowed else "refuse")
    events = [packed(one) for one in found]
    valid = [naive_schema.is_valid(one, schema, surplus_allowed=surplus_allowed) for one in found]
    sifted = sift(check, *events)
    if all(valid):
        assert sifted is None
        return
    assert sifted is not None
    assert sifted.valid == b"".join(event for event, ok in zip(events, valid, strict=True) if ok)
    assert sifted.invalid == b"".join(event for event, ok in zip(events, valid, strict=True) if not ok)
    assert (sifted.valid_events, sifted.invalid_events) == (valid.count(True), valid.count(False))
    assert sifted.reason.startswith(f"event {valid.index(False)}: ")


def test_a_chunk_of_many_batches_is_sifted_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_module, "BATCH_EVENTS", 7)
    monkeypatch.setattr(schema_module, "FEW_EVENTS", 3)
    check = EventCheck(parse_schema(TURBINE))
    good, bad = packed(GOOD), packed({})
    assert sift(check, *[good] * 50) is None
    sifted = sift(check, *[good] * 20, bad, *[good] * 29)
    assert sifted is not None
    assert (sifted.valid, sifted.invalid) == (good * 49, bad)
    assert sifted.reason.startswith("event 20: ")


def test_events_nested_too_deeply_are_rejected_and_break_nothing() -> None:
    check = EventCheck(parse_schema(record()), additional_fields="allow")
    deep = b"\x92\x00\x81\xa1x" + b"\x91" * 100_000 + b"\x00"
    with pytest.raises(ChunkRejected, match="not well-formed"):
        check.sift(packed({}) + deep, 2, now_ns=NOW_NS)
