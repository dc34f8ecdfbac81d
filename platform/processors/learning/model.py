"""`model`: an estimator that scores each row, and then learns from it."""

from __future__ import annotations

import pickle
import zlib
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed
from ..operations.base.block import Block
from ..operations.base.operation import Operation, operation
from ..operations.base.reach import Reach
from ..operations.base.unpickling import unpickle
from .estimators import MAX_BATCH_ROWS, Learner, Scaler, make_learner
from .scores import columns_of, score_attrs, score_block

JOURNAL_ROWS = 512
"""Rows learned from one snapshot of the estimator to the next."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """A snapshot of the learner, and the rows learned since: learning them again gives the current learner.

    Pickling an estimator of many trees takes milliseconds: so it is done once per 512 rows, not at each
    checkpoint. Then the unpickled one continues, as after a restart: pickling may change the layout of arrays
    and sets, and with it the last bit of results.

    Attributes:
        columns: of the rows; None before the first.
        rows: scored so far.
        learned: rows learned so far, those of the journal included.
        snapshot: the pickled learner, compressed; None for an untrained one.
        journal: shape (fewer than 512, columns).
    """

    columns: tuple[str, ...] | None
    rows: int
    learned: int
    snapshot: bytes | None
    journal: NDArray[np.float64]


@operation("model")
class Model(Operation):
    """Scores each row, then learns from it.

    Rows of shape (n, columns), such as features of windows, give float64 scores (n, k): `score` of anomaly
    detectors (higher is more anomalous), `drift` (1 if a change was found), `cluster`, `distance` to the
    nearest centre, `error` of reconstruction, or `prediction` and `residual`. A row has the time of the row
    that it scores.

    A row with NaN or infinity is scored NaN and not learned. The first `warmup` rows, and for scikit-learn
    the first batch, are scored NaN too. Seeds are fixed: the same
    rows give the same scores, to the last bit.

    Keeps the estimator, whose own parameters bound it, a compressed snapshot of it, and at most 512 rows.
    """

    input = "features"
    accepts = ("values", "score")
    output = "score"
    state_type = ModelState
    state_pickles = True

    def __init__(
        self,
        *,
        estimator: str = "river.anomaly.HalfSpaceTrees",
        parameters: dict[str, Any] | None = None,
        scaler: Scaler | None = None,
        warmup: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1,
        batch: Annotated[int, Meta(ge=1, le=MAX_BATCH_ROWS)] = 32,
        column: str | None = None,
    ) -> None:
        """The estimator and its input.

        Args:
            estimator: a class of River or scikit-learn.
            parameters: of its constructor.
            scaler: learns the range ("minmax") or mean and deviation ("standard") of each column from the
                stream, and scales it to [0, 1] or to unit variance; by default "minmax", which HalfSpaceTrees
                expects, if there are several input columns.
            warmup: rows learned before the first score.
            batch: rows that an estimator of scikit-learn learns from at once.
            column: the one that a drift detector monitors, or a regressor predicts.
        """
        self._arguments = (estimator, dict(parameters or {}), scaler, batch, column)
        self._warmup = warmup
        self._columns: tuple[str, ...] | None
        self._given: int
        self._learned: int
        self._snapshot: bytes | None
        self._journal: NDArray[np.float64]
        self._journal_rows: int
        self._learner: Learner
        self.restore(None)
        self._outputs = self._learner.outputs
        self._attrs = score_attrs(self.output, self._outputs, estimator, parameters, scaler)

    def process(self, block: Block) -> Block | None:
        """Takes rows (n, columns); OperationFailed if columns change or the estimator raises."""
        columns = columns_of(block)
        if self._columns not in (None, columns):
            raise OperationFailed(
                f"The model has learned the columns {', '.join(self._columns or ())}, and now gets "
                f"{', '.join(columns)}: give what has other columns a tag, or a step, of its own."
            )
        before = self.state()
        if self._columns is None:
            self._begin(columns)
        rows = np.array(block.rows, dtype=np.float64)
        scores = np.full((len(rows), len(self._outputs)), np.nan)
        try:
            for index in np.flatnonzero(np.isfinite(rows).all(axis=1)):
                scores[index] = self._next(rows[index])
        except BaseException as failure:
            self.restore(before)
            if not isinstance(failure, Exception):
                raise
            row = ", ".join(f"{c}={v:g}" for c, v in zip(columns, rows[index].tolist(), strict=True))
            raise OperationFailed(
                f"{self._arguments[0]} cannot learn from the row {row} "
                f"({type(failure).__name__}: {failure}); set other parameters, or another estimator."
            ) from failure
        self._given += len(rows)
        return score_block(block, scores, self._outputs, self._attrs)

    def depends_on(self) -> Reach:
        """The row, and all that the model has learned."""
        return Reach(1, Fraction(1), "all")

    def state(self) -> ModelState:
        """The estimator with everything learned."""
        # A view suffices: rows of a journal are written once, and the next snapshot begins another journal.
        journal = self._journal[: self._journal_rows]
        return ModelState(self._columns, self._given, self._learned, self._snapshot, journal)

    def restore(self, state: ModelState | None) -> None:
        """Resumes from `state()`."""
        if state is None:
            state = ModelState(None, 0, 0, None, np.empty((0, 0)))
        self._columns, self._given, self._snapshot = None, state.rows, state.snapshot
        self._learned = state.learned - len(state.journal)
        self._journal, self._journal_rows = np.empty((0, 0)), 0
        self._learner = self._new_learner()
        if state.columns is not None:
            self._begin(state.columns)
        if state.snapshot is not None:
            self._learner = unpickle(zlib.decompress(state.snapshot))
        for row in state.journal:
            self._next(row)

    @property
    def learner(self) -> Learner:
        """The learner with its estimator."""
        return self._learner

    @property
    def rows_learned(self) -> int:
        """Rows learned so far."""
        return self._learned

    def fresh_state(self) -> ModelState:
        """The state with a snapshot of the current learner, including external changes, and no journal."""
        return replace(
            self.state(),
            snapshot=zlib.compress(pickle.dumps(self._learner), level=1),
            journal=np.empty((0, len(self._columns or ()))),
        )

    def restore_model(self, state: Any) -> None:
        """Continues with a model that was changed elsewhere; the count of rows continues."""
        if not isinstance(state, ModelState) or self._columns not in (None, state.columns):
            raise OperationFailed(
                f"The restored model does not have the columns {', '.join(self._columns or ())}: "
                "export it from this stream, change it, and restore it."
            )
        self.restore(replace(state, rows=self._given))

    def _begin(self, columns: tuple[str, ...]) -> None:
        self._learner.begin(columns)
        self._columns = columns
        self._journal = np.empty((JOURNAL_ROWS, len(columns)))

    def _new_learner(self) -> Learner:
        estimator, parameters, scaler, batch, column = self._arguments
        return make_learner(estimator, parameters, scaler=scaler, batch_rows=batch, column=column)

    def _next(self, row: NDArray[np.float64]) -> tuple[float, ...]:
        if self._learned < self._warmup:
            self._learner.learn(row)
            scores: tuple[float, ...] = (np.nan,) * len(self._outputs)
        else:
            scores = self._learner.score(row)
        self._journal[self._journal_rows] = row
        self._journal_rows += 1
        self._learned += 1
        if self._journal_rows == JOURNAL_ROWS:
            pickled = pickle.dumps(self._learner)
            self._snapshot, self._learner = zlib.compress(pickled, level=1), pickle.loads(pickled)
            self._journal, self._journal_rows = np.empty_like(self._journal), 0
        return scores
