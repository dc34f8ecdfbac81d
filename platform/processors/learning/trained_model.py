"""`trained_model`: an estimator that is trained on a schedule, separately from the stream, on stored rows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from ..operations.base.block import Block
from ..operations.base.operation import Operation, operation
from ..operations.base.reach import Reach
from ..operations.base.unpickling import unpickle
from .batch_learner import FRAME_ROWS, BatchLearner, make_batch_learner
from .estimators import Scaler
from .scores import columns_of, score_attrs, score_block

MAX_ROWS = 1_000_000
MAX_MODEL_BYTES = 64 * 1024 * 1024
"""Maximum size of a trained learner, pickled and compressed: every checkpoint of its stream contains it."""


@dataclass(frozen=True, slots=True)
class TrainedState:
    """A trained learner, and the position in the schedule of trainings.

    Attributes:
        columns: of the rows; None before the first.
        given: rows scored so far.
        learner: the pickled learner, compressed; None before the first training.
        trained_to: rows in the source's data array at that training.
        trained_on: rows that it learned from.
        due: value of `given` when the last training fell due; 0 before the first.
        due_ns: event time then.
        settled: the last `due` whose training has ended, successfully or not.
        trainings: number of trainings whose model was installed.
        failures: number of failed trainings.
    """

    columns: tuple[str, ...] | None = None
    given: int = 0
    learner: bytes | None = None
    trained_to: int = 0
    trained_on: int = 0
    due: int = 0
    due_ns: int = 0
    settled: int = 0
    trainings: int = 0
    failures: int = 0


@operation("trained_model")
class TrainedModel(Operation):
    """Scores each row by an estimator of scikit-learn that is trained next to the worker, on a schedule.

    Rows of shape (n, columns) give float64 (n, outputs + 1): the outputs of `BatchLearner`, and `trained_to`,
    the number of rows in the source's data array at the training of the model. All are NaN before the first
    model; a row with NaN or infinity is scored NaN.

    A training is due with the row `first_after_rows`, then with each row that comes `every_rows` rows or, by
    event time, `every_s` seconds after the one before. It takes rows of the data array of the step that this
    one reads, up to that row: so that step must be kept. Estimators with `partial_fit` go through all of them
    `passes` times, block by block; the others are fitted on `max_rows` of them, drawn by their numbers.

    Rows are scored 32 at a time, each in the place that its number gives it: so to the last bit the same
    for any cutting. Keeps the estimator, twice: at work, and pickled, of at most 64 MiB.
    """

    input = "features"
    accepts = ("values", "score")
    output = "score"
    reads_stored_source = True
    state_type = TrainedState
    state_pickles = True

    def __init__(
        self,
        *,
        estimator: str = "sklearn.ensemble.IsolationForest",
        parameters: dict[str, Any] | None = None,
        before: list[dict[str, Any]] | None = None,
        scaler: Scaler = "standard",
        column: str | None = None,
        first_after_rows: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1000,
        every_rows: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None,
        every_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None,
        max_rows: Annotated[int, Meta(ge=2, le=MAX_ROWS)] = 50_000,
        history_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None,
        passes: Annotated[int, Meta(ge=1, le=1000)] | None = None,
        seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0,
    ) -> None:
        """The estimator, its input, and its training schedule.

        Args:
            estimator: a class of scikit-learn.
            parameters: of its constructor.
            before: transformers between scaler and estimator, each a table of `estimator` and `parameters`.
            scaler: brings columns to unit variance ("standard") or to [0, 1] ("minmax") first.
            column: the one that a regressor predicts.
            first_after_rows: rows scored before the first training.
            every_rows: rows from one training to the next.
            every_s: event time from one training to the next; if neither is set, there is one training.
            max_rows: to fit on, for estimators without `partial_fit`.
            history_s: event time, back from the newest row, that a training uses; all by default.
            passes: over the rows, for estimators with `partial_fit`; 1 by default.
            seed: of the draw of rows.
        """
        self._new = (estimator, dict(parameters or {}), scaler, tuple(before or ()), column)
        blank = self.new_learner()
        if passes is not None and not blank.in_passes:
            raise PolicyInvalid(
                f'passes: "{estimator}", with what comes before it, has no partial_fit and is fitted once, '
                "on `max_rows` rows; leave passes out"
            )
        self.max_rows, self.history_s, self.passes, self.seed = max_rows, history_s, passes or 1, seed
        self._first_after_rows, self._every_rows = first_after_rows, every_rows
        self._every_ns = None if every_s is None else round(every_s * 1e9)
        self._outputs = (*blank.outputs, "trained_to")
        self._state = TrainedState()
        self._learner: BatchLearner | None = None
        self._attrs = score_attrs(self.output, self._outputs, estimator, parameters, scaler)

    def process(self, block: Block) -> Block | None:
        """Takes rows (n, columns); OperationFailed if columns change or the estimator raises."""
        columns = columns_of(block)
        if self._state.columns not in (None, columns):
            raise OperationFailed(
                f"The model is for the columns {', '.join(self._state.columns or ())}, and now gets "
                f"{', '.join(columns)}: give what has other columns a tag, or a step, of its own."
            )
        if self._state.columns is None:
            self.new_learner().begin(columns)
        scores = self._scores(np.array(block.rows, dtype=np.float64), block.first)
        self._state = self._scheduled(replace(self._state, columns=columns), block.row_times_ns)
        return score_block(block, scores, self._outputs, self._attrs)

    def _scores(self, rows: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        scores = np.full((len(rows), len(self._outputs)), np.nan)
        if self._learner is None:
            return scores
        finite: NDArray[np.bool_] = np.atleast_1d(np.isfinite(rows).all(axis=1))
        index = 0
        try:
            while index < len(rows):
                # The result of linear algebra libraries for a row depends, in the last bit, on its position
                # and on the number of rows, but not on the other rows.
                place = (first + index) % FRAME_ROWS
                part = slice(index, min(index + FRAME_ROWS - place, len(rows)))
                frame = np.zeros((FRAME_ROWS, rows.shape[1]))
                good = np.flatnonzero(finite[part])
                frame[place + good] = rows[part][good]
                if len(good):
                    scores[index + good, :-1] = self._learner.judge(frame)[place + good]
                index = part.stop
        except MemoryError:
            raise
        except Exception as failure:
            raise OperationFailed(
                f"{self._new[0]} cannot score rows ({type(failure).__name__}: {failure}); set other "
                "parameters, or another estimator."
            ) from failure
        scores[finite, -1] = self._state.trained_to
        return scores

    def _scheduled(self, state: TrainedState, times_ns: NDArray[np.int64]) -> TrainedState:
        given, index = state.given, 0
        while (offset := self._next_due(state, given + index, times_ns[index:])) is not None:
            index += offset + 1
            state = replace(state, due=given + index, due_ns=int(times_ns[index - 1]))
        return replace(state, given=given + len(times_ns))

    def _next_due(self, state: TrainedState, given: int, times_ns: NDArray[np.int64]) -> int | None:
        """The next row that makes a training due; None if none does."""
        found = []
        if not state.due:
            found.append(self._first_after_rows - given - 1)
        else:
            if self._every_rows is not None:
                found.append(state.due + self._every_rows - given - 1)
            if self._every_ns is not None:
                late: NDArray[np.bool_] = np.greater_equal(times_ns, state.due_ns + self._every_ns)
                if late.any():
                    found.append(int(np.argmax(late)))
        return min((each for each in found if each < len(times_ns)), default=None)

    def new_learner(self) -> BatchLearner:
        """An untrained learner, for the columns that are known."""
        estimator, parameters, scaler, before, column = self._new
        return make_batch_learner(estimator, parameters, scaler=scaler, before=before, column=column)

    @property
    def wanted(self) -> tuple[int, int] | None:
        """The training that is due: its `due`, and the number of rows since; None if none is due."""
        state = self._state
        return (state.due, state.given - state.due) if state.due > state.settled else None

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Of the rows; None before the first."""
        return self._state.columns

    @property
    def learner(self) -> BatchLearner | None:
        """The learner that scores; None before the first training."""
        return self._learner

    def training_failed(self, due: int) -> None:
        """Records a failed training: the model stays in use until the next training is due."""
        settled = max(self._state.settled, due)
        self._state = replace(self._state, settled=settled, failures=self._state.failures + 1)

    def counts(self) -> Mapping[str, int]:
        """Trainings that produced a model, and failed trainings."""
        return {"trainings": self._state.trainings, "failed_trainings": self._state.failures}

    def depends_on(self) -> Reach:
        """The row, and all that the model has learned."""
        return Reach(1, Fraction(1), "all")

    def state(self) -> TrainedState:
        """The model, and the position in the schedule."""
        return self._state

    def restore(self, state: TrainedState | None) -> None:
        """Resumes from `state()`."""
        state = state or TrainedState()
        self._learner = None if state.learner is None else unpickle(zlib.decompress(state.learner))
        self._state = state

    def restore_model(self, state: Any) -> None:
        """Continues with the model of `state`, and with its own schedule."""
        if not isinstance(state, TrainedState) or self._state.columns not in (None, state.columns):
            raise OperationFailed(
                "The model that was trained does not know the columns "
                f"{', '.join(self._state.columns or ())}."
            )
        self.restore(
            replace(
                self._state,
                columns=state.columns,
                learner=state.learner,
                trained_to=state.trained_to,
                trained_on=state.trained_on,
                settled=max(self._state.settled, state.settled),
                trainings=self._state.trainings + 1,
            )
        )
