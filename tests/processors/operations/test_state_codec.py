"""States as bytes: typed, versioned, bit-exact; unreadable states affect only their step, and are counted."""

from __future__ import annotations

import base64
import json
import logging
import math
import pickle
import posix
import sys
import timeit
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import ModelRejected, StateInvalid
from windvane.processors.learning.batch_learner import FRAME_ROWS, make_batch_learner
from windvane.processors.learning.condition import Condition
from windvane.processors.learning.estimators import make_learner
from windvane.processors.operations.base.block import Block
from windvane.processors.operations.base.operation import Operation, collected_operations, operation
from windvane.processors.operations.base.registry import built_in_operations, set_user_operations
from windvane.processors.operations.base.state_codec import Integer, decode_state, encode_state, is_typed
from windvane.processors.operations.base.unpickling import _method, states_come_from, unpickle
from windvane.processors.operations.spectrum import Spectrum
from windvane.processors.worker.pipeline.state_losses import state_losses
from windvane.processors.worker.pipeline.steps import FINGERPRINT_BYTES, RunningSteps
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.store.catalog.policy import Policy, Step
from windvane.store.databases.checkpoint import SqlCheckpointDatabase

from tests.processors.pipelines import CHUNKS, chunks, given_by, policies
from tests.processors.streams import SECOND_NS, Cut, one, op

pytestmark = pytest.mark.slow

PICKLED = Path(__file__).parents[1] / "saved_states" / "pickled.json"
"""States after four chunks from the last version that pickled the states of built-in operations."""
MODELS = {"model", "trained_model"}


