"""Upper bounds of the parameters of estimators.

River and scikit-learn accept any number: ten million trees are allocated as requested, and a tree of
height 30 has two billion nodes. A policy is checked before its estimators are created. The bounds lie far
above the needs of a stream of features. They keep a model within tens of megabytes and a training within its
time limit.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from ...errors import PolicyInvalid

MOST: Mapping[str, float] = {
    # trees, forests, ensembles
    "n_trees": 1_000,
    "height": 15,
    "n_estimators": 1_000,
    "n_models": 100,
    "max_depth": 64,
    "max_nodes": 100_000,
    "max_leaf_nodes": 100_000,
    "max_size": 500,
    "split_buffer_size": 1_000,
    # clusters, components, factors, neighbours
    "n_clusters": 4_096,
    "max_micro_clusters": 10_000,
    "n_macro_clusters": 4_096,
    "n_components": 1_024,
    "n_factors": 256,
    "n_neighbors": 1_000,
    "n_random_cuts": 1_000,
    "n_bins": 1_024,
    "max_buckets": 1_000,
    "n_quantiles": 10_000,
    "n_knots": 1_000,
    "degree": 5,
    # windows, batches
    "window_size": 100_000,
    "stat_size": 100_000,
    "window_length": 100_000,
    "min_window_length": 100_000,
    "time_window": 1_000_000,
    "n_samples_init": 100_000,
    "batch_size": 1_000_000,
    "init_size": 1_000_000,
    "max_samples": 1_000_000,
    # iterations
    "max_iter": 100_000,
    "max_fun": 1_000_000,
    "n_init": 100,
    "n_iter_no_change": 100_000,
    "max_no_improvement": 100_000,
    "max_trials": 10_000,
    "n_restarts_optimizer": 100,
    "max_subpopulation": 100_000,
    "n_subsets": 100_000,
    # resources of the machine
    "n_jobs": 8,
    "cache_size": 512,
    "leaf_size": 100_000,
    # layers of a network
    "hidden_layer_sizes": 1_024,
}
MOST_OF_ANY_OTHER = 10_000_000
"""Bound of whole numbers that are not in the table."""
MAX_TREE_NODES = 65_536
"""Bound of HalfSpaceTrees, which allocates all nodes at once: n_trees * 2 ** (height + 1)."""
MAX_WEIGHTS = 1_000_000
"""Bound of the weights between the hidden layers of a network."""
_UNBOUNDED = frozenset({"seed", "random_state"})


def check_parameters(path: str, parameters: Mapping[str, Any]) -> None:
    """Raises PolicyInvalid for a parameter of the estimator `path` that is over its bound."""
    for name, value in parameters.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, bool) or not isinstance(each, int | float):
                continue
            most = MOST.get(name)
            if most is None:
                most = MOST_OF_ANY_OTHER if isinstance(each, int) and name not in _UNBOUNDED else math.inf
            if each > most:
                raise _over(f"{name} of {path!r}", each, most)
    if path.endswith(".HalfSpaceTrees"):
        trees, height = parameters.get("n_trees", 10), parameters.get("height", 8)
        if _are_numbers(trees, height) and trees * 2 ** (height + 1) > MAX_TREE_NODES:
            raise _over(f"n_trees * 2 ** (height + 1) of {path!r}", trees * 2 ** (height + 1), MAX_TREE_NODES)
    layers = parameters.get("hidden_layer_sizes")
    if isinstance(layers, list | tuple) and _are_numbers(*layers):
        weights = sum(first * second for first, second in itertools.pairwise(layers))
        if weights > MAX_WEIGHTS:
            raise _over(f"weights between the hidden_layer_sizes of {path!r}", weights, MAX_WEIGHTS)
    cuts, bins = parameters.get("n_random_cuts", 100), parameters.get("n_bins", 10)
    if path.endswith(".LODA") and _are_numbers(cuts, bins) and cuts * bins > MAX_TREE_NODES:
        raise _over(f"n_random_cuts * n_bins of {path!r}", cuts * bins, MAX_TREE_NODES)


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _over(what: str, value: float, most: float) -> PolicyInvalid:
    return PolicyInvalid(
        f"parameters: {what} is {value:.15g}; at most {most:.15g} is allowed, make it smaller"
    )
