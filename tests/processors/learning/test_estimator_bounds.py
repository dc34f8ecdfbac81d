"""No parameter makes an estimator that takes the worker's memory or time."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from windvane.errors import PolicyInvalid
from windvane.processors.learning.batch_learner import make_batch_learner
from windvane.processors.learning.estimator_bounds import MAX_TREE_NODES, MOST
from windvane.processors.learning.estimators import make_learner

from tests.processors.streams import op


@pytest.mark.parametrize(
    ("estimator", "parameters", "said"),
    [
        ("river.anomaly.HalfSpaceTrees", {"n_trees": 10**7}, "n_trees .*is 10000000; at most 1000"),
        ("river.anomaly.HalfSpaceTrees", {"height": 30}, "height .*is 30; at most 15"),
        ("river.anomaly.HalfSpaceTrees", {"n_trees": 500, "height": 15}, "at most 65536"),
        ("river.anomaly.HalfSpaceTrees", {"height": 13}, "is 163840; at most 65536"),
        ("river.anomaly.HalfSpaceTrees", {"window_size": 10**9}, "window_size .*at most 100000"),
        ("river.anomaly.LODA", {"n_random_cuts": 1000, "n_bins": 1000}, "is 1000000; at most 65536"),
        ("river.forest.ARFRegressor", {"n_models": 10**6}, "n_models .*at most 100"),
        ("river.forest.AMFRegressor", {"n_estimators": 1e9}, "n_estimators .*is 1000000000"),
        ("river.cluster.KMeans", {"n_clusters": 10**6}, "n_clusters .*at most 4096"),
        ("river.facto.FMRegressor", {"n_factors": 10**6}, "n_factors .*at most 256"),
        ("river.drift.KSWIN", {"window_size": 10**8}, "window_size"),
        ("river.drift.ADWIN", {"clock": 10**9}, "clock .*at most 10000000"),
        ("sklearn.cluster.MiniBatchKMeans", {"n_clusters": 10**5}, "n_clusters"),
        ("sklearn.neural_network.MLPRegressor", {"hidden_layer_sizes": [10**6]}, "hidden_layer_sizes"),
        ("sklearn.neural_network.MLPRegressor", {"hidden_layer_sizes": [1024] * 3}, "is 2097152; at most"),
        ("sklearn.neural_network.MLPRegressor", {"max_iter": 10**9}, "max_iter .*at most 100000"),
    ],
)
def test_a_parameter_above_its_bound_is_rejected(
    estimator: str, parameters: dict[str, Any], said: str
) -> None:
    for column in (None, "a"):
        with pytest.raises(PolicyInvalid, match=said):
            make_learner(estimator, parameters, scaler=None, batch_rows=256, column=column)


@pytest.mark.parametrize(
    ("estimator", "parameters"),
    [
        ("sklearn.ensemble.IsolationForest", {"n_estimators": 10**6}),
        ("sklearn.ensemble.IsolationForest", {"n_jobs": 1000}),
        ("sklearn.mixture.GaussianMixture", {"n_init": 10**6}),
        ("sklearn.svm.OneClassSVM", {"cache_size": 100_000}),
    ],
)
def test_bounds_apply_to_trained_models(estimator: str, parameters: dict[str, Any]) -> None:
    [(name, value)] = parameters.items()
    with pytest.raises(PolicyInvalid, match=f"{name} .*is {value}; at most {MOST[name]:.0f}"):
        op("trained_model", estimator=estimator, parameters=parameters)


def test_bounds_apply_to_transformers_of_trained_models() -> None:
    before = [{"estimator": "sklearn.preprocessing.PolynomialFeatures", "parameters": {"degree": 50}}]
    with pytest.raises(PolicyInvalid, match=r"degree .*is 50; at most 5"):
        op("trained_model", before=before)


def test_the_largest_trees_that_are_allowed_take_tens_of_megabytes() -> None:
    learner = make_learner(
        "river.anomaly.HalfSpaceTrees", {"n_trees": 1, "height": 15}, scaler=None, batch_rows=1, column=None
    )
    assert MAX_TREE_NODES == 2**16
    learner.begin(("a", "b"))
    tracemalloc.start()
    learner.score(np.array([0.5, 0.5]))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 64 * 1024 * 1024


def test_bounds_do_not_apply_to_seeds_and_defaults() -> None:
    make_learner("river.anomaly.HalfSpaceTrees", {"seed": 2**62}, scaler=None, batch_rows=1, column=None)
    make_batch_learner(
        "sklearn.ensemble.IsolationForest",
        {"random_state": 2**32 - 1},
        scaler="standard",
        before=(),
        column=None,
    )
