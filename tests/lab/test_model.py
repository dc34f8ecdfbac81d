"""A model is exported from a running platform, changed, and restored."""

from __future__ import annotations

import os
import pickle
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.errors import ModelNotFound, ModelRejected
from windvane.lab import connect
from windvane.store.catalog.catalog import Catalog
from windvane.store.model_files import ModelFiles

from tests.processors.worker.test_worker import Home

FIELDS = {"operation": "fields", "fields": ["a", "b"]}
REGRESSOR = {
    "operation": "model",
    "estimator": "river.linear_model.LinearRegression",
    "scaler": "none",
    "column": "b",
}
FOREST = {"operation": "model", "name": "trees", "estimator": "river.anomaly.HalfSpaceTrees"}
SKLEARN = {
    "operation": "model",
    "name": "pca",
    "estimator": "sklearn.decomposition.IncrementalPCA",
    "parameters": {"n_components": 1},
    "batch": 8,
}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A home with a policy of three models, and 40 rows in it where b = 3 a."""
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    home = Home(tmp_path, bus, bus.producer(), catalog)
    await home.policy("p", format="json", pipeline=[FIELDS, REGRESSOR, FOREST, SKLEARN])
    await send(home, np.linspace(-1, 1, 40))
    yield home
    await catalog.close()
    await bus.close()


async def send(home: Home, values: Sequence[float] | np.ndarray[Any, Any]) -> None:
    await home.publish("p", *({"a": float(value), "b": 3 * float(value)} for value in values))
    async with home.working():
        await home.until_stored(1)


def predictions(home: Home) -> np.ndarray[Any, Any]:
    array = connect(home.path).arrays["t:model"]
    rows: np.ndarray[Any, Any] = array[:, array.columns.index("prediction")]
    return rows


async def test_a_model_that_was_taken_out_can_be_looked_at(home: Home) -> None:
    context = connect(home.path)
    model = context.model("t:model")
    assert (model.columns, model.outputs, model.rows_learned) == (("a", "b"), ("prediction", "residual"), 40)
    assert 0 < model.estimator.weights[0] < 3
    assert "40 rows learned of a, b" in repr(model)
    assert context.model("t:trees").estimator["estimator"].n_trees == 10
    pca = context.model("t:pca")
    assert pca.estimator.components_.shape == (1, 2)
    assert pca.scaler is not None


async def test_a_model_that_was_restored_continues_from_there(home: Home) -> None:
    model = connect(home.path).model("t:model")
    model.estimator.intercept = 100.0
    model.put()
    assert len(predictions(home)) == 40
    await send(home, [0.5, 0.5])
    put_back = predictions(home)
    assert len(put_back) == 42
    assert put_back[40] == pytest.approx(100, abs=2)
    assert connect(home.path).model("t:model").rows_learned == 42
    assert list((home.path / "models").iterdir()) == []
    # And the restored model is in the checkpoint: it outlives the worker.
    await send(home, [0.5])
    assert predictions(home)[42] > 80


async def test_what_others_could_have_written_is_never_unpickled(home: Home, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class UnknownModel:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    files = ModelFiles(home.path / "models")
    fingerprint = connect(home.path).model("t:model")._fingerprint
    files.put("t:model", fingerprint + pickle.dumps(UnknownModel()))
    (home.path / "models" / ModelFiles.name("t:model")).chmod(0o666)
    await send(home, [0.5])
    assert not ran.exists()
    assert len(predictions(home)) == 41

    (home.path / "models").chmod(0o777)
    with pytest.raises(ModelRejected, match="chmod go-w"):
        connect(home.path).model("t:model").put()
    (home.path / "checkpoints.sqlite").chmod(0o666)
    with pytest.raises(ModelRejected, match="chmod go-w"):
        connect(home.path).model("t:model")


async def test_what_does_not_fit_is_rejected_and_the_stream_continues(home: Home) -> None:
    model = connect(home.path).model("t:model")
    fingerprint = model._fingerprint
    for saved in (b"x" * 50, fingerprint, fingerprint + pickle.dumps("no model")):
        ModelFiles(home.path / "models").put("t:model", saved)
        await send(home, [0.5])
    assert len(predictions(home)) == 43
    assert predictions(home)[42] == pytest.approx(1.5, abs=1.5)
    model.estimator = connect(home.path).model("t:trees").estimator
    with pytest.raises(ModelRejected, match="was a LinearRegression, and a Pipeline cannot take its place"):
        model.put()


async def test_a_model_is_rejected_if_the_policy_has_changed_since(home: Home) -> None:
    model = connect(home.path).model("t:model")
    model.estimator.intercept = 100.0
    model.put()
    await home.policy("p", format="json", pipeline=[FIELDS, {**REGRESSOR, "warmup": 2}, FOREST, SKLEARN])
    await send(home, [0.5, 0.5, 0.5])
    assert abs(predictions(home)[-1]) < 10


async def test_what_is_not_there_is_named(home: Home, tmp_path: Path) -> None:
    context = connect(home.path)
    with pytest.raises(ModelNotFound, match=r"no model named 'spectrum'; there is t:model, t:trees, t:pca"):
        context.model("t:spectrum")
    with pytest.raises(ModelNotFound, match="no checkpoint knows the stream 'u'"):
        context.model("u:model")
    (tmp_path / "other" / "store").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match="no checkpoint yet"):
        connect(tmp_path / "other").model("t:model")