def identical(one: Any, other: Any) -> bool:
    """Of one type, and equal to the last bit, down to dtype and order of arrays (C for a view)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        fortran = other.flags.f_contiguous and not other.flags.c_contiguous
        laid_out = one.flags.f_contiguous if fortran else one.flags.c_contiguous
        same = (one.dtype, one.shape) == (other.dtype, other.shape)
        return bool(laid_out) and same and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return bool(np.float64(one).tobytes() == np.float64(other).tobytes())
    if isinstance(one, deque) and one.maxlen != other.maxlen:
        return False
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(identical, one, other))
    if is_dataclass(one):
        return all(identical(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    return bool(one == other)


@pytest.fixture
def losses() -> Mapping[str, int]:
    """The number of states lost for each reason since the test began."""
    before = dict(state_losses.by_reason)

    class Since(dict[str, int]):
        def __missing__(self, reason: str) -> int:
            return state_losses.by_reason.get(reason, 0) - before.get(reason, 0)

    return Since()


def test_every_built_in_operation_has_typed_states() -> None:
    for name, cls in built_in_operations().items():
        assert is_typed(cls), name
        assert cls.state_pickles == (name in MODELS)


@pytest.mark.parametrize("name", policies())
def test_a_state_round_trips_bit_for_bit(name: str) -> None:
    steps = RunningSteps(policies()[name], {})
    kept = 0
    for part in range(CHUNKS):
        given_by(steps, name, slice(part, part + 1))
        for step in policies()[name].pipeline:
            running = next(each for each in steps._steps if each.name == step.name)
            cls, state = type(running.operation), running.operation.state()
            saved = encode_state(cls, state)
            assert saved[0] == 1
            assert identical(decode_state(cls, saved), state), step.name
            kept += 1
    print(f"{name}: {kept} states")


@pytest.mark.parametrize("name", policies())
@given(restarts=st.sets(st.integers(1, CHUNKS - 1)))
@settings(max_examples=10, deadline=None)
def test_a_restored_operation_continues_as_if_uninterrupted(name: str, restarts: set[int]) -> None:
    policy = policies()[name]
    expected = given_by(RunningSteps(policy, {}), name, slice(None))
    found: list[Any] = []
    states: dict[str, bytes] = {}
    for begin, end in zip([0, *sorted(restarts)], [*sorted(restarts), CHUNKS], strict=True):
        steps = RunningSteps(policy, states)
        found += given_by(steps, name, slice(begin, end))
        states = steps.states()
    assert found == expected


def assert_equal_but_for_rounding(found: list[Any], expected: list[Any]) -> None:
    """The saved states were computed on another CPU, whose sums round differently."""
    assert [(step, first, dtype, times) for step, first, dtype, _, times in found] == [
        (step, first, dtype, times) for step, first, dtype, _, times in expected
    ]
    for (step, _, dtype, rows, _), (_, _, _, others, _) in zip(found, expected, strict=True):
        if np.dtype(dtype).kind == "f":
            one, other = np.frombuffer(rows, dtype), np.frombuffer(others, dtype)
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=step)
        else:
            assert rows == others, step


@pytest.mark.parametrize("name", json.loads(PICKLED.read_text()))
def test_states_that_were_pickled_are_still_read(name: str, losses: Mapping[str, int]) -> None:
    texts = json.loads(PICKLED.read_text())[name]
    saved = {step: zlib.decompress(base64.b64decode(text)) for step, text in texts.items()}
    assert all(state[FINGERPRINT_BYTES] == 0x80 for state in saved.values())
    uninterrupted = RunningSteps(policies()[name], {})
    given_by(uninterrupted, name, slice(0, 4))
    expected = given_by(uninterrupted, name, slice(4, None))
    upgraded = RunningSteps(policies()[name], saved)
    # And at the first checkpoint they are typed.
    typed = upgraded.states()
    assert all(typed[step][FINGERPRINT_BYTES] == 1 for step in saved)
    found = given_by(upgraded, name, slice(4, None))
    assert given_by(RunningSteps(policies()[name], typed), name, slice(4, None)) == found
    assert_equal_but_for_rounding(found, expected)
    assert losses["unreadable"] == losses["class-refused"] == 0


def test_a_condition_that_was_pickled_while_it_learned_is_read() -> None:
    """Its references had neither center nor spread then, not even empty ones."""
    rows = np.random.default_rng(0).standard_normal((60, 3))
    first, second = Cut([20, 60], [20 * SECOND_NS, 60 * SECOND_NS], [1, 2]).blocks(rows)
    old, uninterrupted = op("condition", learn=30), op("condition", learn=30)
    assert isinstance(old, Condition)
    old.process(first)
    uninterrupted.process(first)
    course = old._course
    assert course is not None
    for reference in course.monitor._states.references:
        del reference.center
        del reference.spread
    saved = pickle.dumps(pickle.dumps((old._given, course), protocol=5), protocol=5)
    new = op("condition", learn=30)
    new.restore(decode_state(Condition, saved))
    typed = encode_state(Condition, new.state())
    again = op("condition", learn=30)
    again.restore(decode_state(Condition, typed))
    expected = one(uninterrupted.process(second)).rows
    assert one(again.process(second)).rows.tobytes() == expected.tobytes()


class Tuple(NamedTuple):
    a: int
    b: float


@dataclass(frozen=True)
class Everything:
    array: NDArray[Any]
    typed: NDArray[np.float64]
    scalar: np.float32 = np.float32(0.1)  # noqa: RUF009
    pair: tuple[int, ...] = (1, 2)
    named: Tuple = Tuple(1, math.nan)  # noqa: RUF009
    members: frozenset[str] = frozenset("ab")
    window: deque[tuple[float, float]] = field(default_factory=lambda: deque([(1.0, 2.0)], maxlen=3))
    large: Integer = Integer(-(2**100))  # noqa: RUF009
    wave: complex = complex(-0.0, math.inf)
    table: dict[str, list[int]] = field(default_factory=lambda: {"a": [1]})
    more: Everything | None = None


class Keeper(Operation):
    input = output = "samples"
    state_type = Everything

    def process(self, block: Block) -> None: ...


DTYPES = [
    "<i2",
    ">f4",
    "<f8",
    "|b1",
    "<c16",
    "<f2",
    "|u1",
    "<M8[ns]",
    "|S3",
    [("a", "<i4"), ("b", "<f8", (2,))],
]


@given(data=st.data())
@settings(deadline=None)
def test_any_array_round_trips_with_dtype_shape_and_order(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    count = math.prod(shape) * dtype.itemsize
    bits = data.draw(st.binary(min_size=count, max_size=count))
    array: NDArray[Any] = np.ndarray(shape, dtype, bytearray(bits) or bytearray(1))
    array = np.asarray(array, order=data.draw(st.sampled_from(["C", "F"])))
    if data.draw(st.booleans()) and array.ndim:
        array = np.ascontiguousarray(array[::-1])
    state = Everything(array, np.zeros(2), more=Everything(array, np.ones(1)))
    back = decode_state(Keeper, encode_state(Keeper, state))
    assert identical(back, state)
    assert back.array.flags.writeable


def test_arrays_of_python_objects_are_rejected_on_encoding_and_decoding() -> None:
    objects = np.array([{}], dtype=object)
    with pytest.raises(TypeError, match="Python objects"):
        encode_state(Keeper, Everything(objects, np.zeros(1)))
    saved = encode_state(Keeper, Everything(np.zeros(1, "<i8"), np.zeros(1)))
    with pytest.raises(StateInvalid, match="an array of object"):
        decode_state(Keeper, saved.replace(b"\xa3<i8", b"\xa3|O8"))


@pytest.mark.parametrize("name", policies())
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_state_bytes_affect_only_their_step(name: str, data: st.DataObject) -> None:
    policy = policies()[name]
    steps = RunningSteps(policy, {})
    given_by(steps, name, slice(0, 2))
    states = steps.states()
    victim = data.draw(st.sampled_from([step.name for step in policy.pipeline]))
    whole = states[victim]
    place = data.draw(st.integers(FINGERPRINT_BYTES, len(whole) - 1))
    cut = whole[:place] if data.draw(st.booleans()) else whole[:place] + b"\xc1" + whole[place + 1 :]
    again = RunningSteps(policy, {**states, victim: cut})
    assert again.broken is None
    others = {step: state for step, state in again.states().items() if step != victim}
    assert others == {step: state for step, state in states.items() if step != victim}


def test_a_version_that_is_not_known_starts_its_step_over_and_is_counted(
    losses: Mapping[str, int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a unique name: the log has one line per minute for each policy, step and reason.
    policy = Policy(reference="versions", format="raw", pipeline=policies()["samples"].pipeline)
    steps = RunningSteps(policy, {})
    given_by(steps, "samples", slice(0, 4))
    monkeypatch.setattr(Spectrum, "state_version", 2)
    with caplog.at_level(logging.WARNING, "windvane.worker"):
        again = RunningSteps(policy, steps.states() | {"spectrum": _of_version(steps, "spectrum", 1)})
    assert losses["unknown-version"] == 1
    [line] = [record.message for record in caplog.records if "'spectrum'" in record.message]
    assert "policy 'versions': the state of step 'spectrum' cannot be read, so the step starts over" in line
    assert "it has version 1, and this Windvane reads version 2" in line
    assert again._steps[4].operation.state() is None
    telemetry = WorkerTelemetry()
    assert telemetry.status().lost_states_by_reason["unknown-version"] >= 1
    samples = [each for metric in telemetry.collect() for each in metric.samples]
    assert any(
        each.name == "windvane_worker_lost_states_total" and each.labels == {"reason": "unknown-version"}
        for each in samples
    )


def _of_version(steps: RunningSteps, name: str, version: int) -> bytes:
    saved = steps.states()[name]
    at = FINGERPRINT_BYTES + 1
    return saved[:at] + version.to_bytes(2, "little") + saved[at + 2 :]


# Pickles: of estimators, of users' operations, and of earlier versions.


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "mkdir"),
        ("numpy.lib._datasource", "os.mkdir"),  # a library's module contains its imports
        ("windvane.processors.operations.base.unpickling", "sys.modules.get"),
        ("numpy", "_core._internal.sys.modules.get"),
        ("numpy", "load"),
        ("builtins", "eval"),
        ("antigravity", "geohash"),  # not imported yet: importing it runs it
    ],
)
def test_a_pickle_that_names_a_program_does_not_run_it(tmp_path: Path, module: str, name: str) -> None:
    ran = tmp_path / "ran"
    pickled = b"\x80\x04" + text(module) + text(name) + b"\x93" + text(str(ran)) + b"\x85R."
    with pytest.raises(StateInvalid, match="which states cannot hold"):
        unpickle(pickled)
    assert "antigravity" not in sys.modules
    assert not ran.exists()
    if name.endswith("mkdir"):
        pickle.loads(pickled)
        assert ran.exists()  # so it would have run


@pytest.mark.parametrize("owner", [posix, b"", {}, Spectrum])
def test_a_pickle_reaches_methods_and_no_other_attributes(owner: Any) -> None:
    def attribute(of: Any, name: str) -> bytes:
        pickled = pickle.dumps(of, protocol=4)[2:-1] if owner is not posix else b""
        frame = pickled[9:] if pickled[:1] == b"\x95" else pickled
        return b"\x80\x04" + text("builtins") + text("getattr") + b"\x93" + frame + text(name) + b"\x86R."

    if owner is posix:
        with pytest.raises(StateInvalid):
            _method(posix, "system")
        return
    with pytest.raises(StateInvalid, match="the attribute '__class__'"):
        unpickle(attribute(owner, "__class__"))
    if owner == {}:
        assert unpickle(attribute(owner, "get"))("a") is None


@pytest.mark.filterwarnings("ignore")
def test_every_estimator_that_a_policy_can_name_is_read_again() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 3))
    read = 0
    for path in [*_river(), *_sklearn()]:
        for column in (None, "b"):
            try:
                learner = make_learner(path, {}, scaler=None, batch_rows=64, column=column)
                learner.begin(("a", "b", "c"))
                for row in rows:
                    learner.score(row)
            except Exception:
                continue  # not one of those, or not with the parameters by default
            again = unpickle(pickle.dumps(learner, protocol=5))
            assert np.array_equal(again.judge(rows[0]), learner.judge(rows[0]), equal_nan=True), path
            read += 1
    trained = 0
    for path in _sklearn():
        for column in (None, "b"):
            try:
                batch = make_batch_learner(path, {}, scaler="standard", before=(), column=column)
                batch.begin(("a", "b", "c"))
                batch.fit(rows)
                judged = batch.judge(rows[:FRAME_ROWS])
            except Exception:
                continue
            again = unpickle(pickle.dumps(batch, protocol=5))
            assert np.array_equal(again.judge(rows[:FRAME_ROWS]), judged), path
            trained += 1
    print(f"{read} estimators of model, {trained} of trained_model")
    assert read >= 30
    assert trained >= 50


def _river() -> Iterator[str]:
    from river import anomaly, cluster, drift, forest, linear_model, neighbors, rules, tree

    for module in (anomaly, cluster, drift, forest, linear_model, neighbors, rules, tree):
        yield from (f"{module.__name__}.{name}" for name in module.__all__)


def _sklearn() -> Iterator[str]:
    from sklearn.utils import all_estimators

    for name, cls in all_estimators():
        yield f"{'.'.join(cls.__module__.split('.')[:2])}.{name}"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Path]:
    """A database of checkpoints that this process takes pickles from."""
    path = tmp_path / "home" / "checkpoints.sqlite"
    SqlCheckpointDatabase(path).close()
    path.parent.chmod(0o700)
    states_come_from(path)
    yield path
    states_come_from(None)


@pytest.mark.parametrize(
    "file", ["", "checkpoints.sqlite", "checkpoints.sqlite-wal", "checkpoints.sqlite-shm"]
)
def test_no_pickle_is_read_from_a_file_that_others_can_write_and_none_is_lost(
    checkpoints: Path, file: str, losses: Mapping[str, int]
) -> None:
    texts = json.loads(PICKLED.read_text())["samples"]
    saved = {step: zlib.decompress(base64.b64decode(text)) for step, text in texts.items()}
    steps = RunningSteps(policies()["samples"], saved)
    assert steps.unusable == {}
    typed = steps.states()
    expected = given_by(steps, "samples", slice(4, None))

    open_to_others = checkpoints.parent / file
    open_to_others.touch()
    open_to_others.chmod(open_to_others.stat().st_mode | 0o020)
    for states, unread in ((saved, set(saved)), (typed, MODELS)):
        steps = RunningSteps(policies()["samples"], states)
        assert set(steps.unusable) == unread
        assert {name: steps.states()[name] for name in unread} == {name: states[name] for name in unread}
    failed: dict[str, str] = {}
    found = []
    for each in list(chunks("samples"))[4:]:
        results = steps.run(each, failed=lambda step, error: failed.update({step: str(error)}))
        found += [result.step for result in results]
    assert set(failed) == MODELS
    assert "chmod go-w" in failed["model"]
    assert {row[0] for row in expected} == set(found) | MODELS

    open_to_others.chmod(open_to_others.stat().st_mode & ~0o022)
    for states in (saved, typed):
        steps = RunningSteps(policies()["samples"], states)
        assert given_by(steps, "samples", slice(4, None)) == expected
    assert losses["unreadable"] == 0


# Users' operations.


class Panic(BaseException):
    """Like the PanicException of PyO3: not a subclass of `Exception`."""

    __module__ = "pyo3_runtime"


RAISED = [
    Panic("index out of bounds"),
    KeyboardInterrupt(),
    SystemExit(3),
    ZeroDivisionError("zero"),
    MemoryError(),
]


@pytest.fixture
def own() -> Iterator[dict[str, type[Operation]]]:
    built_in_operations()  # else they would be collected too
    with collected_operations() as found:
        yield found
    set_user_operations({})


def _counting(own: dict[str, type[Operation]], **members: Any) -> None:
    """`counting`, an operation that adds up rows, with some methods replaced."""

    @operation("counting")
    class Counting(Operation):
        input = output = "samples"
        rows = 0

        def process(self, block: Block) -> Block:
            self.rows += len(block.rows)
            return Block(
                np.full((1, 1), self.rows), 0, block.times.of_completed(0, np.array([block.stop - 1]))
            )

        def state(self) -> Any:
            return self.rows

        def restore(self, state: Any) -> None:
            self.rows = state

        def counts(self) -> Mapping[str, int]:
            return {"rows": self.rows}

        def restore_model(self, state: Any) -> None:
            self.rows = state

    for name, member in members.items():
        setattr(Counting, name, member)
    set_user_operations(own)


BESIDE = Policy(
    reference="beside",
    format="raw",
    pipeline=(
        Step(operation="pcm", name="pcm", parameters={"rate_hz": 1000.0, "channels": 3}),
        Step(operation="counting", name="counting"),
        Step(operation="statistics", name="statistics", input="pcm", parameters={"period_s": 0.01}),
    ),
)


def rows_of(steps: RunningSteps, part: slice, failed: dict[str, str] | None = None) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    reasons = {} if failed is None else failed
    for each in list(chunks("samples"))[part]:
        for result in steps.run(each, failed=lambda step, error: reasons.update({step: str(error)})):
            found.setdefault(result.step, []).extend(result.block.rows.tolist())
    return found


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", ["__init__", "state", "restore", "counts", "restore_model"])
def test_any_exception_of_a_step_affects_only_that_step(
    own: dict[str, type[Operation]], losses: Mapping[str, int], method: str, error: BaseException
) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    _counting(own)
    before = RunningSteps(BESIDE, {})
    beside = rows_of(before, slice(0, 2))["statistics"]
    saved = before.states()
    own_rows = before.counts()["counting"]["rows"]
    assert own_rows == 166

    _counting(own, **{method: raises})
    steps = RunningSteps(BESIDE, saved)
    failed: dict[str, str] = {}
    found = rows_of(steps, slice(2, 5), failed)
    new_rows = own_rows // 2 * 3
    assert steps.broken is None
    assert len(found["statistics"]) > len(beside) / 2
    counted = steps.counts()
    states = steps.states()
    assert set(states) >= {"pcm", "statistics"}
    match method:
        case "__init__":
            assert "counting" in failed
            assert states["counting"] == saved["counting"]
            assert isinstance(steps.unusable["counting"], Exception)
        case "state":
            assert "counting" not in states
            assert losses["not-kept"] == 1
        case "restore" if isinstance(error, MemoryError):
            assert states["counting"] == saved["counting"]  # another start may have the memory
        case "restore":
            assert losses["unreadable"] == 1
            assert counted["counting"]["rows"] == new_rows  # it has started over
        case "counts":
            assert "counting" not in counted
        case "restore_model":
            with pytest.raises(ModelRejected, match="its model cannot be restored"):
                steps.restore_model("counting", saved["counting"])
            assert steps.counts()["counting"]["rows"] == own_rows + new_rows


def test_a_step_that_failed_to_start_resumes_from_its_state_once_it_starts(
    own: dict[str, type[Operation]],
) -> None:
    def panics(*_: Any, **__: Any) -> Any:
        raise Panic

    _counting(own)
    steps = RunningSteps(BESIDE, {})
    rows_of(steps, slice(0, 2))
    _counting(own, __init__=panics)
    steps = RunningSteps(BESIDE, steps.states())
    rows_of(steps, slice(2, 3), {})
    _counting(own)
    steps = RunningSteps(BESIDE, steps.states())
    assert rows_of(steps, slice(3, 4))["counting"] == [[249]]


def test_a_user_can_type_states_and_a_subclass_with_a_state_of_its_own_is_not_taken_for_typed(
    own: dict[str, type[Operation]],
) -> None:
    class Own(Spectrum):
        def state(self) -> Any:
            return {"mine": {1, 2}}

    class Same(Spectrum):
        pass

    assert not is_typed(Own)
    assert is_typed(Same)
    assert decode_state(Own, encode_state(Own, {"mine": {1, 2}})) == {"mine": {1, 2}}
    state = Everything(np.zeros(1), np.zeros(1))
    assert identical(decode_state(Keeper, encode_state(Keeper, state)), state)


def test_states_are_no_larger_than_pickles_and_their_times_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = RunningSteps(policies()["samples"], {})
    for part in range(4):
        given_by(steps, "samples", slice(part, part + 1))
    for running in steps._steps:
        cls, state = type(running.operation), running.operation.state()
        saved, pickled = encode_state(cls, state), pickle.dumps(state, protocol=5)
        assert len(saved) <= len(pickled)
        times_us = [
            min(timeit.repeat(call, number=20, repeat=3)) / 20 * 1e6
            for call in (
                lambda: encode_state(cls, state),  # noqa: B023
                lambda: pickle.dumps(state, protocol=5),  # noqa: B023
                lambda: decode_state(cls, saved),  # noqa: B023
                lambda: pickle.loads(pickled),  # noqa: B023
            )
        ]
        dump, dump_pickle, load, load_pickle = times_us
        with capsys.disabled():
            print(
                f"\n{running.name:14} {len(saved):6} bytes (pickle {len(pickled):6}), dump {dump:6.1f} µs "
                f"(pickle {dump_pickle:6.1f}), restore {load:6.1f} µs (pickle {load_pickle:6.1f})",
                end="",
            )
