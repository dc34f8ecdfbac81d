"""`model`: rows are scored, then learned; the same scores for any cut and after any restart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river import anomaly, compose, drift, linear_model, preprocessing
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDOneClassSVM
from sklearn.preprocessing import MinMaxScaler
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.learning import model
from windvane.processors.operations.base.operation import Operation

from tests.processors.streams import Cut, cuts, one, op, run, run_with_restarts, whole

COLUMNS = ("rms", "peak", "kurtosis")
TREES = {"n_trees": 3, "height": 3, "window_size": 20}


def table(count: int, columns: int = 3) -> NDArray[np.float64]:
    rows = np.random.default_rng(5).standard_normal((count, columns))
    rows[count // 2 :] += 4
    return rows


def scores(model: Operation, rows: NDArray[np.float64], columns: tuple[str, ...] = COLUMNS) -> NDArray[Any]:
    return run(model, whole(len(rows)).blocks(rows, columns=columns)).rows


def named(row: NDArray[np.float64]) -> dict[int, float]:
    return dict(enumerate(row.tolist()))


def test_half_space_trees_score_what_they_score_in_river() -> None:
    rows = table(100)
    half_space_trees: Any = anomaly.HalfSpaceTrees
    trees: Any = compose.Pipeline(preprocessing.MinMaxScaler(), half_space_trees(**TREES, seed=0))
    expected = []
    for index, row in enumerate(rows):
        expected.append(trees.score_one(named(row)) if index >= 10 else np.nan)
        trees.learn_one(named(row))
    result = scores(op("model", parameters=TREES, warmup=10), rows)
    np.testing.assert_array_equal(result[:, 0], expected)
    assert result[60:, 0].max() > 0


def test_the_seed_of_the_policy_overrides_the_default_seed() -> None:
    rows = table(60)
    results = [
        scores(op("model", parameters={**TREES, **seed}), rows).tobytes()
        for seed in ({}, {"seed": 0}, {"seed": 1})
    ]
    assert results[0] == results[1] != results[2]


def test_a_drift_detector_reports_the_row_of_a_change() -> None:
    rows = table(1000)
    new_adwin: Any = drift.ADWIN
    adwin = new_adwin()
    expected = []
    for value in rows[:, 1]:
        adwin.update(value)
        expected.append(float(adwin.drift_detected))
    expected[0] = np.nan
    result = scores(op("model", estimator="river.drift.ADWIN", column="peak"), rows)
    np.testing.assert_array_equal(result[:, 0], expected)
    assert 500 < int(np.nanargmax(result)) < 600


def test_a_detector_of_a_single_column_needs_no_column_name() -> None:
    rows = table(300, columns=1)
    for estimator in ("river.drift.PageHinkley", "river.anomaly.GaussianScorer"):
        assert np.nanmax(scores(op("model", estimator=estimator), rows, ("score",))) > 0


def test_a_regressor_predicts_one_column_from_the_others() -> None:
    rows = table(200)
    rows[:, 2] = 2 * rows[:, 0] - rows[:, 1]
    regressor = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LinearRegression())
    expected = []
    for row in rows:
        others = named(row)
        value = others.pop(2)
        prediction = regressor.predict_one(others)
        expected.append([prediction, value - prediction])
        regressor.learn_one(others, value)
    learner = op(
        "model", estimator="river.linear_model.LinearRegression", scaler="standard", column="kurtosis"
    )
    output = run(learner, whole(200).blocks(rows, columns=COLUMNS))
    assert output.blocks[0].columns == ("prediction", "residual")
    np.testing.assert_array_equal(output.rows[1:], expected[1:])


def test_a_clusterer_gives_the_cluster() -> None:
    output = run(
        op("model", estimator="river.cluster.KMeans", parameters={"n_clusters": 2}, warmup=5),
        whole(100).blocks(table(100), columns=COLUMNS),
    )
    assert output.blocks[0].columns == ("cluster",)
    assert set(output.rows[5:, 0]) <= {0.0, 1.0}


def batches(rows: NDArray[np.float64], estimator: Any, score: Any, batch: int = 16) -> list[float]:
    """Scores each row with the model of the complete batches before it; untrained for the first batch."""
    scaler, expected = MinMaxScaler(), []
    for index, row in enumerate(rows):
        known = index >= batch
        expected.append(float(score(estimator, scaler.transform([row]))) if known else np.nan)
        if index % batch == batch - 1:
            learned = rows[index - batch + 1 : index + 1]
            scaler.partial_fit(learned)
            estimator.partial_fit(scaler.transform(learned))
    return expected


def pca_error(pca: Any, row: NDArray[np.float64]) -> float:
    return float(np.sqrt(((row - pca.inverse_transform(pca.transform(row))) ** 2).mean()))


SKLEARN = [
    (
        "sklearn.cluster.MiniBatchKMeans",
        {"n_clusters": 2, "n_init": 1},
        MiniBatchKMeans(n_clusters=2, n_init=1, random_state=0),
        lambda means, row: means.transform(row).min(),
        "distance",
    ),
    (
        "sklearn.linear_model.SGDOneClassSVM",
        {},
        SGDOneClassSVM(random_state=0),
        lambda svm, row: -svm.decision_function(row)[0],
        "score",
    ),
    (
        "sklearn.decomposition.IncrementalPCA",
        {"n_components": 2},
        IncrementalPCA(n_components=2),
        pca_error,
        "error",
    ),
]


@pytest.mark.parametrize(
    ("path", "parameters", "estimator", "score", "column"), SKLEARN, ids=[s[0] for s in SKLEARN]
)
def test_scikit_learn_learns_in_batches(
    path: str, parameters: Any, estimator: Any, score: Any, column: str
) -> None:
    rows = table(80)
    learner = op("model", estimator=path, parameters=parameters, batch=16)
    output = run(learner, whole(80).blocks(rows, columns=COLUMNS))
    np.testing.assert_array_equal(output.rows[:, 0], batches(rows, estimator, score))
    assert output.blocks[0].columns == (column,)


def test_a_regressor_of_scikit_learn_predicts_one_column() -> None:
    rows = table(400)
    rows[:, 1] = rows[:, 0]
    learner = op(
        "model", estimator="sklearn.linear_model.SGDRegressor", column="peak", batch=10, scaler="none"
    )
    result = scores(learner, rows)
    assert np.isnan(result[:10]).all()
    np.testing.assert_allclose(result[10:].sum(axis=1), rows[10:, 1])
    assert np.abs(result[300:, 1]).mean() < 0.2


ESTIMATORS: list[dict[str, Any]] = [
    {"parameters": TREES},
    {"parameters": TREES, "scaler": "none"},
    {"estimator": "river.anomaly.LODA", "parameters": {"n_random_cuts": 5}, "scaler": "standard"},
    {"estimator": "river.anomaly.OneClassSVM", "warmup": 7},
    {"estimator": "river.anomaly.LocalOutlierFactor", "parameters": {"n_neighbors": 3}},
    {"estimator": "river.anomaly.GaussianScorer", "parameters": {"grace_period": 5}, "column": "rms"},
    {"estimator": "river.anomaly.StandardAbsoluteDeviation", "column": "rms"},
    {"estimator": "river.drift.ADWIN", "column": "rms"},
    {"estimator": "river.drift.KSWIN", "column": "rms", "parameters": {"window_size": 20, "stat_size": 5}},
    {"estimator": "river.drift.PageHinkley", "column": "rms"},
    {"estimator": "river.cluster.KMeans"},
    {"estimator": "river.cluster.CluStream", "parameters": {"max_micro_clusters": 10, "n_macro_clusters": 2}},
    {"estimator": "river.cluster.DBSTREAM"},
    {"estimator": "river.cluster.DenStream", "parameters": {"n_samples_init": 10}},
    {"estimator": "river.linear_model.LinearRegression", "column": "peak"},
    {"estimator": "river.tree.HoeffdingTreeRegressor", "column": "peak", "parameters": {"grace_period": 10}},
    {"estimator": "river.forest.ARFRegressor", "column": "peak", "parameters": {"n_models": 2}},
    {"estimator": "sklearn.cluster.MiniBatchKMeans", "parameters": {"n_clusters": 2}, "batch": 8},
    {"estimator": "sklearn.linear_model.SGDOneClassSVM", "batch": 8},
    {"estimator": "sklearn.linear_model.SGDRegressor", "column": "peak", "batch": 8, "scaler": "standard"},
    {"estimator": "sklearn.neural_network.MLPRegressor", "column": "peak", "batch": 8},
    {"estimator": "sklearn.decomposition.IncrementalPCA", "parameters": {"n_components": 2}, "batch": 8},
]


@pytest.mark.parametrize("parameters", ESTIMATORS, ids=lambda p: p.get("estimator", "HalfSpaceTrees"))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_do_not_depend_on_chunk_boundaries_or_restarts(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "JOURNAL_ROWS", 30)
    rows = table(120)
    rows[17, 1], rows[40, 0] = np.nan, np.inf
    cut = Cut([1, 2, 14, 45, 46, 90, 120], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 5, 6, 7])
    blocks = list(cut.blocks(rows, columns=COLUMNS))
    expected = scores(op("model", **parameters), rows)
    for output in (
        run(op("model", **parameters), blocks),
        run_with_restarts(lambda: op("model", **parameters), blocks),
    ):
        assert output.rows.tobytes() == expected.tobytes()
        assert output.times_ns.tolist() == [1, 2] + [3] * 12 + [4] * 31 + [5] + [6] * 44 + [7] * 30
    finite = np.isfinite(expected).all(axis=1)
    assert not finite[17]
    assert not finite[40]
    assert finite[-60:].all()


@given(cut=cuts(30))
@settings(max_examples=30, deadline=None)
def test_output_does_not_depend_on_chunk_boundaries(cut: Cut) -> None:
    rows = table(30)
    blocks = list(cut.blocks(rows, columns=COLUMNS))
    output = run_with_restarts(lambda: op("model", parameters=TREES), blocks)
    assert output.rows.tobytes() == scores(op("model", parameters=TREES), rows).tobytes()


SCORES_OF_ANOTHER_PROCESS = """
import sys
from tests.processors.streams import one, op
from tests.processors.learning.test_model import scores, table
for path in ("anomaly.HalfSpaceTrees", "cluster.KMeans", "anomaly.LODA"):
    sys.stdout.buffer.write(scores(op("model", estimator="river." + path), table(100)).tobytes())
