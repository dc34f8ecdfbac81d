"""A store that keeps what a reprocessing would remove."""

from pathlib import Path

from ..files.replaced_arrays import superseded
from ..files.store import Store
from .set_aside import SetAside


class ArchivingStore(Store):
    """Moves superseded arrays to HOME/set-aside instead of dropping them."""

    def __init__(self, root: Path, aside: SetAside) -> None:
        super().__init__(root)
        self._aside = aside

    def drop_superseded(self, reference: str) -> list[str]:
        """See `StoreEngine.drop_superseded`; nothing is dropped, so no reference is given."""
        directory = self.array_directory(reference)
        for each in superseded(directory.parent, directory.name):
            self._aside.move(each.directory)
        return []
