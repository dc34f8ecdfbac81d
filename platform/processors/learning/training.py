"""A training: rows of a data array in, a model in HOME/models out. Run as a module it is the worker's child.

The worker starts `python -m windvane.processors.learning.training` with a request as a line of JSON on its
standard input, and keeps that open: when it closes, the worker has ended, and the child
exits. Its answer is a line of JSON on the standard output.
"""

from __future__ import annotations

import bisect
import os
import pickle
import random
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...errors import OperationFailed, RangeGone, WindvaneError
from ...store.catalog.policy import Step
from ...store.interface import ArrayReader, open_store
from ...store.model_files import ModelFiles
from ..operations.base.failures import as_failure
from ..operations.base.state_codec import encode_state
from ..operations.base.steps import make_operation
from .trained_model import MAX_MODEL_BYTES, TrainedModel, TrainedState

BLOCK_ROWS = 4096
"""Rows per read, and per call of `partial_fit`."""
LOWER_PRIORITY = 15
"""Argument of `os.nice`: pipelines take precedence."""

_Rows = NDArray[np.float64]


class TrainingRequest(msgspec.Struct, frozen=True):
    """The model to train, and its rows.

    Attributes:
        reference: `stream:step`.
        source: the data array of the rows.
        stop: number of its rows that this training may use.
        due: which training of the schedule it settles; 0 for none.
        columns: of the rows.
        step: the policy's step.
        fingerprint: of the step's configuration, in hexadecimal.
        store: the URL of the store.
        home: the home directory of the installation.
        models: the folder of pending models.
    """

    reference: str
    source: str
    stop: int
    due: int
    columns: tuple[str, ...]
    step: Step
    fingerprint: str
    store: str
    home: str
    models: str


class TrainingReport(msgspec.Struct, frozen=True):
    """The result: the number of rows learned from, or the error."""

    rows: int = 0
    error: str = ""


def train(request: TrainingRequest) -> int:
    """Trains, and saves the model for the worker; returns the number of rows it learned from.

    Memory: the `max_rows` rows that are drawn, as float64, three times (as read, scaled, and what libraries
    copy), or blocks of 4096 for `partial_fit`, and what the estimator itself makes of them. Rows that
    are not drawn are passed over in the mapped file, whose pages the kernel takes back as it needs them.

    Raises OperationFailed if there are no rows to learn from or the model is too large, ModelRejected,
    PolicyInvalid, and any exception of the estimator.
    """
    operation = make_operation(request.step)
    assert isinstance(operation, TrainedModel)
    learner = operation.new_learner()
    learner.begin(request.columns)
    with open_store(request.store, Path(request.home)) as store, store.array(request.source) as array:
        start = _first_row(array, request.stop, operation.history_s)
        if learner.in_passes:
            count = sum(len(rows) for rows in _blocks(array, start, request.stop))
            _require_rows(request, count)
            learner.fit_in_passes(lambda: _blocks(array, start, request.stop), passes=operation.passes)
        else:
            rows = drawn_rows(array, start, request.stop, max_rows=operation.max_rows, seed=operation.seed)
            count = len(rows)
            _require_rows(request, count)
            learner.fit(rows)
    packed = zlib.compress(pickle.dumps(learner, protocol=5), level=1)
    if len(packed) > MAX_MODEL_BYTES:
        raise OperationFailed(
            f"the model has {len(packed) / 2**20:.0f} MiB, and checkpoints take {MAX_MODEL_BYTES // 2**20}; "
            "set fewer max_rows, or parameters for a smaller one"
        )
    state = TrainedState(
        columns=request.columns,
        learner=packed,
        trained_to=request.stop,
        trained_on=count,
        settled=request.due,
    )
    saved = bytes.fromhex(request.fingerprint) + encode_state(TrainedModel, state)
    ModelFiles(Path(request.models)).put(request.reference, saved)
    return count


def drawn_rows(array: ArrayReader, start: int, stop: int, *, max_rows: int, seed: int) -> _Rows:
    """At most `max_rows` rows of `start` to `stop`, drawn with equal probability, in their order.

    The same rows for the same seed, start and stop. Of those that are drawn, the ones with NaN or infinity
    are left out. Memory: what is drawn, and its numbers.
    """
    count = stop - start
    if count <= max_rows:
        return np.concatenate([np.empty((0, *array.row_shape)), *_blocks(array, start, stop)])
    # In bounded memory, which NumPy's choice without replacement is not.
    numbers = np.array(random.Random(seed).sample(range(start, stop), max_rows), dtype=np.int64)
    numbers.sort()
    drawn = np.empty((max_rows, *array.row_shape))
    filled = 0
    for first in range(start, stop, BLOCK_ROWS):
        here = numbers[filled : np.searchsorted(numbers, min(first + BLOCK_ROWS, stop))]
        if len(here):
            drawn[filled : filled + len(here)] = array[first : min(first + BLOCK_ROWS, stop)][here - first]
            filled += len(here)
    return _finite(drawn)


def _blocks(array: ArrayReader, start: int, stop: int) -> Iterator[_Rows]:
    for first in range(start, stop, BLOCK_ROWS):
        rows = _finite(np.array(array[first : min(first + BLOCK_ROWS, stop)], dtype=np.float64))
        if len(rows):
            yield rows


def _finite(rows: _Rows) -> _Rows:
    finite = np.isfinite(rows).all(axis=1)
    return rows if finite.all() else rows[finite]


def _first_row(array: ArrayReader, stop: int, history_s: float | None) -> int:
    if len(array) < stop:
        raise OperationFailed(
            f"{array.reference} has {len(array)} rows and not {stop}: it was recreated meanwhile; the next "
            "training takes what is there"
        )
    start = array.start
    if history_s is None or start >= stop:
        return start
    since_ns = int(array.times_ns[stop - 1]) - round(history_s * 1e9)
    numbers = range(start, stop)
    return start + bisect.bisect_left(numbers, since_ns, key=lambda row: int(array.times_ns[row]))


def _require_rows(request: TrainingRequest, count: int) -> None:
    if count < 2:
        raise OperationFailed(
            f"{request.source} has {count} rows without NaN to train on; raise first_after_rows or history_s"
        )


def main() -> None:
    """The child of a worker: one request, one answer."""
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    os.nice(LOWER_PRIORITY)
    warnings.simplefilter("ignore")
    try:
        answer = try_to_train(msgspec.json.decode(line, type=TrainingRequest))
    except msgspec.DecodeError as error:
        answer = TrainingReport(error=f"the request is not valid: {error}")
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_the_worker() -> None:
    # Not sys.stdin, whose lock would be held until the end of the interpreter.
    while os.read(0, 4096):
        pass
    os._exit(1)


def try_to_train(request: TrainingRequest) -> TrainingReport:
    """Like `train`, with exceptions converted to messages."""
    try:
        return TrainingReport(rows=train(request))
    except RangeGone:
        return TrainingReport(
            error="retention dropped rows while they were read; the next training begins later"
        )
    except MemoryError:
        return TrainingReport(error="there is not enough memory; set fewer max_rows, or a smaller model")
    except WindvaneError as error:
        return TrainingReport(error=str(error))
    except BaseException as error:  # of an estimator: any class can come, such as the panic of a Rust module
        failure = as_failure(error)
        kind = "" if isinstance(failure, WindvaneError) else f"{type(error).__name__}: "
        return TrainingReport(error=f"{kind}{failure}"[:2000])


if __name__ == "__main__":
    main()
