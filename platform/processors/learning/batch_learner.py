"""Estimators of scikit-learn that are trained separately from the stream, and then score its rows.

scikit-learn is imported when a policy names one of its estimators: it takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from ..operations.base.failures import did_you_mean
from .estimator_classes import construct, estimator_class
from .estimators import Scaler

FRAME_ROWS = 32
"""Fixed number of rows per scoring call: for a forest of trees, one row costs as much as 32."""

TRAINABLE = (
    "from sklearn: outlier detectors, regressors, clusterers with centres, GaussianMixture, "
    "BayesianGaussianMixture, KernelDensity, and decompositions that can be inverted"
)

_Rows = NDArray[np.float64]
_Kind = Literal["outlier", "density", "centres", "reconstruction", "regressor"]


class BatchLearner:
    """A chain of transformers and an estimator, fitted once as a whole, then used for scoring only.

    Attributes:
        outputs: `score` (outlier detectors: distance outside, below 0 inside; densities: -log density),
            `distance` to the nearest centre, `error` (root mean square error of a decomposition), or
            `prediction` and `residual` of `column`.
        estimator: of scikit-learn.
        chain: the fitted transformers ahead of it, the scaler first.
        in_passes: whether it learns block by block (`partial_fit`), and so from any number of rows.
    """

    def __init__(self, kind: _Kind, estimator: Any, chain: Sequence[Any], column: str | None) -> None:
        self._kind = kind
        self.estimator = estimator
        self.chain = list(chain)
        self.column = column
        self.columns: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = {
            "outlier": ("score",),
            "density": ("score",),
            "centres": ("distance",),
            "reconstruction": ("error",),
            "regressor": ("prediction", "residual"),
        }[kind]
        self.in_passes = all(hasattr(each, "partial_fit") for each in [*chain, estimator])

    def begin(self, columns: tuple[str, ...]) -> None:
        """Sets the columns of the rows; OperationFailed if the column to predict is missing."""
        if self.column is not None and self.column not in columns:
            raise OperationFailed(
                f'the rows have no column "{self.column}"{did_you_mean(self.column, columns)}'
            )
        self.columns = columns

    def fit(self, rows: _Rows) -> None:
        """Learns from the rows, shape (n, columns), all finite, as `sklearn.pipeline.Pipeline` does."""
        inputs, wanted = self._split(rows)
        for each in self.chain:
            inputs = each.fit_transform(inputs)
        self.estimator.fit(inputs) if wanted is None else self.estimator.fit(inputs, wanted)

    def fit_in_passes(self, blocks: Callable[[], Iterator[_Rows]], *, passes: int) -> None:
        """Learns block by block: first each transformer in a pass of its own, then the estimator."""
        for index, each in enumerate(self.chain):
            for rows in blocks():
                inputs, _ = self._split(rows)
                each.partial_fit(_through(self.chain[:index], inputs))
        for _ in range(passes):
            for rows in blocks():
                inputs, wanted = self._split(rows)
                inputs = _through(self.chain, inputs)
                given = (inputs,) if wanted is None else (inputs, wanted)
                self.estimator.partial_fit(*given)

    def judge(self, rows: _Rows) -> _Rows:
        """Scores of shape (n, outputs) for rows (n, columns), all finite."""
        inputs, wanted = self._split(rows)
        inputs = _through(self.chain, inputs)
        match self._kind:
            case "outlier":
                scores = -self.estimator.decision_function(inputs)
            case "density":
                scores = -self.estimator.score_samples(inputs)
            case "centres":
                scores = self.estimator.transform(inputs).min(axis=1)
            case "reconstruction":
                lost = inputs - self.estimator.inverse_transform(self.estimator.transform(inputs))
                scores = np.sqrt(np.mean(lost * lost, axis=1))
            case "regressor":
                predicted = self.estimator.predict(inputs)
                return np.column_stack([predicted, wanted - predicted])
        result: _Rows = np.asarray(scores, dtype=np.float64).reshape(-1, 1)
        return result

    def _split(self, rows: _Rows) -> tuple[_Rows, Any]:
        if self.column is None:
            return rows, None
        index = self.columns.index(self.column)
        return np.delete(rows, index, axis=1), rows[:, index]


def _through(chain: Sequence[Any], rows: _Rows) -> _Rows:
    for each in chain:
        rows = each.transform(rows)
    return rows


def make_batch_learner(
    path: str,
    parameters: Mapping[str, Any],
    *,
    scaler: Scaler,
    before: Sequence[Mapping[str, Any]],
    column: str | None,
) -> BatchLearner:
    """An untrained learner; PolicyInvalid if it cannot be created.

    `before` are transformers, each a table of `estimator` and, optionally, `parameters`.
    """
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    estimator = _sklearn(path, parameters, "estimator")
    kind = _kind(path, estimator)
    if (kind == "regressor") != (column is not None):
        what = (
            "is missing, which it is to predict" if kind == "regressor" else "is for regressors; leave it out"
        )
        raise PolicyInvalid(f'column: of "{path}" {what}')
    chain: list[Any] = []
    if scaler != "none":
        chain.append(MinMaxScaler() if scaler == "minmax" else StandardScaler())
    for index, table in enumerate(before):
        name = f"before[{index}]"
        if not isinstance(table.get("estimator"), str) or set(table) - {"estimator", "parameters"}:
            raise PolicyInvalid(f"{name}: is a table of `estimator` and `parameters`, not {dict(table)}")
        given = table.get("parameters", {})
        if not isinstance(given, dict):
            raise PolicyInvalid(f"{name}.parameters: is a table, not {given!r}")
        transformer = _sklearn(table["estimator"], given, name)
        if not hasattr(transformer, "transform"):
            raise PolicyInvalid(f'{name}: "{table["estimator"]}" has no transform; name a transformer')
        chain.append(transformer)
    return BatchLearner(kind, estimator, chain, column)


def _sklearn(path: str, parameters: Mapping[str, Any], place: str) -> Any:
    if not path.startswith("sklearn."):
        raise PolicyInvalid(
            f'{place}: is "{path}", must be a class of scikit-learn, such as '
            'sklearn.ensemble.IsolationForest; those of River learn row by row, in the step "model"'
        )
    return construct(path, estimator_class(path), parameters)


def _kind(path: str, estimator: Any) -> _Kind:
    from sklearn.base import is_clusterer, is_outlier_detector, is_regressor
    from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
    from sklearn.neighbors import KernelDensity

    if is_outlier_detector(estimator):
        if not hasattr(estimator, "decision_function"):
            raise PolicyInvalid(
                f'parameters: "{path}" as asked for scores no new rows; set parameters = {{ novelty = true }}'
            )
        return "outlier"
    if is_regressor(estimator):
        return "regressor"
    if isinstance(estimator, GaussianMixture | BayesianGaussianMixture | KernelDensity):
        return "density"
    if is_clusterer(estimator) and hasattr(estimator, "transform"):
        return "centres"
    if path.startswith("sklearn.decomposition.") and hasattr(estimator, "inverse_transform"):
        if getattr(estimator, "n_components", 0) is None:
            raise PolicyInvalid(
                f'parameters: "{path}" needs n_components, fewer than columns; with all, nothing is lost'
            )
        return "reconstruction"
    raise PolicyInvalid(f'estimator: "{path}" gives no score here; {TRAINABLE}')
