"""Creates estimators of River and scikit-learn from the names of classes in policies, with checks.

A library is imported when a policy first names one of its classes: each takes a second.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ...errors import PolicyInvalid
from ..operations.base.failures import did_you_mean
from .estimator_bounds import check_parameters

SUPPORTED = (
    "from river: anomaly and drift detectors, regressors, and the clusterers KMeans, CluStream, DBSTREAM and "
    "DenStream; from sklearn, where they have partial_fit: outlier detectors, regressors, MiniBatchKMeans "
    "and IncrementalPCA"
)
_PATH = re.compile(r"(river|sklearn)\.[A-Za-z]\w*\.[A-Za-z]\w*")


def estimator_class(path: str) -> type[Any]:
    """The class of River or scikit-learn that the path names; PolicyInvalid if it does not exist."""
    if not _PATH.fullmatch(path):
        raise PolicyInvalid(
            f'estimator: is "{path}", must be a class of River or scikit-learn, such as '
            "river.anomaly.HalfSpaceTrees"
        )
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as rejection:
        raise PolicyInvalid(
            f'estimator: the module "{module_name}" cannot be imported ({rejection})'
        ) from rejection
    cls = getattr(module, name, None)
    if not isinstance(cls, type) or cls.__module__.split(".")[0] != path.split(".")[0]:
        classes = [name for name in getattr(module, "__all__", []) if isinstance(getattr(module, name), type)]
        raise PolicyInvalid(f'estimator: "{module_name}" has no class "{name}"{did_you_mean(name, classes)}')
    if not issubclass(cls, _bases(path)):
        raise PolicyInvalid(f'estimator: "{path}" gives no score here; {SUPPORTED}')
    return cls


def _bases(path: str) -> tuple[type[Any], ...]:
    """Base classes of estimators: no other class of the two libraries is ever constructed for a policy."""
    if path.startswith("river."):
        from river.base import DriftDetector, Estimator

        return (Estimator, DriftDetector)
    from sklearn.base import BaseEstimator

    return (BaseEstimator,)


def construct(path: str, cls: type[Any], parameters: Mapping[str, Any]) -> Any:
    """An estimator of the class; the default seed is 0. PolicyInvalid if it does not accept the parameters,
    or one exceeds its bound.
    """
    known = inspect.signature(cls).parameters
    for name, value in parameters.items():
        if isinstance(value, dict):
            raise PolicyInvalid(
                f'parameters: {name} of "{path}" is a table; leave it out, `scaler` sets ranges'
            )
        if name not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            raise PolicyInvalid(f'parameters: "{path}" takes no "{name}"{did_you_mean(name, known)}')
    check_parameters(path, parameters)
    seeds = {name: 0 for name in ("seed", "random_state") if name in known}
    try:
        estimator = cls(**{**seeds, **parameters})
        if path.startswith("sklearn."):
            # scikit-learn checks parameters only in `fit`; a policy must be rejected earlier.
            estimator._validate_params()
    except Exception as rejection:
        raise PolicyInvalid(
            f'parameters: "{path}" does not accept {dict(parameters)} ({rejection})'
        ) from rejection
    return estimator
