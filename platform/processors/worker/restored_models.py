"""Models that were restored from a notebook, until their streams load them."""

import logging
import threading
from collections.abc import Collection

from ...errors import ModelRejected
from ...runtime.instrumentation import EventLog
from ...store.model_files import Identity, ModelFiles
from .instrumentation import ModelNotRestored, ModelRestored
from .pipeline.pipeline import StreamPipeline

_log = EventLog(logging.getLogger("windvane.worker"))


class RestoredModels:
    """The pending models of the streams of one worker.

    `restore` and `take_restored` may be called by several threads at once, for different streams. Memory: a
    few words for each pending file.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._lock = threading.Lock()  # guards the next three attributes
        self._pending: dict[str, Identity] = {}
        self._seen: dict[str, Identity] = {}  # loaded and not removed yet, or rejected
        self._taken: dict[str, dict[str, Identity]] = {}  # by stream, since the last snapshot

    def poll(self) -> None:
        """Finds models that were restored since the last call."""
        pending = self._files.waiting()
        with self._lock:
            self._seen = {name: seen for name, seen in self._seen.items() if pending.get(name) == seen}
            self._pending = {name: found for name, found in pending.items() if name not in self._seen}

    def restore(self, pipeline: StreamPipeline) -> None:
        """Loads the pending models of the stream."""
        if not self._pending:
            return
        for step in pipeline.step_names:
            reference = f"{pipeline.reference}:{step}"
            name = ModelFiles.name(reference)
            with self._lock:
                if name not in self._pending or name in self._seen:
                    continue
                self._seen[name] = self._pending[name]
            try:
                saved, identity = self._files.read(name)
                pipeline.restore_model(step, saved)
            except (ModelRejected, OSError) as error:
                _log.emit(ModelNotRestored(reference, str(error)))
            else:
                with self._lock:
                    self._seen[name] = identity
                    self._taken.setdefault(pipeline.reference, {})[name] = identity
                _log.emit(ModelRestored(reference))

    def take_restored(self, stream: str) -> dict[str, Identity]:
        """Returns the files that the stream has loaded since the last call; its commit replaces them."""
        with self._lock:
            return self._taken.pop(stream, {})

    def forget(self, stream: str, models: Collection[str]) -> None:
        """Makes these models, and those loaded since the snapshot, pending: the stream is rolled back."""
        with self._lock:
            for name in (*models, *self._taken.pop(stream, ())):
                self._seen.pop(name, None)

    def remove(self, committed: dict[str, Identity]) -> None:
        """Removes the files of models that are part of a checkpoint."""
        for name, identity in committed.items():
            self._files.remove(name, identity)
