"""Estimators of River and scikit-learn with one small interface: they score rows and learn from them.

`estimator_classes.py` finds and creates the estimators of the two libraries.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from ..operations.base.failures import did_you_mean
from .estimator_classes import SUPPORTED, construct, estimator_class

Scaler = Literal["minmax", "standard", "none"]

MAX_BATCH_ROWS = 256
"""Rows that scikit-learn learns from at once: too few for it to distribute over threads."""

_RIVER_CLUSTERERS = ("KMeans", "CluStream", "DBSTREAM", "DenStream")


class Learner(ABC):
    """Scores rows, and learns from them. Deterministic, and picklable with its complete state.

    Attributes:
        outputs: names of the scores.
        column: the one that is monitored or predicted; None if all are inputs.
        columns: names of all columns, set by `begin`.
    """

    outputs: tuple[str, ...] = ("score",)

    def __init__(self, estimator: Any, column: str | None) -> None:
        self.estimator = estimator
        self.column = column
        self.columns: tuple[str, ...] = ()

    def begin(self, columns: tuple[str, ...]) -> None:
        """Sets the columns once, before the first row; OperationFailed if `column` is missing."""
        if self.column is not None and self.column not in columns:
            raise OperationFailed(
                f'the rows have no column "{self.column}"{did_you_mean(self.column, columns)}'
            )
        self.columns = columns

    @abstractmethod
    def learn(self, row: NDArray[np.float64]) -> None:
        """Learns from a row of shape (columns,), all of it finite."""

    @abstractmethod
    def judge(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        """Scores a row with the current model: one number for each of `outputs`."""

    def score(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        """Scores a row, then learns from it."""
        scores = self.judge(row)
        self.learn(row)
        return scores

    def split(self, row: NDArray[np.float64]) -> tuple[dict[int, float], float]:
        """The row as River takes it: the other columns, and the value of `column`."""
        assert self.column is not None
        others = named(row)
        return others, others.pop(self.columns.index(self.column))


def named(row: NDArray[np.float64]) -> dict[int, float]:
    """The row in River's form, by number: the order of sets of names differs between processes."""
    return dict(enumerate(row.tolist()))


