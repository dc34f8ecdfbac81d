"""Opens a home for reading: `connect(home)`."""

import difflib
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import default_home, load_settings
from ..errors import ArrayNotFound, ConfigInvalid, StreamNotFound
from ..store.interface import StoreEngine, open_store
from .array import Array
from .describe import table
from .snapshot import Snapshot, open_snapshot
from .stream import Stream

if TYPE_CHECKING:
    from .model import Model

SHOWN_ENTRIES = 30
"""A catalogue that is printed shows this many of its entries."""

Entry = TypeVar("Entry", Stream, Array)


class Catalogue(Mapping[str, Entry]):
    """References to streams or arrays, in order; looking one up opens it.

    New entries appear at once: lookups are not cached. An unknown reference raises StreamNotFound or
    ArrayNotFound (both LookupError), with similar references in the message.
    """

    kind: str

    def __init__(self, store: StoreEngine) -> None:
        self._store = store

    @abstractmethod
    def references(self) -> Sequence[str]:
        """All references, sorted."""

    @abstractmethod
    def _open(self, reference: str) -> Entry: ...

    def __getitem__(self, reference: str) -> Entry:
        try:
            return self._open(reference)
        except (StreamNotFound, ArrayNotFound) as error:
            alike = difflib.get_close_matches(reference, self.references(), n=3)
            if not alike:
                raise
            raise type(error)(f"{error} (there is {', '.join(alike)})") from None

    def __contains__(self, reference: object) -> bool:
        return reference in self.references()

    def get(self, reference: str, /, default: Any = None) -> Any:
        """The entry, or `default`."""
        try:
            return self[reference]
        except (StreamNotFound, ArrayNotFound):
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self.references())

    def __len__(self) -> int:
        return len(self.references())

    def __repr__(self) -> str:
        references = self.references()
        lines = [f"{len(references)} {self.kind if len(references) != 1 else self.kind.removesuffix('s')}"]
        lines += table([self[reference].row_of_table() for reference in references[:SHOWN_ENTRIES]])
        if len(references) > SHOWN_ENTRIES:
            lines.append(f"… and {len(references) - SHOWN_ENTRIES} more; list() gives all references")
        return "\n".join(lines)


class Streams(Catalogue[Stream]):
    """The data streams of a home."""

    kind = "streams"

    def references(self) -> Sequence[str]:
        """All references, sorted."""
        return self._store.streams()

    def _open(self, reference: str) -> Stream:
        return Stream(self._store.stream(reference), Arrays(self._store, stream=reference))


class Arrays(Catalogue[Array]):
    """The data arrays of a home, or those of one stream, which are found by the output's name alone too."""

    kind = "arrays"

    def __init__(self, store: StoreEngine, *, stream: str | None = None) -> None:
        super().__init__(store)
        self._stream = stream

    def references(self) -> Sequence[str]:
        """All references, sorted."""
        return self._store.arrays(self._stream)

    def _open(self, reference: str) -> Array:
        if self._stream is not None and ":" not in reference:
            reference = f"{self._stream}:{reference}"
        return Array(self._store.array(reference))

    def __contains__(self, reference: object) -> bool:
        return super().__contains__(reference) or (
            self._stream is not None and super().__contains__(f"{self._stream}:{reference}")
        )


class Context:
    """A home, opened for reading: `streams` and `arrays`. The platform may write to it meanwhile."""

    def __init__(self, home: Path, store: StoreEngine) -> None:
        self.home = home
        self._store = store
        self.streams = Streams(store)
        self.arrays = Arrays(store)

    def snapshot(self, stream: str) -> Snapshot:
        """The stream and all its arrays as they were at its last checkpoint, a few seconds ago at most.

        The lengths belong together, and stay as they are while the platform appends. Raises StreamNotFound.
        """
        return open_snapshot(self._store, load_settings(home=self.home).checkpoint_place, stream)

    def model(self, reference: str) -> "Model":
        """The model of a step, `stream:step`, at the last checkpoint: to inspect, change and `put`.

        Loading unpickles it, as the worker does, which can run code. So files that other users can write are
        rejected. Raises ModelNotFound and ModelRejected.
        """
        from .model import open_model  # operations, and the estimators' libraries, take seconds to import

        return open_model(self.home, load_settings(home=self.home).checkpoint_place, reference)

    def __repr__(self) -> str:
        return f"Windvane home {self.home}\n{self.streams!r}\n{self.arrays!r}"


def connect(home: str | os.PathLike[str] | None = None) -> Context:
    """Open a home; without one, the same that `windvane` uses by default ($WINDVANE_HOME and so on).

    Reads only files: no tier has to run, and no network is used. Raises ConfigInvalid for another folder.
    """
    if isinstance(home, str) and "://" in home:
        raise ConfigInvalid(
            f"connect() takes a folder, not the address {home}: the one that 'windvane up --home' was given. "
            "Over the network use the HTTP API."
        )
    path = (Path(home) if home is not None else default_home()).expanduser().absolute()
    if not (path / "store").is_dir():
        raise ConfigInvalid(
            f"{path} is not a Windvane home: it has no folder named store. Give connect() the folder that "
            "'windvane up --home' was given, or start the platform there first."
        )
    return Context(path, open_store(load_settings(home=path).store, path))