"""


@pytest.mark.system
def test_scores_are_the_same_in_another_process_with_another_order_of_sets() -> None:
    other = subprocess.run(
        [sys.executable, "-c", SCORES_OF_ANOTHER_PROCESS],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    ).stdout
    paths = ("anomaly.HalfSpaceTrees", "cluster.KMeans", "anomaly.LODA")
    here = [scores(op("model", estimator="river." + path), table(100)).tobytes() for path in paths]
    assert b"".join(here) == other


def test_rows_with_nan_are_scored_nan_and_not_learned() -> None:
    rows = table(100)
    broken = np.insert(rows, [30, 60, 60], np.nan, axis=0)
    result = scores(op("model", parameters=TREES), broken)
    assert np.isnan(result[[30, 61, 62]]).all()
    learned = scores(op("model", parameters=TREES), rows)
    np.testing.assert_array_equal(np.delete(result, [30, 61, 62], axis=0), learned)


class Fragile(anomaly.HalfSpaceTrees):
    """Raises for some rows, after it has learned from them."""

    def learn_one(self, x: dict[Any, Any]) -> None:
        super().learn_one(x)  # type: ignore[no-untyped-call]
        if x[0] > 900:
            raise self.raised

    raised: BaseException = ArithmeticError("too much")


class PanicException(BaseException):
    """Like that of PyO3, which parts of River use."""


@pytest.mark.parametrize("raised", [ArithmeticError("too much"), PanicException("too much")])
@pytest.mark.parametrize("journal_rows", [512, 20])
def test_a_block_that_the_estimator_cannot_learn_changes_no_state(
    journal_rows: int, raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "JOURNAL_ROWS", journal_rows)
    monkeypatch.setattr(Fragile, "raised", raised)
    Fragile.__module__ = "river.anomaly"
    monkeypatch.setattr(anomaly, "Fragile", Fragile, raising=False)
    rows = table(100)
    rows[55, 0] = 1000
    parameters = {"estimator": "river.anomaly.Fragile", "parameters": TREES, "scaler": "none"}
    blocks = list(Cut([50, 60, 100], [1, 2, 3], [1, 2, 3]).blocks(rows, columns=COLUMNS))
    fragile = op("model", **parameters)
    given = [fragile.process(blocks[0])]
    with pytest.raises((OperationFailed, PanicException)) as failure:
        fragile.process(blocks[1])
    if isinstance(raised, Exception):
        assert re.search(
            r"Fragile cannot learn from .*rms=1000.*ArithmeticError: too much", str(failure.value)
        )
    given.append(fragile.process(blocks[2]))
    expected = scores(op("model", **parameters), np.delete(rows, range(50, 60), axis=0))
    assert b"".join(one(result).rows.tobytes() for result in given) == expected.tobytes()


class Travelled(anomaly.HalfSpaceTrees):
    """Scores the number of times that it was pickled and unpickled."""

    journeys = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, journeys=state.get("journeys", 0) + 1)

    def score_one(self, x: dict[Any, Any]) -> int:
        return self.journeys


def test_learning_continues_from_the_pickled_snapshot_with_and_without_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "JOURNAL_ROWS", 10)
    Travelled.__module__ = "river.anomaly"
    monkeypatch.setattr(anomaly, "Travelled", Travelled, raising=False)
    parameters = {"estimator": "river.anomaly.Travelled", "parameters": TREES}
    rows = table(35)
    blocks = list(Cut([7, 18, 35], [1, 2, 3], [1, 2, 3]).blocks(rows, columns=COLUMNS))
    expected = [np.nan] + [0] * 9 + [1] * 10 + [2] * 10 + [3] * 5
    np.testing.assert_array_equal(scores(op("model", **parameters), rows)[:, 0], expected)
    restarted = run_with_restarts(lambda: op("model", **parameters), blocks)
    np.testing.assert_array_equal(restarted.rows[:, 0], expected)


def test_the_state_is_small_between_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "JOURNAL_ROWS", 50)
    learner = op("model")
    kept = []
    for block in Cut(list(range(10, 210, 10)), list(range(20)), list(range(1, 21))).blocks(
        table(200), columns=COLUMNS
    ):
        learner.process(block)
        kept.append(len(learner.state().journal))
    assert max(kept) == 40
    assert 0 in kept


def test_changed_columns_are_rejected() -> None:
    learner = op("model", parameters=TREES)
    learner.process(next(whole(5).blocks(table(5), columns=COLUMNS)))
    state = learner.state()
    with pytest.raises(
        OperationFailed, match="has learned the columns rms, peak, kurtosis, and now gets rms, peak: "
    ):
        learner.process(next(whole(5).blocks(table(5, columns=2), columns=("rms", "peak"))))
    assert learner.state().learned == state.learned


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"column": "rsm", "estimator": "river.drift.ADWIN"}, 'no column "rsm"; did you mean "rms"\\?'),
        (
            {"estimator": "river.drift.ADWIN"},
            "ADWIN watches one column, and the rows have 3; set `column` to one of",
        ),
    ],
)
def test_a_column_missing_from_the_rows_is_rejected(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(OperationFailed, match=message):
        scores(op("model", **parameters), table(5))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"estimator": "os.system"}, "must be a class of River or scikit-learn"),
        ({"estimator": "river.anomaly.base.abc.ABC"}, "must be a class of River or scikit-learn"),
        ({"estimator": "river.__main__.X"}, "must be a class of River or scikit-learn"),
        ({"estimator": "river.anomly.HalfSpaceTrees"}, 'module "river.anomly" cannot be imported'),
        (
            {"estimator": "river.anomaly.HalfSpaceTree"},
            'no class "HalfSpaceTree"; did you mean "HalfSpaceTrees"',
        ),
        ({"estimator": "sklearn.cluster.np"}, 'no class "np"'),
        ({"estimator": "river.naive_bayes.GaussianNB"}, "gives no score here; from river: anomaly and drift"),
        ({"estimator": "river.cluster.TextClust"}, "gives no score here"),
        ({"estimator": "river.datasets.Phishing"}, "gives no score here"),
        (
            {"estimator": "sklearn.cluster.KMeans"},
            "gives no score here; .* from sklearn, where they have partial_fit",
        ),
        ({"estimator": "sklearn.cluster.Birch"}, "gives no score here"),
        ({"parameters": {"trees": 3}}, 'takes no "trees"; did you mean "n_trees"'),
        ({"parameters": {"limits": {"rms": [0, 1]}}}, "limits .* is a table; leave it out"),
        (
            {"estimator": "sklearn.cluster.MiniBatchKMeans", "parameters": {"n_clusters": -3}},
            "does not accept {'n_clusters': -3}",
        ),
        ({"estimator": "sklearn.cluster.MiniBatchKMeans", "batch": 4}, "learns from 8 rows at least"),
        ({"estimator": "sklearn.decomposition.IncrementalPCA"}, "needs n_components"),
        ({"estimator": "river.linear_model.LinearRegression"}, "column: is missing, which .* is to predict"),
        ({"column": "rms"}, "takes all columns; leave it out"),
        (
            {"estimator": "river.drift.ADWIN", "scaler": "minmax"},
            "watches one column as it is; leave the scaler out",
        ),
        ({"scaler": "robust"}, "must be one of 'minmax', 'standard', 'none'"),
        ({"warmup": 0}, "must be a whole number from 1"),
    ],
)
def test_invalid_model_parameters_are_rejected(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op("model", **parameters)


def test_attrs_describe_the_score() -> None:
    block = run(op("model", parameters=TREES, warmup=3), whole(9).blocks(table(9), columns=COLUMNS)).blocks[0]
    assert block.attrs == {
        "kind": "score",
        "columns": ["score"],
        "estimator": "river.anomaly.HalfSpaceTrees",
        "parameters": TREES,
        "scaler": None,
    }


@given(st.integers(1, 40))
@settings(max_examples=10, deadline=None)
def test_warmup_rows_are_learned_before_the_first_score(warmup: int) -> None:
    result = scores(op("model", parameters=TREES, warmup=warmup), table(50))
    assert np.isnan(result[:warmup]).all()
    assert np.isfinite(result[warmup:]).all()
