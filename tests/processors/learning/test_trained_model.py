"""`trained_model`: trained separately from the stream on stored rows, installed between two chunks."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import signal
import subprocess
import sys
import tomllib
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import Ridge
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from windvane.bus import open_bus
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.learning.trained_model import TrainedModel, TrainedState
from windvane.processors.learning.training import (
    BLOCK_ROWS,
    TrainingReport,
    TrainingRequest,
    drawn_rows,
    train,
    try_to_train,
)
from windvane.processors.operations.base.state_codec import decode_state
from windvane.processors.operations.base.steps import check_pipeline
from windvane.processors.worker.pipeline.steps import FINGERPRINT_BYTES
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import Step, policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.files.store import Store
from windvane.store.model_files import ModelFiles

from tests.processes import Running, started, windvane
from tests.processors.streams import Cut, one, op, run, whole
from tests.processors.worker.test_worker import Home
from tests.store.files.resumed import resumed
from tests.waiting import until

COLUMNS = ("a", "b", "c")
FINGERPRINT = b"f" * FINGERPRINT_BYTES


def table(count: int, seed: int = 5) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).standard_normal((count, 3))
    rows[:, 2] += 2 * rows[:, 0]
    return rows


def stored(path: Path, rows: NDArray[Any], times_ns: NDArray[np.int64] | None = None) -> Store:
    store = Store(path / "store")
    times_ns = np.arange(len(rows)) * 1_000_000_000 if times_ns is None else times_ns
    array = store.array_writer("t:values", dtype=rows.dtype, row_shape=rows.shape[1:], attrs={})
    with resumed(array) as writer:
        writer.append(rows, times_ns)
    return store


def trained(path: Path, stop: int, **parameters: Any) -> TrainedModel:
    """The operation with the model that a training saved in the folder of models."""
    request = TrainingRequest(
        reference="t:model",
        source="t:values",
        stop=stop,
        due=stop,
        columns=COLUMNS,
        step=Step("trained_model", parameters=parameters),
        fingerprint=FINGERPRINT.hex(),
        store="local:",
        home=str(path),
        models=str(path / "models"),
    )
    train(request)
    saved, _ = ModelFiles(path / "models").read(ModelFiles.name("t:model"))
    assert saved.startswith(FINGERPRINT)
    model = op("trained_model", **parameters)
    assert isinstance(model, TrainedModel)
    model.restore_model(decode_state(TrainedModel, saved[FINGERPRINT_BYTES:]))
    return model


def scores(model: TrainedModel, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return run(model, whole(len(rows)).blocks(rows, columns=COLUMNS)).rows


KINDS: dict[str, tuple[dict[str, Any], Any, Callable[[Any, Any], Any]]] = {
    "forest": (
        {"parameters": {"n_estimators": 20}},
        IsolationForest(n_estimators=20, random_state=0),
        lambda fitted, rows: -fitted.decision_function(rows),
    ),
    "neighbours": (
        {"estimator": "sklearn.neighbors.LocalOutlierFactor", "parameters": {"novelty": True}},
        LocalOutlierFactor(novelty=True),
        lambda fitted, rows: -fitted.decision_function(rows),
    ),
    "mixture": (
        {"estimator": "sklearn.mixture.GaussianMixture", "parameters": {"n_components": 2}},
        GaussianMixture(2, random_state=0),
        lambda fitted, rows: -fitted.score_samples(rows),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_training_is_sklearns_own_fit_on_the_same_rows(tmp_path: Path, name: str) -> None:
    parameters, estimator, score = KINDS[name]
    rows, new = table(400), table(70, seed=6)
    stored(tmp_path, rows)
    fitted = make_pipeline(StandardScaler(), estimator).fit(rows[:300])
    result = scores(trained(tmp_path, 300, **parameters), new)
    np.testing.assert_allclose(result[:, 0], score(fitted, new), rtol=1e-9, atol=1e-12)
    assert set(result[:, 1]) == {300.0}


def test_transformers_come_between_scaler_and_estimator(tmp_path: Path) -> None:
    rows, new = table(300), table(40, seed=6)
    stored(tmp_path, rows)
    before = [{"estimator": "sklearn.decomposition.PCA", "parameters": {"n_components": 2}}]
    chain = make_pipeline(StandardScaler(), PCA(2, random_state=0), IsolationForest(random_state=0)).fit(rows)
    result = scores(trained(tmp_path, 300, before=before), new)
    np.testing.assert_allclose(result[:, 0], -chain.decision_function(new), rtol=1e-9, atol=1e-12)


def test_a_regressor_predicts_one_column_from_the_others(tmp_path: Path) -> None:
    rows, new = table(300), table(40, seed=6)
    stored(tmp_path, rows)
    ridge = make_pipeline(StandardScaler(), Ridge(random_state=0)).fit(rows[:, :2], rows[:, 2])
    model = trained(tmp_path, 300, estimator="sklearn.linear_model.Ridge", column="c")
    result = scores(model, new)
    np.testing.assert_allclose(result[:, 0], ridge.predict(new[:, :2]), rtol=1e-9)
    np.testing.assert_allclose(result[:, 1], new[:, 2] - result[:, 0], rtol=1e-9)


def test_partial_fit_goes_through_all_rows_block_by_block(tmp_path: Path) -> None:
    rows, new = table(2 * BLOCK_ROWS + 500), table(40, seed=6)
    stored(tmp_path, rows)
    blocks = [rows[first : first + BLOCK_ROWS] for first in range(0, len(rows), BLOCK_ROWS)]
    scaler, centres = StandardScaler(), MiniBatchKMeans(4, random_state=0)
    for block in blocks:
        scaler.partial_fit(block)
    for block in [*blocks, *blocks]:
        centres.partial_fit(scaler.transform(block))
    model = trained(
        tmp_path,
        len(rows),
        estimator="sklearn.cluster.MiniBatchKMeans",
        parameters={"n_clusters": 4},
        passes=2,
        max_rows=10,  # only for estimators that are fitted at once
    )
    expected = centres.transform(scaler.transform(new)).min(axis=1)
    np.testing.assert_allclose(scores(model, new)[:, 0], expected, rtol=1e-9)


def test_rows_are_sampled_reproducibly_by_their_numbers(tmp_path: Path) -> None:
    rows = np.arange(3 * BLOCK_ROWS, dtype=np.float32).reshape(-1, 1)
    rows[7::100] = np.nan
    array = stored(tmp_path, rows).array("t:values")
    one, again, other = (
        drawn_rows(array, 100, len(rows), max_rows=1000, seed=seed)[:, 0] for seed in (1, 1, 2)
    )
    assert one.tolist() == again.tolist() == sorted(set(one.tolist()))
    assert one.tolist() != other.tolist()
    assert one.min() >= 100
    assert 960 < len(one) < 1000  # one in a hundred is NaN
    assert abs(one.mean() - len(rows) / 2) < len(rows) / 20
    few = drawn_rows(array, 0, 50, max_rows=1000, seed=1)
    assert few[:, 0].tolist() == [n for n in range(50) if n != 7]


def test_history_is_counted_back_in_event_time(tmp_path: Path) -> None:
    rows, new = table(400), table(30, seed=6)
    stored(tmp_path, rows)
    fitted = make_pipeline(StandardScaler(), IsolationForest(random_state=0)).fit(rows[199:300])
    result = scores(trained(tmp_path, 300, history_s=100), new)
    np.testing.assert_allclose(result[:, 0], -fitted.decision_function(new), rtol=1e-9, atol=1e-12)


PEAK = """
import sys, resource
from pathlib import Path
from windvane.processors.learning.training import drawn_rows
from windvane.store.files.store import Store
array = Store(Path(sys.argv[1])).array("t:values")
def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
before = held()
rows = drawn_rows(array, 0, len(array), max_rows=10_000, seed=0)
print(len(rows), held() - before)
"""


@pytest.mark.system
def test_memory_depends_on_the_sampled_rows_and_not_on_the_history(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    array = store.array_writer("t:values", dtype=np.dtype(np.float64), row_shape=(32,), attrs={})
    with resumed(array) as writer:
        for first in range(0, 400_000, 20_000):
            writer.append(np.ones((20_000, 32)), np.arange(first, first + 20_000))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "store")]
    measured = subprocess.run(command, capture_output=True, check=True, timeout=240)
    count, kib = map(int, measured.stdout.split())
    assert count == 10_000
    assert kib < 16 * 1024  # 2.5 MiB of rows and their numbers; the history has 98 MiB


@pytest.mark.parametrize("name", KINDS)
def test_output_does_not_depend_on_chunk_boundaries_or_restarts(tmp_path: Path, name: str) -> None:
    stored(tmp_path, table(300))
    state = trained(tmp_path, 300, **KINDS[name][0]).state()

    def make() -> TrainedModel:
        model = op("trained_model", **KINDS[name][0], first_after_rows=60, every_rows=20)
        assert isinstance(model, TrainedModel)
        model.restore(TrainedState(columns=COLUMNS, learner=state.learner, trained_to=300))
        return model

    rows = table(150, seed=7)
    rows[40, 1] = np.nan
    expected = run(make(), whole(150).blocks(rows, columns=COLUMNS))
    assert np.isnan(expected.rows[40]).all()
    for index in range(15):
        blocks = list(_cut(150, index).blocks(rows, columns=COLUMNS))
        assert run(make(), blocks).same_rows(expected)
        model, restarted = make(), []
        for block in blocks:
            restarted.append(one(model.process(block)).rows)
            state_now = pickle.dumps(model.state())
            model = make()
            model.restore(pickle.loads(state_now))
        assert np.concatenate(restarted).tobytes() == expected.rows.tobytes()


def _cut(count: int, seed: int) -> Cut:
    stops = sorted({*np.random.default_rng(seed).integers(1, count, 10).tolist(), count})
    return Cut(stops, list(range(len(stops))), list(range(1, len(stops) + 1)))


def test_trainings_are_due_by_rows_and_event_time_for_any_chunk_boundaries() -> None:
    def due(model: TrainedModel, size: int) -> list[int]:
        found = []
        for block in _cut_evenly(200, size).blocks(table(200), columns=COLUMNS):
            model.process(block)
            if model.wanted and model.wanted[0] not in found:
                found.append(model.wanted[0])
                assert model.state().given - model.wanted[1] == model.wanted[0]
        return found

    def make(**schedule: Any) -> TrainedModel:
        model = op("trained_model", first_after_rows=50, **schedule)
        assert isinstance(model, TrainedModel)
        return model

    assert due(make(), 1) == [50]
    assert due(make(every_rows=40), 1) == [50, 90, 130, 170]
    assert due(make(every_rows=40), 200) == [170]  # one training for all due at once
    assert due(make(every_s=60), 1) == [50, 110, 170]  # a row a second
    assert due(make(every_s=60), 7)[-1] == due(make(every_s=60), 200)[-1] == 170
    assert due(make(every_s=60, every_rows=30), 1) == [50, 80, 110, 140, 170, 200]


def _cut_evenly(count: int, size: int) -> Any:
    """Each row with a time of its own, a second after the one before; `size` rows a block."""
    from windvane.processors.operations.base.block import Block, EventTimes

    class Even:
        def blocks(self, rows: NDArray[Any], columns: tuple[str, ...]) -> Any:
            for first in range(0, count, size):
                numbers = np.arange(first, min(first + size, count))
                times = EventTimes(numbers + 1, numbers * 1_000_000_000)
                yield Block(rows[numbers], first, times, columns=columns)

    return Even()


INVALID = [
    ({"estimator": "river.anomaly.HalfSpaceTrees"}, 'row by row, in the step "model"'),
    ({"estimator": "sklearn.ensemble.IsolationForrest"}, 'did you mean "IsolationForest"'),
    ({"estimator": "sklearn.neighbors.LocalOutlierFactor"}, "novelty = true"),
    ({"estimator": "sklearn.cluster.DBSCAN"}, "gives no score here; from sklearn"),
    ({"estimator": "sklearn.decomposition.PCA"}, "needs n_components"),
    ({"estimator": "sklearn.linear_model.Ridge"}, "column: .* is missing"),
    ({"column": "a"}, "is for regressors"),
    ({"passes": 3}, "has no partial_fit"),
    ({"parameters": {"n_estimators": -1}}, "does not accept"),
    ({"before": [{"estimator": "sklearn.linear_model.Ridge"}]}, "name a transformer"),
    ({"before": [{"name": "x"}]}, "before.0.: is a table of"),
    ({"max_rows": 10**9}, "up to 1000000"),
    ({"every_s": 0}, "over 0"),
]


@pytest.mark.parametrize(("parameters", "words"), INVALID)
def test_invalid_training_parameters_are_rejected_with_a_reason(
    parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(PolicyInvalid, match=words):
        op("trained_model", **parameters)


def test_a_source_that_is_not_kept_is_rejected_with_a_reason() -> None:
    fields = {"operation": "fields", "fields": ["a"], "keep": False}
    policy = {"reference": "p", "format": "json", "pipeline": [fields, {"operation": "trained_model"}]}
    with pytest.raises(PolicyInvalid, match='set keep = true for "fields"'):
        check_pipeline(policy_from_mapping(policy))


def test_the_page_has_a_policy_that_can_run_and_every_parameter() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    check_pipeline(policy_from_mapping(tomllib.loads(example)["policy"][0]))
    for parameter in inspect.signature(TrainedModel).parameters:
        assert f"`{parameter}`" in page, parameter


def test_a_training_without_rows_reports_the_cause(tmp_path: Path) -> None:
    stored(tmp_path, np.full((20, 3), np.nan))
    with pytest.raises(OperationFailed, match="0 rows without NaN"):
        trained(tmp_path, 20)
    with pytest.raises(OperationFailed, match="has 20 rows and not 21"):
        trained(tmp_path, 21)


class PanicException(BaseException):
    """Like that of PyO3."""


@pytest.mark.parametrize(
    "error", [PanicException("index"), SystemExit(3), KeyboardInterrupt(), MemoryError()]
)
def test_whatever_an_estimator_raises_is_a_failed_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    from sklearn.ensemble import IsolationForest

    def raises(*_: object, **__: object) -> None:
        raise error

    stored(tmp_path, table(100)).close()
    monkeypatch.setattr(IsolationForest, "fit", raises)
    request = TrainingRequest(
        reference="t:model",
        source="t:values",
        stop=100,
        due=0,
        columns=COLUMNS,
        step=Step("trained_model"),
        fingerprint=FINGERPRINT.hex(),
        store="local:",
        home=str(tmp_path),
        models=str(tmp_path / "models"),
    )
    said = {SystemExit: "exit(3)", MemoryError: "not enough memory"}.get(type(error), type(error).__name__)
    assert said in try_to_train(request).error
    assert not list((tmp_path / "models").glob("*"))


@pytest.mark.system
def test_a_training_ends_with_its_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "windvane.processors.learning.training"]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode({"no": "request"}) + b"\n")
        process.stdin.flush()
        assert process.stdout is not None
        assert "error" in process.stdout.readline().decode()
        process.stdin.close()
    assert process.returncode is not None
    assert TrainingReport(error="x").rows == 0


FIELDS = {"operation": "fields", "fields": ["a", "b"]}
FOREST = {
    "operation": "trained_model",
    "name": "forest",
    "parameters": {"n_estimators": 10},
    "first_after_rows": 40,
    "every_rows": 1000,
}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


async def send(home: Home, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(count)
    await home.publish("p", *({"a": float(value), "b": 3 * float(value)} for value in values))


def trained_to(home: Home) -> list[float]:
    column: NDArray[np.float64] = home.store.array("t:forest")[:, 1]
    found: list[float] = np.nan_to_num(column).tolist()
    return found


def model_waits(home: Home) -> bool:
    return ModelFiles.name("t:forest") in ModelFiles(home.path / "models").waiting()


@pytest.mark.system
async def test_a_model_is_swapped_in_between_two_chunks_without_a_row_lost(home: Home) -> None:
    await home.policy("p", tags=["t"], pipeline=[FIELDS, FOREST])
    async with home.working():
        await send(home, 50, 1)
        await until(lambda: model_waits(home))
        await send(home, 30, 2)
        await home.until_stored(2)
        assert trained_to(home) == [0.0] * 50 + [40.0] * 30
    rows = home.store.array("t:fields")[:]
    fitted = make_pipeline(StandardScaler(), IsolationForest(n_estimators=10, random_state=0)).fit(rows[:40])
    expected = -fitted.decision_function(rows[50:])
    result = home.store.array("t:forest")[50:, 0]
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)
    assert not model_waits(home)  # it is in the checkpoint
    async with home.working():
        await send(home, 5, 3)
        await home.until_stored(1)
    assert trained_to(home)[80:] == [40.0] * 5
    state = forest_state(home)
    assert (state.given, state.settled, state.trainings, state.failures) == (85, 40, 1, 0)


def forest_state(home: Home) -> TrainedState:
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    committed = checkpoints.stream("t")
    checkpoints.close()
    assert committed is not None
    state = decode_state(TrainedModel, committed.states["forest"][FINGERPRINT_BYTES:])
    assert isinstance(state, TrainedState)
    assert state.learner is None or zlib.decompress(state.learner)
    return state


@pytest.mark.system
async def test_the_pipeline_continues_during_training(home: Home) -> None:
    await home.policy("p", tags=["t"], pipeline=[FIELDS, FOREST])
    async with home.working():
        await send(home, 50, 1)
        await until(lambda: home.worker._trainings.running)
        running = home.worker._trainings.running
        assert running is not None
        os.kill(running, signal.SIGSTOP)  # it never ends
        for seed in range(20):
            await send(home, 10, seed)
        await home.until_stored(21)
        await home.worker.checkpoint()
        assert home.worker._trainings.running == running
        assert trained_to(home) == [0.0] * 250
        os.kill(running, signal.SIGCONT)
        await until(lambda: model_waits(home))
        await send(home, 10, 99)
        await home.until_stored(22)
        assert trained_to(home)[250:] == [40.0] * 10


@pytest.mark.system
async def test_a_killed_training_is_a_failure_and_the_stream_continues(home: Home) -> None:
    await home.policy("p", tags=["t"], pipeline=[FIELDS, {**FOREST, "every_rows": 30}])
    async with home.working():
        await send(home, 50, 1)
        await until(lambda: home.worker._trainings.running)
        running = home.worker._trainings.running
        assert running is not None
        os.kill(running, signal.SIGKILL)
        await until(lambda: home.telemetry.status().failures)
        [failure] = home.telemetry.status().failures
        assert "ended with signal 9" in failure.message
        await send(home, 25, 2)  # the next training is due
        await until(lambda: model_waits(home))
        await send(home, 1, 3)
        await home.until_stored(3)
    assert trained_to(home) == [0.0] * 75 + [70.0]
    state = forest_state(home)
    assert (state.trainings, state.failures) == (1, 1)


@pytest.mark.system
async def test_a_training_interrupted_by_a_stop_is_repeated_after_the_restart(home: Home) -> None:
    await home.policy("p", tags=["t"], pipeline=[FIELDS, FOREST])
    async with home.working():
        await send(home, 50, 1)
        await until(lambda: home.worker._trainings.running)
        running = home.worker._trainings.running
        assert running is not None
        os.kill(running, signal.SIGSTOP)
    assert not Path(f"/proc/{running}").exists()
    assert not model_waits(home)
    async with home.working():
        await send(home, 10, 2)
        await until(lambda: model_waits(home))
        await send(home, 10, 3)
        await home.until_stored(2)
    assert trained_to(home) == [0.0] * 60 + [40.0] * 10


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.system
async def test_a_killed_worker_ends_its_training_and_the_next_worker_retrains(
    home: Home,
) -> None:
    slow = {**FOREST, "parameters": {"n_estimators": 1000}}
    await home.policy("p", tags=["t"], pipeline=[FIELDS, slow])
    worker = Running("worker", home.path)
    await asyncio.to_thread(worker.start)
    try:
        await send(home, 50, 1)
        await until(lambda: children(worker.pid))
        [training] = children(worker.pid)
        worker.kill()
        await until(lambda: not Path(f"/proc/{training}").exists())
        assert not model_waits(home)
        await asyncio.to_thread(worker.start)
        await send(home, 20, 2)
        await until(lambda: model_waits(home))
        # Killed with a pending model, and before the checkpoint with the rows that it has scored.
        await send(home, 10, 3)
        await until(lambda: len(home.store.array("t:forest")) == 80)
        worker.kill()
        await asyncio.to_thread(worker.start)
        await send(home, 10, 4)
        await until(lambda: len(home.store.array("t:forest")) == 90)
        assert worker.stop() == 0
    finally:
        worker.end()
    assert trained_to(home)[80:] == [40.0] * 10
    assert len(home.store.array("t:fields")) == 90
    assert not model_waits(home)
    rows = home.store.array("t:fields")[:]
    fitted = make_pipeline(StandardScaler(), IsolationForest(n_estimators=1000, random_state=0)).fit(
        rows[:40]
    )
    expected = -fitted.decision_function(rows[80:])
    np.testing.assert_allclose(home.store.array("t:forest")[80:, 0], expected, rtol=1e-9, atol=1e-12)
    assert forest_state(home).trainings == 1


@pytest.mark.system
async def test_a_manually_trained_model_is_loaded_and_the_schedule_continues(home: Home) -> None:
    await home.policy("p", tags=["t"], pipeline=[FIELDS, {**FOREST, "first_after_rows": 100}])
    async with home.working():
        await send(home, 60, 1)
        await home.until_stored(1)
    by_hand = await asyncio.to_thread(windvane, home.path, "model", "train", "t:forest")
    assert by_hand.returncode == 0, by_hand.stderr
    assert b"trained on 60 of the first 60 rows of t:fields" in by_hand.stdout
    async with home.working():
        await send(home, 50, 2)
        await home.until_stored(1)
        await home.worker.checkpoint()  # with that of the command, whose file goes
        await until(lambda: model_waits(home))  # that of the schedule
        await send(home, 5, 3)
        await home.until_stored(2)
    assert trained_to(home) == [0.0] * 60 + [60.0] * 50 + [100.0] * 5
    wrong = await asyncio.to_thread(windvane, home.path, "model", "train", "t:fields")
    assert wrong.returncode == 1
    assert b"no trained_model named 'fields'; there is t:forest" in wrong.stderr
    assert b"Traceback" not in wrong.stderr
