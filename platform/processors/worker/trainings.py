"""The trainings of one worker: one at a time, each in a process of its own, beside the pipelines."""

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

MAX_WAITING = 10_000
"""Trainings that wait; who finds no place asks again with the next chunk."""
_END_PATIENCE_S = 5.0

# One core is what a training may take from the pipelines, whatever its libraries think.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Trainings:
    """Starts what is due, and hears how it went.

    `settle` and `ask` may be called by several threads at once, for different streams. What a training gives
    is in HOME/models and comes to the stream as what was put back from a notebook does. Memory: at most
    10,000 requests, and one for each failure that its stream has not heard of.
    """

    def __init__(self, models: Path, telemetry: WorkerTelemetry) -> None:
        self._models = models
        self._telemetry = telemetry
        self._lock = threading.RLock()  # guards the four that follow
        self._waiting: dict[str, TrainingRequest] = {}
        self._failed: dict[str, TrainingRequest] = {}
        self._done: dict[str, TrainingRequest] = {}
        """The last that has ended well: until its model is taken up the stream goes on asking for it."""
        self._running: tuple[TrainingRequest, subprocess.Popen[bytes]] | None = None

    @property
    def running(self) -> int | None:
        """The process that trains; None where none does."""
        return self._running[1].pid if self._running else None

    def settle(self, pipeline: StreamPipeline) -> None:
        """Tells the stream which of its trainings have failed."""
        for step in pipeline.step_names if self._failed else ():
            with self._lock:
                request = self._failed.pop(f"{pipeline.reference}:{step}", None)
            if request is not None:
                pipeline.training_failed(step, request)

    def ask(self, pipeline: StreamPipeline) -> None:
        """Takes down what is due in the stream, behind a chunk."""
        wanted = {each.reference: each for each in pipeline.wanted_trainings(self._models)}
        if not wanted and not self._done:
            return
        with self._lock:
            for step in pipeline.step_names if self._done else ():
                if (name := f"{pipeline.reference}:{step}") not in wanted:
                    self._done.pop(name, None)
            running = self._running[0] if self._running else None
            for name, request in wanted.items():
                if request in (running, self._done.get(name), self._failed.get(name)):
                    continue
                if name in self._waiting or len(self._waiting) < MAX_WAITING:
                    self._waiting[name] = request

    def look(self) -> None:
        """Hears of a training that has ended, and starts the next one."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        if self._running is not None:
            request, process = self._running
            if process.poll() is None:
                return
            self._running = None
            self._hear(request, process)
        if self._waiting:
            name = next(iter(self._waiting))
            request = self._waiting.pop(name)
            try:
                self._running = request, _start(request)
            except OSError as error:
                self._fail(request, f"its process cannot be started: {error}")

    def _hear(self, request: TrainingRequest, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            # A process that outlives its parent may keep the pipe open: what is there is the answer.
            os.set_blocking(process.stdout.fileno(), False)
            answer = process.stdout.read() or b""
        try:
            report = msgspec.json.decode(answer, type=TrainingReport)
        except msgspec.DecodeError:
            ended = (
                f"signal {-process.returncode}" if process.returncode < 0 else f"code {process.returncode}"
            )
            self._fail(request, f"its process ended with {ended}; where memory is short, set fewer max_rows")
            return
        if report.error:
            self._fail(request, report.error)
            return
        self._done[request.reference] = request
        stream, _, step = request.reference.rpartition(":")
        self._telemetry.training_worked(stream=stream, step=step)
        self._telemetry.emit(TrainingSucceeded(request.reference, report.rows, request.stop, request.source))

    def _fail(self, request: TrainingRequest, reason: str) -> None:
        stream, _, step = request.reference.rpartition(":")
        self._telemetry.training_failed(stream=stream, step=step, stop_row=request.stop, reason=reason)
        self._failed[request.reference] = request

    def close(self) -> None:
        """Ends the training that runs; the next worker trains again."""
        if self._running is None:
            return
        _, process = self._running
        self._running = None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_END_PATIENCE_S)
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
    except BrokenPipeError:  # it has ended: its answer will say so
        pass
    return process