class _RiverAnomaly(Learner):
    """An anomaly detector: the higher the score, the more anomalous the row."""

    def learn(self, row: NDArray[np.float64]) -> None:
        self.estimator.learn_one(named(row))

    def judge(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        return (float(self.estimator.score_one(named(row))),)


class _RiverClusterer(_RiverAnomaly):
    """A clusterer: the number of the cluster that a row belongs to."""

    outputs = ("cluster",)

    def judge(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        return (float(self.estimator.predict_one(named(row))),)


class _RiverRegressor(Learner):
    """A regressor that predicts one column from the others; residual is the value minus the prediction."""

    outputs = ("prediction", "residual")

    def learn(self, row: NDArray[np.float64]) -> None:
        self.estimator.learn_one(*self.split(row))

    def judge(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        others, value = self.split(row)
        prediction = float(self.estimator.predict_one(others))
        return prediction, value - prediction


class _Watching(Learner):
    """Learners that monitor one column; it is None if the policy names none and rows have only one."""

    def begin(self, columns: tuple[str, ...]) -> None:
        if self.column is None and len(columns) == 1:
            self.column = columns[0]
        if self.column is None:
            raise OperationFailed(
                f"{type(self.estimator).__name__} watches one column, and the rows have {len(columns)}; "
                f"set `column` to one of: {', '.join(columns)}"
            )
        super().begin(columns)


class _RiverWatchingAnomaly(_Watching):
    """A supervised anomaly detector of River; it may use the other columns to predict the monitored one."""

    def learn(self, row: NDArray[np.float64]) -> None:
        self.estimator.learn_one(*self.split(row))

    def judge(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        return (float(self.estimator.score_one(*self.split(row))),)


class _RiverDrift(_Watching):
    """A drift detector: 1 for the row with which a change was found, else 0."""

    outputs = ("drift",)

    def learn(self, row: NDArray[np.float64]) -> None:
        self.estimator.update(self.split(row)[1])

    def judge(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        return (float(self.estimator.drift_detected),)

    def score(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        self.learn(row)
        return self.judge(row)


class _SklearnLearner(Learner):
    """An estimator with `partial_fit`: learns from batches of one size, is untrained before the first.

    A row is scored by itself, with the model of all complete batches: so block boundaries do not matter.
    Keeps fewer rows than a batch.
    """

    def __init__(self, estimator: Any, column: str | None, scaler: Any, batch_rows: int) -> None:
        super().__init__(estimator, column)
        self._scaler = scaler
        self._batch_rows = batch_rows
        self._rows: list[NDArray[np.float64]] = []
        self._knows = False

    @property
    def scaler(self) -> Any:
        """The scaler of the columns before the estimator; None without one."""
        return self._scaler

    def learn(self, row: NDArray[np.float64]) -> None:
        self._rows.append(row)
        if len(self._rows) == self._batch_rows:
            rows, self._rows = np.array(self._rows), []
            self._fit(rows)
            self._knows = True

    def judge(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        return self._judge_known(row[np.newaxis]) if self._knows else (np.nan,) * len(self.outputs)

    def _fit(self, rows: NDArray[np.float64]) -> None:
        if self._scaler is not None:
            self._scaler.partial_fit(rows)
        self.estimator.partial_fit(self._scaled(rows))

    def _scaled(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows if self._scaler is None else self._scaler.transform(rows)

    @abstractmethod
    def _judge_known(self, row: NDArray[np.float64]) -> tuple[float, ...]: ...


class _SklearnOutlier(_SklearnLearner):
    """An outlier detector: the distance of a row outside the boundary; below 0 inside."""

    def _judge_known(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        return (-float(self.estimator.decision_function(self._scaled(row))[0]),)


class _SklearnCenters(_SklearnLearner):
    """A clusterer: distance to the nearest centre, in the scaler's units."""

    outputs = ("distance",)

    def _judge_known(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        return (float(self.estimator.transform(self._scaled(row)).min()),)


class _SklearnReconstruction(_SklearnLearner):
    """A decomposition: root mean square of a row's reconstruction error, in the scaler's units."""

    outputs = ("error",)

    def _judge_known(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        scaled = self._scaled(row)
        lost = scaled - self.estimator.inverse_transform(self.estimator.transform(scaled))
        return (float(np.sqrt(np.mean(lost * lost))),)


class _SklearnRegressor(_SklearnLearner):
    """A regressor that predicts one column from the others; residual is the value minus the prediction."""

    outputs = ("prediction", "residual")

    def _fit(self, rows: NDArray[np.float64]) -> None:
        others, values = self._without_column(rows)
        if self._scaler is not None:
            self._scaler.partial_fit(others)
        self.estimator.partial_fit(self._scaled(others), values)

    def _judge_known(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        others, values = self._without_column(row)
        prediction = float(self.estimator.predict(self._scaled(others))[0])
        return prediction, float(values[0]) - prediction

    def _without_column(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        assert self.column is not None
        index = self.columns.index(self.column)
        return np.delete(rows, index, axis=1), rows[:, index]


def make_learner(
    path: str, parameters: Mapping[str, Any], *, scaler: Scaler | None, batch_rows: int, column: str | None
) -> Learner:
    """An untrained learner.

    Args:
        path: such as "river.anomaly.HalfSpaceTrees".
        parameters: of its constructor; the default seed is 0.
        scaler: scaler of the columns before the estimator; None for the one that suits it.
        batch_rows: rows that an estimator of scikit-learn learns from at once.
        column: the one to monitor or predict, for estimators that do so.

    Raises:
        PolicyInvalid: an unknown estimator, one of an unsupported kind, or invalid parameters.
    """
    estimator = construct(path, estimator_class(path), parameters)
    if path.startswith("river."):
        learner = _river_learner(path, estimator, scaler, column)
    else:
        learner = _sklearn_learner(path, estimator, scaler, column, batch_rows)
    try:
        pickle.dumps(learner)
    except Exception as rejection:
        raise PolicyInvalid(
            f"estimator: {path} cannot be kept in a checkpoint ({rejection}); name another"
        ) from rejection
    return learner


def _river_learner(path: str, estimator: Any, scaler: Scaler | None, column: str | None) -> Learner:
    from river import base, compose, preprocessing

    if isinstance(estimator, (base.DriftDetector, base.SupervisedAnomalyDetector)):
        if scaler not in (None, "none"):
            raise PolicyInvalid(f'scaler: "{path}" watches one column as it is; leave the scaler out')
        return (_RiverDrift if isinstance(estimator, base.DriftDetector) else _RiverWatchingAnomaly)(
            estimator, column
        )
    kind: type[Learner]
    if isinstance(estimator, base.AnomalyDetector):
        kind = _RiverAnomaly
    elif isinstance(estimator, base.Clusterer) and path.rpartition(".")[2] in _RIVER_CLUSTERERS:
        kind = _RiverClusterer
    elif isinstance(estimator, base.Regressor):
        kind = _RiverRegressor
    else:
        raise PolicyInvalid(f'estimator: "{path}" gives no score here; {SUPPORTED}')
    _check_column(path, column, predicts=kind is _RiverRegressor)
    if scaler != "none":
        first = preprocessing.StandardScaler() if scaler == "standard" else preprocessing.MinMaxScaler()
        estimator = compose.Pipeline(("scaler", first), ("estimator", estimator))
    return kind(estimator, column)


def _sklearn_learner(
    path: str, estimator: Any, scaler: Scaler | None, column: str | None, batch_rows: int
) -> _SklearnLearner:
    from sklearn.base import is_outlier_detector, is_regressor
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import IncrementalPCA
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    kind: type[_SklearnLearner] | None = None
    if hasattr(estimator, "partial_fit"):
        if is_outlier_detector(estimator):
            kind = _SklearnOutlier
        elif is_regressor(estimator):
            kind = _SklearnRegressor
        elif isinstance(estimator, MiniBatchKMeans):
            kind = _SklearnCenters
        elif isinstance(estimator, IncrementalPCA):
            kind = _SklearnReconstruction
    if kind is None:
        raise PolicyInvalid(f'estimator: "{path}" gives no score here; {SUPPORTED}')
    _check_column(path, column, predicts=kind is _SklearnRegressor)
    if isinstance(estimator, IncrementalPCA) and estimator.n_components is None:
        raise PolicyInvalid(
            f'parameters: "{path}" needs n_components, fewer than columns; with all, nothing is lost'
        )
    smallest = max(getattr(estimator, "n_clusters", 1), getattr(estimator, "n_components", 1))
    if batch_rows < smallest:
        raise PolicyInvalid(
            f'batch: is {batch_rows}; "{path}" as asked for learns from {smallest} rows at least'
        )
    scalers = {"minmax": MinMaxScaler, "standard": StandardScaler}
    return kind(estimator, column, None if scaler == "none" else scalers[scaler or "minmax"](), batch_rows)


def _check_column(path: str, column: str | None, *, predicts: bool) -> None:
    if predicts and column is None:
        raise PolicyInvalid(f'column: is missing, which "{path}" is to predict from the others')
    if not predicts and column is not None:
        raise PolicyInvalid(f'column: "{path}" takes all columns; leave it out')
