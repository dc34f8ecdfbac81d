"""Following the documents of one type: a poll costs one small query, and only changes are read."""

import msgspec

from ...errors import ChangesForgotten
from .catalog import Catalog
from .tables import Document

_ALL = 1_000_000
_PAGE = 1_000


class TypeChanges(msgspec.Struct, frozen=True):
    """The changes since the follower's position, up to `revision`.

    `is_complete`: `changed` are all existing documents; others are gone. Otherwise apply `deleted`
    first, then `changed`. A change may be delivered more than once.
    """

    revision: int
    changed: list[Document]
    deleted: list[str]
    is_complete: bool


class TypeFollower:
    """Reads the changes of one type from a catalog, in any number of processes at once.

    The position advances when the caller accepts what it has read, so that changes which could not be
    applied are delivered again.
    """

    def __init__(self, catalog: Catalog, type: str) -> None:
        self._catalog = catalog
        self._type = type
        self._position = -1

    async def read(self) -> TypeChanges | None:
        """The changes since the position; None if there are none. Raises CatalogUnavailable."""
        head = await self._catalog.head(self._type)
        if head.revision == self._position:
            return None
        if self._position < 0:
            return await self._read_all(head.revision)
        changed: list[Document] = []
        deleted: list[str] = []
        since = self._position
        try:
            while page := await self._catalog.changes(since, type=self._type, limit=_PAGE):
                changed += [each for each in page if isinstance(each, Document)]
                deleted += [each.reference for each in page if not isinstance(each, Document)]
                since = page[-1].revision
        except ChangesForgotten:
            # Too far behind, or a different catalog, such as an older copy.
            return await self._read_all((await self._catalog.head(self._type)).revision)
        return TypeChanges(max(since, head.revision), changed, deleted, is_complete=False)

    async def _read_all(self, revision: int) -> TypeChanges:
        found = await self._catalog.list(self._type, limit=_ALL)
        return TypeChanges(revision, found, [], is_complete=True)

    def accept(self, changes: TypeChanges) -> None:
        """Advance the position past these changes."""
        self._position = changes.revision

    def start_over(self) -> None:
        """The next `read` returns all documents."""
        self._position = -1
