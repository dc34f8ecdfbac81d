"""The trainings of one worker: one at a time, each in its own process, in parallel to the pipelines."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from ..learning import training
from ..learning.training import TrainingReport, TrainingRequest
from .instrumentation import TrainingSucceeded
from .pipeline.pipeline import StreamPipeline
from .pipeline.telemetry import WorkerTelemetry

MAX_PENDING = 10_000
"""Bound of pending trainings; beyond it, a stream requests its training again with the next chunk."""
_EXIT_TIMEOUT_S = 5.0

# A training may use one core, whatever the defaults of its libraries are.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Trainings:
    """Starts trainings that are due, and collects their results.

    `report_failures` and `request_due` may be called by several threads at once, for different streams. The
    model of a training is stored in HOME/models and loaded like a model that was restored from a notebook.
    Memory: at most 10,000 requests, and one for each failure that was not delivered to its stream.
    """

    def __init__(self, models: Path, telemetry: WorkerTelemetry) -> None:
        self._models = models
        self._telemetry = telemetry
        self._lock = threading.RLock()  # guards the next four attributes
        self._pending: dict[str, TrainingRequest] = {}
        self._failed: dict[str, TrainingRequest] = {}
        self._done: dict[str, TrainingRequest] = {}
        """The last successful training: the stream requests it until it loads the model."""
        self._running: tuple[TrainingRequest, subprocess.Popen[bytes]] | None = None

    @property
    def running(self) -> int | None:
        """The ID of the training process; None if no training runs."""
        return self._running[1].pid if self._running else None

    def report_failures(self, pipeline: StreamPipeline) -> None:
        """Reports failed trainings to the stream."""
        for step in pipeline.step_names if self._failed else ():
            with self._lock:
                request = self._failed.pop(f"{pipeline.reference}:{step}", None)
            if request is not None:
                pipeline.training_failed(step, request)

    def request_due(self, pipeline: StreamPipeline) -> None:
        """Queues trainings that are due in the stream after a chunk."""
        due = {each.reference: each for each in pipeline.due_trainings(self._models)}
        if not due and not self._done:
            return
        with self._lock:
            for step in pipeline.step_names if self._done else ():
                if (name := f"{pipeline.reference}:{step}") not in due:
                    self._done.pop(name, None)
            running = self._running[0] if self._running else None
            for name, request in due.items():
                if request in (running, self._done.get(name), self._failed.get(name)):
                    continue
                if name in self._pending or len(self._pending) < MAX_PENDING:
                    self._pending[name] = request

    def poll(self) -> None:
        """Collects the result of a training that has ended, and starts the next one."""
        with self._lock:
            self._poll()

    def _poll(self) -> None:
        if self._running is not None:
            request, process = self._running
            if process.poll() is None:
                return
            self._running = None
            self._collect(request, process)
        if self._pending:
            name = next(iter(self._pending))
            request = self._pending.pop(name)
            try:
                self._running = request, _start(request)
            except OSError as error:
                self._record_failure(request, f"its process cannot be started: {error}")

    def _collect(self, request: TrainingRequest, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            # A process that outlives its parent may keep the pipe open: do not wait for more.
            os.set_blocking(process.stdout.fileno(), False)
            answer = process.stdout.read() or b""
        try:
            report = msgspec.json.decode(answer, type=TrainingReport)
        except msgspec.DecodeError:
            ended = (
                f"signal {-process.returncode}" if process.returncode < 0 else f"code {process.returncode}"
            )
            self._record_failure(
                request, f"its process ended with {ended}; if memory is low, reduce max_rows"
            )
            return
        if report.error:
            self._record_failure(request, report.error)
            return
        self._done[request.reference] = request
        stream, _, step = request.reference.rpartition(":")
        self._telemetry.training_worked(stream=stream, step=step)
        self._telemetry.emit(TrainingSucceeded(request.reference, report.rows, request.stop, request.source))

    def _record_failure(self, request: TrainingRequest, reason: str) -> None:
        stream, _, step = request.reference.rpartition(":")
        self._telemetry.training_failed(stream=stream, step=step, stop_row=request.stop, reason=reason)
        self._failed[request.reference] = request

    def close(self) -> None:
        """Ends the running training; the next worker repeats it."""
        if self._running is None:
            return
        _, process = self._running
        self._running = None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _start(request: TrainingRequest) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", training.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_ONE_THREAD},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(request) + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has ended: `_collect` reports it
        pass
    return process
