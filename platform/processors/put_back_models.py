"""Models that were put back from a notebook: taken up by the streams that they are for."""

import logging

from ..errors import ModelRefused
from ..store.model_files import Identity, ModelFiles
from .pipeline import StreamPipeline

_logger = logging.getLogger("windvane.worker")


class PutBackModels:
    """The models that wait, for the streams of one worker.

    `look` and `take_taken` while no thread works; `take_up` by several threads at once, for different
    streams. Memory: a few words for each file that waits.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._waiting: dict[str, Identity] = {}
        self._seen: dict[str, Identity] = {}  # taken up, and not removed yet; or refused
        self._taken: dict[str, dict[str, Identity]] = {}  # by stream, since the last snapshot

    def look(self) -> None:
        """Finds what was put back since the last time."""
        waiting = self._files.waiting()
        self._seen = {name: seen for name, seen in self._seen.items() if waiting.get(name) == seen}
        self._waiting = {name: found for name, found in waiting.items() if name not in self._seen}

    def take_up(self, pipeline: StreamPipeline) -> None:
        """Gives the stream what was put back for it."""
        if not self._waiting:
            return
        for step in pipeline.step_names:
            reference = f"{pipeline.reference}:{step}"
            name = ModelFiles.name(reference)
            if name not in self._waiting or name in self._seen:
                continue
            self._seen[name] = self._waiting[name]
            try:
                saved, identity = self._files.read(name)
                pipeline.take_up(step, saved)
            except (ModelRefused, OSError) as error:
                _logger.warning("the model put back for %s is not taken up: %s", reference, error)
            else:
                self._seen[name] = identity
                self._taken.setdefault(pipeline.reference, {})[name] = identity
                _logger.info("the model put back for %s is taken up", reference)

    def take_taken(self) -> dict[str, dict[str, Identity]]:
        """What was taken up since this was last asked, by stream: files that a commit makes superfluous."""
        taken, self._taken = self._taken, {}
        return taken

    def remove(self, committed: dict[str, Identity]) -> None:
        """These are in a checkpoint now."""
        for name, identity in committed.items():
            self._files.remove(name, identity)
