"""Models that were put back from a notebook: taken up by the streams that they are for."""

import logging
import threading
from collections.abc import Collection

from ...errors import ModelRefused
from ...runtime.instrumentation import EventLog
from ...store.files.model_files import Identity, ModelFiles
from .instrumentation import ModelNotRestored, ModelRestored
from .pipeline.pipeline import StreamPipeline

_log = EventLog(logging.getLogger("windvane.worker"))


class PutBackModels:
    """The models that wait, for the streams of one worker.

    `take_up` and `take_taken` may be called by several threads at once, for different streams. Memory: a few
    words for each file that waits.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._lock = threading.Lock()  # guards the three that follow
        self._waiting: dict[str, Identity] = {}
        self._seen: dict[str, Identity] = {}  # taken up, and not removed yet; or refused
        self._taken: dict[str, dict[str, Identity]] = {}  # by stream, since the last snapshot

    def look(self) -> None:
        """Finds what was put back since the last time."""
        waiting = self._files.waiting()
        with self._lock:
            self._seen = {name: seen for name, seen in self._seen.items() if waiting.get(name) == seen}
            self._waiting = {name: found for name, found in waiting.items() if name not in self._seen}

    def take_up(self, pipeline: StreamPipeline) -> None:
        """Gives the stream what was put back for it."""
        if not self._waiting:
            return
        for step in pipeline.step_names:
            reference = f"{pipeline.reference}:{step}"
            name = ModelFiles.name(reference)
            with self._lock:
                if name not in self._waiting or name in self._seen:
                    continue
                self._seen[name] = self._waiting[name]
            try:
                saved, identity = self._files.read(name)
                pipeline.take_up(step, saved)
            except (ModelRefused, OSError) as error:
                _log.emit(ModelNotRestored(reference, str(error)))
            else:
                with self._lock:
                    self._seen[name] = identity
                    self._taken.setdefault(pipeline.reference, {})[name] = identity
                _log.emit(ModelRestored(reference))

    def take_taken(self, stream: str) -> dict[str, Identity]:
        """What the stream has taken up since this was last asked: files that its commit makes superfluous."""
        with self._lock:
            return self._taken.pop(stream, {})

    def forget(self, stream: str, models: Collection[str]) -> None:
        """The stream goes back to before it took these models, and what it has taken since its snapshot."""
        with self._lock:
            for name in (*models, *self._taken.pop(stream, ())):
                self._seen.pop(name, None)

    def remove(self, committed: dict[str, Identity]) -> None:
        """These are in a checkpoint now."""
        for name, identity in committed.items():
            self._files.remove(name, identity)
